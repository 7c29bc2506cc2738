"""What training NExt's predictor costs: ours against the loop of the reference, to the same loss.

    python -m benchmarks.predictor [--model 1.5b] [--checkpoints 15] [--ahead 5] [--epochs 4] [--threads N]
                                   [--device cpu] [--runs RUN ...] [--write]

Random unit vectors in the shapes of a Qwen2.5 model whose linear layers all have LoRA. The reference takes
one checkpoint after the other in every epoch, moved to the device again each time, and trains on the
embeddings, which LoRA never touches, as on all else. Ours has all checkpoints in one batch, and the modules
that moved. Same seeds, data, sizes and schedule. That needs torch and safetensors alone beside
nextrapolate_numerics (PYTHONPATH=worker).

With RUNs, folders of checkpoint-N folders, the paper's preset and the default of `next` are each asked at
step 150 for step 200: the cosine of the update to the true one, and the seconds that fit and scoring took.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.models import MODELS, Shape, checkpoints_of
from benchmarks.written import add_write_option, markdown_table, write_section
from nextrapolate_numerics import Next, NextPaper, NumericsError, Trajectory, compare
from nextrapolate_numerics.methods.predictor import Lesson, Predictor, Training, predict, predict_at_once
from nextrapolate_numerics.progress import Progress, silent

COLUMNS = ("model", "training", "seconds an epoch", "speed", "loss of the moved modules")
HELD_OUT = ("run", "`next`", "cosine", "relative error", "seconds", "of the paper's preset")
AT, HORIZON = 150, 50

Groups = dict[str, tuple[int, int]]
"""(d, l) of the groups that share a predictor: parts of length d of l modules."""


def moved_groups(shape: Shape) -> Groups:
    """Of the modules that LoRA trains."""
    groups: Groups = {}
    for m, n in shape.linears.values():
        for name, length in ((f"u {m}", m), (f"v {n}", n), ("sigma", 1)):
            groups[name] = (length, groups.get(name, (length, 0))[1] + shape.layers)
    return groups


def frozen_groups(shape: Shape) -> Groups:
    """Of the embeddings: u has a predictor of its own, v and sigma join those of the others."""
    return {
        f"u {shape.vocabulary}": (shape.vocabulary, shape.embeddings),
        f"v {shape.hidden}": (shape.hidden, shape.embeddings),
        "sigma": (1, shape.embeddings),
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
    groups: Iterable[Samples],
    training: Training,
    generator: torch.Generator,
    device: torch.device,
    on_progress: Progress = silent,
) -> Iterator[Tensor]:
    """Train as the reference does: one checkpoint after the other, moved to the device in every epoch.

    Yields:
        For each group the answers to the parts that it was trained on.
    """
    for samples in groups:
        length = samples.targets.shape[-1]
        predictor = Predictor(length, len(samples.parts), training.hidden_size, generator).to(device)
        optimizer = torch.optim.AdamW(predictor.parameters(), lr=training.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=training.epochs, eta_min=training.learning_rate / 10
        )
        for epoch in range(training.epochs):
            loss = torch.zeros((), device=device)
            for index, target in enumerate(samples.targets):
                answer = _as_published(predictor, samples.parts[:, index].to(device))
                loss = loss + (answer - target.to(device)).abs().sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss / len(samples.targets))
            optimizer.step()
            schedule.step()
            on_progress((epoch + 1) / training.epochs)
        yield _as_published(predictor, samples.parts.to(device)).detach()


def _as_published(predictor: Predictor, parts: Tensor) -> Tensor:
    """D([E_G(s_G), E_L(s_L)]), layer by layer (Eq. 8)."""
    codes = [_through(block, part) for block, part in zip(predictor.encoders, parts, strict=True)]
    return _through(predictor.decoder, torch.cat(codes, dim=-1))


def _through(block: nn.Module, part: Tensor) -> Tensor:
    enter, widen, narrow, leave = block.children()
    answer: Tensor = leave(narrow(torch.relu(widen(enter(part)))))
    return answer


def batched(
    groups: Sequence[Samples],
    training: Training,
    generator: torch.Generator,
    device: torch.device,
    on_progress: Progress = silent,
) -> Iterator[Tensor]:
    """Train as nextrapolate does, and ask about the parts of the training."""
    lessons = (
        Lesson(parts, samples.targets.to(device), parts)
        for samples in groups
        for parts in [samples.parts.to(device)]
    )
    if device.type == "cuda":
        return iter(predict_at_once(lessons, training, generator, on_progress))
    entries = sum(samples.targets[0].numel() for samples in groups)
    return predict(lessons, entries, training, generator, on_progress)


def main() -> None:
    """Print the tables, and write them where that is asked for."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    tables = [
        f"{arguments.checkpoints} checkpoints, {arguments.ahead} of them ahead, {arguments.threads} threads, "
        f"{device.type}; mean of the later half of {arguments.epochs} epochs. "
        f"Load average then: {os.getloadavg()[0]:.1f}.",
        markdown_table(COLUMNS, trainings(arguments, device)),
    ]
    if arguments.runs:
        asked = f"Asked at step {AT} of a run for step {AT + HORIZON}, which is known:"
        rows = [row for run in arguments.runs for row in held_out(run, device)]
        tables += [asked, markdown_table(HELD_OUT, rows)]
    measured = "\n\n".join(tables)
    print(measured)
    if arguments.write:
        write_section(f"predictor-{device.type}", measured)


def trainings(arguments: argparse.Namespace, device: torch.device) -> Iterator[tuple[str, ...]]:
    """Time both trainings on a model's shapes, the reference's with the embeddings and without."""
    shape = MODELS[arguments.model]
    pairs = arguments.checkpoints - arguments.ahead
    training = Training(hidden_size=256, epochs=arguments.epochs, learning_rate=2e-5)
    first = None
    for name, train, frozen in (
        ("the reference's loop, embeddings included", looped, frozen_groups(shape)),
        ("the reference's loop, moved modules only", looped, {}),
        ("nextrapolate", batched, {}),
    ):
        seconds, loss = timed(train, moved_groups(shape), frozen, pairs, training, device)
        first = first or seconds
        shown = "" if frozen else f"{loss:.7g}"
        yield arguments.model, name, f"{seconds:.3f}", f"{first / seconds:.1f} x", shown


def held_out(run: Path, device: torch.device) -> Iterator[tuple[str, ...]]:
    """The paper's preset and the default, against what is known."""
    checkpoints = checkpoints_of(run)
    first = None
    for name, method in (("the paper's preset", NextPaper()), ("default", Next())):
        (found,) = compare(
            Trajectory.open(checkpoints), [method], at_step=AT, horizon_steps=HORIZON, device=device
        )
        if isinstance(found, NumericsError):
            raise found
        first = first or found.seconds
        total = found.total
        yield (
            run.name, name, f"{total.cosine:.3f}", f"{total.relative_error:.3f}", f"{found.seconds:.2f}",
            f"{found.seconds / first:.4f}",
        )  # fmt: skip


def timed(
    train: Callable[..., Iterator[Tensor]],
    moved: Groups,
    frozen: Groups,
    pairs: int,
    training: Training,
    device: torch.device,
) -> tuple[float, float]:
    """Seconds an epoch of all groups, and their loss in the end."""
    clock, loss = Clock(device, training.epochs), 0.0
    data = list(_data(moved, frozen, pairs))
    answers = train(data, training, torch.Generator().manual_seed(0), device, clock)
    for samples, answer in zip(data, answers, strict=True):
        loss += samples.loss(answer)
    return clock.seconds_an_epoch, loss


class Clock:
    """Is told after each epoch, of one group after the other or of all together.

    Args:
        device: whose work an epoch waits for.
        epochs: of each training.
    """

    def __init__(self, device: torch.device, epochs: int) -> None:
        self._device, self._epochs = device, epochs
        self._ends: list[float] = []

    def __call__(self, share: float) -> None:
        """An epoch's launches are made: wait for it."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._ends.append(time.perf_counter())

    @property
    def seconds_an_epoch(self) -> float:
        """Of all groups, the mean over the later half of each training.

        In the first epochs memory is found and launches are recorded: there are a thousand.
        """
        trainings = [self._ends[begin:][: self._epochs] for begin in range(0, len(self._ends), self._epochs)]
        later = [ends[self._epochs // 2 - 1 :] for ends in trainings]
        return sum((ends[-1] - ends[0]) / (len(ends) - 1) for ends in later)


def _data(moved: Groups, frozen: Groups, pairs: int) -> Iterator[Samples]:
    """Made one group at a time; the moved modules' are the same whether or not frozen ones join them."""
    for seed, name in enumerate([*moved, *(frozen.keys() - moved.keys())]):
        found = [
            Samples.random(pairs, count, length, seed)
            for length, count in (group[name] for group in (moved, frozen) if name in group)
        ]
        yield found[0] if len(found) == 1 else found[0].with_more(found[1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="1.5b")
    parser.add_argument("--checkpoints", type=int, default=15)
    parser.add_argument("--ahead", type=int, default=5, help="checkpoints from a pair's first to its second")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="folders of checkpoint-N folders")
    add_write_option(parser)
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs has to be 2 at least: the first ones are not timed")
    return arguments


if __name__ == "__main__":
    main()
