"""Two runs that were resumed from one checkpoint: each has a series of its own as soon as they part."""

from collections.abc import Iterator
from hashlib import sha256

import pytest
import torch
from fixtures.server import EmbeddedServer
from safetensors.torch import save

from nextrapolate import NExtClient
from nextrapolate.errors import ConflictError, ServiceUnreachable
from nextrapolate.methods import make_method
from nextrapolate.schemas import ADAPTER_MODEL, CheckpointFile
from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.jumper import Jumper, JumpRequest
from nextrapolate_trainer.series import Run, RunSeries
from nextrapolate_trainer.settings import JumpSettings
from nextrapolate_trainer.state import RunState

pytestmark = pytest.mark.integration

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
RUN = Run("forked", None, CONFIG)
REQUEST = JumpRequest([make_method("weight-extrapolation", horizon_steps=2)])
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


def adapter(step: int, fork: int = 0) -> Adapter:
    """As after `step`; forks are one run up to step 4."""
    generator = torch.Generator().manual_seed(0)
    A, B, other = torch.randn(3, 2, 8, generator=generator)
    turned = B + (0.5 * fork * other if step > 4 else 0.0)
    return {f"{Q_PROJ}.lora_A.weight": A, f"{Q_PROJ}.lora_B.weight": (0.01 * step * turned).T.contiguous()}


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[NExtClient]:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        yield client


@pytest.fixture
def state(client: NExtClient) -> RunState:
    """Of a run at step 4."""
    series = RunSeries(client, RUN, None)
    for step in (2, 4):
        series.post(step, adapter(step))
    return RunState(step=4, series=series.id)


def holds(client: NExtClient, series: str | None, fork: int, *steps: int) -> bool:
    """Whether a series holds the checkpoints of one fork, and nothing else."""
    found = {
        info.step: info.files[ADAPTER_MODEL].sha256 for info in client.get_series(str(series)).checkpoints
    }
    return found == {step: sha256(save(dict(adapter(step, fork)))).hexdigest() for step in steps}


def test_whose_checkpoint_is_another_goes_on_in_a_series_of_its_own(
    client: NExtClient, state: RunState, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (RunSeries(client, RUN, state) for _ in range(2))
    for step in (4, 6, 8):
        first.post(step, adapter(step, 1))
        second.post(step, adapter(step, 2))
    assert first.id == state.series
    assert holds(client, first.id, 1, 2, 4, 6, 8)
    assert holds(client, second.id, 2, 2, 4, 6, 8)
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning == (
        f"another run posts to the series {first.id}, too: this one continues in a new one, {second.id}"
    )


def test_the_run_that_was_resumed_from_may_live_on(client: NExtClient) -> None:
    hung = RunSeries(client, RUN, None)
    hung.post(2, adapter(2))
    hung.post(4, adapter(4))
    resumed = RunSeries(client, RUN, RunState(step=4, series=hung.id))
    resumed.post(6, adapter(6, 1))
    hung.post(6, adapter(6, 2))
    assert holds(client, resumed.id, 1, 2, 4, 6)
    assert holds(client, hung.id, 2, 2, 4, 6)


def test_no_jump_is_made_over_checkpoints_of_two_runs(client: NExtClient, state: RunState) -> None:
    """They collect after other steps, so that no checkpoint of one is in the other's way."""
    forks = [Jumper(client, RUN, JumpSettings(), state) for _ in range(2)]
    for each in forks:  # nothing tells them apart yet
        each.collect(4, adapter(4))
        each._uploads.wait_for(4, 60)
    for step in (5, 6, 7, 8):
        forks[step % 2].collect(step, adapter(step, 1 + step % 2))
        forks[step % 2]._uploads.wait_for(step, 60)
    for fork, last in ((0, 8), (1, 7)):
        (jump,) = forks[fork].jumps_from(last, REQUEST)
        assert jump.report is not None
        assert jump.report.steps == ([2, 4, 6, 8] if fork == 0 else [2, 4, 5, 7])
        forks[fork].record(jump)
        forks[fork].close()
        series = forks[fork].state(last).series
        assert holds(client, series, 1 + fork, *jump.report.steps)
        assert [made.job for made in client.get_series(str(series)).jumps] == [jump.job]


def test_two_runs_that_are_alike_part_where_both_jump(client: NExtClient, state: RunState) -> None:
    forks = [Jumper(client, RUN, JumpSettings(), state) for _ in range(2)]
    made = []
    for fork in forks:
        fork.collect(6, adapter(6))
        (jump,) = fork.jumps_from(6, REQUEST)
        fork.record(jump)
        made.append(jump.job)
    for fork in forks:
        fork.close()
    found = [client.get_series(str(fork.state(6).series)) for fork in forks]
    assert [[jump.job for jump in series.jumps] for series in found] == [[job] for job in made]
    assert found[0].id != found[1].id


def test_a_checkpoint_that_arrived_unanswered_is_its_own(
    client: NExtClient, state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = RunSeries(client, RUN, state)

    def unanswered(series_id: str, step: int, name: CheckpointFile, data: bytes) -> None:
        put(series_id, step, name, data)
        raise ServiceUnreachable("the answer is lost")

    put = client.put_file
    with monkeypatch.context() as lost:
        lost.setattr(client, "put_file", unanswered)
        with pytest.raises(ServiceUnreachable):
            series.post(6, adapter(6))
    series.post(8, adapter(8))
    assert not series.is_shared([2, 4, 6, 8])


def test_what_a_run_says_twice_makes_no_series(client: NExtClient, state: RunState) -> None:
    """As where a trainer is told to train once more: no new series would take that either."""
    series = RunSeries(client, RUN, state)
    series.post(6, adapter(6, 1))
    with pytest.raises(ConflictError):
        series.post(6, adapter(6, 2))
    assert series.id == state.series
    series.post(8, adapter(8, 1))
    assert holds(client, series.id, 1, 2, 4, 6, 8)


def test_the_adapter_that_training_began_with_comes_along(client: NExtClient) -> None:
    run = Run("forked", None, CONFIG, adapter(1))
    begun = RunSeries(client, run, None)
    begun.post(2, adapter(2))
    begun.post(4, adapter(4))
    state = RunState(step=4, series=begun.id, from_base=False)
    first, second = (RunSeries(client, run, state) for _ in range(2))
    first.post(6, adapter(6, 1))
    second.post(4, adapter(4))
    second.part()
    found = [info.step for info in client.get_series(str(second.id)).checkpoints]
    assert found == [0, 2, 4]
