"""The methods and their parameters, as callers write them: documented, bounded, and part of the schemas."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from nextrapolate.schemas.common import Response, Steps
from nextrapolate.schemas.method_parameters import (
    Alpha,
    HorizonFreeParameters,
    MethodParameters,
    NamedStep,
    NoForecastParameters,
    PerCheckpoint,
    Source,
    arxiv,
)

__all__ = [
    "AlphaRlMethod",
    "AutoMethod",
    "AutoregressionMethod",
    "DareMethod",
    "ExpoMethod",
    "MaecMethod",
    "Method",
    "MethodInfo",
    "NextMethod",
    "NoneMethod",
    "RelexMethod",
    "SoupMethod",
    "WeightExtrapolationMethod",
    "WsmMethod",
]
"""What `nextrapolate` exports, too: every method, and what is known of one."""


class AutoMethod(MethodParameters):
    """Kriging, straight lines and no jump, weighed per module by backtests on this run's own past."""

    name: Literal["auto"] = "auto"


_PAPER_ALPHA = 1.5


class NextMethod(MethodParameters):
    """After NExt: leading triples by a regression of ours; preset=paper is as published.

    Under `preset="paper"` a parameter of the other preset is refused, and the other way round.
    """

    name: Literal["next"] = "next"
    source: ClassVar[Source] = arxiv("2604.11446")
    learns_from_base: ClassVar[bool] = False
    alpha: Alpha = Field(
        default=1.0,
        description=f"factor on the predicted update; with preset=paper the default is {_PAPER_ALPHA} (Eq. "
        "10; 0.5 to 2.5 is safe in the paper)",
    )
    preset: Literal["default", "paper"] = Field(
        default="default",
        description="default: regression on the leading triples of each module, takes a moment; paper: the "
        "encoder-decoder of Algorithm 1 as published, with the signs of the triples aligned, takes a "
        "minute or two",
    )
    use_global: bool = Field(
        default=True, description="use the global delta W_i - W_0; off: ablation without G"
    )
    use_local: bool = Field(
        default=True, description="use the local delta W_i - W_{i-1}; off: ablation without L"
    )
    rank: int = Field(default=8, ge=1, le=8, description="preset=default: leading triples of each delta")
    decay: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="preset=default: weight of a training pair for each 10 steps of its age",
    )
    hidden_size: int = Field(
        default=256,
        ge=1,
        le=8192,
        description="preset=paper: width of the bottlenecks of encoder and decoder",
    )
    epochs: int = Field(default=1000, ge=1, le=100_000, description="preset=paper: full-batch epochs")
    learning_rate: float = Field(
        default=2e-5, gt=0, le=1, description="preset=paper: AdamW's peak rate; cosine to a tenth of it"
    )

    @property
    def learns_from_pairs(self) -> bool:
        """The paper's predictor maps a checkpoint to what came one horizon later."""
        return self.preset == "paper"

    @property
    def foreign(self) -> frozenset[str]:
        """Parameters that belong to the other preset."""
        if self.preset == "paper":
            return frozenset({"rank", "decay"})
        return frozenset({"hidden_size", "epochs", "learning_rate"})

    @model_validator(mode="after")
    def _alpha_of_the_preset(self) -> Self:
        if self.preset == "paper" and "alpha" not in self.model_fields_set:
            # by the way around pydantic, for which it would be given then, whatever the preset becomes
            object.__setattr__(self, "alpha", _PAPER_ALPHA)
        return self

    @model_validator(mode="after")
    def _parameters_of_the_preset(self) -> Self:
        if self.preset == "paper" and not (self.use_global or self.use_local):
            raise ValueError("use_global and use_local cannot both be off: the predictor needs one input")
        for name in sorted(self.foreign):
            if getattr(self, name) != type(self).model_fields[name].default:
                other = "default" if self.preset == "paper" else "paper"
                raise ValueError(f"{name} belongs to preset={other}, but preset is {self.preset}")
        return self


class WeightExtrapolationMethod(MethodParameters):
    """The straight line through two checkpoints, continued."""

    name: Literal["weight-extrapolation"] = "weight-extrapolation"
    source: ClassVar[Source] = arxiv("2601.04537")
    window_steps: Steps | Literal["auto"] = Field(
        default=50,
        description="the line starts at the checkpoint this many steps before the last, or the nearest to "
        "it; auto: backtests on the end of the run choose it",
    )
    from_step: int | None = Field(
        default=None,
        ge=0,
        description="step of the checkpoint at which the line starts instead; 0 is the base model",
    )
    to_step: int | None = Field(
        default=None, ge=1, description="step of the checkpoint at which the line ends; null: the last one"
    )
    momentum: bool = Field(
        default=False,
        description="the line goes through the checkpoints as they are, earlier jumps included: in a cycle "
        "with a window as long as its period each jump repeats the last one and adds the new drift",
    )

    @property
    def named_steps(self) -> dict[str, NamedStep]:
        """Both ends of the line."""
        ends = {"from_step": (self.from_step, True), "to_step": (self.to_step, False)}
        return {name: NamedStep(step, before) for name, (step, before) in ends.items() if step is not None}

    @property
    def repeats_jumps(self) -> bool:
        """With momentum."""
        return self.momentum

    @model_validator(mode="after")
    def _a_start_before_the_end(self) -> Self:
        if self.to_step is not None and (self.from_step is None or self.from_step >= self.to_step):
            raise ValueError("to_step needs a from_step that is smaller")
        return self


class AutoregressionMethod(MethodParameters):
    """Ridge regression of coming increments on past ones, over many windows and horizons."""

    name: Literal["autoregression"] = "autoregression"
    learns_from_base: ClassVar[bool] = False
    ridge: float = Field(
        default=0.1,
        gt=0,
        le=1e6,
        description="ridge penalty, as a share of the mean diagonal of the normal matrix",
    )
    decay: float = Field(
        default=0.5, gt=0, le=1, description="weight of a training pair for each 10 steps of its age"
    )
    max_window_steps: Steps = Field(default=150, description="longest window of past steps")


class RelexMethod(MethodParameters):
    """RELEX: a line in time through each module's leading directions."""

    name: Literal["relex"] = "relex"
    source: ClassVar[Source] = arxiv("2605.21468")
    learns_from_base: ClassVar[bool] = False
    rank: int = Field(
        default=1, ge=1, le=1024, description="number of directions in time that are kept; 1 in the paper"
    )
    window_steps: Steps | None = Field(
        default=None, description="steps before the last checkpoint to learn from; null: all"
    )
    mode: Literal["last", "line"] = Field(
        default="last",
        description="last: the last checkpoint plus the fitted change; line: the fitted value, as published",
    )
    degree: int = Field(
        default=1,
        ge=1,
        le=8,
        description="degree of the polynomial over the steps; 1 is a line, as published",
    )

    @property
    def minimum_checkpoints(self) -> int:
        """A polynomial goes through as many points as its degree, and one more."""
        return self.degree + 1


class AlphaRlMethod(MethodParameters):
    """AlphaRL: each module's leading direction as a line over reward or step."""

    name: Literal["alpharl"] = "alpharl"
    source: ClassVar[Source] = arxiv("2510.00553")
    learns_from_base: ClassVar[bool] = False
    rewards: PerCheckpoint | None = Field(
        default=None, description="reward of each checkpoint used, in order; null: the steps are used instead"
    )
    target_reward: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="reward to solve for; null: the value of the rewards' line at the horizon",
    )
    mode: Literal["last", "line"] = Field(
        default="last",
        description="last: the last checkpoint plus the change along the line; line: only the rank-one "
        "matrix, as published",
    )

    @property
    def per_checkpoint(self) -> dict[str, PerCheckpoint]:
        """The rewards."""
        return {} if self.rewards is None else {"rewards": self.rewards}

    @model_validator(mode="after")
    def _rewards_to_learn_from(self) -> Self:
        if self.rewards is None and self.target_reward is not None:
            raise ValueError("target_reward needs rewards: give the reward of each checkpoint")
        if self.rewards is not None and len(set(self.rewards)) == 1:
            raise ValueError(
                "all rewards are equal, so they give no direction of improvement; leave rewards out"
            )
        return self


class MaecMethod(MethodParameters):
    """MAEC: weight extrapolation of the key neurons, the weights that moved most."""

    name: Literal["maec"] = "maec"
    source: ClassVar[Source] = arxiv("2410.07825")
    share: float = Field(
        default=0.1, gt=0, le=1, description="share of each module's weights that count as key neurons"
    )
    window_steps: Steps = Field(
        default=50,
        description="the line starts at the checkpoint this many steps before the last, or the nearest to it",
    )


class ExpoMethod(HorizonFreeParameters):
    """ExPO: W_c + alpha (W_c - W_0), from the base model through the current one."""

    name: Literal["expo"] = "expo"
    source: ClassVar[Source] = arxiv("2404.16792")
    alpha: Alpha = Field(
        default=0.3,
        description="how far to go on, as a share of the way from the base model; 0.1 to 0.5 in the paper",
    )


class SoupMethod(NoForecastParameters):
    """The mean of the last checkpoints: of all, or of those that score well."""

    name: Literal["soup"] = "soup"
    source: ClassVar[Source] = arxiv("2203.05482")
    alpha: Alpha = Field(
        default=1.0, description="share of the way from the last checkpoint to the mean; 1 is the mean"
    )
    window_steps: Steps = Field(
        default=50,
        description="the mean starts at the checkpoint this many steps before the last, or the nearest to it",
    )
    selection: Literal["uniform", "greedy"] = Field(
        default="uniform",
        description="uniform: all checkpoints of the window; greedy: only those that do not lower the mean's "
        "score, which is predicted from the checkpoints' scores",
    )
    scores: PerCheckpoint | None = Field(
        default=None, description="for greedy: the score of each checkpoint used, in order; higher is better"
    )

    @property
    def per_checkpoint(self) -> dict[str, PerCheckpoint]:
        """The scores."""
        return {} if self.scores is None else {"scores": self.scores}

    @model_validator(mode="after")
    def _scores_are_for_the_greedy(self) -> Self:
        if (self.selection == "greedy") != (self.scores is not None):
            raise ValueError(
                "selection='greedy' and scores go together: give one score for each checkpoint, or leave "
                "both out"
            )
        return self


class DareMethod(NoForecastParameters):
    """DARE: entries of the last delta dropped at random, the others rescaled."""

    name: Literal["dare"] = "dare"
    source: ClassVar[Source] = arxiv("2311.03099")
    alpha: Alpha = Field(
        default=1.0, description="share of the way from the last checkpoint to what is left of it"
    )
    drop: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="share of the entries to drop; the others grow by 1 / (1 - drop)",
    )


class WsmMethod(NoForecastParameters):
    """WSM: an average of checkpoints that replaces a linear decay of the rate."""

    name: Literal["wsm"] = "wsm"
    source: ClassVar[Source] = arxiv("2507.17634")
    alpha: Alpha = Field(
        default=1.0, description="share of the way from the last checkpoint to the average; 1 is the average"
    )
    window_steps: Steps = Field(
        default=50,
        description="the decay starts at the checkpoint this many steps before the last, or nearest to it",
    )


class NoneMethod(NoForecastParameters):
    """No update: the last checkpoint as it is, the baseline that every backtest is read against."""

    name: Literal["none"] = "none"
    source: ClassVar[Source] = Source("the baseline")
    alpha: Alpha = Field(default=1.0, description="has no effect: there is no update to scale")

    @property
    def can_be_judged(self) -> bool:
        """It is what the others are judged by."""
        return True


Method = Annotated[
    AutoMethod
    | NextMethod
    | WeightExtrapolationMethod
    | AutoregressionMethod
    | RelexMethod
    | AlphaRlMethod
    | ExpoMethod
    | SoupMethod
    | WsmMethod
    | DareMethod
    | MaecMethod
    | NoneMethod,
    Field(discriminator="name"),
]


class OtherMethod(MethodParameters):
    """A method that only later servers know, as an answer names it; its own parameters are passed over."""

    model_config = ConfigDict(extra="ignore")

    name: str


AnsweredMethod = Annotated[Method | SkipJsonSchema[OtherMethod], Field(union_mode="left_to_right")]
"""The method of an answer: of a later server, too."""


class MethodInfo(Response):
    """One entry of GET /methods."""

    name: str
    title: str
    paper: str | None
    minimum_checkpoints: int
    parameters: dict[str, Any] = Field(
        description="JSON schema of the method's parameters, defaults included"
    )


class MethodList(Response):
    """All methods this server runs."""

    methods: list[MethodInfo]
