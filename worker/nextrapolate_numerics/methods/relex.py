"""RELEX: a line in time through the trajectory's leading directions (arXiv 2605.21468).

Per module the flattened global deltas of the checkpoints in the window, one a row, make M = U S V^T, not
centred. C = U_r S_r are their coefficients in the leading r directions; each is fitted over the step by least
squares with a polynomial p, and

    dW(t*) = c(t*) V_r^T,    c(t) = p(t) P^+ C

with P the polynomial at the checkpoints' steps. Since S_r V_r^T = U_r^T M, that is the combination

    dW(t*) = p(t*) P^+ U_r U_r^T M

of the checkpoints, and U comes from the Gram matrix M M^T. The reference takes the checkpoint's index for the
time; here it is the step.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nextrapolate_numerics.extraction import Evidence, Extraction
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, Update


@dataclass(frozen=True)
class Relex:
    """Low rank in time, a polynomial over the steps.

    Attributes:
        rank: r, directions kept; all of them where there are fewer.
        window_steps: steps before the last that are looked at, None for the whole run; the origin, whose
            delta is 0, is never among them.
        mode: "line", dW(t*) as published, which leaves the last checkpoint for the fit; "last", the last
            checkpoint and the fitted change dW(t*) - dW(t_c).
        degree: of the polynomial; the paper's is 1.
    """

    rank: int = 1
    window_steps: int | None = None
    mode: Literal["last", "line"] = "last"
    degree: int = 1

    needs: ClassVar[Evidence] = Evidence(gram=True)

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """A polynomial needs one checkpoint more than its degree."""
        drift.check_length(self.degree + 2, "relex")

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """Project each module's trajectory on its leading directions, and follow the polynomial."""
        drift = extraction.drift
        self.check(drift, horizon_steps)
        begin = self._begin(drift)
        rows = drift.coefficients[begin:]
        readout = self._readout(drift.steps[begin:], horizon_steps)
        weights: dict[str, Tensor] = {}
        energies = torch.zeros(len(extraction.moved), 2, dtype=torch.float64)
        for index, name in enumerate(sorted(extraction.moved)):
            values, vectors = torch.linalg.eigh(rows @ extraction.grams[name] @ rows.T)
            leading = vectors[:, -self.rank :]
            weights[name] = (leading @ (leading.T @ readout)) @ rows
            if self.mode == "line":
                weights[name] -= rows[-1]
            energies[index, 0], energies[index, 1] = values[-self.rank :].sum(), values.sum()
            on_progress((index + 1) / len(extraction.moved))
        return Combination(horizon_steps, (self._variance_explained(energies),), weights)

    def _begin(self, drift: Drift) -> int:
        """Index of the window's first checkpoint: as far back as asked, and as the polynomial needs."""
        if self.window_steps is None:
            return 1
        return max(1, min(drift.window(self.window_steps), len(drift.steps) - 1 - self.degree))

    def _readout(self, steps: tuple[int, ...], horizon_steps: int) -> Tensor:
        """p(t*) P^+, (w,): the fitted value at t* from the values at `steps`; in mode "last", its change."""
        span = steps[-1] - steps[0]
        times = torch.tensor([*steps, steps[-1] + horizon_steps], dtype=torch.float64)
        powers = ((times - steps[-1]) / span).unsqueeze(1) ** torch.arange(self.degree + 1)
        ahead = powers[-1] - powers[-2] if self.mode == "last" else powers[-1]
        readout: Tensor = ahead @ torch.linalg.pinv(powers[:-1])
        return readout

    def _variance_explained(self, energies: Tensor) -> str:
        """(sigma_1^2 + .. + sigma_r^2) / sum sigma^2, of all modules together and of the least."""
        kept, total = energies.sum(dim=0).tolist()
        shares = energies[energies[:, 1] > 0]
        least = float((shares[:, 0] / shares[:, 1]).min()) if len(shares) else 1.0
        share = kept / total if total > 0 else 1.0
        return (
            f"Rank {self.rank} in time explains {share:.1%} of the window's squared norm, "
            f"{least:.1%} in the module where it explains least."
        )
