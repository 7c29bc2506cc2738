"""Held-out accuracy of adapters.

    python -m benchmarks.rlvr.evaluate TASK ADAPTER... [--base DIR]

Prints a Markdown table, the base model first. Accuracies are exact for these questions: the expected share of
exactly right answers at temperature 1, and the share under greedy decoding. The standard errors are those of
the choice of questions. All adapters answer the same ones: differences are known better than the errors say.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from demo.evaluate import Grades, evaluate
from demo.language import make_tokenizer
from demo.task import HELD_OUT, Task
from peft import PeftModel
from torch import Tensor, nn
from transformers import Qwen2ForCausalLM

from benchmarks.rlvr.bases import base_of
from benchmarks.rlvr.tasks import TASKS
from benchmarks.written import markdown_row, markdown_table


@dataclass(frozen=True)
class Estimate:
    """A mean over questions, and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Tensor) -> "Estimate":
        """Estimate from one value a question."""
        return cls(values.mean().item(), values.std().item() / len(values) ** 0.5)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"


def grade(task: Task, base: Path, adapter: Path | None, questions: Sequence[str]) -> Grades:
    """Grade the base model with the adapter in a folder, or alone.

    Raises:
        FileNotFoundError: the folder holds no adapter.
    """
    model: nn.Module = Qwen2ForCausalLM.from_pretrained(base)
    if adapter is not None:
        if not (adapter / "adapter_model.safetensors").is_file():
            raise FileNotFoundError(f"{adapter} holds no adapter_model.safetensors")
        model = PeftModel.from_pretrained(model, adapter)
    return evaluate(model, make_tokenizer(), task, questions)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("adapters", type=Path, nargs="+")
    parser.add_argument("--base", type=Path, help="base model, if not the task's own")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="number of questions")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = TASKS[arguments.task]
    base = arguments.base or base_of(task)
    _, questions = task.split(arguments.held_out)
    print(markdown_table(("adapter", "sampled", "greedy"), ()))
    for adapter in (None, *arguments.adapters):
        grades = grade(task, base, adapter, questions)
        name = "none" if adapter is None else adapter
        print(markdown_row((name, Estimate.of(grades.sampled), Estimate.of(grades.greedy))), flush=True)


if __name__ == "__main__":
    main()
