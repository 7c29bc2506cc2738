"""Runs beside their rivals: the runs without jumps of the same task, learning rate and seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from statistics import mean, variance
from typing import Any

from demo.trainer import GUARD_QUESTIONS, SETTINGS

from benchmarks.rlvr.campaign.plan import Planned, planned, runs_of
from benchmarks.rlvr.campaign.results import (
    Decoding,
    Results,
    at,
    curve,
    first_at,
    monotone,
    steps_to,
    steps_until_kept,
)
from benchmarks.rlvr.campaign.variants import CYCLE_STEPS, VANILLA, VARIANTS
from benchmarks.rlvr.record import Record

_ANSWERS_A_STEP: int = SETTINGS["per_device_train_batch_size"]


@dataclass(frozen=True)
class Pair:
    """A run, and the one without jumps that it is judged by."""

    run: Planned
    record: Record
    rival: Record
    decoding: Decoding = "sampled"
    """That accuracies are of."""

    @property
    def greedy(self) -> "Pair":
        """The same by greedy accuracy."""
        return replace(self, decoding="greedy")

    @property
    def of_rival(self) -> "Pair":
        """The rival beside itself: its own steps to its goal, which it may have had before its end."""
        return replace(self, record=self.rival)

    @property
    def goal(self) -> float:
        """Accuracy of the rival at its end."""
        return self._at(VANILLA.steps, self.rival)

    @property
    def steps(self) -> float | None:
        """Steps that the run paid for the goal; None where it did not get there."""
        return steps_to(self.record, self.goal, self.decoding)

    @property
    def steps_until_kept(self) -> float | None:
        """Steps after which the run was never below the goal again."""
        return steps_until_kept(self.record, self.goal, self.decoding)

    @property
    def steps_by_fits(self) -> float | None:
        """Steps paid for the goal by fits to both curves that never fall."""
        made, rival = (monotone(curve(record, self.decoding)) for record in (self.record, self.rival))
        return first_at(made, rival[-1].accuracy)

    @property
    def steps_with_guard(self) -> float | None:
        """Steps paid for the goal, the guard's answers counted as the steps of training that have as many."""
        if self.steps is None:
            return None
        jumps = sum(jump.step <= self.steps for jump in self.record.jumps)
        return self.steps + jumps * self._answers_a_jump / _ANSWERS_A_STEP

    @property
    def steps_of_rival(self) -> float:
        """Steps that the rival paid for what the run has at its end; all of them where it has less."""
        end = self._at(self.record.settings.steps, self.record)
        reached = steps_to(self.rival, end, self.decoding)
        return VANILLA.steps if reached is None else reached

    @property
    def differences(self) -> dict[int, float]:
        """How much more accuracy the run has at equal steps, wherever it was measured after it began."""
        measured = sorted({point.step for point in curve(self.record) if point.step})
        return {step: self._at(step, self.record) - self._at(step, self.rival) for step in measured}

    @property
    def worst(self) -> float:
        """The least of the differences."""
        return min(self.differences.values())

    @property
    def guard_answers(self) -> float:
        """Answers that the guard had given, for each one that the run trained on."""
        trained_on = self.record.settings.steps * _ANSWERS_A_STEP
        return len(self.record.jumps) * self._answers_a_jump / trained_on

    def _at(self, step: int, record: Record) -> float:
        return at(record, step, self.decoding)

    @property
    def _answers_a_jump(self) -> int:
        """That the guard has, of the run's own adapter and of each that it is offered."""
        jumps = self.record.settings.jumps
        if jumps is None or "guard" not in jumps:
            return 0
        adapters = 1 + len(jumps.get("alphas", [1.0])) + len(jumps.get("others", []))
        return int(adapters * GUARD_QUESTIONS * SETTINGS["num_generations"])


def pairs(results: Results, runs: Sequence[Planned]) -> list[Pair]:
    """Return the pairs of which both runs are finished."""
    found = []
    for run, record in results.of(runs):
        made = run.settings
        rival = planned(VARIANTS[run.variant].rival, made.task, made.learning_rate, made.seed)
        found += [Pair(run, record, other) for _, other in results.of([rival])]
    return found


def noise(results: Results, task: str, rate: float) -> float | None:
    """How far two runs of one kind may lie apart at equal steps: two standard deviations of their difference.

    From vanilla's variance over seeds, in the mean over all steps measured; None where one seed is there.
    """
    found = [record for _, record in results.of(runs_of(["vanilla"], [task], [rate]))]
    if len(found) < 2:
        return None
    measured = [row.step for row in found[0].rows if row.step]
    return 2 * sqrt(2 * mean(variance([at(record, step) for record in found]) for step in measured))


def worse_than_noise(found: Sequence[Pair], allowed: float) -> tuple[int, int]:
    """Return how many measurements lie below the rival's by more than `allowed`, and of how many."""
    differences = [value for pair in found for value in pair.differences.values()]
    return sum(value < -allowed for value in differences), len(differences)


def summary(results: Results, runs: Sequence[Planned]) -> list[dict[str, Any]]:
    """Return what the runs came to, one entry each: for those who want the numbers and not the tables."""
    return [
        {
            "run": pair.run.name,
            "variant": pair.run.variant,
            **{
                name: getattr(pair.record.settings, name)
                for name in ("task", "learning_rate", "seed", "steps")
            },
            "sampled": at(pair.record, pair.record.settings.steps),
            "rival": VARIANTS[pair.run.variant].rival,
            "rival_sampled": pair.goal,
            "steps_to_rival": pair.steps,
            "steps_until_kept": pair.steps_until_kept,
            "steps_by_fits": pair.steps_by_fits,
            "steps_with_guard": pair.steps_with_guard,
            "worst_difference": pair.worst,
            "gain_for_100_steps": gain_for_100_steps(pair.record),
            "jumps": sum(jump.alpha is not None for jump in pair.record.jumps),
            "jumps_refused": sum(jump.alpha is None for jump in pair.record.jumps),
        }
        for pair in pairs(results, runs)
    ]


def gain_for_100_steps(record: Record) -> float:
    """Return the sampled accuracy gained over the base model for each 100 steps paid (an ICER).

    Over the steps that runs with jumps have: later ones gain less, jumps or none.
    """
    end = min(record.settings.steps, CYCLE_STEPS)
    return 100 * (at(record, end) - at(record, 0)) / end
