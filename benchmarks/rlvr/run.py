"""One run, from base to checkpoints.

    python -m benchmarks.rlvr.run TASK --trainer grpo --learning-rate 5e-5 --seed 1 --steps 400 --out RUN

Leaves run.json and a checkpoint every --save-every steps in RUN. The same command goes on with a run that was
interrupted, to the bytes it would have had, and does not repeat one that is finished.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from demo.evaluate import Accuracy
from demo.task import HELD_OUT, Task
from demo.trainer import grpo_trainer, rloo_trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import PrinterCallback, set_seed
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer

from benchmarks.rlvr.bases import base_of
from benchmarks.rlvr.record import Record, Recorder, Settings, newest_checkpoint, step_of
from benchmarks.rlvr.tasks import TASKS
from nextrapolate import NExtClient
from nextrapolate.schemas import Gate
from nextrapolate_trainer.trl import NExtCallback

TRAINERS: dict[str, Callable[..., GRPOTrainer | RLOOTrainer]] = {"grpo": grpo_trainer, "rloo": rloo_trainer}


def train(
    settings: Settings,
    task: Task,
    base: Path,
    out: Path,
    on_step: Callable[[int, Accuracy], None],
    held_out: int = HELD_OUT,
    client: NExtClient | None = None,
) -> Record:
    """Make the run, or what is missing of it, in `out`, and return its record.

    `on_step` is told each step, and the last accuracy measured. Jumps are asked of `client`; by default
    of the service that the environment names.

    Raises:
        OtherRunError: `out` holds a run with other settings.
    """
    record = Record.resume(out, settings)
    newest = newest_checkpoint(out)
    if newest is not None and step_of(newest) >= settings.steps:
        return record
    out.mkdir(parents=True, exist_ok=True)
    set_seed(settings.seed)
    trainer = TRAINERS[settings.trainer](
        task,
        base,
        out,
        max_steps=settings.steps,
        seed=settings.seed,
        learning_rate=settings.learning_rate,
        save_strategy="steps",
        save_steps=settings.save_every,
        **settings.options,
    )
    trainer.remove_callback(PrinterCallback)
    plugin = None
    if settings.jumps is not None:
        jumps = {**settings.jumps, "gate": Gate.model_validate(settings.jumps.get("gate", {}))}
        plugin = NExtCallback(client or NExtClient(), name=out.name, **jumps).attach(trainer)
    _, questions = task.split(held_out)
    model = cast(nn.Module, trainer.model)
    trainer.add_callback(Recorder(record, out, model, task, questions, on_step, plugin))
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    return record


def main() -> None:
    """Make one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--trainer", choices=TRAINERS, default="grpo")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--measure-every", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    options = vars(parser.parse_args())
    out: Path = options.pop("out")
    settings = Settings(**options)
    warnings.simplefilter("ignore", FutureWarning)  # of TRL and transformers about each other
    # Models this small gain nothing from a second thread.
    torch.set_num_threads(1)
    task = TASKS[settings.task]
    base = base_of(task)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(out.name, total=settings.steps, status="")

        def show(step: int, accuracy: Accuracy) -> None:
            progress.update(bar, completed=step, status=f"sampled {accuracy.sampled:.3f}")

        record = train(settings, task, base, out, show)
    print(f"{out}: sampled {record.rows[-1].accuracy.sampled:.3f} after {record.rows[-1].step} steps")


if __name__ == "__main__":
    main()
