"""How much each module takes of each candidate, and how far it goes; the equations are in auto.py."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.methods.auto.candidates import Candidates
from nextrapolate_numerics.methods.auto.trials import Trial, products
from nextrapolate_numerics.scores import Products

_SHARPNESS = 16.0
_SHRINKAGE = 0.5
_EXACT = 1e-12  # an error below it is rounding


@dataclass(frozen=True)
class Mixture:
    """What each module takes of the candidates.

    Attributes:
        shares: (l, q), each row sums to 1.
        amplitudes: (l,).
        each: products of every candidate; None where nothing could be held out.
        taken: products of what was taken, q being 1; likewise.
    """

    shares: Tensor
    amplitudes: Tensor
    each: Products | None
    taken: Products | None

    @property
    def lengths(self) -> Tensor:
        """(l,) of the update over the mean of the candidates that jump, which no jump only shortens."""
        return self.amplitudes * self.shares[:, :-1].sum(dim=1)

    @property
    def parts(self) -> Tensor:
        """(l, q) of the update, each row sums to 1: no jump is all of one that is 0, no part of others."""
        jumping = self.shares.clone()
        jumping[:, -1] = 0
        none = torch.zeros_like(jumping)
        none[:, -1] = 1
        moved = self.lengths.unsqueeze(1) > 0
        return torch.where(moved, jumping / jumping.sum(dim=1, keepdim=True), none)

    @classmethod
    def of(
        cls,
        candidates: Candidates,
        tried: Sequence[Trial],
        grams: Callable[[], Iterable[Tensor]],
        modules: int,
    ) -> "Mixture":
        """Weigh the candidates by their trials.

        Args:
            candidates: q of them.
            tried: how they did.
            grams: gives the increments', (l', n, n) float64 of some modules after others; called twice.
            modules: how many there are, l.
        """
        if not tried:
            shares = (candidates.priors / candidates.priors.sum()).expand(modules, -1)
            return cls(shares, torch.ones(modules, dtype=shares.dtype), None, None)
        each = products(tried, grams())
        likelihood = candidates.priors.log() - _SHARPNESS * each.errors.clamp(min=_EXACT).log()
        shares = torch.softmax(likelihood, dim=1)
        mixed = products(tried, grams(), shares)
        own = mixed.amplitudes[:, 0]
        common = mixed.of(range(modules)).amplitudes[0, 0].clamp(0, 1)
        amplitudes = torch.minimum((own + _SHRINKAGE * common) / (1 + _SHRINKAGE), 2 * own).clamp(min=0)
        return cls(shares, amplitudes, each, mixed.scaled(amplitudes))
