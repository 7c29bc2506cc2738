"""What extraction costs: ours, the reference's way, and the least that the machine could take.

    python -m benchmarks.extraction [--models 0.5b 1.5b ...] [--ranks 16 64] [--checkpoints 15] [--layers 1]
                                    [--rounds 9] [--reference 0.5b 1.5b ...] [--threads N] [--device cpu]
                                    [--write]

Synthetic runs in the shapes of the Qwen2.5 models, all seven projections of a few layers: time goes with the
number of layers, and is told for one. Two things are measured:

    triples      the leading triples of the global, local and target deltas, as NExt's paper asks for
    everything   those, the Gram matrix of all checkpoints, and the spectrum of every global delta: what a job
                 with a report extracts

The reference merges every checkpoint to a dense model, subtracts, and calls torch.linalg.svd once a delta,
for the triples alone. One delta of each shape is measured; and one of the embeddings, which LoRA leaves as
they are and the reference decomposes all the same, two for each checkpoint, shared out among the layers.
Beside it stands what a textbook does with the factors: QR of both sides of a delta, torch.linalg.svd of the
small core between them, one delta after the other. The limit is one read of the factors, by as many threads,
and the products of factors that ours multiplies too, at the rate of one large float64 product on this
machine. With one thread seconds are the CPU's, since a machine may have other work. Accuracy is that of the
leading triples of k_proj at the first, the middle and the last checkpoint against dense float64 SVDs: on this
run, and on a slow one, whose checkpoints differ by 1e-3 of their norm.

Needs torch, numpy and safetensors alone beside nextrapolate_numerics (PYTHONPATH=worker), and room for
checkpoints x layers of the largest model in a temporary folder.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.models import MODELS, Shape, write_series
from benchmarks.written import add_write_option, markdown_table, write_section
from nextrapolate_numerics import AdapterFiles, Extraction, NextPaper, Trajectory, Triple, extract

AHEAD = 5
PRODUCT_FLOPS = 2 * 1024**2 * 8192
SPEED = (
    "model",
    "r",
    "what",
    "ours, s a layer",
    "the reference",
    "times faster",
    "embeddings too",
    "times faster",
    "by QR of the factors",
    "times faster",
    "the limit",
    "ours / limit",
)
ACCURACY = ("model", "r", "checkpoints differ by", "sigma", "sigma u vᵀ", "squared norms", "energy ratio")


def main() -> None:
    """Measure, print both tables, and write them where that is asked for."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    speed, accuracy = [], []
    for model in arguments.models:
        shape = MODELS[model]
        reference = None
        if model in arguments.reference:
            reference = reference_seconds(shape, device, arguments.rounds)
        for rank in arguments.ranks:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
                run = Run(Path(name), shape, rank, arguments.checkpoints, arguments.layers, device)
                for row in run.speed(reference, arguments.rounds):
                    speed.append((model, rank, *row))
                    print("|", *speed[-1], sep=" | ", flush=True)
                for row in run.accuracy():
                    accuracy.append((model, rank, *row))
                    print("|", *accuracy[-1], sep=" | ", flush=True)
    measured = "\n\n".join(
        [_what(arguments), _filled(SPEED, speed), _AGAINST, markdown_table(ACCURACY, accuracy)]
    )
    print(f"\n{measured}")
    if arguments.write:
        write_section(f"extraction-{device.type}", measured)


class Run:
    """A series of checkpoints on disk, and the same one slowed down.

    Args:
        folder: empty.
        shape: of the model.
        rank: of the factors.
        checkpoints: how many.
        layers: of the model that are there.
        device: where the work is done.
    """

    def __init__(
        self, folder: Path, shape: Shape, rank: int, checkpoints: int, layers: int, device: torch.device
    ) -> None:
        self._layers, self._device, self._rank, self._shape = layers, device, rank, shape
        self._widths = sum(m + n for m, n in shape.linears.values())
        size = {"rank": rank, "checkpoints": checkpoints}
        self._files = write_series(folder / "run", shape.modules(layers), **size, step=1 / checkpoints)
        small = {"model.layers.0.self_attn.k_proj": shape.linears["self_attn.k_proj"]}
        self._slow = write_series(folder / "slow", small, **size, step=1e-3)

    def speed(self, reference: tuple[float, float] | None, rounds: int) -> Iterator[tuple[str, ...]]:
        """A row for the triples, and one for everything."""
        points = len(self._files)
        deltas = 2 * points + max(points - AHEAD, 0)
        products = {
            "triples": deltas - 1,  # with itself, the one before, the one that it is asked to predict
            "everything": points * (points + 1) // 2,
        }
        seconds = fastest(
            {
                "reading": self._reading(),
                "product": one_product(self._device),
                "triples": lambda: self._extract(self._files, everything=False),
                "everything": lambda: self._extract(self._files, everything=True),
            },
            self._device,
            rounds,
        )
        by_qr = sum(
            count * qr_seconds(self._shape, width, self._device, rounds)
            for count, width in ((points, self._rank), (deltas - points, 2 * self._rank))
        )
        read, rate = seconds["reading"] / self._layers, PRODUCT_FLOPS / seconds["product"]
        for what, multiplied in products.items():
            ours = seconds[what] / self._layers
            limit = read + multiplied * 2 * self._rank**2 * self._widths / rate
            dense: list[str] = [""] * 4
            if reference:
                layer = reference[0] * deltas
                whole = layer + reference[1] * 2 * points
                dense = [f"{layer:.0f} s", f"{layer / ours:.0f}", f"{whole:.0f} s", f"{whole / ours:.0f}"]
            yield (
                what, f"{ours:.3f}", *dense, f"{by_qr:.2f} s", f"{by_qr / ours:.0f}", f"{limit:.3f}",
                f"{ours / limit:.2f}",
            )  # fmt: skip

    def accuracy(self) -> Iterator[tuple[str, ...]]:
        """A row for the run, and one for the slow one."""
        for files, differ in ((self._files, f"1/{len(self._files)}"), (self._slow, "1e-3")):
            errors = against_dense(self._extract(files, everything=True), "model.layers.0.self_attn.k_proj")
            yield differ, *(f"{error:.0e}" for error in errors)

    def _extract(self, files: Sequence[AdapterFiles], *, everything: bool) -> Extraction:
        return extract(
            Trajectory.open(files), NextPaper(), 10 * AHEAD, geometry=everything, device=self._device
        )

    def _reading(self) -> Callable[[], None]:
        """One read of the factors, by as many threads as torch has, and on a GPU their way there."""
        threads = min(torch.get_num_threads(), len(self._files))
        pinned = self._device.type == "cuda"
        size = self._files[0].model.stat().st_size
        rooms = [torch.empty(size, dtype=torch.uint8, pin_memory=pinned) for _ in range(threads)]

        def read_some(first: int) -> None:
            for files in self._files[first::threads]:
                with files.model.open("rb", buffering=0) as file:
                    file.readinto(rooms[first].numpy())  # type: ignore[arg-type]
                rooms[first].to(self._device, non_blocking=True)

        def read() -> None:
            with ThreadPoolExecutor(threads) as readers:
                list(readers.map(read_some, range(threads)))

        return read


def reference_seconds(shape: Shape, device: torch.device, rounds: int) -> tuple[float, float]:
    """One delta of a layer, merged, subtracted, and decomposed; and a layer's share of the embeddings'."""
    seconds = {}
    for m, n in set(shape.linears.values()):
        generator = torch.Generator().manual_seed(0)
        base, B, A = (
            torch.randn(size, generator=generator).to(device) for size in ((m, n), (m, 64), (64, n))
        )

        def decompose(base: Tensor = base, B: Tensor = B, A: Tensor = A) -> None:
            torch.linalg.svd((base + 0.5 * (B @ A)) - base, full_matrices=False)

        seconds[m, n] = fastest({"svd": decompose}, device, rounds)["svd"]
    still = torch.zeros(shape.vocabulary, shape.hidden, device=device)
    embeddings = shape.embeddings * _seconds(lambda: torch.linalg.svd(still, full_matrices=False), device)
    return sum(seconds[size] for size in shape.linears.values()), embeddings / shape.layers


def qr_seconds(shape: Shape, width: int, device: torch.device, rounds: int) -> float:
    """One delta of a layer, from its stacked factors: as wide as the rank, or twice between checkpoints."""
    seconds = {}
    for m, n in set(shape.linears.values()):
        generator = torch.Generator().manual_seed(0)
        B, A = (torch.randn(d, width, generator=generator).to(device) for d in (m, n))

        def decompose(B: Tensor = B, A: Tensor = A) -> None:
            Q_B, R_B = torch.linalg.qr(B)
            Q_A, R_A = torch.linalg.qr(A)
            u, _, vt = torch.linalg.svd(R_B @ R_A.mT)
            Q_B.mv(u[:, 0])
            Q_A.mv(vt[0])

        seconds[m, n] = fastest({"qr": decompose}, device, rounds)["qr"]
    return sum(seconds[size] for size in shape.linears.values())


def one_product(device: torch.device) -> Callable[[], Tensor]:
    """One large float64 product, of PRODUCT_FLOPS."""
    rows = torch.randn(1024, 8192, dtype=torch.float64, device=device)
    return lambda: rows @ rows.mT


def against_dense(extraction: Extraction, name: str) -> tuple[float, float, float, float]:
    """The largest relative errors: of sigma, of sigma u v^T, of squared norms, of the energy ratio."""
    factors = extraction.trajectory.module(name)
    points = [factors.scaling * (B.double() @ A.double()) for B, A in zip(factors.B, factors.A, strict=True)]
    at = [torch.zeros_like(points[0]), *points]
    found = extraction.triples[name]
    sigma, matrix, norm, ratio = [], [], [], []
    for step in (1, len(points) // 2, len(points)):
        target = extraction.pairs[min(step, len(extraction.pairs)) - 1]
        for begin, end, triple in (
            (0, step, found.globals[step - 1]),
            (step - 1, step, found.locals[step - 1]),
            (*target, found.targets[min(step, len(extraction.pairs)) - 1]),
        ):
            dense = at[end] - at[begin]
            errors = _errors(triple, dense)
            sigma.append(errors[0])
            matrix.append(errors[1])
            weights = extraction.drift.coefficients[end] - extraction.drift.coefficients[begin]
            squared = float(dense.square().sum())
            norm.append(abs(float(weights @ extraction.grams[name] @ weights) - squared) / squared)
        values = torch.linalg.svdvals(at[step])
        share = float(values[0] / values.sum())
        ratio.append(abs(extraction.geometry[name].energy_ratios[step - 1] - share) / share)
    return max(sigma), max(matrix), max(norm), max(ratio)


def _errors(triple: Triple, dense: Tensor) -> tuple[float, float]:
    u, values, vt = torch.linalg.svd(dense, full_matrices=False)
    part = triple.sigma * triple.u.double().outer(triple.v.double())
    missed = part - values[0] * u[:, 0].outer(vt[0])
    return abs(float(triple.sigma / values[0]) - 1), float(missed.norm() / values[0])


def fastest(works: Mapping[str, Callable[[], object]], device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of each: the fastest of some rounds in which they take turns, so that all have good moments."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(_seconds(work, device))
    return {name: min(seconds) for name, seconds in taken.items()}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one thread's CPU time, to which other work on the machine does not add; else of the wall clock."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    started = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - started


_AGAINST = "Largest relative error against dense float64, of k_proj:"


def _filled(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table without the columns that no row has anything in: the reference's, where it was not timed."""
    some = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    return markdown_table(
        [columns[index] for index in some], [[row[index] for index in some] for row in rows]
    )


def _what(arguments: argparse.Namespace) -> str:
    layers = "one layer was" if arguments.layers == 1 else f"{arguments.layers} layers were"
    return (
        f"{arguments.checkpoints} checkpoints, {AHEAD} of them ahead, {arguments.threads} threads, "
        f"{arguments.device}; {layers} measured. Load average then: {os.getloadavg()[0]:.1f}."
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = [model for model in MODELS if model != "tiny"]
    parser.add_argument("--models", choices=MODELS, nargs="+", default=every)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--checkpoints", type=int, default=15)
    parser.add_argument("--layers", type=int, default=1, help="how many of the model's are written and read")
    parser.add_argument("--rounds", type=int, default=9, help="of which the fastest counts")
    parser.add_argument("--reference", choices=MODELS, nargs="*", default=every, help="models to time it on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where there is room for the series")
    add_write_option(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
