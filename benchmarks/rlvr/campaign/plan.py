"""Which runs are made, the most telling ones first."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

from benchmarks.rlvr.campaign.variants import (
    ABLATIONS,
    BEST,
    BRANCHES_AT,
    BY_OTHERS,
    CYCLES,
    DECAYED,
    NOT_AHEAD,
    OFTEN,
    ONE_JUMP,
    RECOMMENDED,
    REINFORCE,
    RLOO,
    SHORTER,
    VANILLA,
    VARIANTS,
)
from benchmarks.rlvr.record import Settings

SEEDS = (0, 1, 2)
TUNING_SEED = 3
"""Variants are chosen on this one; what is claimed is measured on the others."""
FRESH_SEEDS = (4, 5, 6)
"""Nothing was looked at on them before: what was found at the best rates is asked of them again."""
TASKS = ("addition", "modular", "sorting")
LARGER = "addition-large"
"""The first of them, with a base model eight times as large."""
RATE = 5e-5
FASTER = (1e-4, 2e-4, 4e-4)
LARGE = FASTER[1:]
"""Where vanilla runs come furthest in 400 steps."""
BEYOND = 8e-4
"""Past the sweep, to see whether the best rate lies within it."""
BEST_RATES = {"addition": 4e-4, "modular": 4e-4, "sorting": 2e-4}
"""The constant ones at which vanilla came furthest; those that fall to 0 begin there, and at twice that."""
TUNING_TASKS = ("addition", "modular")
SAVE_EVERY = 10
MEASURE_EVERY = 20


@dataclass(frozen=True)
class Planned:
    """One run."""

    variant: str
    settings: Settings

    @property
    def name(self) -> str:
        """Of its folder, and of its file of results."""
        made = self.settings
        return f"{made.task}-{made.learning_rate:g}-{self.variant}-s{made.seed}"

    @property
    def start(self) -> "Planned | None":
        """The run whose first steps this one shares; None begins at the base model."""
        if not VARIANTS[self.variant].branches:
            return None
        return planned("vanilla", self.settings.task, self.settings.learning_rate, self.settings.seed)


def planned(variant: str, task: str, rate: float = RATE, seed: int = 0) -> Planned:
    """Return the run of a variant on a task, at a learning rate, with a seed."""
    way = VARIANTS[variant]
    settings = Settings(
        task,
        way.trainer,
        rate,
        seed,
        # What a vanilla run reaches in the end is reached late where it is fast.
        steps=VANILLA.steps if rate in (*FASTER, BEYOND) else way.steps,
        save_every=SAVE_EVERY,
        measure_every=MEASURE_EVERY,
        options=way.options,
        jumps=way.jumps,
        branches_at=BRANCHES_AT,
    )
    run = Planned(variant, settings)
    return run if run.start is None else Planned(variant, replace(settings, start=run.start.name))


def runs_of(
    variants: Iterable[str],
    tasks: Iterable[str] = TASKS,
    rates: Iterable[float] = (RATE,),
    seeds: Iterable[int] = SEEDS,
) -> tuple[Planned, ...]:
    """Return the runs of all variants on all tasks at all rates with all seeds; seeds vary slowest."""
    return tuple(
        planned(variant, task, rate, seed)
        for seed, rate, task, variant in product(seeds, rates, tasks, variants)
    )


def at_best_rates(variants: Iterable[str], seeds: Iterable[int] = SEEDS) -> tuple[Planned, ...]:
    """Return the runs of all variants on all tasks, at each task's best constant rate."""
    return tuple(
        run
        for seed in seeds
        for task, best in BEST_RATES.items()
        for run in runs_of(tuple(variants), [task], [best], [seed])
    )


STUDIES = {
    "steps": runs_of(("vanilla", BEST, OFTEN)),
    "rates": runs_of(["vanilla"], rates=FASTER),
    "cycles by single methods": runs_of(BY_OTHERS),
    "beyond the sweep": (
        *runs_of(["vanilla"], rates=[BEYOND]),
        *runs_of((BEST, SHORTER), ["modular"], [BEYOND], SEEDS[:1]),
    ),
    "cycles at larger rates": (
        *runs_of((BEST, SHORTER, "guarded", "guarded-tolerant", "guarded-alphas"), rates=LARGE[-1:]),
        *runs_of((BEST, "guarded", OFTEN, "guarded-often"), rates=LARGE[:1]),
        *runs_of([SHORTER], TASKS[-1:], rates=LARGE[:1]),
        *runs_of(("guarded-averages", "guarded-often"), rates=LARGE[-1:], seeds=SEEDS[:1]),
        *runs_of(["gated-often"], rates=LARGE[:1], seeds=SEEDS[:1]),
    ),
    "a falling rate": (
        *at_best_rates(["decayed"]),
        *(run for task, best in BEST_RATES.items() for run in runs_of(DECAYED, [task], [2 * best])),
        *runs_of(["decayed-cycles"], TASKS[:1], LARGE[-1:]),
    ),
    "jumps where recommended": at_best_rates(RECOMMENDED),
    "the best rates, asked again": at_best_rates(("vanilla", BEST, SHORTER, *RECOMMENDED), FRESH_SEEDS),
    "guard": runs_of(("guarded", "guarded-often")),
    "one jump": runs_of(ONE_JUMP),
    "algorithms": runs_of((*RLOO, *REINFORCE)),
    "ablations": runs_of(ABLATIONS),
    "one jump, not ahead": runs_of(NOT_AHEAD),
    "a larger model": runs_of(("vanilla", BEST, OFTEN), [LARGER], seeds=SEEDS[:2]),
    "tuning": runs_of(("vanilla", *CYCLES), TUNING_TASKS, seeds=[TUNING_SEED]),
}
"""Each answers a question of its own; the first come first."""


def campaign() -> tuple[Planned, ...]:
    """Return all runs, by priority; a run that several studies need comes once."""
    return tuple({run.name: run for study in STUDIES.values() for run in study}.values())
