"""What every process of a verl run does with its model: functions that the driver sends to the workers.

Read from verl 0.9.1: a worker is an ActorRolloutRefWorker, its `actor.engine` an FSDPEngine, whose `module`
is the PEFT model itself under FSDP2.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import torch.distributed as dist
from torch import Tensor
from verl.protocol import DataProto
from verl.single_controller.ray import RayWorkerGroup

from nextrapolate_trainer import peft_model
from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.errors import GroupLostError, RankError
from nextrapolate_trainer.ranks import tell_all, telling

T = TypeVar("T")
Worker = Any

_ANSWERS = "answers"


def on_every_rank(workers: RayWorkerGroup, act: Callable[[Worker], T]) -> list[T]:
    """Have every process do something with its worker; returns what it made in each, by rank."""

    def answer(worker: Worker) -> DataProto:
        # What comes back is concatenated along the first dimension: an array of one object each.
        answers = np.empty(1, dtype=object)
        answers[0] = act(worker)
        return DataProto.from_dict(non_tensors={_ANSWERS: answers})

    return list(workers.execute_with_func_generator(answer).non_tensor_batch[_ANSWERS])


def adapter_config(worker: Worker) -> dict[str, Any]:
    """Return the content of the run's adapter_config.json."""
    return peft_model.adapter_config(worker.actor.engine.module)


def read_adapter(worker: Worker) -> dict[str, Tensor]:
    """Return the adapter, whole and on the CPU, in the first process; in the others nothing."""
    adapter = peft_model.read_adapter(worker.actor.engine.module)
    return {name: tensor.cpu() for name, tensor in adapter.items()} if dist.get_rank() == 0 else {}


def write_adapter(worker: Worker, adapter: "ray.ObjectRef[Adapter]", reset: frozenset[str]) -> None:
    """Write an adapter into the model, and clear the optimizer's state of the modules in `reset`.

    Raises:
        RankError: it did not reach a process; the model is as it was.
        SwapError: it was not taken up as it was given; the model may be half written.
    """
    engine = worker.actor.engine
    # To write it is a collective: nobody begins before everybody has it.
    peft_model.write_adapter(engine.module, _together(lambda: ray.get(adapter)))
    peft_model.clear_moments(engine.module, engine.optimizer, reset)


def save_beside(worker: Worker, folder: Path, step: int) -> None:
    """Save the worker's checkpoint into a folder that verl's rotation of checkpoints does not hear of.

    Raises:
        RankError: a process could not save its part; the folder is gone.
    """
    engine = worker.actor.engine
    rotated = list(engine.checkpoint_manager.previous_saved_paths)
    try:
        with _removed_on_failure(folder):
            _together(lambda: engine.save_checkpoint(str(folder), global_step=step))
    finally:
        engine.checkpoint_manager.previous_saved_paths = rotated


def move_over(worker: Worker, source: Path, target: Path) -> None:
    """Move what this process saved in one folder over what it saved in another; the first takes the rest.

    Nodes may have a disk each, or one for all.

    Raises:
        RankError: a process could not move its part; what was not moved is gone.
    """
    with _removed_on_failure(source):
        _together(lambda: _move_own(dist.get_rank(), source, target))
    with suppress(OSError):
        source.rmdir()


def _together(act: Callable[[], T]) -> T:
    """Do something in all processes, each its own part; where it fails in one, it fails in all.

    Barriers may be in it, and other collectives where nothing has happened since the last barrier that can
    fail in one process alone.

    Raises:
        RankError: it failed somewhere; says in which processes, and why.
        GroupLostError: the processes cannot reach each other.
    """
    try:
        # A trainer's own functions, such as verl's save of a checkpoint, have barriers between what can fail.
        # No process reports: Ray hands the driver the error of any one of them, and the driver logs it.
        with telling("barrier", reported=False):
            done = act()
    except (RankError, GroupLostError):  # told at a barrier: everybody knows, or nobody can be told
        raise
    except Exception as error:  # whatever it is, the others wait for word of it
        tell_all(error, reported=False)
        raise
    tell_all(None, reported=False)
    return done


def _move_own(rank: int, source: Path, target: Path) -> None:
    for saved in list(source.iterdir()):
        if saved.is_dir() and rank == 0:
            shutil.rmtree(target / saved.name, ignore_errors=True)
        if saved.name.endswith(f"_rank_{rank}.pt") or ("_rank_" not in saved.name and rank == 0):
            saved.rename(target / saved.name)


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """Remove a folder, here and by every other process, where all of them have failed together."""
    try:
        yield
    except RankError:
        # Of one disk for all the others remove files at the same time.
        shutil.rmtree(folder, ignore_errors=True)
        raise
