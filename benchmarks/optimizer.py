"""What becomes of Adam's moments at a jump: which way gives the best run.

    python -m benchmarks.optimizer [--steps 160] [--seeds 0 1 2]

GRPO on the demo's task in cycles: autoregression, every 20 steps from 40 on, 60 ahead, at alpha 1. The ways
differ in nothing but the optimizer after a jump:

    keep      the plugin's default: moments stay as they are
    reset     the plugin's other way: they are cleared
    rotate    they are turned with the factors: with A' = R A and B' = B R^-1 gradients become R^-T g_A and
              g_B R^T; first moments go with them, second moments with the squares of R's entries, as if those
              of a gradient were uncorrelated
    balanced  the adapters come back in another gauge, sqrt(S) on both factors, as many tools would return
              them: the plugin notices, and clears
    balanced, rotate

Accuracy is sampled, on the demo's held-out questions. "Gauge" is the largest |R - 1| (spectral norm) of any
module in any jump: how much there is to turn.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, cast

import torch
from demo.evaluate import evaluate
from demo.language import make_tokenizer
from demo.make_base import BASE
from demo.server import Server, embedded_server
from demo.task import ADDITION
from demo.trainer import grpo_trainer
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback

from benchmarks.written import markdown_table
from nextrapolate import NExtClient
from nextrapolate_trainer.adapter import copied, modules
from nextrapolate_trainer.peft_model import lora_parameters, read_adapter
from nextrapolate_trainer.trl import NExtCallback

JUMPS: dict[str, Any] = {
    "method": "autoregression",
    "collect_every": 10,
    "jump_at": 40,
    "jump_every": 20,
    "horizon_steps": 60,
    "decay": 0.9,
}


class BalancingClient(NExtClient):
    """Hands over adapters with their factors balanced: the same matrices in another gauge."""

    def download(self, job_id: str, out: Path | str, **options: Any) -> Path:
        """Download as ever, then rewrite the factors."""
        folder = super().download(job_id, out, **options)
        file = folder / "adapter_model.safetensors"
        adapter = load_file(file)
        for module in modules(adapter):
            names = f"{module}.lora_B.weight", f"{module}.lora_A.weight"
            balanced = _balanced(adapter[names[0]].double(), adapter[names[1]].double())
            adapter |= {
                name: factor.float().contiguous() for name, factor in zip(names, balanced, strict=True)
            }
        save_file(adapter, file)
        return folder


def _balanced(B: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    left, right = torch.linalg.qr(B), torch.linalg.qr(A.T)
    U, S, Vh = torch.linalg.svd(left.R @ right.R.T)
    root = S.sqrt()
    return left.Q @ U * root, (right.Q @ Vh.T * root).T


@dataclass
class Gauge(TrainerCallback):
    """Sees how the factors changed at each jump and, where asked, turns the moments with them."""

    plugin: NExtCallback
    rotates: bool
    largest: float = 0.0
    _before: dict[str, Tensor] = field(default_factory=dict)
    _moments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def on_step_end(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Remember how all was before a jump."""
        if self.plugin.schedule.jumps_after(state.global_step):
            self._before = copied(read_adapter(event["model"]))
            self._moments = {
                name: {key: value.clone() for key, value in event["optimizer"].state[parameter].items()}
                for name, parameter in lora_parameters(event["model"]).items()
            }

    def on_step_begin(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Look at what the plugin, which was added before, has swapped in."""
        if not (self.plugin.jumps and self.plugin.jumps[-1].step == state.global_step):
            return
        parameters = lora_parameters(event["model"])
        after = copied(read_adapter(event["model"]))
        for module in modules(after):
            B, A = f"{module}.lora_B.weight", f"{module}.lora_A.weight"
            R = after[A] @ torch.linalg.pinv(self._before[A])
            distance = torch.linalg.matrix_norm(R - torch.eye(len(R)), 2).item()
            self.largest = max(self.largest, distance)
            if self.rotates:
                moments = event["optimizer"].state
                moments[parameters[A]] = self._turned(A, left=torch.linalg.inv(R).T)
                moments[parameters[B]] = self._turned(B, right=R.T)

    def _turned(self, name: str, left: Tensor | None = None, right: Tensor | None = None) -> dict[str, Any]:
        """The moments of a gradient that was multiplied by a matrix."""
        old = self._moments[name]
        mean, square = old["exp_avg"], old["exp_avg_sq"]
        if left is not None:
            mean, square = left @ mean, left**2 @ square
        if right is not None:
            mean, square = mean @ right, square @ right**2
        return old | {"exp_avg": mean, "exp_avg_sq": square}


@dataclass(frozen=True)
class Way:
    """What becomes of the optimizer."""

    name: str
    arguments: dict[str, Any]
    """Of the plugin."""
    client: type[NExtClient] = NExtClient
    rotates: bool = False


WAYS = (
    Way("keep", {"optimizer": "keep"}),
    Way("reset", {"optimizer": "reset"}),
    Way("rotate", {"optimizer": "keep"}, rotates=True),
    Way("balanced", {"optimizer": "keep"}, BalancingClient),
    Way("balanced, rotate", {"optimizer": "keep"}, BalancingClient, rotates=True),
)


@dataclass(frozen=True)
class Outcome:
    """A run's end."""

    sampled: float
    gauge: float
    jumps: int


def train(way: Way, steps: int, seed: int, server: Server, out: Path) -> Outcome:
    """Make one run."""
    trainer = grpo_trainer(ADDITION, BASE, out, max_steps=steps, seed=seed)
    trainer.remove_callback(PrinterCallback)
    with way.client(server.url, server.api_key) as client:
        plugin = NExtCallback(client, name=f"{way.name} {seed}", **JUMPS, **way.arguments).attach(trainer)
        gauge = Gauge(plugin, way.rotates)
        trainer.add_callback(gauge)
        trainer.train()
    _, questions = ADDITION.split()
    grades = evaluate(cast(PeftModel, trainer.model), make_tokenizer(), ADDITION, questions)
    return Outcome(grades.accuracy.sampled, gauge.largest, len(plugin.jumps))


def rows(ways: Sequence[Way], steps: int, seeds: Sequence[int], server: Server) -> list[list[str]]:
    """Make all runs; return a row a way."""
    table = []
    for way in ways:
        with tempfile.TemporaryDirectory() as out:
            outcomes = [train(way, steps, seed, server, Path(out) / str(seed)) for seed in seeds]
        table.append(
            [
                way.name,
                f"{mean(outcome.sampled for outcome in outcomes):.3f}",
                *(f"{outcome.sampled:.3f}" for outcome in outcomes),
                f"{max(outcome.gauge for outcome in outcomes):.2g}",
                f"{min(outcome.jumps for outcome in outcomes)}",
            ]
        )
        print(*table[-1], sep=" | ", flush=True)
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--ways", nargs="+", choices=[way.name for way in WAYS], default=[way.name for way in WAYS]
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder), workers=1) as server:
        measured = rows(
            [way for way in WAYS if way.name in options.ways], options.steps, options.seeds, server
        )
    columns = ["optimizer", "mean", *(f"seed {seed}" for seed in options.seeds), "gauge", "jumps"]
    print(markdown_table(columns, measured))


if __name__ == "__main__":
    main()
