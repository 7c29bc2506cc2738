"""The table at the end, and the lines of the log."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from rich.table import Table

from chaos.campaign import Result
from nextrapolate.schemas import JobState


def lines(result: Result) -> Iterator[str]:
    """Tell everything that happened in a campaign, a JSON object a line."""
    seed = {"seed": result.plan.seed}
    for job in result.acknowledged:
        yield json.dumps({"record": "acknowledged", **seed, **asdict(job)})
    for fault in result.faults:
        yield json.dumps({"record": "fault", **seed, **asdict(fault)})
    for recovery in result.recoveries:
        yield json.dumps({"record": "recovery", **seed, **asdict(recovery)})
    for broken in result.outcome.broken:
        yield json.dumps({"record": "broken", **seed, "promise": broken})
    yield json.dumps({"record": "counters", **seed, **result.outcome.counters})
    yield json.dumps(
        {"record": "end", **seed, "seconds": result.seconds, "logs": str(result.folder / "logs")}
    )


def campaigns_table(results: Iterable[Result]) -> Table:
    """One row a campaign."""
    table = Table(title="campaigns")
    states = (JobState.SUCCEEDED, JobState.CANCELLED, JobState.FAILED)
    for column in ("seed", "jobs", *states, "attempts", "sent twice", "faults", "seconds", "broken promises"):
        table.add_column(column, justify="right")
    for result in results:
        jobs = result.outcome.jobs
        ended = Counter(job.state for job in jobs)
        resent = sum(job.tries > 1 for job in result.acknowledged)
        table.add_row(
            *(str(result.plan.seed), str(len(jobs)), *(str(ended[state]) for state in states)),
            *(str(sum(job.attempt for job in jobs)), str(resent), str(len(result.faults))),
            *(f"{result.seconds:.0f}", str(len(result.outcome.broken))),
        )
    return table


def faults_table(results: Sequence[Result]) -> Table:
    """How often each kind of fault struck, and how often it struck a job that ran."""
    table = Table("fault", "times", "on a job that ran", title="faults")
    faults = [fault for result in results for fault in result.faults]
    times = Counter(fault.kind for fault in faults)
    running = Counter(fault.kind for fault in faults if fault.job)
    for kind in sorted(times):
        table.add_row(kind, str(times[kind]), str(running[kind]))
    return table


def recoveries_table(results: Iterable[Result]) -> Table:
    """How long recoveries took."""
    table = Table("recovery", "times", "p50 s", "p99 s", "longest s", title="recoveries")
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for result in results:
        for recovery in result.recoveries:
            seconds[recovery.what].append(recovery.seconds)
    for what, measured in sorted(seconds.items()):
        cells = (statistics.median(measured), percentile(measured, 99), max(measured))
        table.add_row(what, str(len(measured)), *(f"{cell:.1f}" for cell in cells))
    return table


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest of the values that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
