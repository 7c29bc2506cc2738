"""AlphaRL: the leading direction of each module's delta as a line over the score (arXiv 2510.00553).

Per module a_i = sigma_i u_i of the leading triple of the global delta at checkpoint i, signs aligned to the
last one. Partial least squares with one component of the a_i, centred, on the score y_i:

    w = X^T y / |X^T y|,    t = X w,    p = X^T t / t^T t,    q = y^T t / t^T t

    a(y*) = mean a + (y* - mean y) / q  p,    dW(y*) = a(y*) v_c^T

with v_c that of the last checkpoint. The score is a reward where rewards are given, else the step. Unlike the
public code, coordinates are not scaled to unit variance: that would make the answer depend on the basis in
which u is written, and weigh the noise of coordinates that hardly move like the movement of the others.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from nextrapolate_numerics.extraction import Evidence, Extraction, Seen
from nextrapolate_numerics.lowrank import Triple, unit
from nextrapolate_numerics.methods.visible_scores import visible_scores
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import Combination, RankOne, Sum, Update

_ROUNDING = 1e-12  # what varies by less than this share of its norm is the same: scores, or a module at rest


@dataclass(frozen=True)
class AlphaRl:
    """One component of partial least squares per module, solved for the target's score.

    Attributes:
        rewards: one for each checkpoint, in the order of their steps; None regresses on the steps.
        target_reward: to solve for; None is where the rewards' line over the steps leads at the target step.
        mode: "line", dW(y*) as published, which leaves the last checkpoint for a matrix of rank one; "last",
            the last checkpoint and the change along the line, (a(y*) - a(y_c)) v_c^T, y_c being the score
            now: the step of the last checkpoint, or the rewards' line there.

    Raises:
        ValueError: a target without rewards.
    """

    rewards: tuple[float, ...] | None = None
    target_reward: float | None = None
    mode: Literal["last", "line"] = "last"

    needs: ClassVar[Evidence] = Evidence(triples=Seen.GLOBALS)

    def __post_init__(self) -> None:
        if self.rewards is None and self.target_reward is not None:
            raise ValueError("target_reward needs rewards: give the reward of each checkpoint")

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """A line needs two checkpoints after the origin, whose delta is 0 and has no direction."""
        drift.check_length(3, "alpharl")

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """Regress each module's a on the score, and solve for the target's.

        Raises:
            TooFewCheckpointsError: as `check`.
            ScoreCountError: not one reward for each checkpoint.
        """
        drift = extraction.drift
        self.check(drift, horizon_steps)
        scores, now, target = self._scores(extraction, horizon_steps)
        triples, explained = {}, []
        for name in sorted(extraction.moved):
            found = extraction.triples[name].globals
            aligned = found.aligned_to(found[-1])
            line = Line.of(aligned.sigma[:, None] * aligned.u.double(), scores)
            if line is not None:
                a = line.at(target) if self.mode == "line" else line.at(target) - line.at(now)
                v = aligned.v[-1].clone()  # a view would keep those of all checkpoints
                triples[name] = Triple(a.norm(), unit(a).float(), v)
                explained.append(line.explained)
        on_progress(1.0)
        update = RankOne(horizon_steps, (self._summary(explained, target),), triples)
        if self.mode == "last":
            return update
        away = Combination(horizon_steps, (), dict.fromkeys(triples, -drift.coefficients[-1]))
        return Sum(horizon_steps, update.warnings, (update, away))

    def _scores(self, extraction: Extraction, horizon_steps: int) -> tuple[Tensor, float, float]:
        """The scores after the origin; the one now and the one to solve for."""
        drift = extraction.drift
        steps = torch.tensor(drift.steps[1:], dtype=torch.float64)
        target_step = drift.last_step + horizon_steps
        if self.rewards is None:
            return steps, drift.last_step, target_step
        visible = visible_scores("rewards", self.rewards, extraction)
        scores = torch.tensor(visible[-len(steps) :], dtype=torch.float64)
        age = steps - steps.mean()
        slope = float(age @ scores / (age @ age))
        now, target = (
            float(scores.mean()) + slope * (step - float(steps.mean()))
            for step in (drift.last_step, target_step)
        )
        return scores, now, target if self.target_reward is None else self.target_reward

    def _summary(self, explained: list[float], target: float) -> str:
        if not explained:
            return (
                "All visible scores are equal, or no module moved between checkpoints: there is no "
                "direction of improvement, and no update."
            )
        share = sum(explained) / len(explained)
        what = "the steps" if self.rewards is None else f"the rewards (solved for {target:.3g})"
        return f"AlphaRL's component explains {share:.1%} of {what}, averaged over the modules."


@dataclass(frozen=True)
class Line:
    """a(y) of one module, from partial least squares with one component.

    Attributes:
        mean: (m) float64, a at the mean score.
        mean_score: of the checkpoints.
        direction: (m) float64, the change of a for each unit of the score.
        explained: R^2 of the score by the component.
    """

    mean: Tensor
    mean_score: float
    direction: Tensor
    explained: float

    @classmethod
    def of(cls, vectors: Tensor, scores: Tensor) -> "Line | None":
        """From (c, m) vectors and (c) scores, float64; None where the two do not vary together."""
        mean, mean_score = vectors.mean(dim=0), scores.mean()
        X, y = vectors - mean, scores - mean_score
        if X.norm() <= _ROUNDING * vectors.norm() or y.norm() <= _ROUNDING * scores.norm():
            return None
        component = X @ unit(X.T @ y)
        length = component @ component
        if length == 0:
            return None
        q = y @ component / length
        return cls(mean, float(mean_score), X.T @ component / length / q, float(q**2 * length / (y @ y)))

    def at(self, score: float) -> Tensor:
        """The vector (m) that belongs to the score."""
        return self.mean + (score - self.mean_score) * self.direction
