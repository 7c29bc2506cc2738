"""NExt by regression: low-rank trajectories extrapolated by one learned number per input (arXiv 2604.11446).

As in NExt, what is looked at are leading singular triples: of the global and of the local delta of a
checkpoint, and of one between them, each as a speed (parts.py). As in NExt, a predictor learns from pairs of
this very run what followed, and is asked at the last checkpoint c. Instead of three networks over the entries
of u, v and sigma, module j has one weight per input:

    dW_j = h sum_a w_ja X_ja(c)

with X_a the leading part of speed a and h the horizon. The weights are what all modules share plus the
module's own correction, w_ja = w_a + d_ja, and minimise

    sum_j sum_(i, e) q |T_j - (t_e - t_i) sum_a w_ja X_ja(i)|^2 + l |w|^2 + m sum_j |d_j|^2

over all pairs i < e up to a horizon apart, T = drift_e - drift_i, with q as tail.py weighs them. That has a
closed form, in inner products of the parts alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from nextrapolate_numerics.extraction import MAX_TRIPLES, Evidence, Extraction, begins
from nextrapolate_numerics.methods.tail import coming, origins
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import LeadingParts, Update

_RIDGE = 0.1  # l, as a share of the mean diagonal of all modules' normal matrices together
_POOLING = 0.3  # m, as a share of the mean diagonal of one module's, over those that are not 0


@dataclass(frozen=True)
class Next:
    """Ridge regression on the leading parts of three speeds, per module, shrunk to what modules share.

    Attributes:
        rank: leading triples of each speed, MAX_TRIPLES at most. The update has three times that rank,
            or twice where an input is off.
        use_global: look at the global delta.
        use_local: look at the local delta.
        decay: weight of a training pair for each 10 steps of its age.

    Raises:
        ValueError: a rank out of range.
    """

    rank: int = MAX_TRIPLES
    use_global: bool = True
    use_local: bool = True
    decay: float = 0.5

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_TRIPLES:
            raise ValueError(f"rank has to be in 1 .. {MAX_TRIPLES}")

    @property
    def needs(self) -> Evidence:
        """Leading parts of its own rank."""
        return Evidence(parts=frozenset({self.rank}))

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """One increment that follows another one is the least to learn from."""
        drift.check_length(3, "next")

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """Regress on all pairs that are visible, and apply the weights at the last visible step."""
        drift = extraction.drift
        self.check(drift, horizon_steps)
        names = sorted(extraction.moved)
        inputs = [index for index, used in enumerate((self.use_global, True, self.use_local)) if used]
        normal, response = self._normal_equations(extraction, names, inputs, horizon_steps, on_progress)
        weights = horizon_steps * _pooled_solution(normal, response)
        on_progress(1.0)
        at = len(drift.steps) - 1
        begun = [begins(drift, at)[index] for index in inputs]
        steps = weights.new_tensor([drift.steps[at] - drift.steps[begin] for begin in begun])
        return LeadingParts(
            horizon_steps,
            (),
            tuple(drift.spans(begin, at) for begin in begun),
            self.rank,
            dict(zip(names, weights / steps, strict=True)),
        )

    def _normal_equations(
        self,
        extraction: Extraction,
        names: list[str],
        inputs: list[int],
        horizon_steps: int,
        on_progress: Progress,
    ) -> tuple[Tensor, Tensor]:
        """Normal matrices (l, a, a) and right hand sides (l, a) of l modules and a inputs, float64."""
        drift = extraction.drift
        parts = [extraction.parts[name].of_rank(self.rank) for name in names]
        products, with_coming = (torch.stack(side)[:, :, inputs] for side in zip(*parts, strict=True))
        products = products[..., inputs]
        normal, response = torch.zeros_like(products[:, 0]), torch.zeros_like(with_coming[:, 0, :, 0])
        for origin in origins(drift):
            for end, steps, weight in coming(drift, origin, horizon_steps, self.decay):
                normal += weight * steps**2 * products[:, origin - 1]
                response += weight * steps * with_coming[:, origin - 1, :, end - origin - 1]
            on_progress(origin / len(drift.segments))
        return normal, response


def _pooled_solution(normal: Tensor, response: Tensor) -> Tensor:
    """Each module's weights w + d_j, (l, a), the corrections d_j eliminated one module at a time.

    With M_j = (N_j + m)^-1 module j has M_j (y_j + m w), and w solves
    (l + m sum_j (1 - m M_j)) w = m sum_j M_j y_j.
    A module whose N_j is 0 does not count in the mean that m is a share of: in a backtest it may be one that
    first moves later, which the others must not tell.
    """
    eye = torch.eye(normal.shape[-1], dtype=normal.dtype)
    diagonals = normal.diagonal(dim1=1, dim2=2).mean(dim=1)
    if not diagonals.any():
        return torch.zeros_like(response)
    ridge, pooling = _RIDGE * diagonals.sum(), _POOLING * diagonals[diagonals > 0].mean()
    inverses = torch.linalg.inv(normal + pooling * eye)
    own = (inverses @ response.unsqueeze(-1)).squeeze(-1)
    common = torch.linalg.solve(
        ridge * eye + pooling * (eye - pooling * inverses).sum(dim=0), pooling * own.sum(dim=0)
    )
    solution: Tensor = own + pooling * (inverses @ common)
    return solution
