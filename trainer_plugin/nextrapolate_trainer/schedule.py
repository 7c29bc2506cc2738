"""After which steps a checkpoint is collected, and after which a jump is made."""

from dataclasses import dataclass
from math import ceil
from typing import TypedDict

from nextrapolate.schemas import MOST_CHECKPOINTS

MAX_STEPS_BETWEEN_CHECKPOINTS = 10
"""Steps: what methods are tried out and measured with."""


@dataclass(frozen=True)
class Schedule:
    """One jump after step `jump_at`; with `jump_every`, one every so many steps from there on.

    A checkpoint is collected after every `collect_every` steps, the step of a jump included. A run that
    finishes makes one more jump, after its last step; `jump_at` may be None then, and it makes no other.

    Raises:
        ValueError: a number is not positive, jumps do not fall on collected steps, or there are none.
    """

    collect_every: int
    jump_at: int | None
    jump_every: int | None = None
    finishes: bool = False

    def __post_init__(self) -> None:
        if self.jump_at is None and (self.jump_every is not None or not self.finishes):
            raise ValueError(
                "jump_at is None: then give finish (one jump after the last step), and leave jump_every out"
            )
        for name in ("collect_every", "jump_at", "jump_every"):
            steps = getattr(self, name)
            if steps is not None and steps < 1:
                raise ValueError(f"{name} is {steps}: it counts training steps and must be at least 1")
        for name in ("jump_at", "jump_every"):
            steps = getattr(self, name)
            if steps is not None and steps % self.collect_every:
                raise ValueError(
                    f"{name} is {steps}, which is not a multiple of collect_every ({self.collect_every}): "
                    "a jump starts from a collected checkpoint"
                )

    def collects_after(self, step: int) -> bool:
        """Return whether the adapter is collected after training step `step` (1 is the first)."""
        return step > 0 and step % self.collect_every == 0

    def jumps_after(self, step: int) -> bool:
        """Return whether a jump follows training step `step`."""
        if self.jump_every is None or self.jump_at is None:
            return step == self.jump_at
        return step >= self.jump_at and (step - self.jump_at) % self.jump_every == 0

    def next_jump(self, step: int, end: int) -> int | None:
        """Return the step that the next jump follows, the last one's included; None where there is none.

        Args:
            step: the run goes on after so many steps; a jump that is due there is yet to be made.
            end: its last step.
        """
        due = None if self.jump_at is None else self._first_from(self.jump_at, step)
        if due is not None and due < end:
            return due
        return end if self.finishes else None

    def never_comes_to(self, step: int, end: int, *, has_jumped: bool) -> str | None:
        """Return what to tell a run of a jump that it does not come to; None where there is nothing to tell.

        Args:
            step: the run goes on after so many steps; a jump that is due there is yet to be made.
            end: its last step. A jump is made only where another step follows.
            has_jumped: whether it made a jump before: then none ahead is what it was told to do.
        """
        if self.jump_at is None or (self.finishes and self.jumps_after(end)):
            return None
        due = end if self.jumps_after(end) else self._first_from(self.jump_at, step)
        if due == end or (due is not None and due > end and not has_jumped):
            return (
                f"this run ends after step {end}, before a jump that is due when the step after {due} "
                "begins: lower jump_at, or set finish to jump after the last step"
            )
        if due is None and not has_jumped:
            return (
                f"this run resumes from step {step}, but its only jump was due after step {self.jump_at} "
                "and was not made: raise jump_at, or give jump_every"
            )
        return None

    def collects_too_many(self, end: int) -> str | None:
        """Return what to tell a run that will have collected more than a job takes by its last jump.

        Args:
            end: its last step; None is returned where there is nothing to tell.
        """
        last = end if self.finishes else self._last_until(end)
        collected = last // self.collect_every
        if collected <= MOST_CHECKPOINTS:
            return None
        return (
            f"this run collects {collected} checkpoints up to its last jump, after step {last}, and a job "
            f"takes at most {MOST_CHECKPOINTS}: later jumps will not be made; set collect_every to "
            f"{ceil(last / MOST_CHECKPOINTS)} or more"
        )

    def _last_until(self, end: int) -> int:
        """Return the last step up to `end` that a jump follows; 0 where there is none."""
        if self.jump_at is None or end < self.jump_at:
            return 0
        return self.jump_at if self.jump_every is None else end - (end - self.jump_at) % self.jump_every

    def _first_from(self, jump_at: int, step: int) -> int | None:
        """Return the first step from `step` on that a jump follows; None where there is none."""
        if step <= jump_at:
            return jump_at
        if self.jump_every is None:
            return None
        return step + (jump_at - step) % self.jump_every


class Cycle(TypedDict):
    """Arguments of a trainer's callback that count training steps."""

    collect_every: int
    jump_at: int
    jump_every: int
    horizon_steps: int


def rl_extra(train_steps: int, jump_steps: int) -> Cycle:
    """Return RL-Extra's cycle: train for some steps, jump ahead by some, and so on (arXiv 2601.04537).

        NExtCallback(client, **rl_extra(train_steps=20, jump_steps=60), method="autoregression")

    Checkpoints are collected at least every 10 steps, and at least twice in each stretch of training: fewer
    are no trajectory.

    Raises:
        ValueError: a stretch of one step has no trajectory.
    """
    if train_steps < 2:
        raise ValueError(
            f"train_steps is {train_steps}, but must be at least 2: a trajectory needs two checkpoints"
        )
    longest = min(MAX_STEPS_BETWEEN_CHECKPOINTS, train_steps // 2)
    collect_every = next(steps for steps in range(longest, 0, -1) if train_steps % steps == 0)
    return Cycle(
        collect_every=collect_every, jump_at=train_steps, jump_every=train_steps, horizon_steps=jump_steps
    )
