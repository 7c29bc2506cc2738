"""Methods from words, servers from their notes, errors through a pickle, progress on one scale."""

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.client_examples import a_job, an_event
from hypothesis import given, settings
from hypothesis import strategies as st

import nextrapolate
from nextrapolate import (
    APIError,
    ConfigurationError,
    InvalidRequestError,
    JobFailedError,
    JobState,
    NextMethod,
    NextrapolateError,
    ParameterError,
    Progress,
    WaitTimeoutError,
    WeightExtrapolationMethod,
)
from nextrapolate.methods import default_methods, make_method
from nextrapolate.progress import DOWNLOAD_SHARE, UPLOAD_SHARE, Tracker
from nextrapolate.schemas import STAGE_WORDS, Problem, Stage
from nextrapolate.wire import retries
from nextrapolate.wire.servers import find_server
from nextrapolate.wire.transfers import CHUNK, Upload

PROBLEM = Problem(title="t", status=422, detail="d", code="c", retryable=False, blame="user", request_id="r")


def test_parameters_may_be_text() -> None:
    made = make_method("next", preset="paper", alpha="2", use_local="false", learning_rate="1e-4")
    assert made == NextMethod(preset="paper", alpha=2.0, use_local=False, learning_rate=1e-4)


def test_every_method_may_be_imported_from_the_package() -> None:
    methods = {type(method).__name__ for method in default_methods()}
    assert {"AutoMethod", "AlphaRlMethod", "DareMethod", "MaecMethod"} <= methods
    assert methods <= set(nextrapolate.__all__)
    assert {"Report", "Comparison", "Inspection", "MethodInfo"} <= set(nextrapolate.__all__)
    assert [name for name in nextrapolate.__all__ if not hasattr(nextrapolate, name)] == []


def test_whatever_may_be_submitted_may_be_imported_from_the_package() -> None:
    requests = {"JobCreate", "BacktestCreate", "InspectCreate"}
    parts = {"CheckpointRef", "Output", "Gate", "Webhook"}
    assert requests | parts <= set(nextrapolate.__all__)


def test_type_checkers_know_which_fields_may_be_left_out(tmp_path: Path) -> None:
    """Without pydantic's plugin, too: they see a default of `Field` only where it is named."""
    requests = ["JobCreate(series='s1')", "BacktestCreate(series='s1', at=10)", "InspectCreate(series='s1')"]
    parts = ["CheckpointRef(uri='s3://b/{10..20}')", "Output()", "Gate()", "Webhook(url='https://h')"]
    methods = [f"{type(method).__name__}()" for method in default_methods()]
    script = tmp_path / "of_a_caller.py"
    made = [f"nextrapolate.{each}" for each in (*requests, *parts, *methods)]
    script.write_text("\n".join(["import nextrapolate", *made]))
    package = Path(nextrapolate.__file__).parents[1]
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", script],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout == "Success: no issues found in 1 source file\n"


def test_a_preset_has_its_own_alpha() -> None:
    assert make_method("next").alpha == 1.0
    assert make_method("next", preset="paper").alpha == 1.5
    assert make_method("next", preset="paper", alpha=1).alpha == 1.0


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_a_preset_survives_being_written_down(preset: str) -> None:
    """With the other preset's parameters at their defaults, as a job's record has them."""
    method = make_method("next", preset=preset)
    assert NextMethod.model_validate_json(method.model_dump_json()) == method


def test_a_method_may_be_changed() -> None:
    method = WeightExtrapolationMethod(window_steps=30)
    assert make_method(method, alpha=2) == WeightExtrapolationMethod(window_steps=30, alpha=2)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "nxt",
            {},
            "no method 'nxt'; the methods are alpharl, auto, autoregression, .*next, .*weight-extrapolation",
        ),
        (
            "weight-extrapolation",
            {"apha": 1},
            "take apha; its parameters are horizon_steps, seed, alpha, window",
        ),
        ("next", {"alpha": "much"}, "next: alpha: .*valid number"),
        ("next", {"alpha": -1}, "next: alpha: .*greater than or equal to 0"),
        (
            "next",
            {"preset": "paper", "use_global": False, "use_local": False},
            "the predictor needs one input",
        ),
        ("next", {"epochs": 10}, "epochs belongs to preset=paper, but preset is default"),
        ("next", {"preset": "paper", "rank": 2}, "rank belongs to preset=default, but preset is paper"),
    ],
)
def test_wrong_methods_say_what_is_right(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_method(name, **parameters)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an embedded server notes its key."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("NEXTRAPOLATE_URL", raising=False)
    monkeypatch.delenv("NEXTRAPOLATE_API_KEY", raising=False)
    (tmp_path / "nextrapolate").mkdir()
    return tmp_path / "nextrapolate" / "servers.json"


def test_the_key_of_an_embedded_server_is_found(
    notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_server(None, None).api_key is None
    (tmp_path / "api_key").write_text("nx_1_noted\n")
    notes.write_text(json.dumps({"http://127.0.0.1:8008": str(tmp_path / "api_key")}))
    assert find_server(None, None).api_key == "nx_1_noted"
    assert find_server("http://localhost:8008/", None).api_key == "nx_1_noted"
    assert find_server("http://127.0.0.1:8009", None).api_key is None
    assert find_server(None, "mine").api_key == "mine"
    monkeypatch.setenv("NEXTRAPOLATE_API_KEY", "theirs")
    monkeypatch.setenv("NEXTRAPOLATE_URL", "https://next.example/team/")
    server = find_server(None, None)
    assert (server.url, server.api_key) == ("https://next.example/team", "theirs")
    assert "theirs" not in repr(server)


@pytest.mark.parametrize("text", ["{", "[]", '{"http://127.0.0.1:8008": "/"}'])
def test_broken_notes_are_named(notes: Path, text: str) -> None:
    notes.write_text(text)
    with pytest.raises(ConfigurationError, match=r"servers\.json"):
        find_server(None, None)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8008", "localhost:8008", "ftp://host", "http://", "http://a:b", "x"]
)
def test_what_is_no_address_is_refused(notes: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="write it like http"):
        find_server(url, None)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequestError(PROBLEM, 3.0),
        JobFailedError(a_job(JobState.FAILED)),
        WaitTimeoutError("j1", 3.0),
        ParameterError("text"),
    ],
)
def test_errors_cross_processes(error: NextrapolateError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.args == error.args


@settings(deadline=None)
@given(attempt=st.integers(1, 1_000))
def test_pauses_double_up_to_a_cap(attempt: int) -> None:
    pause = retries.pause_after(attempt, None)
    assert retries.FIRST_PAUSE / 2 <= pause <= retries.MAX_PAUSE
    assert pause <= retries.FIRST_PAUSE * 2.0 ** (attempt - 1)


def test_a_pause_takes_no_number_of_the_run_that_calls() -> None:
    before = random.getstate()
    retries.pause_after(1, None)
    assert random.getstate() == before


def test_bytes_are_sent_in_pieces() -> None:
    """httpx copies what is left of a piece after every part of it that the socket takes."""
    content = bytes(range(256)) * 10_000
    chunks = list(Upload(content).chunks())
    assert b"".join(chunks) == content
    assert max(map(len, chunks)) == CHUNK < len(content)


def test_what_the_server_asks_for_goes_before() -> None:
    assert 7.0 <= retries.pause_after(1, APIError(PROBLEM, 7.0)) <= 1.25 * 7.0


def test_a_worker_that_takes_a_job_ends_its_queueing() -> None:
    told: list[Progress] = []
    claimed = an_event(1, message="host:7").model_copy(update={"type": "claimed"})
    Tracker(told.append, uploads=False, downloads=True).event(claimed)
    assert told == [Progress("resolve", 0.0, "worker host:7 is running it")]


def test_progress_runs_over_one_scale() -> None:
    told: list[Progress] = []
    tracker = Tracker(told.append, uploads=True, downloads=True)
    tracker.uploading("step 10", 0, 200)(100)
    tracker.uploading("step 20", 100, 200)(100)
    tracker.event(an_event(1, JobState.QUEUED))
    tracker.event(an_event(2, stage=Stage.FIT, progress=0.5, message="epoch 500"))
    tracker.event(an_event(3, JobState.QUEUED, message="the worker was lost"))
    tracker.event(an_event(4, stage=Stage.EXTEND, progress=0.9))
    tracker.event(an_event(5, JobState.SUCCEEDED))
    tracker.downloading("report.json", 0, 10)(10)
    job = 1 - UPLOAD_SHARE - DOWNLOAD_SHARE
    assert [progress.stage for progress in told] == [
        "upload", "upload", "queue", "fit", "queue", "extend", "extend", "download",
    ]  # fmt: skip
    assert [progress.fraction for progress in told] == pytest.approx(
        [
            UPLOAD_SHARE / 2,
            UPLOAD_SHARE,
            UPLOAD_SHARE,
            UPLOAD_SHARE + 0.5 * job,
            UPLOAD_SHARE,
            UPLOAD_SHARE + 0.9 * job,
            1 - DOWNLOAD_SHARE,
            1.0,
        ]
    )
    assert (told[3].message, told[5].message) == ("epoch 500", "building the adapter")


def test_the_end_is_of_the_stage_that_it_names() -> None:
    told: list[Progress] = []
    ended = an_event(1, JobState.SUCCEEDED, stage=Stage.PUBLISH)
    Tracker(told.append, uploads=False, downloads=False).event(ended)
    assert told == [Progress("publish", 1.0, "storing the result")]


def test_every_stage_has_its_words() -> None:
    assert list(STAGE_WORDS) == list(Stage)
