"""The ways to train that are compared; a variant's name is part of its runs' names."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Variant:
    """How a run goes on, whatever its task, learning rate and seed."""

    title: str
    steps: int
    jumps: dict[str, Any] | None = None
    """Arguments of `NExtCallback`."""
    branches: bool = False
    """Shares its first steps with the vanilla run of its task, rate and seed."""
    rival: str = "vanilla"
    """The variant it is judged by, at the same task, rate and seed."""
    trainer: str = "grpo"
    options: dict[str, Any] = field(default_factory=dict)
    """Further settings of the trainer, by TRL's names."""


def _told(settings: dict[str, Any]) -> str:
    """What a title says of further settings."""
    told = ""
    for name, value in settings.items():
        called = name.removeprefix("guard_").removeprefix("use_").replace("_", " ")
        match value:
            case bool():
                told += f", {'with' if value else 'without'} {called}"
            case list():
                told += f", {called} {' and '.join(map(str, value))}"
            case _:
                told += f", {called} {value}"
    return told


CYCLE_STEPS = 250
"""Of runs with jumps at the usual rate; at larger ones they go as far as vanilla's."""

BRANCHES_AT = 150
"""Where the one jump is made, from the vanilla run of the same task, rate and seed."""


def cycles(method: str, every: int, ahead: int, start: int = 40, **jumps: Any) -> Variant:
    """Jumps of `ahead` steps after every `every` steps of training, the first of them after `start`."""
    arguments = {"collect_every": 10, "jump_at": start, "jump_every": every, "horizon_steps": ahead}
    named = f"{method}, every {every} steps from {start} on, {ahead} ahead"
    return Variant(named + _told(jumps), CYCLE_STEPS, {"method": method, **arguments, **jumps})


def lines(every: int, ahead: int) -> dict[str, Variant]:
    """Cycles along the line through the last two checkpoints before a jump, without momentum and with it."""
    return {
        f"we-{every}-{ahead}{suffix}": cycles(
            "weight-extrapolation", every, ahead, start=2 * every, window_steps=every, **momentum
        )
        for suffix, momentum in (("", {}), ("-momentum", {"momentum": True}))
    }


def one_jump(method: str, ahead: int = 50, **parameters: Any) -> Variant:
    """150 steps, one jump, 100 more steps."""
    jumps = {"method": method, "jump_at": BRANCHES_AT, "horizon_steps": ahead, **parameters}
    return Variant(f"{method}, {ahead} ahead{_told(parameters)}", CYCLE_STEPS, jumps, branches=True)


def gated(variant: Variant, cosine: float) -> Variant:
    """The same where modules whose backtest has a lower cosine keep the run's own adapter."""
    assert variant.jumps is not None
    return replace(
        variant,
        title=f"{variant.title}, gated at {cosine:g}",
        jumps={**variant.jumps, "gate": {"min_backtest_cosine": cosine}},
    )


def guarded(variant: Variant, **jumps: Any) -> Variant:
    """The same with the plugin's guard: the reward of 1024 answers before and after each jump decides."""
    assert variant.jumps is not None
    return replace(
        variant,
        title=f"{variant.title}, with the guard{_told(jumps)}",
        jumps={**variant.jumps, "guard": "evaluate", **jumps},
    )


def recommended(variant: Variant) -> Variant:
    """The same where no jump is made but one that its report recommends."""
    assert variant.jumps is not None
    return replace(
        variant,
        title=f"{variant.title}, where recommended",
        jumps={**variant.jumps, "only_if_recommended": True},
    )


def decayed(variant: Variant) -> Variant:
    """The same where the learning rate falls linearly to 0."""
    return replace(
        variant,
        title=f"{variant.title}, its rate falling to 0",
        options={"lr_scheduler_type": "linear"},
    )


def trained_by(variant: Variant, trainer: str, name: str, **options: Any) -> Variant:
    """The same by another algorithm."""
    return replace(variant, title=f"{variant.title} ({name})", trainer=trainer, options=options)


VANILLA = Variant("vanilla", 400)
AUTOREGRESSION = cycles("autoregression", 20, 60, decay=0.9)

CYCLES = {
    "ar-20-60": AUTOREGRESSION,
    "ar-20-60-reset": cycles("autoregression", 20, 60, decay=0.9, optimizer="reset"),
    "auto-20-25": cycles("auto", 20, 25),
    "auto-20-50": cycles("auto", 20, 50),
    "auto-20-60": cycles("auto", 20, 60),
    "auto-20-100": cycles("auto", 20, 100),
    "auto-20-200": cycles("auto", 20, 200),
    "auto-10-100": cycles("auto", 10, 100, start=20),
    "next-20-60": cycles("next", 20, 60),
    "next-20-100": cycles("next", 20, 100),
    "we-20-100": cycles("weight-extrapolation", 20, 100),
    "expo-20": cycles("expo", 20, 50, alpha=0.1),
    **lines(20, 16),
    **lines(20, 20),
    **lines(30, 30),
    **lines(30, 60),
}
"""Lengths, methods, strengths, what becomes of the optimizer, and momentum over jumps."""

ONE_JUMP = {
    "at150-auto": one_jump("auto"),
    "at150-auto-guarded": guarded(one_jump("auto")),
    "at150-auto-100": one_jump("auto", 100),
    "at150-ar": one_jump("autoregression"),
    "at150-next": one_jump("next"),
    "at150-we": one_jump("weight-extrapolation"),
    "at150-relex": one_jump("relex"),
    "at150-relex-guarded": guarded(one_jump("relex")),
    "at150-alpharl": one_jump("alpharl"),
    "at150-maec": one_jump("maec"),
    "at150-expo": one_jump("expo"),
}
"""The papers' way: 150 steps, one jump, 100 more."""
ABLATIONS = {
    "at150-next-paper": one_jump("next", preset="paper"),
    "at150-next-without-global": one_jump("next", preset="paper", use_global=False),
    "at150-next-without-local": one_jump("next", preset="paper", use_local=False),
}
"""The same by NExt as published, and without one or the other of its inputs, which takes long."""
NOT_AHEAD = {
    "at150-dare": one_jump("dare"),
    "at150-soup": one_jump("soup"),
    "at150-wsm": one_jump("wsm"),
    "at150-none": one_jump("none"),
}
"""The same by what does not look ahead, draws at random, or is no jump at all."""

BEST = "auto-20-100"
"""The cycle that the claims at the usual rate are made with."""
OFTEN = "auto-10-100"
"""The same with a jump at every checkpoint: twice as many."""
BY_OTHERS = ("next-20-100", "we-20-100")
"""The cycle of the claims by single methods, of which one is as published."""
SHORTER = "auto-20-25"
"""The first of these a quarter as far ahead, for rates several times as large."""

GUARDED = {
    "guarded": guarded(CYCLES[BEST]),
    "guarded-tolerant": guarded(CYCLES[BEST], guard_tolerance=0.02),
    "guarded-alphas": guarded(CYCLES[BEST], alphas=[0.25, 1.0]),
    "guarded-averages": guarded(CYCLES[SHORTER], others=["wsm"]),
    "guarded-often": guarded(CYCLES[OFTEN]),
    "gated-often": gated(CYCLES[OFTEN], 0.2),
}
"""The same cycles where each jump is tried out first; of several alphas, or methods, the best stays.

The tolerance is two standard errors of the guard's 1024 answers.
"""

RECOMMENDED = {"recommended": recommended(CYCLES[BEST])}
"""The report decides, which costs no answers; it says nothing before a run is longer than a horizon."""

DECAYED = {
    "decayed": decayed(VANILLA),
    "decayed-cycles": replace(decayed(CYCLES[BEST]), rival="decayed"),
    "decayed-short": replace(decayed(CYCLES[SHORTER]), rival="decayed"),
}
"""What takes the noise out of the last steps without any jump, and with jumps; over a run's 400 steps."""

_NORMALISED = "REINFORCE++ with a baseline"
RLOO = {
    "rloo": trained_by(VANILLA, "rloo", "RLOO"),
    "rloo-cycles": replace(trained_by(CYCLES[BEST], "rloo", "RLOO"), rival="rloo"),
}
REINFORCE = {
    "rpp": trained_by(VANILLA, "rloo", _NORMALISED, normalize_advantages=True),
    "rpp-cycles": replace(
        trained_by(CYCLES[BEST], "rloo", _NORMALISED, normalize_advantages=True), rival="rpp"
    ),
}
"""RLOO whose advantages are normalised over the batch is REINFORCE++ with a baseline, its KL term left out.

The baseline of the other answers and that of the group's mean differ by a factor common to the batch, which
the normalisation takes out. REINFORCE++ without a baseline, one answer a question, TRL does not have.
"""

VARIANTS = {
    "vanilla": VANILLA,
    **CYCLES,
    **GUARDED,
    **RECOMMENDED,
    **DECAYED,
    **ONE_JUMP,
    **ABLATIONS,
    **NOT_AHEAD,
    **RLOO,
    **REINFORCE,
}
