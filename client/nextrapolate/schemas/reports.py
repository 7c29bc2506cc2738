"""report.json, of each of the three tasks."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, computed_field

from nextrapolate.schemas.common import Response
from nextrapolate.schemas.geometry import RunBreak, RunGeometry, Spectrum
from nextrapolate.schemas.job_requests import Gate, Output
from nextrapolate.schemas.jobs import Stage
from nextrapolate.schemas.method_parameters import HorizonFreeParameters
from nextrapolate.schemas.methods import AnsweredMethod
from nextrapolate.schemas.scores import BacktestReport, ChoiceReport, MethodScores


class StageProfile(Response):
    """The cost of one stage."""

    stage: Stage
    seconds: float
    bytes_read: int | None = Field(
        default=None,
        description="bytes of the checkpoints' weights that were read; null if the stage did not count them",
    )
    flop_rate: float | None = Field(
        default=None,
        description="floating-point operations of its large matrix products, computed from their shapes, "
        "divided by all of its seconds; null if it did not count them",
    )


class ModuleReport(Response):
    """What was measured on one module, and what was done to it."""

    name: str
    shape: tuple[int, int] = Field(description="(out_features, in_features)")
    moved: bool = Field(description="false: the module never trained, and got exactly no update")
    gated: str | None = Field(
        default=None, description="why the gate kept the last checkpoint; null if it did not"
    )
    energy_ratio: float = Field(description="sigma_1 / sum sigma of the last global delta")
    drift_norm: float = Field(description="Frobenius norm of the last global delta")
    update_norm: float = Field(description="Frobenius norm of alpha times the update")
    reached_norm: float = Field(description="Frobenius norm of the drift plus the update")
    discarded_energy: float = Field(
        description="share of the squared norm that the refit to the wanted rank cut off"
    )
    update_discarded: float = Field(
        default=0.0,
        description="share of the squared norm of the wanted update that the low-rank update does not "
        "hold; 0 except for methods that act on the full matrix",
    )
    gauge_condition: float | None = Field(
        default=None,
        description="condition number of the refit's gauge, before it was bounded; null with rank=grow, "
        "and if the gauge is singular",
    )
    backtest_cosine: float | None = None


class _JobReport(Response):
    """What every report.json says: the files used, what the job cost, and what made it."""

    job: str = Field(description="id of the job")
    run: str = Field(
        default="",
        description="name of the run: the job's label `run`, else the name of its series; empty if it has "
        "neither, and in early reports",
    )
    made_at: datetime | None = Field(
        default=None, description="time at which work on the job began; null in early reports"
    )
    steps: list[int] = Field(description="steps of the checkpoints used, ascending")
    jumps: list[int] = Field(description="steps after which an extrapolated adapter was swapped in")
    warnings: list[str]
    stages: list[StageProfile]
    peak_memory_bytes: int = Field(description="peak resident memory of the worker's child process")
    device: str
    inputs: dict[str, str] = Field(
        description="sha256 of each checkpoint's adapter_model.safetensors, by step"
    )
    versions: dict[str, str]
    _repr_html_: ClassVar[Callable[["AnyReport"], str]]
    """How a notebook shows it; set where the package is imported: what reads and shows reports knows them."""


class Report(_JobReport):
    """An extrapolation's report.json: what was done, on what evidence, and what it cost."""

    task: Literal["extrapolate"] = "extrapolate"
    verdict: str = Field(description="one sentence: whether the evidence speaks for the jump, and why")
    method: AnsweredMethod
    target_step: int = Field(
        description="step the update leads to; for an average, the step of the last checkpoint; for "
        "`expo`, whose length depends on alpha, the step that its backtest assumes"
    )
    output: Output
    gate: Gate
    backtest: BacktestReport | None = Field(description="null if nothing could be held out")
    unmeasured: str | None = Field(
        default=None,
        description="why there is no backtest, and which horizon could have one; null if there is one",
    )
    choice: ChoiceReport | None = Field(
        default=None, description="only with `auto`: which candidates it weighed, and why it chose as it did"
    )
    rivals: list[MethodScores] = Field(
        default_factory=list,
        description="other methods in the same backtest: `none`, and the forecasts that combine checkpoints "
        "(averages combine them, too, but forecast nothing); without scores per module",
    )
    geometry: RunGeometry = Field(description="geometry of the run")
    spectrum: Spectrum | None = Field(default=None, description="null if no module got an update")
    discarded_energy: float = Field(description="over all modules, as in ModuleReport")
    update_discarded: float = Field(default=0.0, description="over all modules, as in ModuleReport")
    rounding: float = Field(
        default=0.0,
        description="norm of what rounding to output.dtype changed in modules that got an update, divided "
        "by the norm of the update; 0 for float32, which changes about 1e-7 of the adapter",
    )
    gated_modules: list[str]
    modules: list[ModuleReport]

    @computed_field(  # type: ignore[prop-decorator]  # the way pydantic documents
        description="true if the evidence speaks for the jump; false if it speaks against it, or if the "
        "series does not look like a single run; null if there is no evidence (no backtest, no "
        "forecast, or one that repeats earlier jumps), if no module got an update, and if the method came "
        "as close as no jump: relative error .995 to 1.005",
    )
    @property
    def recommended(self) -> bool | None:
        """Whether the evidence speaks for the jump; None where it speaks neither for nor against it."""
        if self.backtest is None or not self.is_forecast or self.repeats_jumps:
            return None
        if self.unseen_break:
            return False
        return None if self.adds_nothing else self.backtest.applied.beats_no_jump

    @property
    def adds_nothing(self) -> bool:
        """Whether the adapter is the last checkpoint as it was."""
        return bool(self.modules) and not any(module.update_norm for module in self.modules)

    @property
    def is_forecast(self) -> bool:
        """Whether the update leads ahead; that of an average, or of `dare` and `none`, does not."""
        return self.target_step > self.steps[-1]

    @property
    def predicts_a_step(self) -> bool:
        """Whether it leads ahead to where training would be at a step; `expo` goes as far as its alpha."""
        return self.is_forecast and not isinstance(self.method, HorizonFreeParameters)

    @property
    def unseen_break(self) -> RunBreak | None:
        """Where the series is not the way of one run, later than where the backtest was asked."""
        return self.geometry.broken_after(self.backtest.origin_step) if self.backtest else None

    @property
    def repeats_jumps(self) -> bool:
        """Whether the update holds earlier jumps of the run, against which no backtest holds it."""
        return bool(self.jumps) and self.method.repeats_jumps


class Comparison(_JobReport):
    """A backtest's report.json: each method predicted, from `at`, a checkpoint that is known."""

    task: Literal["backtest"] = "backtest"
    verdict: str = Field(
        description="one sentence or two: which method did best, and whether it beat no jump by more than "
        "chance"
    )
    at: int = Field(description="the origin: step of the last checkpoint that the methods saw")
    target_step: int = Field(description="step of the checkpoint that the methods predicted")
    methods: list[MethodScores] = Field(description="the smallest relative error first")

    @property
    def judged(self) -> list[MethodScores]:
        """Those that could predict and that a backtest can judge, the smallest relative error first."""
        return [each for each in self.methods if each.total is not None and each.method.can_be_judged]


class Inspection(_JobReport, RunGeometry):
    """An inspection's report.json: the geometry of a run."""

    task: Literal["inspect"] = "inspect"
    verdict: str = Field(
        description="one sentence: whether extrapolation is likely to pay off on this run, and why"
    )
    evidence: BacktestReport | None = Field(
        default=None,
        description="backtest of one method over the last third of the run; null if there is none",
    )
    asked_method: str = Field(
        default="autoregression",
        description="the method of that backtest: the default method of extrapolations, except in early "
        "reports",
    )
    unmeasured: str | None = Field(default=None, description="why there is no backtest; null if there is one")


AnyReport = Annotated[Report | Comparison | Inspection, Discriminator("task")]
"""The answer of GET /jobs/{id}/report, by the job's task."""
