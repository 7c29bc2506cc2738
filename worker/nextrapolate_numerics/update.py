"""What a method predicts: one low-rank matrix per module, relative to the last checkpoint, without alpha."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nextrapolate_numerics.choice import Choice
from nextrapolate_numerics.extraction import points_of, sum_of_parts
from nextrapolate_numerics.lowrank import LowRank, Triple
from nextrapolate_numerics.series import Span, Trajectory


@dataclass(frozen=True)
class Update(ABC):
    """A predicted update; its matrices are made when a module is asked for.

    Attributes:
        horizon_steps: training steps that the update covers; 0 where it is no forecast, as with an average of
            what there is.
        warnings: what a reader of the result should know about the prediction.
        choice: why it is what it is, of a method that chose among several; None of others.
    """

    horizon_steps: int
    warnings: tuple[str, ...]
    choice: Choice | None = field(default=None, kw_only=True)

    @abstractmethod
    def modules(self) -> frozenset[str]:
        """Names of the modules that get an update; all others get exactly none."""

    @abstractmethod
    def rank_of(self, module: str, trajectory: Trajectory) -> int:
        """Of the module's update, before it is made.

        Raises:
            KeyError: the module gets no update.
        """

    @abstractmethod
    def delta(self, module: str, trajectory: Trajectory) -> LowRank:
        """The module's update, LoRA scaling included, float64, on the CPU; reads the points that it combines.

        Raises:
            KeyError: the module gets no update.
        """

    def discarded(self, module: str | None = None) -> float:
        """Share of the squared norm of what the method wanted that its low-rank update does not hold.

        Args:
            module: None for all modules together.
        """
        return 0.0


@dataclass(frozen=True)
class Combination(Update):
    """An update that is a combination of the trajectory's points.

    Attributes:
        weights: (p,) float64 by module.
    """

    weights: Mapping[str, Tensor]

    def modules(self) -> frozenset[str]:
        """Names of the modules that get an update."""
        return frozenset(self.weights)

    def rank_of(self, module: str, trajectory: Trajectory) -> int:
        """That of the run, for each point that has a weight; or that of a matrix of full rank."""
        keys = trajectory.layouts[0].modules[module]
        return min(len(self._points(module, trajectory)) * keys.r, keys.m, keys.n)

    def delta(self, module: str, trajectory: Trajectory) -> LowRank:
        """sum_k weights[k] dW_k; only points of a weight other than 0 are read."""
        points = self._points(module, trajectory)
        return combine(trajectory, module, points, self.weights[module][points])

    def onto_last(self, module: str, trajectory: Trajectory, alpha: float) -> LowRank:
        """B A of the last checkpoint with alpha times the update on top, over the LoRA scaling, float64.

        The last checkpoint is a point like others: its factors, which most combinations have, come once, and
        where the points make a full matrix there is no second one beside it.

        Raises:
            KeyError: the module gets no update.
        """
        weights = alpha * self.weights[module]
        weights[trajectory.last] += 1
        points = weights.nonzero().flatten().tolist() or [trajectory.last]
        return combine(trajectory, module, points, weights[points] / trajectory.config.scaling(module))

    def _points(self, module: str, trajectory: Trajectory) -> list[int]:
        return self.weights[module].nonzero().flatten().tolist() or [trajectory.last]


@dataclass(frozen=True)
class RankOne(Update):
    """An update of one singular triple per module.

    Attributes:
        triples: sigma () float64, u (m,) and v (n,) float32, by module.
    """

    triples: Mapping[str, Triple]

    def modules(self) -> frozenset[str]:
        """Names of the modules that get an update."""
        return frozenset(self.triples)

    def rank_of(self, module: str, trajectory: Trajectory) -> int:
        """1, as the name says."""
        return self.triples[module].sigma.numel()

    def delta(self, module: str, trajectory: Trajectory) -> LowRank:
        """Sigma u v^T (NExt, arXiv 2604.11446, Eq. 10); nothing is read."""
        triple = self.triples[module]
        return LowRank((triple.sigma * triple.u.double()).unsqueeze(1), triple.v.double().unsqueeze(0))


@dataclass(frozen=True)
class LeadingParts(Update):
    """An update made of the leading singular triples of increments of the drift.

    Attributes:
        increments: of each the spans of points that it is the sum of (Drift.spans).
        rank: how many triples of each increment enter.
        weights: one for each increment, float64, by module.
    """

    increments: tuple[tuple[Span, ...], ...]
    rank: int
    weights: Mapping[str, Tensor]

    def modules(self) -> frozenset[str]:
        """Names of the modules that get an update."""
        return frozenset(self.weights)

    def rank_of(self, module: str, trajectory: Trajectory) -> int:
        """As many triples for each increment."""
        return len(self.weights[module]) * self.rank

    def delta(self, module: str, trajectory: Trajectory) -> LowRank:
        """sum_a weights[a] sum_k sigma_ak u_ak v_ak^T; the points of the increments are read."""
        points = sorted({point for spans in self.increments for point in points_of(spans)})
        number: dict[int | None, int] = {point: index for index, point in enumerate(points)}
        increments = [
            tuple((number.get(start), number[end]) for start, end in spans) for spans in self.increments
        ]
        stored = trajectory.stored(module, points)
        return sum_of_parts(stored, increments, self.rank, self.weights[module].tolist())


@dataclass(frozen=True)
class Fitted(Update):
    """An update whose wanted matrices have full rank, and were fitted by low-rank ones.

    Attributes:
        factors: float32, LoRA scaling included, by module.
        energies: squared norm of the update that was wanted, by module: of the matrix that was fitted, or of
            the sum that the fit is a term of.
        cut: squared norm of what the factors do not hold of it, by module.
    """

    factors: Mapping[str, LowRank]
    energies: Mapping[str, float]
    cut: Mapping[str, float]

    def modules(self) -> frozenset[str]:
        """Names of the modules that get an update."""
        return frozenset(self.factors)

    def rank_of(self, module: str, trajectory: Trajectory) -> int:
        """That of the fit."""
        return self.factors[module].rank

    def delta(self, module: str, trajectory: Trajectory) -> LowRank:
        """The fit; nothing is read."""
        return self.factors[module].double()

    def discarded(self, module: str | None = None) -> float:
        """What the fit does not hold."""
        names = [module] if module else sorted(self.factors)
        changed = [name for name in names if self.energies[name] > 0]
        energy = sum(self.energies[name] for name in changed)
        return sum(self.cut[name] for name in changed) / energy if changed else 0.0


@dataclass(frozen=True)
class Sum(Update):
    """An update in several parts, such as a rank-one matrix in place of what the last checkpoint has.

    Attributes:
        terms: one of them at least; their own horizons and warnings are not asked for.
    """

    terms: tuple[Update, ...]

    def modules(self) -> frozenset[str]:
        """Names of the modules that any term updates."""
        return frozenset().union(*(term.modules() for term in self.terms))

    def rank_of(self, module: str, trajectory: Trajectory) -> int:
        """The sum of the terms'."""
        return sum(term.rank_of(module, trajectory) for term in self._terms_of(module))

    def delta(self, module: str, trajectory: Trajectory) -> LowRank:
        """The sum of the terms, stacked: its rank is the sum of theirs."""
        deltas = [term.delta(module, trajectory) for term in self._terms_of(module)]
        return LowRank(torch.cat([d.B for d in deltas], dim=1), torch.cat([d.A for d in deltas], dim=0))

    def discarded(self, module: str | None = None) -> float:
        """That of the term that was fitted, if there is one: all others are exact."""
        terms = self._terms_of(module) if module else self.terms
        return max(term.discarded(module) for term in terms)

    def _terms_of(self, module: str) -> list[Update]:
        terms = [term for term in self.terms if module in term.modules()]
        if not terms:
            raise KeyError(module)
        return terms


def combine(trajectory: Trajectory, module: str, points: Sequence[int], weights: Tensor) -> LowRank:
    """sum_k weights[k] dW_k of one module over some points, in float64: large terms may cancel.

    So many points that their factors are larger than the matrix are summed up as that, beside an identity.
    One is read after the other.

    Args:
        trajectory: of the points.
        module: its name.
        points: their indices.
        weights: one for each of them, float64.

    Raises:
        NonFiniteWeightsError: NaN or Inf in a factor.
    """
    keys = trajectory.layouts[0].modules[module]
    weights = trajectory.config.scaling(module) * weights
    each = zip(weights.tolist(), trajectory.factors(module, points), strict=True)
    if len(points) * keys.r > min(keys.m, keys.n):
        matrix = torch.zeros(keys.m, keys.n, dtype=torch.float64)
        for weight, (B, A) in each:
            matrix.addmm_(B.double(), A.double(), alpha=weight)
        eye = torch.eye(min(matrix.shape), dtype=torch.float64)
        return LowRank(eye, matrix) if keys.m <= keys.n else LowRank(matrix, eye)
    stacked = LowRank(
        torch.empty(keys.m, len(points) * keys.r, dtype=torch.float64),
        torch.empty(len(points) * keys.r, keys.n, dtype=torch.float64),
    )
    places = zip(torch.split(stacked.B, keys.r, 1), torch.split(stacked.A, keys.r), strict=True)
    for (weight, (B, A)), (of_B, of_A) in zip(each, places, strict=True):
        torch.mul(B.double(), weight, out=of_B)
        of_A.copy_(A)
    return stacked
