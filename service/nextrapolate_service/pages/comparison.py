"""Jobs side by side: what each asked, and what came of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response

from nextrapolate.reading import read
from nextrapolate.schemas import AnyReport, BacktestReport, Comparison, Inspection, Job, Report, Scores
from nextrapolate_service.auth import Tenant
from nextrapolate_service.dependencies import OpenStore
from nextrapolate_service.pages.rendering import page
from nextrapolate_service.pages.runs import Run, Runs
from nextrapolate_service.pages.wording import advice, methods
from nextrapolate_service.results import found_by
from nextrapolate_service.views import job_view
from nextrapolate_store.store import Store

router = APIRouter(include_in_schema=False)

MOST_JOBS = 8

Value = str | int | float | None
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Row:
    """One fact of every job.

    Attributes:
        name: what it is.
        values: one for each job; None where a job has none.
    """

    name: str
    values: tuple[Value, ...]

    @property
    def differ(self) -> bool:
        """Tell whether the jobs are not all alike in it."""
        return len(set(self.values)) > 1


@router.get("/compare")
def compare(
    request: Request, tenant: Tenant, store: OpenStore, jobs: Annotated[tuple[str, ...], Query()] = ()
) -> Response:
    """Show jobs beside each other; `jobs` is given once for each, or as one list with commas."""
    ids = list(dict.fromkeys(one.strip() for part in jobs for one in part.split(",") if one.strip()))
    runs = Runs(store, tenant)
    chosen = [_Compared.read(store, tenant, job_id, runs) for job_id in ids[:MOST_JOBS]]
    return page(
        request,
        "comparison.html",
        jobs=[one.job for one in chosen],
        runs=[one.run for one in chosen],
        answers=[one.answers for one in chosen],
        tables=_tables(chosen),
        left_out=ids[MOST_JOBS:],
    )


@dataclass(frozen=True)
class _Compared:
    job: Job
    run: Run
    report: AnyReport | None
    unreadable: str | None

    @classmethod
    def read(cls, store: Store, tenant: str, job_id: str, runs: Runs) -> "_Compared":
        record = store.jobs.get(tenant, job_id)
        found = found_by(store, record)
        return cls(job_view(store, record), runs.of(record), found.report, found.unreadable)

    @property
    def answers(self) -> tuple[str | None, str | None]:
        """Whether it worked, and what to do next; None where nothing is known of it."""
        if self.job.error is not None:
            return self.job.error.detail, advice(self.job)
        if self.report is None:
            return self.unreadable, None
        reading = read(self.report)
        return reading.worked, reading.following

    @property
    def scores(self) -> Scores | None:
        match self.report:
            case Report(backtest=BacktestReport() as backtest):
                return backtest.applied
            case Comparison(judged=[best, *_]):
                return best.total
            case Inspection(evidence=BacktestReport() as evidence):
                return evidence.total
        return None

    @property
    def parameters(self) -> dict[str, Value]:
        method = self.job.method
        return {} if method is None else {name: _plain(value) for name, value in method if name != "name"}


def _tables(compared: Sequence[_Compared]) -> list[tuple[str, list[Row]]]:
    """Rows by what they are about, without those that say nothing of any job."""
    captioned = (
        ("What was asked", _asked(compared)),
        ("What the backtest shows", _scores(compared)),
        ("What it did, and what it cost", _effects(compared)),
    )
    told = [
        (caption, [row for row in rows if any(value is not None for value in row.values)])
        for caption, rows in captioned
    ]
    return [(caption, rows) for caption, rows in told if rows]


def _asked(compared: Sequence[_Compared]) -> Iterator[Row]:
    jobs = [one.job for one in compared]
    yield Row("task", tuple(job.task for job in jobs))
    yield Row("method", tuple(job.method.name if job.method else None for job in jobs))
    for name in dict.fromkeys(name for one in compared for name in one.parameters):
        yield Row(name, tuple(one.parameters.get(name) for one in compared))
    backtests = [job if job.task == "backtest" else None for job in jobs]
    yield _row("asked at step", backtests, lambda job: job.at)
    yield _row("steps ahead", backtests, lambda job: job.horizon_steps)
    yield _row("methods", backtests, lambda job: methods(job.methods))
    yield Row("steps", tuple(f"{job.steps[0]} to {job.steps[-1]}" for job in jobs))
    yield Row("checkpoints", tuple(len(job.steps) for job in jobs))
    yield Row(
        "output", tuple(f"{job.output.rank}, {job.output.dtype}" if job.output else None for job in jobs)
    )


def _scores(compared: Sequence[_Compared]) -> Iterator[Row]:
    found = [one.scores for one in compared]
    yield _row("relative error (no jump is 1)", found, lambda scores: scores.relative_error)
    yield _row("cosine to the true update", found, lambda scores: scores.cosine)
    yield _row("size of the update / of the true one", found, lambda scores: scores.size_ratio)


def _effects(compared: Sequence[_Compared]) -> Iterator[Row]:
    reports = [one.report for one in compared]
    made = [report if isinstance(report, Report) else None for report in reports]
    yield _row("leads to step", made, lambda report: report.target_step)
    yield _row("modules gated", made, lambda report: len(report.gated_modules))
    yield _row("discarded energy", made, lambda report: report.discarded_energy)
    yield _row("seconds", reports, lambda report: sum(stage.seconds for stage in report.stages))
    yield _row("peak memory, MB", reports, lambda report: report.peak_memory_bytes / 1e6)
    yield _row("warnings", reports, lambda report: len(report.warnings))


def _row(name: str, found: Sequence[_Found | None], value: Callable[[_Found], Value]) -> Row:
    return Row(name, tuple(None if one is None else value(one) for one in found))


def _plain(value: object) -> Value:
    return value if isinstance(value, str | int | float) or value is None else str(value)
