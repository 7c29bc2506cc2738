"""What the plugin counts on in verl's source, read as a tree: a release that changes it fails here."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from verl.trainer.main_ppo import TaskRunnerV1
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback, build_checkpoint_callback
from verl.trainer.ppo.v1.trainer_base import PPOTrainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.workers.engine.fsdp.transformer_impl import FSDPEngine
from verl.workers.engine_workers import ActorRolloutRefWorker


def tree(function: Callable[..., Any]) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(function)))


def calls(function: Callable[..., Any]) -> list[str]:
    """The calls in a function's source, in its order, by what they call: `self.logger.log`."""
    found = [node for node in ast.walk(tree(function)) if isinstance(node, ast.Call)]
    found.sort(key=lambda call: (call.lineno, call.col_offset))
    return [ast.unparse(call.func) for call in found]


def assigned(function: Callable[..., Any]) -> set[str]:
    """What a function's source assigns to: `self.logger`."""
    nodes = [node for node in ast.walk(tree(function)) if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [
        target
        for node in nodes
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {ast.unparse(target) for target in targets}


def test_the_callback_is_called_after_the_save_and_before_the_weights_are_sent() -> None:
    in_fit = calls(PPOTrainer.fit)
    assert in_fit.index("self._save_checkpoint") < in_fit.index("self.on_step_end")
    in_save = calls(PPOTrainer._save_checkpoint)
    assert in_save[-1] == "self.checkpoint_callback.on_save"
    assert in_save.index("self.actor_rollout_wg.save_checkpoint") < in_save.index(
        "self.checkpoint_callback.on_save"
    )


@pytest.mark.parametrize("trainer", [PPOTrainerSync, PPOTrainerColocateAsync, PPOTrainerSeparateAsync])
def test_each_kind_of_trainer_sends_its_weights_at_the_end_of_a_step(trainer: type[PPOTrainer]) -> None:
    assert any(call.endswith("checkpoint_manager.update_weights") for call in calls(trainer.on_step_end))


def test_the_callback_is_made_from_the_configuration_before_a_checkpoint_is_loaded() -> None:
    assert "self.checkpoint_callback" in assigned(PPOTrainer.__init__)
    assert "self._load_checkpoint" in calls(PPOTrainer._setup)
    in_run = calls(TaskRunnerV1.run)
    assert in_run.index("trainer_cls") < in_run.index("self.trainer.init") < in_run.index("self.trainer.fit")
    assert list(inspect.signature(build_checkpoint_callback).parameters) == ["config"]
    on_save = inspect.signature(CheckpointCallback.on_save).parameters
    assert {"trainer", "global_step", "checkpoint_dir"} < on_save.keys()


def test_the_trainer_has_what_the_callback_takes_of_it() -> None:
    assert "self.actor_rollout_wg" in assigned(PPOTrainer._setup)
    assert "self.total_training_steps" in assigned(PPOTrainer._init_dataloader)
    assert "self.logger" in assigned(PPOTrainer.fit)
    assert "self.logger.log" in calls(PPOTrainer.fit)


def test_checkpoints_lie_where_they_are_looked_for() -> None:
    saving = inspect.getsource(PPOTrainer._save_checkpoint)
    assert 'f"global_step_{self.global_steps}"' in saving
    assert 'os.path.join(local_global_step_folder, "actor")' in saving
    loading = inspect.getsource(PPOTrainer._load_checkpoint)
    for name in ("resume_mode", "resume_from_path", "default_local_dir", "find_latest_ckpt_path"):
        assert name in loading


def test_the_engine_has_what_a_rank_takes_of_it() -> None:
    assert "self.actor" in assigned(ActorRolloutRefWorker.init_model)
    assert {"self.module", "self.optimizer"} <= assigned(FSDPEngine._build_model_optimizer)
    assert "self.checkpoint_manager" in assigned(FSDPEngine.initialize)
    assert {"local_path", "global_step"} < inspect.signature(FSDPEngine.save_checkpoint).parameters.keys()
    assert "self.previous_saved_paths" in assigned(FSDPCheckpointManager.__mro__[1].__init__)
    assert "self.register_checkpoint" in calls(FSDPCheckpointManager.save_checkpoint)


@pytest.mark.parametrize("save", [FSDPCheckpointManager.save_checkpoint, FSDPEngine.save_checkpoint])
def test_ranks_that_save_wait_for_each_other_where_a_fault_is_told(save: Callable[..., Any]) -> None:
    in_save = calls(save)
    assert {call for call in in_save if "distributed" in call} == {"torch.distributed.barrier"}
    before = [call for call, then in pairwise(in_save) if then == "get_fsdp_full_state_dict"]
    assert set(before) <= {"torch.distributed.barrier"}, "nothing can fail in between"
