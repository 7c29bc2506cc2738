"""How well predicted updates meet true ones, and the inner products that this is told from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """A predicted update P against the true one T, of one module or over all that moved.

    Attributes:
        cosine: sum <P, T> / sqrt(sum |P|^2 sum |T|^2); 0 where nothing was predicted.
        relative_error: sqrt(sum |P - T|^2 / sum |T|^2); no jump scores 1.
        size_ratio: sqrt(sum |P|^2 / sum |T|^2).
    """

    cosine: float
    relative_error: float
    size_ratio: float

    def scaled(self, alpha: float) -> "Scores":
        """The scores of alpha P: |alpha P - T|^2 expanded, over |T|^2."""
        size = alpha * self.size_ratio
        cosine = self.cosine if size else 0.0
        return Scores(cosine, max(0.0, 1.0 + size * size - 2.0 * size * cosine) ** 0.5, size)


@dataclass(frozen=True)
class Products:
    """<P, P>, <P, T> and <T, T> by module, of one pair of updates or as weighted sums over several.

    Attributes:
        pp: (l, q) float64 of l modules and q predictions.
        pt: (l, q).
        tt: (l,).
    """

    pp: Tensor
    pt: Tensor
    tt: Tensor

    def scaled(self, amplitudes: Tensor) -> "Products":
        """Those of the predictions times amplitudes (l,)."""
        column = amplitudes.unsqueeze(1)
        return Products(column**2 * self.pp, column * self.pt, self.tt)

    def of(self, modules: Sequence[int]) -> "Products":
        """Summed over some of the modules: l is 1."""
        pp, pt, tt = (part[modules].sum(dim=0, keepdim=True) for part in (self.pp, self.pt, self.tt))
        return Products(pp, pt, tt)

    @property
    def errors(self) -> Tensor:
        """(l, q) sum |P - T|^2 / sum |T|^2; 1, as of no jump, where nothing moved."""
        truth = self.tt.unsqueeze(1)
        errors = 1 + (self.pp - 2 * self.pt) / truth
        return torch.where(truth > 0, errors.clamp(min=0), 1.0)

    @property
    def amplitudes(self) -> Tensor:
        """(l, q) sum <P, T> / sum |P|^2, what would have been the best length; 0 of no prediction."""
        return torch.where(self.pp > 0, self.pt / self.pp, 0.0)

    @property
    def scores(self) -> tuple[Scores, ...]:
        """(l) of the first prediction; each module has to have moved."""
        pp, pt, tt = self.pp[:, 0].clamp(min=0), self.pt[:, 0], self.tt
        cosines = torch.where(pp > 0, pt / pp.sqrt() / tt.sqrt(), 0.0)  # <P, P> <T, T> may underflow
        columns = cosines.clamp(-1, 1), self.errors[:, 0].sqrt(), (pp / tt).sqrt()
        return tuple(Scores(*row) for row in zip(*(column.tolist() for column in columns), strict=True))
