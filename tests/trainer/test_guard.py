"""The guard: what it decides, and that a run it holds back is the run without the plugin."""

import logging
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from fixtures.grpo import MakeTrainer, same
from fixtures.server import EmbeddedServer
from peft import PeftModel
from torch import Tensor
from transformers import TrainerCallback

from nextrapolate import Gate, NExtClient
from nextrapolate.schemas import ExpoMethod, NextMethod, WeightExtrapolationMethod
from nextrapolate_trainer.adapter import copied
from nextrapolate_trainer.errors import GuardError
from nextrapolate_trainer.guard import Trial, measure
from nextrapolate_trainer.peft_model import read_adapter
from nextrapolate_trainer.trl import NExtCallback
from nextrapolate_trainer.trl_evaluation import own_evaluation

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

CPU = torch.device("cpu")


@pytest.fixture
def client(embedded_server: EmbeddedServer) -> Iterator[NExtClient]:
    with NExtClient(embedded_server.url, embedded_server.api_key) as client:
        yield client


def guarded(client: NExtClient, **options: Any) -> NExtCallback:
    """Collect every 2 steps, jump after step 4, under a guard."""
    gate = Gate(min_backtest_cosine=-1)
    schedule: dict[str, Any] = {"collect_every": 2, "jump_at": 4, "horizon_steps": 4}
    return NExtCallback(client, method="weight-extrapolation", gate=gate, **schedule, **options)


def length(model: PeftModel) -> float:
    """A score that a test can foresee: how far the adapter is from nothing."""
    return sum(
        tensor.square().sum().item() for name, tensor in read_adapter(model).items() if "lora_B" in name
    )


def metric(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def weights(trainer: Any) -> dict[str, Tensor]:
    return copied(read_adapter(trainer.model))


def test_a_score_that_fails_while_merged_leaves_the_base_model_alone(make_trainer: MakeTrainer) -> None:
    model = cast(PeftModel, make_trainer().model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def fails(model: PeftModel) -> float:
        model.merge_adapter()
        raise OSError("no engine answers")

    with pytest.raises(GuardError, match="no engine answers"):
        measure(model, fails, CPU)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("own", "offered", "tolerance", "best"),
    [
        (0.5, (0.4, 0.6, 0.55), 0.0, 1),
        (0.5, (0.4, 0.49), 0.0, None),
        (0.5, (0.4, 0.49), 0.02, 1),
        (0.5, (math.nan, 0.5), 0.0, 1),
        (0.5, (math.nan,), 0.0, None),
        (math.nan, (0.5,), 0.0, None),
    ],
)
def test_the_best_stays(own: float, offered: tuple[float, ...], tolerance: float, best: int | None) -> None:
    assert Trial(own, offered, seconds=1.0).best(tolerance) == best


def test_a_measurement_leaves_no_trace(make_trainer: MakeTrainer) -> None:
    model = cast(PeftModel, make_trainer(max_steps=1).model)
    model.train()

    def dice(model: PeftModel) -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        return torch.rand(1).item() + random.random()

    first, second = measure(model, dice, CPU), measure(model, dice, CPU)
    assert first == second, "adapters are compared on the same dice"
    assert model.training
    assert torch.is_grad_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_dice_are_those_of_the_device_that_samples(make_trainer: MakeTrainer) -> None:
    """Not of the one where offloaded parameters lie."""
    model, device = cast(PeftModel, make_trainer(max_steps=1).model), torch.device("cuda")
    before = torch.cuda.get_rng_state(device)
    first, second = (measure(model, lambda _: torch.rand(1, device=device).item(), device) for _ in range(2))
    assert first == second
    assert torch.equal(torch.cuda.get_rng_state(device), before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": "rest"}, "optimizer: Input should be 'keep' or 'reset'"),
        ({"guard": "eval"}, "guard is 'eval': it must be \"evaluate\", or a function"),
        ({"timeout": -1}, "timeout: Input should be greater than 0"),
        ({"max_update_ratio": math.nan}, "max_update_ratio: Input should be a number"),
    ],
)
def test_what_is_of_no_use_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        guarded(NExtClient("http://127.0.0.1:9", "nx_none_none"), **options)


def test_a_method_keeps_its_own_horizon() -> None:
    client = NExtClient("http://127.0.0.1:9", "nx_none_none")
    own = NextMethod(horizon_steps=30, alpha=2.0)
    assert NExtCallback(client, method=own).method == own
    assert NExtCallback(client, method=own, horizon_steps=20).method == own.model_copy(
        update={"horizon_steps": 20}
    )
    assert NExtCallback(client, method="next").method.horizon_steps == 50


@pytest.mark.parametrize("several", [{"alphas": (0, 1)}, {"others": ("wsm",)}])
def test_several_adapters_need_a_guard(several: dict[str, Any], make_trainer: MakeTrainer) -> None:
    client = NExtClient("http://127.0.0.1:9", "nx_none_none")
    with pytest.raises(ValueError, match="need a guard to choose"):
        guarded(client, **several)
    trainer = make_trainer(max_steps=1)
    trainer.eval_dataset = None
    with pytest.raises(ValueError, match="give the trainer an eval_dataset"):
        guarded(client, guard="evaluate").attach(trainer)


@pytest.mark.parametrize("alphas", [(), (0,), (0.0, 0)])
def test_alphas_without_a_factor_to_try_are_refused(alphas: tuple[float, ...]) -> None:
    client = NExtClient("http://127.0.0.1:9", "nx_none_none")
    with pytest.raises(ValueError, match="0 is the run's own adapter: give another factor to try"):
        guarded(client, guard=length, alphas=alphas, others=("wsm",))


@pytest.mark.integration
def test_a_jump_that_harms_is_rolled_back(
    make_trainer: MakeTrainer, client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    plain = make_trainer(max_steps=6, steps_per_generation=3, name="plain")
    plain.train()
    trainer = make_trainer(max_steps=6, steps_per_generation=3, name="guarded")
    # It draws random numbers, as sampling does: the run shall draw the same as without it.
    plugin = guarded(client, guard=lambda model: -length(model) + 0 * torch.rand(1).item()).attach(trainer)
    trainer.train()
    assert plugin.jumps == []
    assert same(weights(trainer), weights(plain)), "completions and random numbers have to be the run's own"
    [said] = [record for record in caplog.records if record.name == "nextrapolate"]
    assert said.levelname == "WARNING", "nothing is broken"
    assert (
        "no jump after step 4, training goes on from its own weights: the guard scores" in said.getMessage()
    )
    assert metric(trainer, "next/guard_kept") == [0.0]
    assert metric(trainer, "next/guard_own") > metric(trainer, "next/guard_best")


@pytest.mark.integration
def test_the_best_alpha_stays(make_trainer: MakeTrainer, client: NExtClient) -> None:
    scores: list[float] = []

    def near(model: PeftModel) -> float:
        """Best where the adapter is about twice as long, squared, as the run's own."""
        scores.append(length(model))
        return -abs(scores[-1] - 2 * scores[0])

    trainer = make_trainer(max_steps=5)
    plugin = guarded(client, guard=near, alphas=(0, 0.5, 4)).attach(trainer)
    trainer.train()
    [jump] = plugin.jumps
    assert jump.trial is not None
    own, short, long = (-abs(score - 2 * scores[0]) for score in scores)
    assert (jump.trial.own, jump.trial.offered) == (own, (short, long))
    assert short > own > long
    assert jump.alpha == 0.5
    assert metric(trainer, "next/alpha") == [0.5]
    assert metric(trainer, "next/guard_best") == [short]
    series = client.list_series(limit=1)[0]
    assert [made.job for made in series.jumps] == [jump.job], "the series knows the adapter that was kept"


@pytest.mark.integration
def test_the_best_method_stays(make_trainer: MakeTrainer, client: NExtClient) -> None:
    longer = ExpoMethod(alpha=2.0)
    trainer = make_trainer(max_steps=5)
    plugin = guarded(client, guard=length, alphas=(0.5,), others=("wsm", longer)).attach(trainer)
    trainer.train()
    [jump] = plugin.jumps
    assert jump.trial is not None
    assert len(jump.trial.offered) == 3
    assert max(jump.trial.offered) == jump.trial.offered[2]
    assert (jump.method, jump.alpha) == ("expo", 2.0)


@pytest.mark.integration
def test_methods_that_fail_leave_the_others_to_the_guard(
    make_trainer: MakeTrainer, client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(max_steps=5)
    unknown_step = WeightExtrapolationMethod(horizon_steps=4, from_step=3, to_step=4)
    too_few = NextMethod(horizon_steps=4, preset="paper")
    plugin = guarded(client, guard=length, others=(unknown_step, too_few, "wsm")).attach(trainer)
    trainer.train()
    [jump] = plugin.jumps
    assert jump.trial is not None
    assert (jump.method, len(jump.trial.offered)) == ("weight-extrapolation", 2)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    left_out = "one of the requested results is missing, and the jump is made without it: "
    assert [line.startswith(left_out) for line in said] == [True, True], said
    assert "checkpoint" in said[1]


@pytest.mark.integration
def test_the_trainer_s_own_evaluation(make_trainer: MakeTrainer, client: NExtClient) -> None:
    trainer = make_trainer(max_steps=5, per_device_eval_batch_size=8, num_generations_eval=4)
    plugin = guarded(client, guard="evaluate", guard_tolerance=1.0).attach(trainer)
    trainer.train()
    [jump] = plugin.jumps
    assert jump.trial is not None
    assert [*metric(trainer, "next/guard_own"), *metric(trainer, "next/guard_best")] == [
        jump.trial.own,
        *jump.trial.offered,
    ]
    assert metric(trainer, "next/guard_kept") == [1.0]
    assert metric(trainer, "next/guard_seconds") == [jump.parts["guard"]]


@pytest.mark.integration
def test_of_several_sets_each_counts_once(make_trainer: MakeTrainer, client: NExtClient) -> None:
    trainer: Any = make_trainer(max_steps=1, per_device_eval_batch_size=4, num_generations_eval=4)
    questions = trainer.eval_dataset
    trainer.eval_dataset = {"one": questions.select(range(2)), "other": questions.select(range(2, 8))}
    rewards: list[float] = []

    def by_hand(_: PeftModel) -> float:
        rewards.extend(trainer.evaluate(name)["eval_reward"] for name in ("one", "other"))
        return sum(rewards) / 2

    assert measure(trainer.model, own_evaluation(trainer), CPU) == measure(trainer.model, by_hand, CPU)
    assert rewards[0] != rewards[1], "or the last one alone would do"


def test_the_records_of_completions_stay_the_training_s(make_trainer: MakeTrainer) -> None:
    options: dict[str, Any] = {"per_device_eval_batch_size": 8, "num_generations_eval": 4}
    trainer: Any = make_trainer(max_steps=1, log_completions=True, **options)
    trainer.train()
    (written,) = Path(trainer.args.output_dir, "completions").glob("*.parquet")
    before, kept = written.read_bytes(), list(trainer._logs["completion"])
    measure(trainer.model, own_evaluation(trainer), CPU)
    assert written.read_bytes() == before
    assert list(trainer._logs["completion"]) == kept
    assert trainer.log_completions


def test_an_evaluation_that_fails_leaves_nothing_in_the_log(make_trainer: MakeTrainer) -> None:
    trainer: Any = make_trainer(max_steps=1, per_device_eval_batch_size=8, num_generations_eval=4)
    [reward] = trainer.reward_funcs

    def fails(log_metric: Any, **columns: Any) -> list[float | None]:
        log_metric("judged", 1.0)
        if not trainer.model.training:
            raise OSError("no judge answers")
        return cast(list[float | None], reward(**columns))

    trainer.reward_funcs = [fails]
    with pytest.raises(GuardError, match="no judge answers"):
        measure(trainer.model, own_evaluation(trainer), CPU)
    assert not trainer._metrics["eval"]
    assert not trainer._pending_metrics
    trainer.train()
    assert metric(trainer, "judged") == [1.0]


@pytest.mark.integration
def test_callbacks_do_not_hear_of_the_guard(make_trainer: MakeTrainer, client: NExtClient) -> None:
    heard: list[dict[str, float]] = []

    class StopsEarly(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, **event: Any) -> None:
            heard.append(event["metrics"])
            control.should_training_stop = True

    trainer = make_trainer(max_steps=6, per_device_eval_batch_size=8, num_generations_eval=4)
    trainer.add_callback(StopsEarly())
    guarded(client, guard="evaluate", guard_tolerance=-1.0, alphas=(0.5, 1)).attach(trainer)
    trainer.train()
    assert (trainer.state.global_step, heard) == (6, [])
    assert metric(trainer, "next/guard_kept") == [0.0]
    assert metric(trainer, "eval_reward") == []
    trainer.evaluate()
    assert len(heard) == 1, "they hear of the others"


class WithVllm(TrainerCallback):
    """Has the plugin believe, while a step begins, that the trainer generates with vLLM."""

    def __init__(self, trainer: Any, *, uses: bool) -> None:
        self._trainer = trainer
        self._uses = uses

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.use_vllm = self._uses


@pytest.mark.integration
@pytest.mark.parametrize("worth", [1, -1])
def test_vllm_loads_what_is_tried_out_and_what_stays(
    worth: int, make_trainer: MakeTrainer, client: NExtClient
) -> None:
    trainer = make_trainer(max_steps=5)
    loaded: list[int] = []

    def generates(model: PeftModel) -> float:
        loaded.append(trainer._last_loaded_step)
        trainer._last_loaded_step = trainer.state.global_step
        return worth * length(model)

    trainer.add_callback(WithVllm(trainer, uses=True))
    trainer._last_loaded_step = 4
    plugin = guarded(client, guard=generates).attach(trainer)
    trainer.add_callback(WithVllm(trainer, uses=False))
    trainer.train()
    assert len(plugin.jumps) == (worth > 0)
    assert loaded == [4, -1], "the run's own weights are there, those on offer have to be loaded"
    assert trainer._last_loaded_step == -1, "and so have those that stay, in the same step"


@pytest.mark.integration
def test_a_guard_that_fails_costs_the_jump_alone(
    make_trainer: MakeTrainer, client: NExtClient, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[float] = []

    def fails_after_the_jump(model: PeftModel) -> float:
        calls.append(length(model))
        return 1 / (2 - len(calls))

    plain = make_trainer(max_steps=5, name="plain")
    plain.train()
    trainer = make_trainer(max_steps=5, name="guarded")
    plugin = guarded(client, guard=fails_after_the_jump).attach(trainer)
    trainer.train()
    assert plugin.jumps == []
    assert same(weights(trainer), weights(plain))
    [line] = [record for record in caplog.records if record.name == "nextrapolate"]
    assert line.exc_info is None
    assert "the guard failed: ZeroDivisionError('division by zero') at " in line.getMessage()
    assert Path(__file__).name in line.getMessage()
