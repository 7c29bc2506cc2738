"""How long a run keeps its heading: what there is for a jump to predict.

    python -m benchmarks.rlvr.heading RUN... [--steps 10 20 50 100] [--write]

The cosine between what all weights did in some steps and in as many before, at every checkpoint that has
both, in the mean over each half of the run. Runs of one task and rate are one row. A walk at random has 0,
but for what the optimizer's momentum carries from one stretch into the next: over ten steps that is much.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.models import checkpoints_of
from benchmarks.rlvr.record import RECORD, Record
from benchmarks.written import add_write_option, markdown_table, write_section
from nextrapolate_numerics import Trajectory
from nextrapolate_numerics.extraction import Evidence, gather, summed

Cosines = dict[tuple[int, int], float]
"""By the steps of a stretch, and the half of the run."""


def headings(run: Path, stretches: Sequence[int]) -> Cosines:
    """Return the mean cosines of a run; of those that no half of it has both stretches for, none."""
    extraction = gather(Trajectory.open(checkpoints_of(run)), Evidence(gram=True), horizon_steps=1)
    drift = extraction.drift
    inner = drift.coefficients @ summed(extraction.grams) @ drift.coefficients.T
    steps = {step: index for index, step in enumerate(drift.steps)}
    found: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for stretch in stretches:
        for step in steps:
            if step - stretch in steps and step + stretch in steps:
                half = int(step > drift.last_step / 2)
                ends = [steps[step + ahead] for ahead in (-stretch, 0, stretch)]
                found[stretch, half].append(_cosine(inner, ends))
    return {key: fmean(cosines) for key, cosines in found.items()}


def _cosine(inner: Tensor, ends: Sequence[int]) -> float:
    """Of the ways from the first to the second and from there to the third, by their inner products."""
    ways = torch.eye(len(inner), dtype=inner.dtype)[list(ends)].diff(dim=0)
    products = ways @ inner @ ways.T
    return float(products[0, 1] / products.diagonal().prod().sqrt())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50, 100])
    add_write_option(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    kinds: defaultdict[tuple[str, str], list[Cosines]] = defaultdict(list)
    for run in arguments.runs:
        settings = Record.read(run / RECORD).settings
        kinds[settings.task, f"{settings.learning_rate:g}"].append(headings(run, arguments.steps))
    columns = [(steps, half) for half in (0, 1) for steps in arguments.steps]
    rows = [
        (
            *kind,
            len(found),
            *(
                f"{fmean(values):.2f}" if (values := [each[at] for each in found if at in each]) else ""
                for at in columns
            ),
        )
        for kind, found in kinds.items()
    ]
    halves = ("first half", "second half")
    names = ("task", "rate", "runs", *(f"{halves[half]}: {steps} steps" for steps, half in columns))
    told = markdown_table(names, rows)
    print(told)
    if arguments.write:
        write_section("rlvr-heading", told)


if __name__ == "__main__":
    main()
