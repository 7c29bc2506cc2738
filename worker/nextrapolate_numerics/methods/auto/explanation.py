"""What `auto` says about its choice."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nextrapolate_numerics.choice import Candidate, Choice, KindChoice
from nextrapolate_numerics.methods.auto.candidates import Candidates
from nextrapolate_numerics.methods.auto.mixture import Mixture
from nextrapolate_numerics.methods.auto.trials import Trial


def explained(
    names: Sequence[str], candidates: Candidates, tried: Sequence[Trial], mixture: Mixture
) -> Choice:
    """Put the mixture of the modules `names` in words and numbers."""
    every = range(len(names))
    shares = _mean(mixture, mixture.parts, every)
    errors = _candidate_errors(mixture)
    listed = sorted(
        (Candidate(*found) for found in zip(candidates.labels, errors, shares.tolist(), strict=True)),
        key=lambda candidate: (candidate.relative_error or 0.0, -candidate.share),
    )
    kinds: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        kinds.setdefault(name.rpartition(".")[2], []).append(index)
    return Choice(
        _why(candidates, tried, mixture, errors, shares.tolist()),
        len(tried),
        _error(mixture, every),
        tuple(listed),
        tuple(_kind(kind, kinds[kind], candidates, mixture) for kind in sorted(kinds)),
    )


def _why(
    candidates: Candidates,
    tried: Sequence[Trial],
    mixture: Mixture,
    errors: Sequence[float | None],
    shares: Sequence[float],
) -> str:
    every = range(len(mixture.amplitudes))
    error = _error(mixture, every)
    if error is None:
        return (
            "The series is too short to hold anything out, so nothing speaks for one candidate over another: "
            "the update is their average, most of it kriging, which is cautious where little is known."
        )
    steps = candidates.drift.steps
    farthest = max(steps[trial.end] - steps[trial.known] for trial in tried)
    asked = (
        f"{len(tried)} backtests on this run's own past, up to {farthest} steps ahead, in which recent "
        "steps weigh most"
    )
    if not mixture.amplitudes.any():
        return f"Nothing predicts this run: in {asked}, no module was predicted better than by no jump."
    line = min(candidates.lines, key=lambda index: errors[index] or 0.0)
    first, last = candidates.lines.start, candidates.lines.stop
    kriging, lines, none = sum(shares[:first]), sum(shares[first:last]), shares[-1]
    length = float(_mean(mixture, mixture.lengths, every))
    return (
        f"In {asked}, the update's relative error is {error:.2f} (it is fitted to them, so that this is "
        f"never above 1), where no jump scores 1 and the best straight line ({candidates.labels[line]}) "
        f"{errors[line]:.2f}. The update is {kriging:.0%} kriging, {lines:.0%} straight lines and {none:.0%} "
        f"no jump, and {length:.2f} times as long as the mean of the candidates that jump."
    )


def _kind(kind: str, modules: list[int], candidates: Candidates, mixture: Mixture) -> KindChoice:
    return KindChoice(
        kind,
        len(modules),
        _error(mixture, modules),
        float(_mean(mixture, mixture.lengths, modules)),
        candidates.labels[int(_mean(mixture, mixture.parts, modules).argmax())],
    )


def _mean(mixture: Mixture, values: Tensor, modules: Sequence[int]) -> Tensor:
    """Of values (l, ..) over some of the modules, by how much they moved where that is known."""
    weights = mixture.taken.tt[modules] if mixture.taken else torch.ones(len(modules), dtype=torch.float64)
    if not weights.any():
        weights = torch.ones_like(weights)
    return weights @ values[modules] / weights.sum()


def _error(mixture: Mixture, modules: Sequence[int]) -> float | None:
    return float(mixture.taken.of(modules).errors[0, 0].sqrt()) if mixture.taken else None


def _candidate_errors(mixture: Mixture) -> list[float | None]:
    if mixture.each is None:
        return [None] * mixture.shares.shape[1]
    errors: list[float | None] = mixture.each.of(range(len(mixture.amplitudes))).errors[0].sqrt().tolist()
    return errors
