"""Runs beside the vanilla run of the same task, learning rate and seed."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.rlvr.campaign.plan import Planned, planned
from benchmarks.rlvr.campaign.results import Results, at, curve, steps_to
from benchmarks.rlvr.campaign.variants import VANILLA
from benchmarks.rlvr.record import Record


@dataclass(frozen=True)
class Pair:
    """A run, and the vanilla run that it is judged by."""

    run: Planned
    record: Record
    vanilla: Record

    @property
    def goal(self) -> float:
        """Sampled accuracy of the vanilla run at its end."""
        return at(self.vanilla, VANILLA.steps)

    @property
    def steps(self) -> float | None:
        """Steps that the run paid for the goal; None where it did not get there."""
        return steps_to(self.record, self.goal)

    @property
    def steps_of_vanilla(self) -> float:
        """Steps that the vanilla run paid for what the run has at its end; all of them where it has less."""
        reached = steps_to(self.vanilla, at(self.record, self.record.settings.steps))
        return VANILLA.steps if reached is None else reached

    @property
    def differences(self) -> dict[int, float]:
        """How much more sampled accuracy the run has at equal steps, wherever both were measured."""
        both = {point.step for point in curve(self.record)} & {point.step for point in curve(self.vanilla)}
        return {step: at(self.record, step) - at(self.vanilla, step) for step in sorted(both)}

    @property
    def worst(self) -> float:
        """The least of the differences."""
        return min(self.differences.values())


def pairs(results: Results, runs: Sequence[Planned]) -> list[Pair]:
    """Return the pairs of which both runs are finished."""
    found = []
    for run, record in results.of(runs):
        made = run.settings
        vanilla = planned("vanilla", made.task, made.learning_rate, made.seed)
        found += [Pair(run, record, other) for _, other in results.of([vanilla])]
    return found


def gain_for_100_steps(record: Record) -> float:
    """Return the sampled accuracy gained over the base model, for each 100 steps paid."""
    end = record.settings.steps
    return 100 * (at(record, end) - at(record, 0)) / end


def gain_a_minute(record: Record) -> float:
    """Return the same for each minute, pauses for jumps included."""
    last = record.rows[-1]
    return 60 * (last.accuracy.sampled - record.rows[0].accuracy.sampled) / last.seconds
