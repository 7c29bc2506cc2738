"""Candidates tried where the answer is known: all earlier checkpoints of a run against all later ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from nextrapolate_numerics.methods.auto.candidates import Candidates
from nextrapolate_numerics.methods.tail import increments, origins
from nextrapolate_numerics.scores import Products

T = TypeVar("T")

_RECENCY = 10.0  # weight (t_i / t_c)^10: halved after the last 7 % of a run, however long it is
_MAX_ORIGINS, _MAX_ENDS = 32, 16  # more of them would say the same again


@dataclass(frozen=True)
class Trial:
    """All candidates, asked at one step of the drift for a later one.

    Attributes:
        known: increments before the origin, which is also its index among the drift's steps.
        end: index of the step that was asked for.
        weight: how much it counts.
        predictions: (q, known) float64, weights on the known increments.
    """

    known: int
    end: int
    weight: float
    predictions: Tensor


def trials(candidates: Candidates) -> list[Trial]:
    """Pairs of steps up to a horizon apart, and each step with the next one however far.

    All of them in a short run; in a long one at most `_MAX_ORIGINS` steps with `_MAX_ENDS` each.
    """
    found = []
    drift = candidates.drift
    for known in _some(origins(drift), _MAX_ORIGINS):
        age = (drift.ages[known] / drift.ages[-1]) ** _RECENCY
        ahead = _some(list(increments(drift, known, candidates.horizon_steps, age)), _MAX_ENDS)
        predictions = candidates.predictions(known, [end for end, _, _ in ahead])
        for (end, _, weight), predicted in zip(ahead, predictions, strict=True):
            found.append(Trial(known, end, weight, predicted))
    return found


def products(found: Sequence[Trial], grams: Iterable[Tensor], shares: Tensor | None = None) -> Products:
    """Score predictions from the Gram matrices of the increments.

    Args:
        found: one trial at least.
        grams: (l', n, n) float64, of some modules after others, l in all.
        shares: (l, q), mixes the candidates to one prediction a module; None scores each of them.
    """
    some, first = [], 0
    for chunk in grams:
        end = first + len(chunk)
        some.append(_products(found, chunk, None if shares is None else shares[first:end]))
        first = end
    return Products(*(torch.cat([getattr(each, part) for each in some]) for part in ("pp", "pt", "tt")))


def _products(found: Sequence[Trial], grams: Tensor, shares: Tensor | None) -> Products:
    pp = pt = tt = torch.zeros((), dtype=grams.dtype)
    for trial in found:
        known, coming = slice(0, trial.known), slice(trial.known, trial.end)
        predicted = trial.predictions.expand(len(grams), -1, -1)
        if shares is not None:
            predicted = shares.unsqueeze(1) @ predicted
        truth = grams[:, known, coming].sum(dim=-1, keepdim=True)
        pp = pp + trial.weight * (predicted @ grams[:, known, known] * predicted).sum(dim=-1)
        pt = pt + trial.weight * (predicted @ truth).squeeze(-1)
        tt = tt + trial.weight * grams[:, coming, coming].sum(dim=(-2, -1))
    return Products(pp, pt, tt)


def _some(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of the items, evenly chosen, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]
