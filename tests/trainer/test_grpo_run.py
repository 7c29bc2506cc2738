"""Real GRPO runs of TRL beside a real server."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.grpo import MakeTrainer, same
from fixtures.server import EmbeddedServer
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from nextrapolate import Gate, NExtClient
from nextrapolate_trainer.adapter import copied, distance
from nextrapolate_trainer.peft_model import read_adapter, write_adapter
from nextrapolate_trainer.trl import NExtCallback

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::FutureWarning")]

OPEN = Gate(min_backtest_cosine=-1)
"""Lets every update pass: these runs are too short to say anything for or against one."""

Adapters = dict[int, dict[str, Tensor]]


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[NExtClient]:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        yield client


class Spy(TrainerCallback):
    """Sees the adapter as each step begins with it, and as it leaves it behind."""

    def __init__(self) -> None:
        self.begun: Adapters = {}
        self.ended: Adapters = {}
        self.reported: set[str] = set()

    def on_step_begin(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self.begun[state.global_step] = copied(read_adapter(event["model"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self.ended[state.global_step] = copied(read_adapter(event["model"]))

    def on_log(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Hear what `report_to` hears: wandb, trackio and the like are callbacks, too."""
        self.reported |= event["logs"].keys()


def watched(trainer: GRPOTrainer, plugin: NExtCallback | None = None) -> Spy:
    """Train, with the plugin if there is one, and return what was seen."""
    if plugin is not None:
        plugin.attach(trainer)
    spy = Spy()
    trainer.add_callback(spy)
    trainer.train()
    return spy


def metrics(trainer: GRPOTrainer, name: str) -> dict[int, float]:
    return {int(entry["step"]): entry[name] for entry in trainer.state.log_history if name in entry}


def test_a_run_jumps_once_and_goes_on(
    make_trainer: MakeTrainer, client: NExtClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(max_steps=12, save_steps=8)
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=8,
        horizon_steps=4,
        method="weight-extrapolation",
        gate=OPEN,
        name="jumps once",
    )
    with caplog.at_level(logging.INFO, "nextrapolate"):
        spy = watched(trainer, plugin)

    [jump] = plugin.jumps
    assert (jump.step, jump.target_step, jump.method, jump.reset_modules) == (
        8,
        12,
        "weight-extrapolation",
        0,
    )
    returned = load_file(client.download(jump.job, tmp_path / "result") / "adapter_model.safetensors")
    assert same(spy.begun[8], returned)
    assert not same(spy.ended[8], returned)
    assert all(same(spy.begun[step], spy.ended[step]) for step in range(1, 12) if step != 8)

    saved = load_file(tmp_path / "run" / "checkpoint-8" / "adapter_model.safetensors")
    assert same(saved, spy.ended[8]), "the checkpoint of the step of the jump has to be the run's own"

    series = next(series for series in client.list_series() if series.name == "jumps once")
    assert [checkpoint.step for checkpoint in series.checkpoints] == [2, 4, 6, 8, 10, 12]
    assert [(recorded.step, recorded.job) for recorded in series.jumps] == [(8, jump.job)]
    assert metrics(trainer, "next/update_ratio") == {9: pytest.approx(jump.update_ratio)}
    assert metrics(trainer, "next/pause_seconds") == {9: pytest.approx(jump.seconds)}
    assert {"next/collect_seconds", "next/pause_seconds", "next/job_seconds"} < spy.reported
    assert list(metrics(trainer, "next/collect_seconds")) == [2, 4, 6, 8, 10, 12]
    assert [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.levelno >= logging.WARNING or record.name == "nextrapolate"
    ] == [
        (
            logging.INFO,
            f"checkpoints of this run go to {client.url}/series/{series.id}; the next jump is after step 8",
        ),
        (jump.log_level, str(jump)),
    ]
    assert f"job {jump.job} ({client.url}/jobs/{jump.job}): the update is" in str(jump)


def test_an_adapter_that_was_trained_before_is_posted_as_step_0(
    make_trainer: MakeTrainer, client: NExtClient
) -> None:
    """Its config says, as any other's, that the run began at the base model."""
    for name, trained in (("anew", 0.0), ("trained before", 0.05)):
        trainer = make_trainer(max_steps=2, name=name)
        assert trainer.model is not None
        with torch.no_grad():
            for key, parameter in trainer.model.named_parameters():
                if "lora_B" in key:
                    parameter.add_(trained)
        NExtCallback(client, collect_every=2, jump_at=100, name=name).attach(trainer)
        trainer.train()
    found = {series.name: [each.step for each in series.checkpoints] for series in client.list_series()}
    assert (found["anew"], found["trained before"]) == ([2], [0, 2])


def test_what_arrives_is_the_adapter_as_it_was_after_the_step(
    make_trainer: MakeTrainer, client: NExtClient, embedded_server: EmbeddedServer
) -> None:
    plugin = NExtCallback(client, collect_every=2, jump_at=100, name="arrives whole")
    spy = watched(make_trainer(max_steps=4), plugin)
    series = next(series for series in client.list_series() if series.name == "arrives whole")
    for checkpoint in series.checkpoints:
        digest = checkpoint.files["adapter_model.safetensors"].sha256
        [blob] = embedded_server.data_dir.rglob(digest)
        assert same(load_file(blob), spy.ended[checkpoint.step])
        assert checkpoint.problems == []


def test_cycles_extrapolate_the_drift_with_the_jumps_taken_out(
    make_trainer: MakeTrainer, client: NExtClient
) -> None:
    trainer = make_trainer(max_steps=12)
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=4,
        jump_every=2,
        horizon_steps=4,
        method="weight-extrapolation",
        window_steps=2,
        alpha=0.5,
        gate=OPEN,
        name="cycles",
    )
    spy = watched(trainer, plugin)
    assert [jump.step for jump in plugin.jumps] == [4, 6, 8, 10]
    series = next(series for series in client.list_series() if series.name == "cycles")
    assert [jump.step for jump in series.jumps] == [4, 6, 8, 10]
    assert client.report(plugin.jumps[-1].job).jumps == [4, 6, 8]
    # Over one window the drift is the run's own: what steps 5 and 6 did, not the jump before them.
    report = client.report(plugin.jumps[1].job)
    for module in report.modules:
        name = next(key for key in spy.ended[6] if key.endswith(f"{module.name}.lora_A.weight"))
        before, after = (
            adapter[name.replace("lora_A", "lora_B")] @ adapter[name]
            for adapter in (spy.begun[4], spy.ended[6])
        )
        drift = 2.0 * (after - before)  # lora_alpha / r = 2
        speed = drift.norm().item() / 2
        assert module.update_norm == pytest.approx(0.5 * 4 * speed, rel=1e-3)


def test_reset_clears_the_optimizer(make_trainer: MakeTrainer, client: NExtClient) -> None:
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=4,
        horizon_steps=2,
        method="weight-extrapolation",
        optimizer="reset",
        gate=OPEN,
        name="reset",
    )
    trainer = make_trainer(max_steps=6)
    watched(trainer, plugin)
    assert plugin.jumps[0].reset_modules == 6
    assert trainer.optimizer is not None
    assert {float(state["step"]) for state in trainer.optimizer.state.values()} == {2.0}


def test_an_update_that_is_too_long_is_refused(
    make_trainer: MakeTrainer, client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    plain = watched(make_trainer(max_steps=6, name="plain"))
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=4,
        horizon_steps=2,
        method="weight-extrapolation",
        max_update_ratio=1e-6,
        gate=OPEN,
        name="too long",
    )
    spy = watched(make_trainer(max_steps=6, name="refused"), plugin)
    assert plugin.jumps == []
    assert same(spy.ended[6], plain.ended[6])
    assert "no jump after step 4, training goes on from its own weights: the update is" in caplog.text
    assert next(series for series in client.list_series() if series.name == "too long").jumps == []


@pytest.mark.parametrize("only_if_recommended", [False, True])
def test_a_jump_may_be_made_only_where_its_report_recommends_it(
    only_if_recommended: bool,
    make_trainer: MakeTrainer,
    client: NExtClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two checkpoints are not enough for a report to recommend anything."""
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=4,
        horizon_steps=2,
        method="weight-extrapolation",
        gate=OPEN,
        only_if_recommended=only_if_recommended,
    )
    watched(make_trainer(max_steps=5), plugin)
    assert [jump.recommended for jump in plugin.jumps] == ([] if only_if_recommended else [False])
    assert ("does not recommend it: " in caplog.text) == only_if_recommended


@pytest.mark.parametrize("written_back", [False, True])
@pytest.mark.parametrize(("method", "alpha"), [("wsm", 1e-3), ("weight-extrapolation", 4.0)])
def test_a_jump_is_noted_unless_the_old_weights_are_seen_to_come_back(
    method: str,
    alpha: float,
    written_back: bool,
    make_trainer: MakeTrainer,
    client: NExtClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The short jump goes back to the average, the next step forward: that ends nearer to the old weights."""

    class KeepsACopy(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **event: Any) -> None:
            if written_back and state.global_step == 4:
                write_adapter(event["model"], spy.ended[4])

    name = f"{method} {written_back}"
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=4,
        horizon_steps=4,
        method=method,
        alpha=alpha,
        gate=OPEN,
        name=name,
    )
    trainer, spy = make_trainer(max_steps=6), Spy()
    plugin.attach(trainer)
    trainer.add_callback(KeepsACopy())
    trainer.add_callback(spy)
    trainer.train()
    [jump] = plugin.jumps
    series = next(series for series in client.list_series() if series.name == name)
    seen = written_back and alpha > 1
    assert [made.job for made in series.jumps] == ([] if seen else [jump.job])
    assert ("the optimizer's step started from the old weights" in caplog.text) == seen


def test_a_run_that_ends_before_its_jump_is_told_so(
    make_trainer: MakeTrainer, client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    for steps in (4, 5):
        caplog.clear()
        plugin = NExtCallback(client, collect_every=2, jump_at=4, horizon_steps=2, gate=OPEN)
        watched(make_trainer(max_steps=steps), plugin)
        told = "this run ends after step 4, before a jump that is due when the step after 4 begins"
        assert (told in caplog.text) == (steps == 4)


def test_distance_after_a_jump_is_small_against_the_jump(
    make_trainer: MakeTrainer, client: NExtClient
) -> None:
    """What `prove_jump` relies on: the next step starts from the new adapter and moves little."""
    plugin = NExtCallback(
        client,
        collect_every=2,
        jump_at=8,
        horizon_steps=8,
        method="weight-extrapolation",
        window_steps=8,
        gate=OPEN,
    )
    spy = watched(make_trainer(max_steps=9), plugin)
    assert distance(spy.ended[9], spy.begun[8]) < distance(spy.ended[9], spy.ended[8])
