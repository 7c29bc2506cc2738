"""docs/api.md: its commands run as they stand, and it names every call and every code of a problem."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from fixtures.server import EmbeddedServer, Shell

from nextrapolate import console
from nextrapolate_numerics import NumericsError
from nextrapolate_service.app import create_app
from nextrapolate_service.errors import ServiceError
from nextrapolate_service.problems import ADVICE
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.settings import StoreSettings
from nextrapolate_worker.errors import WorkerError

Raised = TypeVar("Raised", bound=Exception)

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "api.md").read_text()
CALLS, PROBLEMS, FAILURES = re.split(r"^## .*\n", GUIDE, flags=re.M)[-3:]
(SNIPPET,) = re.findall(r"^```bash\n(.*?)^```", GUIDE, flags=re.M | re.S)
ANSWERED = re.compile(r'(\d{3})[:,]\s*\(?\s*"([a-z]+(?:-[a-z]+)+)"')
"""A status beside a code, as the service's code has them."""


def test_every_call_is_told_and_no_other(tmp_path: Path) -> None:
    store = StoreSettings(redis_url="redis://127.0.0.1:1/0", data_dir=tmp_path)
    paths = create_app(ServiceSettings(store=store)).openapi()["paths"]
    calls = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert set(re.findall(r"`([A-Z]+ /[^`]*)`", CALLS.split("\n- ")[0])) == calls


def test_every_problem_is_told_with_its_status() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    source = (ROOT / "service" / "nextrapolate_service" / "problems.py").read_text()
    for status, code in ANSWERED.findall(source):
        found[code].add(status)
    for error in leaves(ServiceError):
        found[error.code].add(str(error.status))
    told = dict(re.findall(r"^\| `([a-z-]+)` \| ([\d, ]+) \|", PROBLEMS, flags=re.M))
    assert set(told) == set(found)
    assert {code: told[code] for code in found if not found[code] <= set(told[code].split(", "))} == {}


def test_advice_is_of_problems_that_there_are() -> None:
    told = set(re.findall(r"^\| `([a-z-]+)` \|", PROBLEMS, flags=re.M))
    assert console.ADVICE.keys() <= ADVICE.keys() <= told


def test_every_way_of_failing_is_told() -> None:
    codes = {error.code for error in leaves(NumericsError)} | {error.code for error in leaves(WorkerError)}
    for source in ("worker/nextrapolate_worker/attempt.py", "service/nextrapolate_store/jobs.py"):
        codes |= set(re.findall(r'code="([a-z-]+)"', (ROOT / source).read_text()))
    told = set(re.findall(r"^\| `([a-z-]+)` \|", FAILURES, flags=re.M))
    assert codes - set(re.findall(r"^\| `([a-z-]+)` \|", PROBLEMS, flags=re.M)) == told


def leaves(base: type[Raised]) -> Iterator[type[Raised]]:
    """What is raised: the errors of a family that have none below them."""
    for error in base.__subclasses__():
        if error.__module__.startswith(base.__module__.split(".")[0]):
            yield from leaves(error) if error.__subclasses__() else (error,)


@pytest.mark.integration
def test_a_run_is_posted_extrapolated_and_downloaded(server: EmbeddedServer, shell: Shell) -> None:
    snippet = SNIPPET.replace("http://127.0.0.1:8008", server.url).replace("nextrapolate-data", "data")
    said = shell(["bash", "-euo", "pipefail", "-c", snippet])
    assert said.count('{"missing":[]}') == 3
    assert re.search(r'"state": ?"succeeded"', said)
    *_, series = said.strip().splitlines()
    assert [jump["step"] for jump in json.loads(series[series.index('{"id"') :])["jumps"]] == [150]
    names = sorted(path.name for path in (server.data_dir.parent / "extrapolated").iterdir())
    assert names == ["adapter_config.json", "adapter_model.safetensors"]
