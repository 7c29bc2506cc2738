"""What methods have in common: the parameters that every one takes, and what it has to say of itself."""

from typing import Annotated, ClassVar, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from nextrapolate.schemas.common import HORIZON_STEPS, MOST_CHECKPOINTS, Steps


def _numbers(value: object) -> object:
    """Take numbers apart that came as text, as from a command line: 0.31,0.35,0.42."""
    return value.split(",") if isinstance(value, str) else value


Alpha = Annotated[float, Field(ge=0, le=100)]
"""The extending coefficient: a factor on the update."""

PerCheckpoint = Annotated[
    tuple[Annotated[float, Field(allow_inf_nan=False)], ...],
    BeforeValidator(_numbers),
    Field(min_length=2, max_length=MOST_CHECKPOINTS),
]
"""One number for each checkpoint that is used, in the order of their steps."""


class Source(NamedTuple):
    """Where a method comes from: what to call that, and the address of its paper if there is one."""

    label: str
    url: str | None = None


def arxiv(number: str) -> Source:
    """Give the source that arXiv has under this number."""
    return Source(f"arXiv:{number}", f"https://arxiv.org/abs/{number}")


class NamedStep(NamedTuple):
    """A checkpoint that a method was given by its step; 0 is the base model.

    `before_last`: it has to be an earlier one than the last.
    """

    step: int
    before_last: bool


class MethodParameters(BaseModel):
    """What every method takes; unknown parameters are refused by name.

    The first line of a method's docstring is its title wherever methods are listed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: ClassVar[Source] = Source("ours")

    learns_from_base: ClassVar[bool] = True
    """Whether it learns from the origin, too: where training is measured from, if that is in the series."""

    horizon_steps: Steps = Field(
        default=HORIZON_STEPS, description="training steps to predict beyond the last checkpoint"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of everything random in the method")
    alpha: Alpha = Field(default=1.0, description="factor on the predicted update")

    @property
    def minimum_checkpoints(self) -> int:
        """Fewer than so many will not do, whatever their spacing."""
        return 2

    @property
    def learns_from_pairs(self) -> bool:
        """Whether it learns from checkpoints that are one horizon apart, and so needs two of them."""
        return False

    @property
    def per_checkpoint(self) -> dict[str, PerCheckpoint]:
        """Parameters that hold one number for each checkpoint, by name; those that are not given left out."""
        return {}

    @property
    def named_steps(self) -> dict[str, NamedStep]:
        """Parameters that name a checkpoint by its step; those that are not given left out."""
        return {}

    @property
    def repeats_jumps(self) -> bool:
        """Whether its update holds the jumps that were made inside the run."""
        return False

    def target_step(self, last_step: int) -> int:
        """Tell which step of training the update stands for, made at `last_step`."""
        return last_step + self.horizon_steps

    @property
    def is_forecast(self) -> bool:
        """Whether the update leads ahead, to a later step than the last."""
        return self.target_step(0) > 0

    @property
    def can_be_judged(self) -> bool:
        """Whether a backtest can tell its worth: how close an average comes to a later step cannot."""
        return self.is_forecast


class HorizonFreeParameters(MethodParameters):
    """Parameters of methods that name a direction, and no step that training would reach."""

    horizon_steps: Steps = Field(
        default=HORIZON_STEPS,
        description="does not change the update; the backtest scores the update as if it covered that many "
        "steps",
    )


class NoForecastParameters(HorizonFreeParameters):
    """What methods take that stay at the last step: averages, and what drops parts of a delta."""

    def target_step(self, last_step: int) -> int:
        """Tell which step of training the update stands for: the last."""
        return last_step
