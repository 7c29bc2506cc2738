"""What every process of a verl run does with its model: functions that the driver sends to the workers.

Read from verl 0.9.1: a worker is an ActorRolloutRefWorker, its `actor.engine` an FSDPEngine, whose `module`
is the PEFT model itself under FSDP2.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
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
        SwapError: it was not taken up as it was given; the model may be half written.
    """
    engine = worker.actor.engine
    peft_model.write_adapter(engine.module, ray.get(adapter))
    peft_model.clear_moments(engine.module, engine.optimizer, reset)


def save_beside(worker: Worker, folder: Path, step: int) -> None:
    """Save the worker's checkpoint into a folder that verl's rotation of checkpoints does not hear of."""
    engine = worker.actor.engine
    rotated = list(engine.checkpoint_manager.previous_saved_paths)
    engine.save_checkpoint(str(folder), global_step=step)
    engine.checkpoint_manager.previous_saved_paths = rotated


def move_over(worker: Worker, source: Path, target: Path) -> None:
    """Move what this process saved in one folder over what it saved in another; the first takes the rest.

    Nodes may have a disk each, or one for all.
    """
    rank = dist.get_rank()
    for saved in list(source.iterdir()):
        if saved.is_dir() and rank == 0:
            shutil.rmtree(target / saved.name, ignore_errors=True)
        if saved.name.endswith(f"_rank_{rank}.pt") or ("_rank_" not in saved.name and rank == 0):
            saved.rename(target / saved.name)
    dist.barrier()
    with suppress(OSError):
        source.rmdir()
