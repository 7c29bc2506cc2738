"""The server dies while a run needs it: the run goes on, and loses nothing of its own."""

import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from fixtures.client_examples import NOW, a_job, an_event
from fixtures.deadly_proxy import Moment, deadly_proxy
from fixtures.grpo import MakeTrainer, same
from fixtures.hatched_server import running_hatched_server
from fixtures.scripted_job import submitted_to
from fixtures.scripted_server import Handler, ScriptedServer, answer, stream
from hatchery.server import Hatchery
from safetensors.torch import load_file
from torch import Tensor

from nextrapolate import NExtClient
from nextrapolate.schemas import FileInfo, JobState, Series
from nextrapolate_trainer.state import RunState
from nextrapolate_trainer.trl import NExtCallback

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

FILE = "adapter_model.safetensors"

MOMENTS = {
    "first upload": Moment("POST /series ", of="request", passed=0),
    "mid-upload": Moment(f"PUT /series/.*/checkpoints/4/{FILE} ", of="request", passed=1000),
    "after submit": Moment("GET /jobs/", of="request", passed=0),
    "mid-download": Moment(f"GET /jobs/.*/adapter/{FILE} ", of="answer", passed=1000),
}


def kill_all_of(supervisor: int) -> None:
    """Kill a server as a power cut does: API, worker, Redis and all."""
    process = psutil.Process(supervisor)
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # some die with the one that has started them
            one.kill()


def adapter(checkpoint: Path) -> dict[str, Tensor]:
    return load_file(checkpoint / FILE)


@pytest.mark.integration
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_run_goes_on(
    moment: str,
    make_trainer: MakeTrainer,
    hasty: None,
    hatchery: Hatchery,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = make_trainer(max_steps=5, save_steps=5, name="plain")
    plain.train()
    folder = tmp_path / "server"
    folder.mkdir()
    with (
        running_hatched_server(folder, hatchery) as server,
        deadly_proxy(server.url, MOMENTS[moment], lambda: kill_all_of(server.process.pid)) as proxy,
        NExtClient(proxy.url, server.api_key, patience=1) as client,
    ):
        trainer = make_trainer(max_steps=5, save_steps=5, name="plugin")
        plugin = NExtCallback(
            client,
            collect_every=2,
            jump_at=4,
            horizon_steps=2,
            method="weight-extrapolation",
            timeout=180,  # a first job imports torch
        ).attach(trainer)
        trainer.train()
        assert proxy.over.is_set(), "the moment has come"
        assert server.process.wait(30) == -9
    assert plugin.jumps == []
    assert "no jump after step 4, training goes on from its own weights: " in caplog.text
    checkpoint = tmp_path / "plugin" / "checkpoint-5"
    assert same(adapter(checkpoint), adapter(tmp_path / "plain" / "checkpoint-5"))
    state = RunState.read(checkpoint)
    assert state.jumps == ()
    assert (state.series is None) == (moment == "first upload")


def script(server: ScriptedServer) -> None:
    """Take steps 2 and 4, and have a job's adapter ready."""
    series = Series(id="s1", name="run", base_model=None, labels={}, created_at=NOW, checkpoints=[], jumps=[])
    server.on("POST", "/series", answer(series, 201))
    for step in (2, 4):
        server.on("POST", f"/series/s1/checkpoints/{step}", answer({"missing": [FILE]}))
        server.on("PUT", f"/series/s1/checkpoints/{step}/{FILE}", answer(FileInfo(bytes=1, sha256="-"), 201))
    artifacts = {FILE: FileInfo(bytes=1000, sha256="0" * 64)}
    server.on("POST", "/jobs", submitted_to(server))
    server.on("POST", "/jobs/j1/cancel", answer(a_job(JobState.CANCELLED)))
    server.on("GET", "/jobs/j1", answer(a_job(JobState.SUCCEEDED, artifacts=artifacts)))
    server.on("GET", "/jobs/j1/events", stream(an_event(1, JobState.SUCCEEDED)))


def test_a_download_that_trickles_is_given_up(
    make_trainer: MakeTrainer, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each byte comes in time, and all of them together never."""

    def trickle(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b".")
            time.sleep(0.12)

    script(scripted)
    scripted.on("GET", f"/jobs/j1/adapter/{FILE}", trickle)
    trainer = make_trainer(max_steps=5)
    with NExtClient(scripted.url, "nx_none_none") as client:
        NExtCallback(client, collect_every=2, jump_at=4, horizon_steps=2, timeout=5).attach(trainer)
        begun = time.monotonic()
        trainer.train()
        assert time.monotonic() - begun < 60
    assert "the service has not delivered a result within 5 s" in caplog.text
    assert any(received.path == f"/jobs/j1/adapter/{FILE}" for received in scripted.received)
