"""What a verl configuration says about extrapolation, and whether its run is of a kind that can be served.

The settings are a group of verl's own configuration, given like any other override:

    +nextrapolate.jump_at=40 +nextrapolate.jump_every=20 +nextrapolate.horizon_steps=100

The API key is none of them: verl prints its configuration and hands it to its loggers.
"""

import logging
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from nextrapolate.methods import make_method
from nextrapolate.schemas import HORIZON_STEPS, Method
from nextrapolate_trainer.errors import UnsupportedRunError
from nextrapolate_trainer.schedule import Schedule
from nextrapolate_trainer.settings import JumpSettings

logger = logging.getLogger("nextrapolate")

GROUP = "nextrapolate"


class VerlSettings(JumpSettings):
    """The group `nextrapolate` of a verl configuration."""

    collect_every: int | None = None
    """Steps between checkpoints; None is trainer.save_freq, of which it has to be a multiple."""
    horizon_steps: int = HORIZON_STEPS
    """Training steps that a jump is to skip."""
    alpha: float | None = None
    """Factor on the update; None is the method's own."""
    method: str = "auto"
    parameters: dict[str, Any] = Field(default={})
    """Further parameters of the method."""
    finish: str | None = None
    """A method, with its defaults, of one more jump after the last step, which no report has to recommend:
    "wsm" puts the average of the run's last checkpoints into the last one."""
    url: str | None = None
    """The service; None is NEXTRAPOLATE_URL, else the one on this machine."""

    @classmethod
    def of(cls, config: DictConfig) -> Self:
        """Read the settings of a verl configuration.

        Raises:
            ValueError: a setting is not known, or its value is of no use.
        """
        group = OmegaConf.to_container(config[GROUP], resolve=True) if GROUP in config else {}
        try:
            return cls.checked(group, GROUP)
        except ValueError as error:
            raise ValueError(f"{error}; settings are {', '.join(cls.model_fields)}") from None

    def schedule(self, save_freq: int) -> Schedule:
        """Return when to collect and to jump, in a run that saves after every `save_freq` steps.

        Raises:
            ValueError: a checkpoint or a jump does not fall on a step at which verl saves, or there is none.
        """
        collect_every = save_freq if self.collect_every is None else self.collect_every
        if collect_every % save_freq:
            raise ValueError(
                f"{GROUP}.collect_every is {collect_every}, which is not a multiple of trainer.save_freq "
                f"({save_freq}): checkpoints are collected where verl saves"
            )
        return Schedule(collect_every, self.jump_at, self.jump_every, finishes=bool(self.finish))

    def make_method(self) -> Method:
        """Return the method with its parameters.

        Raises:
            ParameterError: it is not known, or one of its parameters is not, or out of range.
        """
        own_alpha = {} if self.alpha is None else {"alpha": self.alpha}
        return make_method(self.method, horizon_steps=self.horizon_steps, **own_alpha, **self.parameters)

    def make_finish(self) -> Method | None:
        """Return the method of the jump after the last step; None where there is to be none.

        Raises:
            ParameterError: it is not known.
        """
        return make_method(self.finish, horizon_steps=self.horizon_steps) if self.finish else None


def check_served(config: DictConfig) -> None:
    """See that the plugin can serve the run that a verl configuration describes.

    Raises:
        UnsupportedRunError: it cannot; says what to change.
    """
    actor, model = config.actor_rollout_ref.actor, config.actor_rollout_ref.model
    if actor.strategy != "fsdp2":
        raise UnsupportedRunError(
            f"actor_rollout_ref.actor.strategy={actor.strategy} cannot be served inside a run: train with "
            "fsdp2, or extrapolate between two runs from adapters in PEFT's format, which "
            "`python -m nextrapolate_trainer.verl_export` takes out of FSDP's checkpoints"
        )
    if model.lora_rank < 1:
        raise UnsupportedRunError(
            "the run trains no LoRA adapter: set actor_rollout_ref.model.lora_rank, without which verl also "
            "ignores lora_adapter_path"
        )
    if model.get("target_parameters"):
        raise UnsupportedRunError(
            "LoRA on actor_rollout_ref.model.target_parameters cannot be extrapolated: use target_modules"
        )
    if config.trainer.v1.trainer_mode == "separate_async" and not model.lora.merge:
        raise UnsupportedRunError(
            "in trainer_mode=separate_async verl sends the rollout engine no unmerged adapter: set "
            "actor_rollout_ref.model.lora.merge=True, or use another trainer_mode"
        )
    if config.trainer.save_freq < 1:
        raise UnsupportedRunError(
            "verl saves no checkpoints, and nothing can be collected: set trainer.save_freq"
        )
    if actor.checkpoint.async_save:
        raise UnsupportedRunError(
            "asynchronous checkpoints are Megatron's: set actor_rollout_ref.actor.checkpoint.async_save=False"
        )
    if actor.fsdp_config.model_dtype not in ("fp32", "float32"):
        logger.warning(
            "the adapter is kept in %s: steps are small against its rounding, and so is what can be learned "
            "from them; actor_rollout_ref.actor.fsdp_config.model_dtype=fp32 keeps all of it",
            actor.fsdp_config.model_dtype,
        )
