"""The methods this service offers: what the schemas do not say about them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_high

from nextrapolate.schemas import (
    AlphaRlMethod,
    AutoMethod,
    AutoregressionMethod,
    DareMethod,
    ExpoMethod,
    MaecMethod,
    MethodInfo,
    MethodParameters,
    NextMethod,
    NoneMethod,
    RelexMethod,
    SoupMethod,
    WeightExtrapolationMethod,
    WsmMethod,
)


@dataclass(frozen=True)
class MethodEntry:
    """One method.

    Attributes:
        parameters: its parameters, among them its `name`.
        title: for people.
        paper: where it comes from; None for our own.
        learns_from_base: the origin, from which training is measured, is a checkpoint to learn from where it
            is one of the series.
    """

    parameters: type[MethodParameters]
    title: str
    paper: str | None
    learns_from_base: bool = True

    @property
    def name(self) -> str:
        """What callers write as `method.name`."""
        return str(self.parameters.model_fields["name"].default)

    def parameter_names(self) -> list[str]:
        """What callers may set."""
        return sorted(self.parameters.model_fields.keys() - {"name"})

    def needed_checkpoints(
        self, method: MethodParameters, steps: Sequence[int], *, starts_at_base: bool
    ) -> int:
        """How many checkpoints there have to be, if those there are went on at their median spacing."""
        origin = first_is_origin(steps, starts_at_base=starts_at_base)
        told = steps[1:] if origin and not self.learns_from_base else steps
        needed = method.minimum_checkpoints
        if method.learns_from_pairs and len(told) >= 2:
            missing_steps = max(0, told[0] + method.horizon_steps - told[-1])
            spacing = median_high(after - before for before, after in pairwise(told))
            needed = max(needed, len(told) + math.ceil(missing_steps / spacing))
        return needed + len(steps) - len(told)

    def info(self) -> MethodInfo:
        """The method as GET /methods shows it."""
        return MethodInfo(
            name=self.name,
            title=self.title,
            paper=self.paper,
            minimum_checkpoints=self.parameters().minimum_checkpoints,
            parameters=self.parameters.model_json_schema(),
        )


def first_is_origin(steps: Sequence[int], *, starts_at_base: bool) -> bool:
    """True where training is measured from the first checkpoint, and not from a base model before it."""
    return not starts_at_base or 0 in steps


_ENTRIES = (
    MethodEntry(
        AutoMethod,
        "What predicts this run's own past best, per module, and as far as it does",
        None,
    ),
    MethodEntry(
        NextMethod,
        "After NExt: leading singular triples, by a regression of ours; as published with preset=paper",
        "arXiv:2604.11446",
        learns_from_base=False,
    ),
    MethodEntry(
        WeightExtrapolationMethod,
        "Weight extrapolation along a line",
        "arXiv:2601.04537",
    ),
    MethodEntry(
        AutoregressionMethod,
        "Trajectory autoregression over several windows and horizons",
        None,
        learns_from_base=False,
    ),
    MethodEntry(
        RelexMethod,
        "RELEX: a line in time through the trajectory's leading directions",
        "arXiv:2605.21468",
        learns_from_base=False,
    ),
    MethodEntry(
        AlphaRlMethod,
        "AlphaRL: each module's leading direction as a line over reward or step",
        "arXiv:2510.00553",
        learns_from_base=False,
    ),
    MethodEntry(
        ExpoMethod,
        "ExPO: on along the way from the base model",
        "arXiv:2404.16792",
    ),
    MethodEntry(
        SoupMethod,
        "A soup of the last checkpoints, uniform or greedy by score",
        "arXiv:2203.05482",
    ),
    MethodEntry(
        WsmMethod,
        "WSM: the average that stands in for a decay of the learning rate",
        "arXiv:2507.17634",
    ),
    MethodEntry(
        DareMethod,
        "DARE: entries of the last delta dropped at random, the others rescaled",
        "arXiv:2311.03099",
    ),
    MethodEntry(
        MaecMethod,
        "MAEC: weight extrapolation of the key neurons only",
        "arXiv:2410.07825",
    ),
    MethodEntry(
        NoneMethod,
        "No update: the baseline",
        None,
    ),
)

METHODS: Mapping[str, MethodEntry] = {entry.name: entry for entry in _ENTRIES}
"""Every method by its name."""
