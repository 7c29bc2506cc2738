"""What training NExt's predictor costs: ours against the loop of the reference, to the same loss.

    python benchmarks/predictor.py [--model 1.5b] [--checkpoints 15] [--ahead 5] [--epochs 3] [--threads N]
                                   [--device cpu]

Random unit vectors in the shapes of a Qwen2.5 model whose linear layers all have LoRA. The reference takes
one checkpoint after the other in every epoch, moved to the device again each time, and trains on the
embeddings, which LoRA never touches, as on all else. Ours has all checkpoints in one batch, and the modules
that moved. Same seeds, data, sizes and schedule. Prints a Markdown table; needs torch alone beside
nextrapolate_numerics.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nextrapolate_numerics.methods.predictor import Predictor, Training, predict
from nextrapolate_numerics.progress import silent

COLUMNS = ("model", "training", "seconds an epoch", "speed", "loss of the moved modules")


@dataclass(frozen=True)
class Shape:
    """Widths of a model's matrices, its layers, its vocabulary, and how many matrices that has."""

    hidden: int
    intermediate: int
    kv: int
    layers: int
    vocabulary: int
    embeddings: int

    def moved(self) -> dict[str, tuple[int, int]]:
        """(d, l) of the groups that share a predictor: parts of length d of l modules that LoRA trains."""
        u = {self.hidden: 3, self.kv: 2, self.intermediate: 2}
        v = {self.hidden: 6, self.intermediate: 1}
        groups = {f"u {d}": (d, count * self.layers) for d, count in u.items()}
        groups |= {f"v {d}": (d, count * self.layers) for d, count in v.items()}
        return groups | {"sigma": (1, 7 * self.layers)}

    def frozen(self) -> dict[str, tuple[int, int]]:
        """The same of the embeddings; u has a predictor of its own, v and sigma join those of the others."""
        return {
            f"u {self.vocabulary}": (self.vocabulary, self.embeddings),
            f"v {self.hidden}": (self.hidden, self.embeddings),
            "sigma": (1, self.embeddings),
        }


MODELS = {
    "tiny": Shape(128, 384, 64, 4, 32, 1),
    "0.5b": Shape(896, 4864, 128, 24, 151_936, 1),
    "1.5b": Shape(1536, 8960, 256, 28, 151_936, 1),
    "3b": Shape(2048, 11_008, 256, 36, 151_936, 1),
    "7b": Shape(3584, 18_944, 512, 28, 152_064, 2),
    "14b": Shape(5120, 13_824, 1024, 48, 152_064, 2),
}


@dataclass(frozen=True)
class Samples:
    """What a predictor learns from: parts (2, q, l, d) and targets (q, l, d) of q pairs and l modules."""

    parts: Tensor
    targets: Tensor

    @classmethod
    def random(cls, pairs: int, modules: int, length: int, seed: int) -> "Samples":
        """Unit vectors, on the CPU."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(3, pairs, modules, length, generator=generator)
        unit = drawn / drawn.norm(dim=-1, keepdim=True)
        return cls(unit[:2], unit[2])

    def with_more(self, others: "Samples") -> "Samples":
        """Together with those of other modules."""
        parts = torch.cat([self.parts, others.parts], dim=2)
        return Samples(parts, torch.cat([self.targets, others.targets], dim=1))

    def loss(self, answers: Tensor) -> float:
        """Eq. 9, of the answers to all parts."""
        return float((answers.cpu() - self.targets).abs().sum() / len(self.targets))


def looped(
    samples: Samples, training: Training, generator: torch.Generator, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Train as the reference does: one checkpoint after the other, moved to the device in every epoch."""
    length = samples.targets.shape[-1]
    predictor = Predictor(length, len(samples.parts), training.hidden_size, generator).to(device)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=training.epochs, eta_min=training.learning_rate / 10
    )
    for _ in range(training.epochs):
        loss = torch.zeros((), device=device)
        for index, target in enumerate(samples.targets):
            answer = _as_published(predictor, samples.parts[:, index].to(device))
            loss = loss + (answer - target.to(device)).abs().sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss / len(samples.targets))
        optimizer.step()
        schedule.step()
    return lambda parts: _as_published(predictor, parts.to(device)).detach()


def _as_published(predictor: Predictor, parts: Tensor) -> Tensor:
    """D([E_G(s_G), E_L(s_L)]), layer by layer (Eq. 8)."""
    codes = [_through(block, part) for block, part in zip(predictor.encoders, parts, strict=True)]
    return _through(predictor.decoder, torch.cat(codes, dim=-1))


def _through(block: nn.Module, part: Tensor) -> Tensor:
    enter, widen, narrow, leave = block.children()
    answer: Tensor = leave(narrow(torch.relu(widen(enter(part)))))
    return answer


def batched(
    samples: Samples, training: Training, generator: torch.Generator, device: torch.device
) -> Callable[[Tensor], Tensor]:
    """Train as nextrapolate does; it answers what it is asked in the end: here, the training's own parts."""
    parts, targets = samples.parts.to(device), samples.targets.to(device)
    answers = predict(parts, targets, parts, training, generator, silent)
    return lambda _: answers


def main() -> None:
    """Time both trainings on a model's shapes, the reference's with the embeddings and without."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    shape, device = MODELS[arguments.model], torch.device(arguments.device)
    pairs = arguments.checkpoints - arguments.ahead
    training = Training(hidden_size=256, epochs=arguments.epochs, learning_rate=2e-5)
    print("|", " | ".join(COLUMNS), "|")
    print("|" + "---|" * len(COLUMNS))
    first = None
    for name, train, frozen in (
        ("the reference's loop, embeddings included", looped, shape.frozen()),
        ("the reference's loop, moved modules only", looped, {}),
        ("nextrapolate", batched, {}),
    ):
        seconds, loss = timed(train, shape.moved(), frozen, pairs, training, device)
        first = first or seconds
        shown = "" if frozen else f"{loss:.7g}"
        print(
            f"| {arguments.model} | {name} | {seconds:.3f} | {first / seconds:.1f} x | {shown} |", flush=True
        )


def timed(
    train: Callable[..., Callable[[Tensor], Tensor]],
    moved: dict[str, tuple[int, int]],
    frozen: dict[str, tuple[int, int]],
    pairs: int,
    training: Training,
    device: torch.device,
) -> tuple[float, float]:
    """Seconds an epoch of all groups, one after the other, and their loss in the end."""
    seconds = loss = 0.0
    for seed, samples in enumerate(_data(moved, frozen, pairs)):
        generator = torch.Generator().manual_seed(seed)
        started = time.perf_counter()
        trained = train(samples, training, generator, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds += time.perf_counter() - started
        loss += samples.loss(trained(samples.parts))
    return seconds / training.epochs, loss


def _data(
    moved: dict[str, tuple[int, int]], frozen: dict[str, tuple[int, int]], pairs: int
) -> Iterator[Samples]:
    """Made one group at a time; the moved modules' are the same whether or not frozen ones join them."""
    for seed, name in enumerate([*moved, *(frozen.keys() - moved.keys())]):
        found = [
            Samples.random(pairs, count, length, seed)
            for length, count in (group[name] for group in (moved, frozen) if name in group)
        ]
        yield found[0] if len(found) == 1 else found[0].with_more(found[1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="1.5b")
    parser.add_argument("--checkpoints", type=int, default=15)
    parser.add_argument("--ahead", type=int, default=5, help="checkpoints from a pair's first to its second")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
