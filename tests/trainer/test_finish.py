"""The jump that a run ends with, after its last step, beside a real server."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.grpo import MakeTrainer, same
from fixtures.server import EmbeddedServer
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback

from nextrapolate import NExtClient
from nextrapolate.errors import ParameterError
from nextrapolate.methods import make_method
from nextrapolate_trainer.adapter import copied
from nextrapolate_trainer.peft_model import read_adapter
from nextrapolate_trainer.trl import NExtCallback

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]

RANK = 4


class Way(TrainerCallback):
    """The adapter after each step."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self.after[state.global_step] = copied(read_adapter(event["model"]))


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[NExtClient]:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        yield client


def products(adapter: dict[str, Tensor]) -> dict[str, Tensor]:
    """BA of each module, dense float64."""
    return {
        name: adapter[name.replace("lora_A", "lora_B")].double() @ adapter[name].double()
        for name in adapter
        if "lora_A" in name
    }


def finished(trainer: Any) -> dict[str, Tensor]:
    return copied(read_adapter(trainer.model))


def test_a_run_ends_with_the_average_of_its_last_checkpoints(
    make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path
) -> None:
    """Of steps 4, 6 and 7, which is collected for it, as a rate that falls from 4 on would weigh them."""
    trainer = make_trainer(max_steps=7, save_steps=7)
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=None,
        only_if_recommended=True,
        finish=make_method("wsm", window_steps=3),
        name="finished",
    ).attach(trainer)
    way = Way()
    trainer.add_callback(way)
    trainer.train()

    [jump] = plugin.jumps
    assert (jump.step, jump.target_step, jump.method) == (7, 7, "wsm")
    at = {step: products(way.after[step]) for step in (4, 6, 7)}
    ended = products(finished(trainer))
    for name, own in at[7].items():
        # The increments keep 2/3 and 1/6 of themselves: what the rate has in the middle of each.
        average = at[4][name] + 2 / 3 * (at[6][name] - at[4][name]) + 1 / 6 * (own - at[6][name])
        # Three checkpoints of rank 4 make more than an adapter of rank 4 holds: it is the nearest one.
        nearest = torch.linalg.svdvals(average)[RANK:].norm()
        assert (ended[name] - average).norm() <= 1.01 * nearest + 1e-6 * average.norm()
        assert (ended[name] - average).norm() < 0.1 * (own - average).norm()
    returned = load_file(client.download(jump.job, tmp_path / "result") / "adapter_model.safetensors")
    assert same(finished(trainer), returned)
    saved = load_file(tmp_path / "run" / "checkpoint-7" / "adapter_model.safetensors")
    assert same(saved, way.after[7]), "the last checkpoint has to be the run's own"
    series = next(series for series in client.list_series() if series.name == "finished")
    assert [checkpoint.step for checkpoint in series.checkpoints] == [2, 4, 6, 7]
    assert series.jumps == [], "nothing was trained on from it"


def test_a_cycle_ends_with_it_too(make_trainer: MakeTrainer, client: NExtClient) -> None:
    """The last step of the cycle's schedule is the run's last: what is due there is not made."""
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=4,
        jump_every=2,
        horizon_steps=2,
        method="weight-extrapolation",
        finish="wsm",
    )
    trainer = make_trainer(max_steps=8)
    plugin.attach(trainer)
    trainer.train()
    assert [(jump.step, jump.method) for jump in plugin.jumps] == [
        (4, "weight-extrapolation"),
        (6, "weight-extrapolation"),
        (8, "wsm"),
    ]


def test_the_guard_judges_it(
    make_trainer: MakeTrainer, client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    def distance_from_the_base(model: PeftModel) -> float:
        with torch.no_grad():
            return float(sum(part.norm() for name, part in model.named_parameters() if "lora_B" in name))

    way = Way()
    trainer = make_trainer(max_steps=4)
    plugin = NExtCallback(client, collect_every=2, jump_at=None, finish="wsm", guard=distance_from_the_base)
    plugin.attach(trainer)
    trainer.add_callback(way)
    trainer.train()
    assert plugin.jumps == [], "an average lies behind"
    assert same(finished(trainer), way.after[4])
    told = "no jump after step 4, the last: the run ends with its own weights: the guard scores"
    assert told in caplog.text


def test_the_checkpoint_that_the_trainer_found_best_stays(
    make_trainer: MakeTrainer, client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(
        max_steps=4,
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        per_device_eval_batch_size=8,
        load_best_model_at_end=True,
        metric_for_best_model="eval_reward",
    )
    plugin = NExtCallback(client, collect_every=2, jump_at=None, finish="wsm").attach(trainer)
    with caplog.at_level(logging.WARNING, "nextrapolate"):
        trainer.train()
    assert plugin.jumps == []
    best = trainer.state.best_model_checkpoint
    assert best is not None
    assert same(finished(trainer), load_file(Path(best) / "adapter_model.safetensors"))
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "load_best_model_at_end, not finish, chooses the weights that this run ends with",
        f"no last jump: load_best_model_at_end has chosen {best} as the end of the run",
    ]


def test_what_it_measured_is_in_the_log_of_its_own_run(make_trainer: MakeTrainer, client: NExtClient) -> None:
    trainer = make_trainer(max_steps=4)
    NExtCallback(client, collect_every=2, jump_at=None, finish="wsm").attach(trainer)
    for _ in range(2):
        trainer.train()
        logged = [entry["step"] for entry in trainer.state.log_history if "next/target_step" in entry]
        assert logged == [4], "the state's history is that of one run"


def test_a_run_that_is_stopped_before_its_last_step_makes_none(
    make_trainer: MakeTrainer, client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever stops it may be about to take the machine away."""

    class Stops(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 4

    way = Way()
    trainer = make_trainer(max_steps=8)
    plugin = NExtCallback(client, collect_every=2, jump_at=None, finish="wsm").attach(trainer)
    for callback in (way, Stops()):
        trainer.add_callback(callback)
    trainer.train()
    assert plugin.jumps == []
    assert same(finished(trainer), way.after[4])
    assert "no last jump: the run was stopped after step 4, before its last step, 8" in caplog.text


def test_without_the_service_a_run_ends_with_its_own_weights(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    way = Way()
    trainer = make_trainer(max_steps=3)
    with NExtClient("http://127.0.0.1:9", "nx_none_none") as nobody:
        plugin = NExtCallback(nobody, collect_every=2, jump_at=None, finish="wsm", timeout=1).attach(trainer)
        trainer.add_callback(way)
        trainer.train()
    assert plugin.jumps == []
    assert same(finished(trainer), way.after[3])
    assert "no jump after step 3, the last: the run ends with its own weights" in caplog.text


def test_a_run_that_is_made_longer_goes_on_from_its_own_weights(
    make_trainer: MakeTrainer, client: NExtClient
) -> None:
    finishing: dict[str, Any] = {"collect_every": 2, "jump_at": None, "finish": "wsm", "name": "made longer"}
    trainer = make_trainer(max_steps=5, save_steps=5)
    NExtCallback(client, **finishing).attach(trainer)
    trainer.train()
    own = load_file(Path(trainer.args.output_dir or "") / "checkpoint-5" / "adapter_model.safetensors")
    assert not same(finished(trainer), own)

    class Begins(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **event: Any) -> None:
            begun.setdefault(state.global_step, copied(read_adapter(event["model"])))

    begun: dict[int, dict[str, Tensor]] = {}
    longer = make_trainer(max_steps=8, save_steps=5)
    plugin = NExtCallback(client, **finishing).attach(longer)
    longer.add_callback(Begins())
    longer.train(resume_from_checkpoint=True)
    assert same(begun[5], own)
    assert [(jump.step, jump.method) for jump in plugin.jumps] == [(8, "wsm")]
    [series] = [series for series in client.list_series() if series.name == "made longer"]
    assert [checkpoint.step for checkpoint in series.checkpoints] == [2, 4, 5, 6, 8]


def test_a_method_that_is_not_known_is_refused_at_once(client: NExtClient) -> None:
    with pytest.raises(ParameterError, match="there is no method 'average'"):
        NExtCallback(client, finish="average")
