"""What a jump did to the run, for the log, for the trainer's metrics, and for the caller."""

import logging
from dataclasses import asdict, dataclass

from nextrapolate_trainer.guard import Trial
from nextrapolate_trainer.jumper import Jump, Pause


@dataclass(frozen=True)
class JumpSummary:
    """A jump that was made. Seconds are what the run waited for it, by part."""

    step: int
    target_step: int
    job: str
    address: str
    """Of the job, for a browser."""
    method: str
    alpha: float
    pause: Pause
    swap_seconds: float
    update_ratio: float
    """Norm of the update, as a share of the drift since training began."""
    gated_modules: int | None
    """Modules that kept the run's own adapter, held back by the gate; None where no report says so."""
    reset_modules: int
    """Modules whose optimizer state was cleared."""
    trial: Trial | None
    """What the guard measured, where there is one."""
    backtest_cosine: float | None
    """None where there was no backtest, and of an average, which no backtest can judge."""
    recommended: bool | None
    """Whether the run's own past speaks for the jump; None where nothing was measured."""
    verdict: str
    """The report's sentence on whether the run's own past speaks for the jump."""
    warnings: tuple[str, ...]
    """What else the report says that people should know."""

    @classmethod
    def of(cls, jump: Jump, trial: Trial | None, *, swap_seconds: float, reset_modules: int) -> "JumpSummary":
        """Return the summary of a jump after its adapter was swapped in."""
        report = jump.report
        backtest = report.backtest if report and report.is_forecast else None
        return cls(
            step=jump.step,
            target_step=report.target_step if report else jump.method.target_step(jump.step),
            job=jump.job,
            address=jump.address,
            method=jump.method.name,
            alpha=jump.method.alpha,
            pause=jump.pause,
            swap_seconds=swap_seconds,
            update_ratio=jump.update_ratio,
            gated_modules=len(report.gated_modules) if report else None,
            reset_modules=reset_modules,
            trial=trial,
            backtest_cosine=backtest.total.cosine if backtest else None,
            recommended=report.recommended if report else None,
            verdict=report.verdict if report else "There is no report to read.",
            warnings=tuple(report.warnings) if report else (),
        )

    @property
    def parts(self) -> dict[str, float]:
        """Return the seconds of the pause, by part."""
        guard = {} if self.trial is None else {"guard": self.trial.seconds}
        return asdict(self.pause) | {"swap": self.swap_seconds} | guard

    @property
    def seconds(self) -> float:
        """Return the whole pause."""
        return sum(self.parts.values())

    @property
    def log_level(self) -> int:
        """Return how loudly to tell of it: a jump that the run's own past speaks against is a warning."""
        return logging.WARNING if self.recommended is False else logging.INFO

    def metrics(self) -> dict[str, float]:
        """Return what goes into the trainer's logs."""
        known = {
            "next/target_step": self.target_step,
            "next/alpha": self.alpha,
            "next/update_ratio": self.update_ratio,
            "next/gated_modules": self.gated_modules,
            "next/reset_modules": self.reset_modules,
            "next/backtest_cosine": self.backtest_cosine,
            "next/recommended": self.recommended,
            "next/pause_seconds": self.seconds,
            **(self.trial.metrics(kept=True) if self.trial else {}),
            **{f"next/{part}_seconds": seconds for part, seconds in self.parts.items()},
        }
        return {name: float(value) for name, value in known.items() if value is not None}

    def __str__(self) -> str:
        gated = "unknown" if self.gated_modules is None else self.gated_modules
        return (
            f"jumped from step {self.step} to {self.target_step} by {self.method}, job {self.job} "
            f"({self.address}): the update is {self.update_ratio:.2f} of the drift, modules gated: {gated}, "
            f"optimizer state cleared in: {self.reset_modules}; the run paused {self.seconds:.2f} s "
            f"({', '.join(f'{part} {seconds:.2f}' for part, seconds in self.parts.items())}). {self.verdict}"
            + "".join(f"\nnote: {warning}" for warning in self.warnings)
        )
