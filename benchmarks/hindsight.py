"""How `auto` predicts, beside the published method and setting that would have predicted best.

    python -m benchmarks.hindsight RUN... [--at 150] [--horizons 50 100 200] [--method auto] [--threads N]

RUN is a folder of checkpoint-N folders. The method sees the checkpoints up to --at and is asked for the one
--horizons steps later; so is every published forecast from checkpoints, at every window, rank, degree, share
and strength listed here, and the best of them is chosen knowing the answer, as nobody could have done. Prints
a Markdown table, a row for each run and horizon, and below it the mean and the worst ratio of the errors.
NExt's training is left out: it takes half a minute, and no factor on its update comes near the others.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from nextrapolate.folders import find_checkpoints
from nextrapolate.methods import make_method
from nextrapolate.schemas import Method
from nextrapolate_numerics import AdapterFiles, Backtest, Trajectory, compare
from nextrapolate_worker.methods import numerics_method

COLUMNS = ("run", "jump", "best published", "its error", "method", "error", "ratio")


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
    print("|", " | ".join(COLUMNS), "|")
    print("|" + "---|" * len(COLUMNS))
    ratios = []
    for run in arguments.runs:
        trajectory = opened(run)
        for horizon in arguments.horizons:
            method = make_method(arguments.method, horizon_steps=horizon)
            published = list(published_methods(trajectory.steps, arguments.at))
            own, *others = errors(trajectory, [method, *published], arguments.at, horizon)
            best, error = min(zip(published, others, strict=True), key=lambda pair: pair[1])
            ratios.append(own / error)
            jump = f"{arguments.at} → {arguments.at + horizon}"
            cells = (
                run.name,
                jump,
                told(best),
                f"{error:.3f}",
                method.name,
                f"{own:.3f}",
                f"{own / error:.3f}",
            )
            print("|", " | ".join(cells), "|", flush=True)
    print(f"\nMean ratio {sum(ratios) / len(ratios):.3f}, worst {max(ratios):.3f}, {len(ratios)} rows.")


def opened(run: Path) -> Trajectory:
    """The run's checkpoints as a trajectory."""
    found = find_checkpoints(run)
    return Trajectory.open([AdapterFiles(files.step, *reversed(files.files.values())) for files in found])


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


def errors(trajectory: Trajectory, methods: Sequence[Method], at: int, horizon: int) -> list[float]:
    """Relative error of each method's update times its alpha; infinite where it could not predict."""
    outcomes = compare(
        trajectory, [numerics_method(method) for method in methods], at_step=at, horizon_steps=horizon
    )
    return [
        outcome.total.scaled(method.alpha).relative_error if isinstance(outcome, Backtest) else float("inf")
        for method, outcome in zip(methods, outcomes, strict=True)
    ]


def told(method: Method) -> str:
    """A method and what is not left at its default, as a caller would write it."""
    given = method.model_dump(exclude={"name", "horizon_steps"}, exclude_defaults=True)
    return " ".join([method.name, *(f"{name}={value}" for name, value in given.items())])


if __name__ == "__main__":
    main()
