"""NExt's ablation without LoRA: a run that trains all weights, and one jump of its matrices.

    python -m benchmarks.rlvr.without_lora [--tasks addition modular sorting] [--methods METHOD...] [--write]

The service takes adapters. But a matrix's change is an adapter of full rank, B the change and A the identity
or the other way round, and so the same numerics jump with it: 150 steps, a jump of 50, 100 more steps, as in
the campaign's runs with LoRA. Embeddings and norms stay where they are at the jump. A METHOD is a name and,
after commas, parameters of it; `none` is no jump. What was measured is kept in results/without-lora.json,
and not measured again.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from demo.evaluate import evaluate
from demo.language import make_tokenizer
from demo.task import HELD_OUT, Task
from demo.trainer import LORA_TARGETS, grpo_trainer
from peft import LoraConfig
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from benchmarks.rlvr.bases import base_of
from benchmarks.rlvr.campaign.plan import SAVE_EVERY, TASKS
from benchmarks.rlvr.campaign.results import FOLDER
from benchmarks.rlvr.campaign.sweep import HORIZON, PAPER
from benchmarks.rlvr.campaign.variants import BRANCHES_AT
from benchmarks.rlvr.jumps import extrapolated, parsed
from benchmarks.rlvr.record import ADAPTER
from benchmarks.rlvr.tasks import TASKS as ALL_TASKS
from benchmarks.written import add_write_option, markdown_table, write_section
from nextrapolate.folders import find_checkpoints
from nextrapolate.schemas import Gate

RESULTS = FOLDER / "without-lora.json"
STEPS = 250
RATE = 5e-6
"""Of all weights: a tenth of the rate of the runs with LoRA."""
NO_JUMP = "none"
METHODS = (NO_JUMP, PAPER, "next", "auto")
COLUMNS = ("task", "jump", "before the jump", "after it", "at 250", "more than without")


@dataclass(frozen=True)
class Measured:
    """Sampled accuracies of one run."""

    task: str
    method: str
    learning_rate: float
    seed: int
    before: float
    """At the jump's step."""
    after: float
    end: float


class WholeMatrices(TrainerCallback):
    """Keeps a run's changes as adapters, makes the jump, and measures around it."""

    def __init__(self, model: nn.Module, task: Task, method: str, folder: Path) -> None:
        self._model, self._task, self._method, self._folder = model, task, method, folder
        self._base = {name: weight.detach().clone() for name, weight in _matrices(model)}
        self._tokenizer = make_tokenizer()
        self.accuracies: list[float] = []

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Jump where it is due: no gradients are pending then."""
        if state.global_step == BRANCHES_AT:
            self._measure()
            if self._method != NO_JUMP:
                self._jump()
            self._measure()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the change until then; measure the end."""
        if state.global_step <= BRANCHES_AT and state.global_step % SAVE_EVERY == 0:
            self._keep(self._folder / f"checkpoint-{state.global_step}")
        if state.global_step == STEPS:
            self._measure()

    def _measure(self) -> None:
        _, questions = self._task.split(HELD_OUT)
        grades = evaluate(self._model, self._tokenizer, self._task, questions)
        self.accuracies.append(grades.accuracy.sampled)

    def _keep(self, folder: Path) -> None:
        tensors: dict[str, Tensor] = {}
        ranks: dict[str, int] = {}
        for name, weight in _matrices(self._model):
            B, A = _factors(weight.detach() - self._base[name])
            tensors |= {f"{_in_file(name)}.lora_B.weight": B, f"{_in_file(name)}.lora_A.weight": A}
            ranks[name.rpartition(".")[2]] = len(A)
        config = LoraConfig(
            r=max(ranks.values()),
            lora_alpha=max(ranks.values()),
            target_modules=LORA_TARGETS,
            rank_pattern=ranks,
            alpha_pattern=ranks,
        )
        folder.mkdir()
        config.save_pretrained(str(folder))
        save_file(tensors, folder / ADAPTER[0], metadata={"format": "pt"})

    def _jump(self) -> None:
        checkpoints = find_checkpoints(self._folder, until=BRANCHES_AT)
        method = parsed(self._method, HORIZON)
        with TemporaryDirectory() as name:
            adapter = load_file(extrapolated(checkpoints, method, Gate(), Path(name)) / ADAPTER[0])
        for name, weight in _matrices(self._model):
            B, A = (adapter[f"{_in_file(name)}.lora_{factor}.weight"] for factor in "BA")
            weight.detach().copy_(self._base[name] + B @ A)


def _matrices(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights that LoRA would train, by the names of their modules."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in LORA_TARGETS:
            yield name, cast(nn.Linear, module).weight


def _factors(change: Tensor) -> tuple[Tensor, Tensor]:
    """B (m, r) and A (r, n) whose product is the change, r the smaller of m and n."""
    m, n = change.shape
    return (change.clone(), torch.eye(n)) if n <= m else (torch.eye(m), change.clone())


def _in_file(name: str) -> str:
    return f"base_model.model.{name}"


def measured(task: Task, method: str, learning_rate: float, seed: int) -> Measured:
    """Make one run."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        trainer = grpo_trainer(
            task,
            base_of(task),
            folder,
            all_weights=True,
            max_steps=STEPS,
            seed=seed,
            learning_rate=learning_rate,
        )
        trainer.remove_callback(PrinterCallback)
        watching = WholeMatrices(cast(nn.Module, trainer.model), task, method, folder)
        trainer.add_callback(watching)
        trainer.train()
    return Measured(task.name, method, learning_rate, seed, *watching.accuracies)


def table(found: list[Measured]) -> str:
    """A row for each run, beside the one without a jump."""
    without = {(run.task, run.seed): run.end for run in found if run.method == NO_JUMP}
    rows = [
        (
            run.task,
            run.method,
            *(f"{accuracy:.3f}" for accuracy in (run.before, run.after, run.end)),
            f"{run.end - without[run.task, run.seed]:+.3f}",
        )
        for run in found
    ]
    return markdown_table(COLUMNS, rows)


def main() -> None:
    """Make the runs that are missing, and tell what they show."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", choices=ALL_TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--learning-rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=0)
    add_write_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # models this small gain nothing from a second one
    console = Console()
    found = [Measured(**row) for row in json.loads(RESULTS.read_text())] if RESULTS.exists() else []
    there = {(run.task, run.method, run.learning_rate, run.seed) for run in found}
    for task in arguments.tasks:
        for method in dict.fromkeys((NO_JUMP, *arguments.methods)):
            wanted = (task, method, arguments.learning_rate, arguments.seed)
            if wanted not in there:
                with console.status(f"{task}, {method}"):
                    found.append(measured(ALL_TASKS[task], *wanted[1:]))
                console.print(found[-1])
                RESULTS.write_text(json.dumps([asdict(run) for run in found]) + "\n")
    text = f"Learning rate {arguments.learning_rate:g}, seed {arguments.seed}.\n\n" + table(
        [run for run in found if (run.learning_rate, run.seed) == (arguments.learning_rate, arguments.seed)]
    )
    console.print(text, soft_wrap=True)
    if arguments.write:
        write_section("rlvr-without-lora", text)


if __name__ == "__main__":
    main()
