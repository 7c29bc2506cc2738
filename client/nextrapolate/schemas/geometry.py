"""How a run's deltas lie, and what a refit keeps of them."""

from pydantic import Field

from nextrapolate.schemas.common import Response


class KindGeometry(Response):
    """Modules of one kind, such as q_proj, over the run."""

    kind: str = Field(description="last part of the modules' names")
    modules: int = Field(description="number of these modules that moved")
    energy_ratio: list[float] = Field(
        description="sigma_1 / sum sigma of the global delta at each step, averaged over the modules "
        "(NExt, Fig. 2)"
    )
    drift_norm: list[float] = Field(
        description="norm of the global delta at each step, over all these modules"
    )
    variance_explained: list[float] = Field(
        description="share of the deltas' squared norm in the leading 1, 2, ... directions in time (RELEX)"
    )


class ModuleLinearity(Response):
    """R^2 of a straight line through one module's weights, in three definitions that disagree."""

    name: str
    held_out_by_coordinate: float | None = Field(
        description="fitted on the earlier two thirds, judged on the rest, each coordinate about its own "
        "mean, weighted by its variance; null where fewer than two checkpoints are left to judge on"
    )
    held_out_pooled: float | None = Field(description="the same, all coordinates about one mean")
    in_sample: float = Field(
        description="fitted and judged on all checkpoints, each coordinate about its own mean"
    )


class StepGeometry(Response):
    """What one checkpoint added."""

    step: int
    drift_norm: float = Field(description="norm of the drift since the base, over all modules")
    speed: float | None = Field(
        description="norm of the increment since the checkpoint before, per training step; null for the first"
    )
    steadiness: float | None = Field(
        description="cosine between this increment and the one before; null for the first two"
    )


class RunBreak(Response):
    """An increment that is too long for its run: checkpoints of two runs meet there, or training diverged."""

    begin_step: int = Field(
        description="step of the checkpoint before the break; 0 if that is the base model"
    )
    end_step: int = Field(description="step of the checkpoint that is too far away")
    times: float = Field(
        description="how many times as long as the other increments suggest; with five or more increments, "
        "the one that suggests the longest is ignored"
    )


class RunGeometry(Response):
    """The geometry of a run: how large its deltas are, and how straight and steady its path is."""

    still_modules: list[str] = Field(description="modules that never moved")
    track: list[StepGeometry]
    kinds: list[KindGeometry]
    linearity: list[ModuleLinearity]
    breaks: list[RunBreak] = Field(
        default_factory=list,
        description="where the series does not look like a single run, in the order of steps",
    )

    def broken_after(self, step: int) -> RunBreak | None:
        """The last break that ends after a step: a backtest asked there knows nothing of what comes next."""
        later = [found for found in self.breaks if found.end_step > step]
        return later[-1] if later else None

    @property
    def linearity_by_definition(self) -> dict[str, list[float]]:
        """R^2 of the modules that have one, by the definition; one that no module has is left out."""
        modules = self.linearity
        definitions: dict[str, list[float | None]] = {
            "held out, each coordinate about its mean": [module.held_out_by_coordinate for module in modules],
            "held out, all about one mean": [module.held_out_pooled for module in modules],
            "in sample, each about its mean": [module.in_sample for module in modules],
        }
        known = {
            name: [value for value in values if value is not None] for name, values in definitions.items()
        }
        return {name: values for name, values in known.items() if values}


class Spectrum(Response):
    """Singular values before and after the refit, over the modules that got an update.

    The i-th number stands for the i-th singular value of each: the root of their mean square.
    """

    wanted: list[float] = Field(
        description="singular values of the last checkpoint plus the update, descending"
    )
    kept: list[float] = Field(description="singular values of what the adapter keeps of it")
