"""Questions about a run: those that end in a report alone are made here, `extrapolation` makes the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic

from nextrapolate.errors import CheckpointError
from nextrapolate.flows import Flow, submit_over
from nextrapolate.folders import steps_in
from nextrapolate.methods import make_method
from nextrapolate.progress import OnProgress, Tracker
from nextrapolate.schemas import (
    BacktestCreate,
    Comparison,
    InspectCreate,
    Inspection,
    Job,
    JobRequest,
    Labels,
    Method,
)
from nextrapolate.sources import LocalRun, Resolved, Source, resolve
from nextrapolate.wire.calls import ReportT


@dataclass(frozen=True)
class Question(Generic[ReportT]):
    """What is asked about which run. Making one sends nothing, and finds what is wrong with local folders.

    Attributes:
        source: the run.
        request: makes the job, given where its trajectory is.
        report: the model of the answer.
        downloads: whether there is an adapter to be had besides.
    """

    source: Resolved
    request: Callable[..., JobRequest]
    report: type[ReportT]
    downloads: bool = False

    def tracker(self, on_progress: OnProgress | None) -> Tracker:
        """Make a progress scale that fits the source."""
        return Tracker(on_progress, uploads=isinstance(self.source, LocalRun), downloads=self.downloads)

    def start(self, name: str | None, labels: Labels | None, tracker: Tracker) -> Flow[Job]:
        """Upload what is local, and submit the job."""
        return submit_over(self.source, self.request, name=name, labels=labels, tracker=tracker)


def backtest(
    source: Source, *, at: int, horizon_steps: int, methods: Sequence[str | Method] | None
) -> Question[Comparison]:
    """Ask how well methods, seeing the checkpoints up to `at`, predict the one `horizon_steps` later.

    Raises:
        CheckpointError: a local folder that cannot be used, or has no checkpoint at one of the two steps.
        ParameterError: an unknown method.
    """
    chosen = None if methods is None else [make_method(method) for method in methods]
    run = resolve(source, at + horizon_steps)
    if isinstance(run, LocalRun):
        _check_steps(run, at, at + horizon_steps)
    request = partial(BacktestCreate, at=at, horizon_steps=horizon_steps, methods=chosen)
    return Question(run, request, Comparison)


def inspection(source: Source, *, until: int | None) -> Question[Inspection]:
    """Ask for the geometry of a run.

    Raises:
        CheckpointError: a local folder that cannot be used.
    """
    return Question(resolve(source, until), partial(InspectCreate, until=until), Inspection)


def _check_steps(run: LocalRun, *needed: int) -> None:
    steps = [checkpoint.step for checkpoint in run.checkpoints]
    for step in needed:
        if step not in steps:
            known = {*steps, *steps_in(run.folder)}
            there = ", ".join(map(str, sorted(known)))
            raise CheckpointError(
                f"{run.folder} has no checkpoint-{step}, and a backtest needs both the checkpoint it "
                f"starts from and the one it predicts; there are {there}: choose at and horizon_steps "
                "(--at, --horizon-steps) to match"
            )
