"""An extrapolation from beginning to end: what is asked, and what came of it."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nextrapolate.evidence import Question
from nextrapolate.flows import check_free, told_of
from nextrapolate.notebook import report_html
from nextrapolate.schemas import Gate, Job, JobCreate, Method, Output, Report
from nextrapolate.sources import LocalRun, Source, resolve


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


def question_for(
    source: Source, *, method: Method, until: int | None, output: Output | None, gate: Gate | None
) -> Question[Report]:
    """Ask for the adapter that a method predicts.

    Raises:
        CheckpointError: a local folder that cannot be used.
    """
    given = {field: value for field, value in (("output", output), ("gate", gate)) if value is not None}
    request = partial(JobCreate, until=until, method=method, **given)
    return Question(resolve(source, until), request, Report, downloads=True)


def folder_for(question: Question[Report], method: Method, out: str | Path | None) -> Path | None:
    """Tell where the result goes: as asked, else beside local checkpoints; None leaves it to `folder_here`.

    Raises:
        CheckpointError: it cannot go there.
    """
    folder = Path(out) if out is not None else None
    if folder is None and isinstance(run := question.source, LocalRun):
        folder = run.folder / result_name(method.target_step(run.checkpoints[-1].step))
    if folder is not None:
        check_free(folder)
    return folder


def folder_here(job: Job, method: Method) -> Path:
    """Tell where the result of a job goes that nobody has chosen a folder for, before it is waited for.

    Raises:
        CheckpointError: it cannot go there.
    """
    folder = Path(result_name(method.target_step(job.steps[-1])))
    with told_of(job.id, folder):
        check_free(folder)
    return folder


def result_name(target_step: int) -> str:
    """Name the folder of an adapter for that step, where nobody names one."""
    return f"extrapolated-{target_step}"
