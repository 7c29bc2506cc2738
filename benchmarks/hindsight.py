"""How `auto` predicts, beside the published method and setting that would have predicted best.

    python -m benchmarks.hindsight RUN... [--at 150] [--horizons 50 100 200] [--method auto] [--threads N]

RUN is a folder of checkpoint-N folders. The method sees the checkpoints up to --at and is asked for the one
--horizons steps later; so is every published forecast from checkpoints, at every window, rank, degree and
share listed here, and the best of them is chosen knowing the answer, as nobody could have done: once at the
strength (alpha) that it has by default, ExPO at five, and once at whatever strength turns out best. Prints a
Markdown table, a row for each run and horizon, and below it the mean and the worst ratios of the errors.
NExt's training is left out: it takes half a minute, and no factor on its update comes near the others.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.models import checkpoints_of
from benchmarks.written import markdown_row, markdown_table
from nextrapolate.methods import label, make_method
from nextrapolate.schemas import Method
from nextrapolate_numerics import Backtest, Trajectory, compare
from nextrapolate_worker.methods import numerics_method

COLUMNS = (
    "run", "jump", "best published", "its error", "best at any alpha", "its error", "method", "error",
    "ratio", "at any alpha",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--at", type=int, default=150)
    parser.add_argument("--horizons", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--method", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(markdown_table(COLUMNS, ()))
    ratios = []
    for run in arguments.runs:
        trajectory = opened(run)
        for horizon in arguments.horizons:
            method = make_method(arguments.method, horizon_steps=horizon)
            error, as_published, at_any = judged(trajectory, method, arguments.at)
            ratios.append((error / as_published.error, error / at_any.error))
            cells = (
                run.name,
                f"{arguments.at} → {arguments.at + horizon}",
                *(
                    cell
                    for best in (as_published, at_any)
                    for cell in (label(best.method), f"{best.error:.3f}")
                ),
                method.name,
                f"{error:.3f}",
                *(f"{ratio:.3f}" for ratio in ratios[-1]),
            )
            print(markdown_row(cells), flush=True)
    for what, found in zip(("as published", "at any alpha"), zip(*ratios, strict=True), strict=True):
        print(f"\nTo the best {what}: mean {fmean(found):.3f}, worst {max(found):.3f}, {len(found)} rows.")


@dataclass(frozen=True)
class Best:
    """The method of the least relative error."""

    method: Method
    error: float


def judged(trajectory: Trajectory, method: Method, at: int) -> tuple[float, Best, Best]:
    """The method's relative error; and of the published ones the best as it is, and the best at any alpha."""
    asked = [method, *published_methods(trajectory.steps, at)]
    outcomes = compare(
        trajectory,
        [numerics_method(each) for each in asked],
        at_step=at,
        horizon_steps=method.horizon_steps,
    )
    scores = [
        (each, found.total)
        for each, found in zip(asked, outcomes, strict=True)
        if isinstance(found, Backtest)
    ]
    (own, own_scores), *others = scores
    assert own is method, "it could not predict"
    as_it_is = [Best(each, found.scaled(each.alpha).relative_error) for each, found in others]
    # |alpha P - T|^2 is least, |T|^2 (1 - cosine^2), at alpha = cosine |T| / |P|; against T nothing helps.
    at_any = [Best(each, math.sqrt(1 - max(found.cosine, 0.0) ** 2)) for each, found in others]
    least, least_at_any = (min(found, key=lambda best: best.error) for found in (as_it_is, at_any))
    return own_scores.scaled(method.alpha).relative_error, least, least_at_any


def opened(run: Path) -> Trajectory:
    """The run's checkpoints as a trajectory."""
    return Trajectory.open(checkpoints_of(run))


def published_methods(steps: Sequence[int], at: int) -> Iterator[Method]:
    """Every published forecast that combines checkpoints, at many settings."""
    windows = [at - step for step in (0, *steps) if step < at]
    for window in windows:
        yield make_method("weight-extrapolation", window_steps=window)
    for window in windows[::2]:
        for share in (0.1, 0.25, 0.5, 0.75):
            yield make_method("maec", window_steps=window, share=share)
    for reach in (None, *windows[:-2:2]):
        for mode in ("last", "line"):
            for rank, degree in ((1, 1), (2, 1), (3, 1), (1, 2), (2, 2)):
                yield make_method("relex", window_steps=reach, mode=mode, rank=rank, degree=degree)
    for alpha in (0.1, 0.2, 0.3, 0.4, 0.5):
        yield make_method("expo", alpha=alpha)
    for mode in ("last", "line"):
        yield make_method("alpharl", mode=mode)
    for window in (20, 50, 100):
        yield make_method("soup", window_steps=window)
        yield make_method("wsm", window_steps=window)


if __name__ == "__main__":
    main()
