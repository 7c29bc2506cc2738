"""An extrapolation from beginning to end: what is asked, and what came of it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nextrapolate.flows import Flow, check_free, submit_over
from nextrapolate.notebook import report_html
from nextrapolate.progress import OnProgress, Tracker
from nextrapolate.schemas import Gate, Job, JobCreate, Labels, Method, Output, Report
from nextrapolate.sources import LocalRun, Resolved, Source, resolve


@dataclass(frozen=True)
class Extrapolation:
    """What came of it.

    Attributes:
        job: the succeeded job.
        path: folder with the adapter, as `PeftModel.from_pretrained` loads it, and its report.
        report: what was done, on what evidence; `report.verdict` is the sentence to read first.
    """

    job: Job
    path: Path
    report: Report

    def _repr_html_(self) -> str:
        return report_html(self.report, str(self.path))


@dataclass(frozen=True)
class Plan:
    """What is asked. Making one sends nothing, and finds what is wrong with local folders."""

    source: Resolved
    method: Method
    until: int | None
    out: Path | None
    name: str | None
    output: Output | None
    gate: Gate | None
    labels: Labels | None

    @classmethod
    def make(
        cls,
        source: Source,
        *,
        method: Method,
        until: int | None,
        out: str | Path | None,
        name: str | None,
        output: Output | None,
        gate: Gate | None,
        labels: Labels | None,
    ) -> "Plan":
        """Look at the source and at where the result shall go.

        Raises:
            CheckpointError: one of them cannot be used.
        """
        resolved = resolve(source, until)
        folder = Path(out) if out is not None else None
        if folder is None and isinstance(resolved, LocalRun):
            folder = resolved.folder / result_name(method.target_step(resolved.checkpoints[-1].step))
        if folder is not None:
            check_free(folder)
        return cls(resolved, method, until, folder, name, output, gate, labels)

    def tracker(self, on_progress: OnProgress | None) -> Tracker:
        """Make a progress scale that fits the source."""
        return Tracker(on_progress, uploads=isinstance(self.source, LocalRun))

    def start(self, tracker: Tracker) -> Flow[Job]:
        """Upload what is local, and submit the job."""
        wanted = {"output": self.output, "gate": self.gate}
        given = {field: value for field, value in wanted.items() if value is not None}
        request = partial(JobCreate, until=self.until, method=self.method, **given)
        return (
            yield from submit_over(self.source, request, name=self.name, labels=self.labels, tracker=tracker)
        )

    def result_folder(self, job: Job) -> Path:
        """Tell where the result goes: as asked, else beside the checkpoints, else here."""
        return self.out or Path(result_name(self.method.target_step(job.steps[-1])))


def result_name(target_step: int) -> str:
    """Name the folder of an adapter for that step, where nobody names one."""
    return f"extrapolated-{target_step}"
