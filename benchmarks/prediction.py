"""How well each method predicts a checkpoint that is already known.

    python -m benchmarks.prediction RUN [--at 150] [--horizons 50 100 200] [--methods next ...] [--threads N]

RUN is a folder of checkpoint-N folders. Each method, with its defaults, and some with other parameters, sees
the checkpoints up to --at and is asked for the one --horizons steps later. Prints a Markdown table, one row a
method and horizon: the scores of the update as predicted, and the relative error of alpha times it, alpha
being the method's own default; or why there are none.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.models import checkpoints_of
from benchmarks.written import markdown_row, markdown_table
from nextrapolate.methods import default_methods, make_method
from nextrapolate.schemas import Method
from nextrapolate_numerics import AdapterFiles, NumericsError, Trajectory, compare
from nextrapolate_worker.methods import numerics_method

_VARIANTS: dict[str, Method] = {
    "weight-extrapolation, auto window": make_method("weight-extrapolation", window_steps="auto"),
    "relex, degree 2": make_method("relex", degree=2),
    "relex, line": make_method("relex", mode="line"),
    "alpharl, line": make_method("alpharl", mode="line"),
    "maec, share 0.5": make_method("maec", share=0.5),
    "dare, drop 0.9": make_method("dare", drop=0.9),
    "next, rank 1": make_method("next", rank=1),
    "next, paper": make_method("next", preset="paper"),
}
METHODS = {method.name: method for method in default_methods()} | _VARIANTS
"""Every method with its defaults, then some with other parameters."""


COLUMNS = (
    "method", "horizon", "cosine", "relative error", "size ratio", "alpha", "error at alpha", "seconds",
)  # fmt: skip


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--at", type=int, default=150)
    parser.add_argument("--horizons", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    checkpoints = checkpoints_of(arguments.run)
    print(markdown_table(COLUMNS, ()))
    for name in arguments.methods:
        for horizon in arguments.horizons:
            print(markdown_row(row(name, checkpoints, arguments.at, horizon)), flush=True)


def row(name: str, checkpoints: list[AdapterFiles], at: int, horizon: int) -> tuple[object, ...]:
    """Score one method at one horizon; it sees nothing after the origin."""
    alpha, method = METHODS[name].alpha, numerics_method(METHODS[name])
    started = time.perf_counter()
    (result,) = compare(Trajectory.open(checkpoints), [method], at_step=at, horizon_steps=horizon)
    seconds = time.perf_counter() - started
    if isinstance(result, NumericsError):
        return name, horizon, result.code, *[""] * (len(COLUMNS) - 3)
    scores = result.total
    scaled = scores.scaled(alpha).relative_error
    measured = (scores.cosine, scores.relative_error, scores.size_ratio)
    return (
        name,
        horizon,
        *(f"{value:.3f}" for value in measured),
        f"{alpha:g}",
        f"{scaled:.3f}",
        f"{seconds:.1f}",
    )


if __name__ == "__main__":
    main()
