"""Predict what is known already: methods at an earlier origin, against the drift that followed."""

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import product
from operator import or_

import torch
from torch import Tensor

from nextrapolate_numerics.errors import (
    AbsentCheckpointError,
    NoBacktestError,
    NothingToPredictError,
    NumericsError,
    TooFewCheckpointsError,
)
from nextrapolate_numerics.extraction import Evidence, Extraction, gather, rests, squared_norm
from nextrapolate_numerics.lowrank import LowRank
from nextrapolate_numerics.methods.method import Method
from nextrapolate_numerics.parallel import in_threads
from nextrapolate_numerics.progress import Progress, part_of, silent
from nextrapolate_numerics.scores import Products, Scores
from nextrapolate_numerics.series import Trajectory
from nextrapolate_numerics.update import Combination, Update

_ROUNDING = 1e-10
"""Of a module's own length: less is predicted by rounding alone, and float32 factors would hold none of it.

Where a module rests, weights that cancel leave 1e-16 of it, with a cosine of either sign to what follows.
"""


@dataclass(frozen=True)
class Backtest:
    """How one method did where the answer is known.

    Attributes:
        origin_step: last checkpoint the method was shown.
        target_step: checkpoint it was asked for.
        names: (l) of the modules that moved up to the origin or after it.
        products: (l, 1) of what the method predicted, at alpha 1.
        warnings: what a reader of the scores should know about the prediction.
        seconds: that fit and scoring took. The reading, which many methods share, is not in it.
    """

    origin_step: int
    target_step: int
    names: tuple[str, ...]
    products: Products
    warnings: tuple[str, ...]
    seconds: float

    @cached_property
    def total(self) -> Scores:
        """Over all modules, at alpha 1."""
        return self.applied(1.0)

    @cached_property
    def modules(self) -> Mapping[str, Scores]:
        """By module, at alpha 1; one that rested between origin and target has none."""
        moved = self.products.tt > 0
        names = [name for name, each in zip(self.names, moved.tolist(), strict=True) if each]
        pp, pt, tt = (part[moved] for part in (self.products.pp, self.products.pt, self.products.tt))
        return dict(zip(names, Products(pp, pt, tt).scores, strict=True))

    @cached_property
    def disturbed(self) -> frozenset[str]:
        """Names of the modules that rested between origin and target, and that the method has moved."""
        at_rest = (self.products.tt <= 0) & (self.products.pp[:, 0] > 0)
        return frozenset(name for name, each in zip(self.names, at_rest.tolist(), strict=True) if each)

    def applied(self, alpha: float, gated: Collection[str] = ()) -> Scores:
        """Over all modules, of alpha times the prediction; those that are gated get none of it."""
        amplitudes = [0.0 if name in gated else alpha for name in self.names]
        scaled = self.products.scaled(torch.tensor(amplitudes, dtype=torch.float64))
        (total,) = scaled.of(range(len(self.names))).scores
        return total


def backtest(
    method: Method, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent
) -> Backtest:
    """Hold out the last horizon, have the method predict it, and score the prediction.

    The origin is the latest checkpoint that has one a horizon later; the method sees nothing after it.

    Raises:
        NoBacktestError: the series is too short to hold out a horizon, the method has too little to learn
            from before it, or nothing moved in it, or in a part of what comes after the origin; says which.
    """
    pairs = extraction.drift.pairs(horizon_steps)
    why = f"the series is too short to hold out {horizon_steps} steps"
    if pairs:
        try:
            found = backtest_at(method, extraction, *pairs[-1], on_progress)
        except TooFewCheckpointsError as error:
            why = (
                f"{error.method} needs {error.need} checkpoints to learn from, but has {error.have} when "
                f"{horizon_steps} steps are held out"
            )
        except NothingToPredictError as error:
            why = (
                f"no module changed from step {error.origin_step} to step {error.target_step}: there is "
                "nothing to compare a prediction with"
            )
        else:
            unseen = [rest for rest in rests(extraction) if rest.end_step > found.origin_step]
            if not unseen:
                return found
            why = (
                f"no module changed from step {unseen[-1].begin_step} to step {unseen[-1].end_step}, so the "
                f"steps after step {found.origin_step} do not show how far training goes"
            )
    raise NoBacktestError(why, _measurable_steps(method, extraction, horizon_steps))


def _measurable_steps(method: Method, extraction: Extraction, below: int) -> int | None:
    """The longest horizon below one that the method could be asked for, after which nothing rested."""
    drift = extraction.drift
    rested_until = max((rest.end_step for rest in rests(extraction)), default=drift.steps[0])
    for origin in range(1, len(drift.steps) - 1):
        horizon_steps = drift.last_step - drift.steps[origin]
        if horizon_steps >= below or drift.steps[origin] < rested_until:
            continue
        with suppress(TooFewCheckpointsError):
            method.check(drift.until(origin), horizon_steps)
            return horizon_steps
    return None


def backtest_at(
    method: Method, extraction: Extraction, origin: int, target: int, on_progress: Progress = silent
) -> Backtest:
    """Show the method the drift up to one step, ask it for a later one, and score the answer.

    Predictions that combine points are scored from the Gram matrices where these are there, others with the
    factors, which are read again.

    Args:
        method: whose evidence is in the extraction.
        extraction: of a trajectory that holds both steps.
        origin: index of the last step of the drift that the method is shown.
        target: index of the step that it is asked for.
        on_progress: told by the fit.

    Raises:
        TooFewCheckpointsError: less than the method needs, up to the origin; at the step from which the drift
            is measured no method has anything to learn from.
        NothingToPredictError: nothing moved between the two.
    """
    started = time.perf_counter()
    drift = extraction.drift
    if origin < 1:
        raise TooFewCheckpointsError("A prediction", have=1, need=2)
    horizon_steps = drift.steps[target] - drift.steps[origin]
    update = method.fit(extraction.until(origin), horizon_steps, part_of(on_progress, 0.0, 0.9))
    truth = Combination(
        update.horizon_steps,
        (),
        dict.fromkeys(extraction.moved, drift.coefficients[target] - drift.coefficients[origin]),
    )
    names = sorted(extraction.moved)
    rows = in_threads(lambda name: _products(name, update, truth, extraction), names)
    pp, pt, tt = torch.tensor(list(rows), dtype=torch.float64).unbind(dim=1)
    on_progress(1.0)
    origin_step, target_step = drift.steps[origin], drift.steps[target]
    if tt.sum() <= 0:
        raise NothingToPredictError(origin_step, target_step)
    products = Products(pp.unsqueeze(1), pt.unsqueeze(1), tt)
    seconds = time.perf_counter() - started
    return Backtest(origin_step, target_step, tuple(names), products, update.warnings, seconds)


def compare(
    trajectory: Trajectory,
    methods: Sequence[Method],
    *,
    at_step: int,
    horizon_steps: int,
    device: str | torch.device = "cpu",
    on_progress: Progress = silent,
) -> tuple[Backtest | NumericsError, ...]:
    """Backtest many methods at one step, on one reading of the files.

    The methods see the checkpoints up to `at_step`, and the truth is the drift to the checkpoint
    `horizon_steps` later. Later ones are not read, nor are those between, but where a jump was made.

    Returns:
        For each method, in their order, its backtest, or the error that says why there is none.

    Raises:
        AbsentCheckpointError: no checkpoint at `at_step`, or none a horizon later; says which there are.
        NonFiniteWeightsError: NaN or Inf in a factor.
        NothingMovedError: no module ever changed.
    """
    visible = _held_out(trajectory, at_step, at_step + horizon_steps)
    origin, target = (visible.drift.steps.index(step) for step in (at_step, at_step + horizon_steps))
    needs = reduce(or_, (method.needs for method in methods), Evidence(gram=True))
    extraction = gather(
        visible, needs, horizon_steps, device=device, on_progress=part_of(on_progress, 0.0, 0.5)
    )
    outcomes: list[Backtest | NumericsError] = []
    for index, method in enumerate(methods):
        progress = part_of(on_progress, 0.5 + 0.5 * index / len(methods), 0.5 / len(methods))
        try:
            outcomes.append(backtest_at(method, extraction, origin, target, progress))
        except NumericsError as reason:
            outcomes.append(reason)
    on_progress(1.0)
    return tuple(outcomes)


def _held_out(trajectory: Trajectory, at_step: int, target_step: int) -> Trajectory:
    """The checkpoints up to one step and the later one, with the jumps between and what tells them apart."""
    steps = trajectory.steps
    if at_step not in steps:
        raise AbsentCheckpointError(at_step, "from which the methods are to predict", steps)
    if target_step not in steps:
        raise AbsentCheckpointError(target_step, "which the methods are to predict", steps)
    jumps = [files for files in trajectory.jumps if files.step < target_step]
    kept = {step for step in steps if step <= at_step} | {target_step} | {files.step for files in jumps}
    return Trajectory.open([files for files in trajectory.checkpoints if files.step in kept], jumps)


def _products(
    name: str, update: Update, truth: Combination, extraction: Extraction
) -> tuple[float, float, float]:
    """<P, P>, <P, T> and <T, T> of one module; a P that is rounding is 0, and no sign for or against."""
    t, gram = truth.weights[name], extraction.grams.get(name)
    if isinstance(update, Combination) and gram is not None:
        p = update.weights.get(name, torch.zeros_like(t))
        pp, pt = squared_norm(p, gram), float(p @ gram @ t)
    else:
        gram = _gram(name, t, extraction.trajectory) if gram is None else gram
        pp = pt = 0.0
        if name in update.modules():
            predicted = update.delta(name, extraction.trajectory)
            pp, pt = predicted.norm() ** 2, predicted.inner(truth.delta(name, extraction.trajectory))
    tt, longest = squared_norm(t, gram), float(gram.diagonal().max())
    return (pp, pt, tt) if pp > _ROUNDING**2 * longest else (0.0, 0.0, tt)


def _gram(name: str, weights: Tensor, trajectory: Trajectory) -> Tensor:
    """(p, p) inner products of a module's deltas at the points that have a weight, 0 elsewhere."""
    points = weights.nonzero().flatten().tolist()
    factors = trajectory.module(name, points)
    deltas = [LowRank(B, A).scaled(factors.scaling) for B, A in zip(factors.B, factors.A, strict=True)]
    gram = weights.new_zeros(len(weights), len(weights))
    for (one, x), (other, y) in product(zip(points, deltas, strict=True), repeat=2):
        gram[one, other] = x.inner(y)
    return gram
