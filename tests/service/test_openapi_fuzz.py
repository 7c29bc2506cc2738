"""Every operation of the OpenAPI document, with requests made from it, right and wrong: never a 5xx.

FUZZ_REQUESTS says how many are sent at least, FUZZ_SEED which; `make fuzz` sends ten thousand.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
import requests
import schemathesis
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as fuzzing
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from nextrapolate_service.app import create_app
from nextrapolate_service.settings import ServiceSettings

pytestmark = pytest.mark.integration

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", 300))
SEED = int(os.environ.get("FUZZ_SEED", 0))
SOME = fuzzing(
    max_examples=max(5, min(200, REQUESTS // 50)),
    phases=[Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
PATIENCE_SECONDS = 60
AnyCase = Case[Any]
Operation = APIOperation[Any, Any, Any, Any]


@dataclass(frozen=True)
class Known:
    """What leads somewhere: generated requests alone would meet nothing but 404.

    Attributes:
        key: opens the service.
        paths: what a path parameter may be, by its name.
        bodies: a body for each operation that takes one and seldom meets a good one by chance.
        doomed: series that may be deleted; the others are needed.
    """

    key: str
    paths: dict[str, list[Any]]
    bodies: dict[str, Any]
    doomed: list[str]

    def lead(self, case: AnyCase, chance: Random) -> AnyCase:
        """Give most requests the key, many a way to what is there, and some all that a good one has."""
        good = chance.random() < 0.2
        if good or chance.random() < 0.9:
            case.headers["Authorization"] = f"Bearer {self.key}"
        paths = {"series_id": self.doomed} if case.method == "DELETE" else self.paths
        for name in case.path_parameters:
            if name in paths and (good or chance.random() < 0.6):
                case.path_parameters[name] = chance.choice(paths[name])
        if good and case.operation.label in self.bodies:
            case.body = self.bodies[case.operation.label]
        return case


@dataclass
class Fuzzer:
    """Sends requests, and counts what came back."""

    url: str
    known: Known
    session: requests.Session
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    def send(self, case: AnyCase) -> None:
        """Send one; a stream of events would not end, so of that no more than the beginning is looked at."""
        request = case.as_transport_kwargs(base_url=self.url)
        with self.session.request(**request, stream=True, timeout=PATIENCE_SECONDS) as answer:
            assert answer.status_code < 500, (case.as_curl_command(), answer.text)
            if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
                assert answer.content is not None
            self.answers[case.operation.label, answer.status_code] += 1

    def fuzz(self, operation: Operation, mode: GenerationMode, round_: int) -> None:
        """Send some requests to one operation, as the document allows them or as it does not."""
        cases = st.builds(self.known.lead, operation.as_strategy(mode), st.randoms(use_true_random=False))
        try:
            seed(f"{SEED}-{round_}")(SOME(given(cases)(self.send)))()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE, "the document allows no request at all"


@pytest.fixture
def settings(settings: ServiceSettings) -> ServiceSettings:
    return replace(settings, rate_limit=None)


@pytest.fixture
def known(client: TestClient, series_id: str, finish: Callable[[str], object], api_key: str) -> Known:
    """A series with checkpoints, a job that has succeeded, and one that waits."""
    job: dict[str, Any] = {"series": series_id, "method": {"name": "none"}}
    job_id, waiting = (client.post("/jobs", json=job).json()["id"] for _ in range(2))
    finish(job_id)
    doomed = [client.post("/series", json={"name": "run"}).json()["id"] for _ in range(10)]
    return Known(
        key=api_key,
        paths={
            "series_id": [series_id],
            "job_id": [job_id, waiting],
            "step": [10],
            "file": ["adapter_config.json"],
        },
        bodies={
            "POST /jobs": job,
            "POST /series/{series_id}/jumps": {"step": 60, "job": job_id},
            "POST /series/{series_id}/checkpoints/{step}": {"files": {}},
            "PUT /series/{series_id}/checkpoints/{step}/{file}": CONFIG,
        },
        doomed=doomed,
    )


@pytest.fixture
def fuzzer(live_url: str, known: Known) -> Iterator[Fuzzer]:
    with requests.Session() as session:
        yield Fuzzer(live_url, known, session)


def test_no_request_is_answered_with_a_5xx(fuzzer: Fuzzer, settings: ServiceSettings) -> None:
    document = create_app(settings).openapi()
    found = list(schemathesis.openapi.from_dict(document).get_all_operations())
    operations = [result.ok() for result in found if isinstance(result, Ok)]
    assert len(operations) == len(found), "the document describes what cannot be requested"
    round_ = 0
    while fuzzer.answers.total() < REQUESTS:
        for operation in operations:
            for mode in GenerationMode:
                fuzzer.fuzz(operation, mode, round_)
        round_ += 1
    reached = {label for label, status in fuzzer.answers if status < 300}
    print_counts(fuzzer.answers)
    assert {operation.label for operation in operations} - reached == set()


def print_counts(answers: Counter[tuple[str, int]]) -> None:
    """One line an operation, for `make fuzz`, and one for all of them."""
    for label in sorted({label for label, _ in answers}):
        counts = ", ".join(
            f"{status}: {times}" for (of, status), times in sorted(answers.items()) if of == label
        )
        print(f"{label:60} {counts}")
    print(f"{answers.total()} requests, seed {SEED}: no 5xx")
