"""A folder in which somebody else's trainer writes, and a real server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures.adapters import RANK, write_run
from fixtures.client_examples import a_job
from fixtures.scripted_server import ScriptedServer, answer, problem
from fixtures.server import EmbeddedServer
from fixtures.watched import appear, look_on
from safetensors.torch import load_file, save_file

from nextrapolate import NExtClient, watched_jumps
from nextrapolate.errors import AuthenticationError, CheckpointError
from nextrapolate.folders import step_of
from nextrapolate.jumped import RUN_STATE
from nextrapolate.methods import make_method
from nextrapolate.schemas import Job, JobCreate, MethodInfo
from nextrapolate.watch_notes import NOTES, Jump, Notes
from nextrapolate.watched_jumps import WatchedJumps, WatchPlan, restart_command
from nextrapolate.watching import Watcher

METHOD = make_method("weight-extrapolation", horizon_steps=10)


@pytest.mark.integration
def test_a_wrong_key_ends_it_before_the_first_checkpoint(
    embedded_server: EmbeddedServer, folder: Path
) -> None:
    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=30, jump_every=20, out=folder)
    with NExtClient(embedded_server.url, "nx_local_wrong") as stranger, pytest.raises(AuthenticationError):
        Watcher(stranger, folder, plan, lines.append).run(every=0.01)
    first_jump = "the first jump is from step 30, or the newest checkpoint beyond it"
    assert lines == [f"watching {folder} for {embedded_server.url}: {first_jump}"]


@pytest.mark.integration
def test_a_server_that_is_missing_is_told_of_and_called_again(
    embedded_server: EmbeddedServer, scripted: ScriptedServer, folder: Path
) -> None:
    scripted.stop()

    class ComesLate(NExtClient):
        """Finds the server when it has been told that there is none."""

        def methods(self) -> list[MethodInfo]:
            if len(lines) == 1:
                return super().methods()
            with NExtClient(embedded_server.url, "nx_local_wrong") as stranger:
                return stranger.methods()

    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=30, jump_every=None, out=folder)
    with ComesLate(scripted.url) as client, pytest.raises(AuthenticationError):
        Watcher(client, folder, plan, lines.append).run(every=0.01)
    watching, missing = lines
    assert watching.startswith(f"watching {folder} for {scripted.url}: ")
    assert missing.startswith(f"trying again: no nextrapolate server answers at {scripted.url}")


def test_a_watch_that_goes_on_says_what_comes_next(scripted: ScriptedServer, folder: Path) -> None:
    def first_line(*jumps: Jump) -> str:
        (folder / NOTES).write_text(Notes(series="s1", posted=[30], jumps=list(jumps)).model_dump_json())
        scripted.on("GET", "/methods", problem(401))
        lines: list[str] = []
        plan = WatchPlan(METHOD, jump_at=30, jump_every=20, out=folder)
        with NExtClient(scripted.url) as client, pytest.raises(AuthenticationError):
            Watcher(client, folder, plan, lines.append).run(every=0.01)
        return lines[0].partition(f"{scripted.url}: ")[2]

    made = Jump(step=30, job="j1", path=folder / "extrapolated-40")
    assert first_line(made) == "the next jump is from step 50, or the newest checkpoint beyond it"
    assert first_line(Jump(step=30, job="j1")) == "the jump from step 30 is job j1"


@pytest.mark.integration
def test_a_run_that_has_jumped_by_itself_ends_the_watch(
    client: NExtClient, written: Path, folder: Path
) -> None:
    lines: list[str] = []
    watcher = Watcher(client, folder, WatchPlan(METHOD, jump_at=30, jump_every=20, out=folder), lines.append)
    appear(written, folder, 10)
    (folder / "checkpoint-10" / RUN_STATE).write_text('{"step": 10, "series": "S", "jumps": []}')
    assert watcher.look()
    assert watcher.look()
    appear(written, folder, 20)
    (folder / "checkpoint-20" / RUN_STATE).write_text(
        '{"step": 20, "series": "S", "jumps": [{"step": 10, "job": "j"}]}'
    )
    assert watcher.look()
    with pytest.raises(
        CheckpointError, match=r"this run has jumped after step 10, .* give its series, S, instead"
    ):
        watcher.look()
    assert lines == ["posted step 10"]


@pytest.mark.integration
def test_while_nobody_can_tell_whether_the_run_has_jumped_nothing_is_posted(
    client: NExtClient, written: Path, folder: Path
) -> None:
    lines: list[str] = []
    watcher = Watcher(client, folder, WatchPlan(METHOD, jump_at=30, jump_every=20, out=folder), lines.append)
    appear(written, folder, 10)
    note = folder / "checkpoint-10" / RUN_STATE
    note.write_text('{"step": 10, "series": "S", "jum')
    for _ in range(3):
        assert watcher.look()
    (line,) = lines
    assert line.startswith(f"trying again: {note} cannot be read ")
    note.unlink()
    assert watcher.look()
    assert lines[1:] == ["posted step 10"]


@pytest.mark.integration
def test_posts_and_jumps_on_schedule_over_its_own_restarts(
    client: NExtClient, written: Path, folder: Path
) -> None:
    lines: list[str] = []
    plan = WatchPlan(METHOD, jump_at=30, jump_every=20, out=folder)
    appear(written, folder, 10, 20)
    for _ in range(2):
        assert Watcher(client, folder, plan, lines.append).look(), "nothing is settled at the first look"
    assert lines == []
    watcher = Watcher(client, folder, plan, lines.append)
    watcher.look()
    watcher.look()
    assert lines == ["posted step 10", "posted step 20"]

    lines.clear()
    watcher = Watcher(client, folder, plan, lines.append)
    appear(written, folder, 30)
    watcher.look()
    look_on(watcher)
    assert lines[0] == "posted step 30"
    assert lines[1] == f"the jump from step 30 is job {watcher.notes.jumps[0].job}"
    assert lines[2].startswith("extrapolated step 30 to 40: ")
    assert lines[3:-1] == ["note: The line starts 30 steps before the last checkpoint, not 50."] * (
        len(lines) - 4
    )
    assert f'PeftModel.from_pretrained(base_model, "{folder}/extrapolated-40"' in lines[-1]
    assert f"lora_model_dir: {folder}/extrapolated-40" in lines[-1]
    assert "copy the adapter to checkpoint-0" in lines[-1]
    assert (folder / "extrapolated-40" / "adapter_model.safetensors").is_file()

    lines.clear()
    watcher = Watcher(client, folder, plan, lines.append)
    appear(written, folder, 40, 50)
    watcher.look()
    look_on(watcher)
    assert [line.partition(":")[0] for line in lines[:4]] == [
        "posted step 40",
        "posted step 50",
        f"the jump from step 50 is job {watcher.notes.jumps[1].job}",
        "extrapolated step 50 to 60",
    ]
    assert watcher.notes.series is not None
    series = client.get_series(watcher.notes.series)
    assert [checkpoint.step for checkpoint in series.checkpoints] == [10, 20, 30, 40, 50]
    assert [jump.step for jump in watcher.notes.jumps] == [30, 50]


@pytest.mark.parametrize(
    ("made", "jump_at", "jump_every", "due"),
    [
        ([], 40, 20, 40),
        ([40], 40, None, None),
        ([40], 40, 20, 60),
        ([65], 40, 20, 80),
        ([20], 40, 20, 40),
        ([20], 40, None, 40),
    ],
)
def test_when_the_next_jump_is_due_by_this_plan(
    made: list[int], jump_at: int, jump_every: int | None, due: int | None, folder: Path
) -> None:
    """Whatever an earlier one has made."""
    notes = Notes(jumps=[Jump(step=step, path=folder) for step in made])
    plan = WatchPlan(METHOD, jump_at=jump_at, jump_every=jump_every, out=folder)
    with NExtClient("http://127.0.0.1:1") as client:
        assert WatchedJumps(client, plan, folder, notes, print).next_step() == due


@pytest.mark.integration
def test_a_job_on_its_way_is_fetched_after_a_restart(client: NExtClient, written: Path, folder: Path) -> None:
    appear(written, folder, 10, 20)
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    watcher = Watcher(client, folder, plan, print)
    watcher.look()
    assert watcher.look(), "its job is on its way"
    again = Watcher(client, folder, plan, print)
    assert not look_on(again), "the only jump is made"
    assert [jump.job for jump in again.notes.jumps] == [jump.job for jump in watcher.notes.jumps]
    assert (folder / "extrapolated-30").is_dir()

    lines: list[str] = []
    Watcher(client, folder, plan, lines.append).run(every=0.01)
    made, notes = folder / "extrapolated-30", folder / NOTES
    assert lines == [f"all jumps have been made: {made}; remove {notes} to start again"]


@pytest.mark.integration
def test_a_job_that_could_not_be_noted_is_not_submitted_again(
    embedded_server: EmbeddedServer, written: Path, folder: Path
) -> None:
    appear(written, folder, 10, 20)
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    submitted: list[Job] = []

    class Killed(NExtClient):
        """Ends its process when the job is there, and nobody knows it yet."""

        def submit(self, *args: Any, **kwargs: Any) -> Job:
            submitted.append(super().submit(*args, **kwargs))
            raise KeyboardInterrupt

    with Killed(embedded_server.url, embedded_server.api_key) as killed:
        watcher = Watcher(killed, folder, plan, print)
        watcher.look()
        with pytest.raises(KeyboardInterrupt):
            watcher.look()
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        again = Watcher(client, folder, plan, print)
        again.look()
        look_on(again)
    assert [jump.job for jump in again.notes.jumps] == [job.id for job in submitted]


def test_the_jobs_key_is_the_same_by_a_later_version(
    scripted: ScriptedServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a watch that was upgraded after it was killed finds the job again."""

    class LaterJobCreate(JobCreate):
        """A request with a field more, which this jump does not use."""

        priority: int = 0

    scripted.on("POST", "/jobs", answer(a_job(), 202))
    plan = WatchPlan(METHOD, jump_at=30, jump_every=20, out=folder)
    with NExtClient(scripted.url) as client:
        WatchedJumps(client, plan, folder, Notes(series="s1"), print).submit(30)
        monkeypatch.setattr(watched_jumps, "JobCreate", LaterJobCreate)
        WatchedJumps(client, plan, folder, Notes(series="s1"), print).submit(30)
        WatchedJumps(client, plan, folder, Notes(series="s1"), print).submit(50)
    first, again, other = (received.headers["idempotency-key"] for received in scripted.received)
    assert first == again != other


@pytest.mark.integration
def test_what_was_fetched_before_is_neither_overwritten_nor_fetched_again(
    client: NExtClient, written: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    appear(written, folder, 10, 20)
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    watcher = Watcher(client, folder, plan, print)
    with monkeypatch.context() as killed:
        killed.setattr(WatchedJumps, "_note_jump", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        watcher.look()
        with pytest.raises(KeyboardInterrupt):
            look_on(watcher)
    first = folder / "extrapolated-30"
    (before,) = (path.stat().st_mtime_ns for path in [first / "adapter_model.safetensors"])
    look_on(Watcher(client, folder, plan, print))
    assert (first / "adapter_model.safetensors").stat().st_mtime_ns == before
    assert sorted(path.name for path in folder.glob("extrapolated-*")) == ["extrapolated-30"]

    (folder / NOTES).unlink()  # to begin anew, as its last line says
    anew = Watcher(client, folder, plan, print)
    anew.look()
    assert not look_on(anew), "the only jump is made"
    (jump,) = anew.notes.jumps
    assert jump.path == folder / f"extrapolated-30-{jump.job[-8:].lower()}"
    assert (jump.path / "adapter_model.safetensors").is_file()
    assert (first / "adapter_model.safetensors").stat().st_mtime_ns == before


@pytest.mark.integration
def test_a_job_that_is_lost_is_submitted_anew_over_all_that_was_posted(
    client: NExtClient, written: Path, folder: Path
) -> None:
    """The trainer has removed earlier checkpoints: they are in the series alone."""
    appear(written, folder, 10, 20, 30)
    watcher = Watcher(client, folder, WatchPlan(METHOD, jump_at=40, jump_every=None, out=folder), print)
    watcher.look()
    watcher.look()
    assert watcher.notes.posted == [10, 20, 30]
    series = watcher.notes.series
    for step in (10, 20):
        shutil.rmtree(folder / f"checkpoint-{step}")
    watcher.notes.jumps.append(Jump(step=30, job="gone"))
    watcher.notes.write(folder)
    again = Watcher(client, folder, WatchPlan(METHOD, jump_at=30, jump_every=None, out=folder), print)
    again.look()
    assert not look_on(again), "the only jump is made"
    assert again.notes.series == series
    assert client.get_job(again.notes.jumps[0].job).steps == [10, 20, 30]


@pytest.mark.integration
@pytest.mark.parametrize("what", ["series", "job"])
def test_what_the_service_has_lost_is_posted_again(
    client: NExtClient, written: Path, folder: Path, what: str
) -> None:
    """Though all that is to come of the run is here already."""
    appear(written, folder, 10, 20, 30)
    lost = (
        Notes(series="gone", posted=[10, 20])
        if what == "series"
        else Notes(series="gone", posted=[10, 20, 30], jumps=[Jump(step=30, job="gone")])
    )
    (folder / NOTES).write_text(lost.model_dump_json())
    lines: list[str] = []
    watcher = Watcher(client, folder, WatchPlan(METHOD, jump_at=20, jump_every=10, out=folder), lines.append)
    while "posted step 30" not in lines:
        assert watcher.look()
    assert look_on(watcher)
    if what == "job":
        assert lines.pop(0).startswith("trying again: there is no job gone")
    assert lines[0].startswith("trying again: there is no series gone")
    assert sorted(lines[1:4]) == ["posted step 10", "posted step 20", "posted step 30"]
    assert lines[4].startswith("the jump from step 30 is job "), "not before all of it is there again"
    assert lines[5].startswith("extrapolated step 30 to 40: ")
    assert [(jump.step, jump.failure) for jump in watcher.notes.jumps] == [(30, None)]


def watched(server: EmbeddedServer, folder: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends by itself."""
    return subprocess.run(
        [
            *(sys.executable, "-c", "from nextrapolate.cli import main; main()", "watch", folder),
            *("--every=0.05", "--method=weight-extrapolation", "--horizon-steps=10"),
            *("--url", server.url, *options),
        ],
        env=os.environ | {"NEXTRAPOLATE_API_KEY": server.api_key},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.integration
def test_the_command_ends_with_its_last_jump(
    embedded_server: EmbeddedServer, written: Path, tmp_path: Path
) -> None:
    finished = watched(embedded_server, written, "--jump-at=60", "--out", tmp_path / "adapters")
    assert finished.returncode == 0, finished.stderr
    assert "extrapolated step 60 to 70: " in finished.stdout
    assert (tmp_path / "adapters" / "extrapolated-70" / "adapter_config.json").is_file()


def with_nan(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: tensor * float("nan") for name, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
    )


def of_another_rank(folder: Path) -> None:
    shutil.rmtree(folder)
    write_run(folder.parent, [step_of(folder) or 0], rank=RANK + 1, r=RANK + 1)


@pytest.mark.integration
@pytest.mark.parametrize(("spoil", "reason"), [(with_nan, "NaN"), (of_another_rank, "rank")])
def test_the_command_ends_with_1_where_a_jump_could_not_be_made(
    embedded_server: EmbeddedServer, written: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    spoil(written / "checkpoint-60")
    first, again = (watched(embedded_server, written, "--jump-at=60") for _ in range(2))
    assert first.returncode == again.returncode == 1, first.stdout + first.stderr
    no_jump = first.stdout.splitlines()[-1]
    assert no_jump.startswith("no jump: ")
    assert reason in no_jump
    assert f"all jumps have been made: none ({no_jump.removeprefix('no jump: ')}); remove" in again.stdout


@pytest.mark.integration
def test_a_jump_that_is_asked_for_too_early_waits_for_a_later_checkpoint(
    client: NExtClient, written: Path, folder: Path
) -> None:
    lines: list[str] = []
    appear(written, folder, 10)
    watcher = Watcher(
        client, folder, WatchPlan(METHOD, jump_at=10, jump_every=None, out=folder), lines.append
    )
    for _ in range(2):
        assert watcher.look()
    assert lines[0] == "posted step 10"
    assert lines[1].startswith("trying again: ")
    appear(written, folder, 20)
    assert watcher.look()
    assert not look_on(watcher)
    assert lines[4].startswith("extrapolated step 20 to 30: ")


def test_notes_that_cannot_be_read_are_named(folder: Path, scripted: ScriptedServer) -> None:
    plan = WatchPlan(METHOD, jump_at=20, jump_every=None, out=folder)
    (folder / NOTES).write_text("{")
    with pytest.raises(CheckpointError, match="remove it to start again"):
        Watcher(NExtClient(scripted.url), folder, plan, print)
    with pytest.raises(CheckpointError, match="there is no folder"):
        Watcher(NExtClient(scripted.url), folder / "missing", plan, print)


def test_verl_is_restarted_in_its_own_words(folder: Path) -> None:
    (folder / "global_step_10").mkdir()
    command = restart_command(Path("adapter"), folder)
    assert "lora_adapter_path=adapter trainer.resume_mode=disable" in command
