"""What extrapolating the logits of two checkpoints is worth: held-out accuracy, exact for these questions.

    python -m benchmarks.logits TASK BASE EARLIER LATER [--targets 200 250]

EARLIER and LATER are checkpoint-N folders of one run from BASE. Prints a Markdown table, the later checkpoint
as it is first. Whole answers are scored at once with the formula itself, so that nothing is sampled.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace

import torch
from demo.evaluate import evaluate
from demo.language import make_tokenizer
from peft import PeftModel
from torch import Tensor, nn
from transformers import Qwen2ForCausalLM

from benchmarks.rlvr.tasks import TASKS
from benchmarks.written import markdown_row, markdown_table
from nextrapolate.folders import read_checkpoints


class Extrapolated(nn.Module):
    """A model whose logits are the later adapter's, and `reach` times their way from the earlier one's."""

    def __init__(self, model: PeftModel, reach: float) -> None:
        super().__init__()
        self.model = model
        self.reach = reach

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        """From tokens (b, n) to `logits` (b, n, vocabulary)."""
        logits = {}
        for name in ("earlier", "later"):
            self.model.set_adapter(name)
            logits[name] = self.model(input_ids=input_ids).logits
        ahead = logits["later"] - logits["earlier"]
        return SimpleNamespace(logits=logits["later"] + self.reach * ahead)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("base", type=Path)
    parser.add_argument("earlier", type=Path)
    parser.add_argument("later", type=Path)
    parser.add_argument("--targets", type=int, nargs="+", default=[200, 250])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    earlier, later = read_checkpoints([arguments.earlier, arguments.later])
    base = Qwen2ForCausalLM.from_pretrained(arguments.base)
    model = PeftModel.from_pretrained(base, earlier.folder, adapter_name="earlier")
    model.load_adapter(later.folder, adapter_name="later")
    task = TASKS[arguments.task]
    _, questions = task.split()
    print(markdown_table(("step", "sampled", "greedy"), ()))
    for target in (later.step, *arguments.targets):
        extrapolated = Extrapolated(model, (target - later.step) / (later.step - earlier.step))
        accuracy = evaluate(extrapolated, make_tokenizer(), task, questions).accuracy
        print(markdown_row((target, f"{accuracy.sampled:.3f}", f"{accuracy.greedy:.3f}")), flush=True)


if __name__ == "__main__":
    main()
