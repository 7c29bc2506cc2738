"""The three runs that the demo compares, and how long each of them trains."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Plan:
    """One run: its steps, where it is measured besides its ends, and what the plugin does in it."""

    name: str
    title: str
    steps: int
    measured_at: tuple[int, ...] = ()
    jumps: dict[str, Any] | None = None
    """Arguments of `NExtCallback`; None trains without it. Those that count steps are ints."""

    def shortened(self, factor: int) -> "Plan":
        """Return the plan with all steps divided by `factor`: fast, and evidence of nothing.

        Cycles are as many fewer, too, but three at least: otherwise they would be most of a short run.
        """
        jumps = self.jumps and {
            name: value // factor if isinstance(value, int) else value for name, value in self.jumps.items()
        }
        steps = self.steps // factor
        if jumps and "jump_every" in jumps:
            cycles = (steps - jumps["jump_at"]) // jumps["jump_every"]
            steps -= (cycles - max(3, cycles // factor)) * jumps["jump_every"]
        measured_at = tuple(step // factor for step in self.measured_at)
        return replace(self, steps=steps, measured_at=measured_at, jumps=jumps)


PLANS = (
    Plan("vanilla", "GRPO", steps=400, measured_at=(250,)),
    Plan(
        "jump",
        "GRPO + one jump",
        steps=250,
        jumps={"collect_every": 10, "jump_at": 150, "horizon_steps": 50},
    ),
    Plan(
        "cycles",
        "GRPO + cycles",
        steps=250,
        jumps={"collect_every": 10, "jump_at": 40, "jump_every": 20, "horizon_steps": 100},
    ),
)
