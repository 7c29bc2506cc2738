"""The form in which a job is asked for, on a series or as another was: what it shows, what was entered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from nextrapolate.methods import METHODS, default_methods
from nextrapolate.schemas import (
    HORIZON_STEPS,
    BacktestCreate,
    Gate,
    InspectCreate,
    JobCreate,
    JobRequest,
    Output,
    beyond_defaults,
)
from nextrapolate_service.pages.forms import SignedForm
from nextrapolate_service.pages.parameters import entered, fields_of
from nextrapolate_store.records import JobRecord, SeriesRecord

AskedOfSeries = Literal["extrapolate", "backtest"]
"""Tasks that have something to be entered; an inspection has a button."""


@dataclass(frozen=True)
class Draft:
    """What a form starts from.

    Attributes:
        request: what is asked for if nothing is changed.
        steps: of the checkpoints there are.
        source: the job that is run again, or the series.
    """

    request: JobRequest
    steps: tuple[int, ...]
    source: JobRecord | SeriesRecord

    @classmethod
    def again(cls, job: JobRecord) -> "Draft":
        """As a job was asked for."""
        return cls(job.request, tuple(job.steps), job)

    @classmethod
    def on(cls, series: SeriesRecord, task: AskedOfSeries) -> "Draft":
        """With the defaults; a backtest is the one that an inspection makes."""
        steps = tuple(series.checkpoints)
        if task == "extrapolate":
            return cls(JobCreate(series=series.id), steps, series)
        at, horizon_steps = _held_out(steps)
        return cls(BacktestCreate(series=series.id, at=at, horizon_steps=horizon_steps), steps, series)


def _held_out(steps: Sequence[int]) -> tuple[int, int]:
    """What an inspection asks of these checkpoints, where training began at step 0: its step, and how far on.

    It holds out a third of the run: from the latest checkpoint that has others so far on, to that of them
    which is nearest, the later of two. What the numerics decide is written once more here, since the service
    does not know them; a test compares the two.
    """
    last = steps[-1] if steps else 0
    third = max(1, last // 3)
    at = max((step for step in steps if 0 < step <= last - third), default=None)
    if at is None:
        return last, HORIZON_STEPS
    target_step = min((step for step in steps if step > at), key=lambda step: (abs(at + third - step), -step))
    return at, target_step - at


def read_body(asked: JobRequest, form: SignedForm) -> dict[str, Any]:
    """Write what was entered over what was asked before."""
    body: dict[str, Any] = asked.model_dump(mode="json", exclude={"webhook"})
    match asked:
        case JobCreate():
            name = form.first("method.name")
            body["method"] = {"name": name}
            if name in METHODS:
                body["method"] |= entered(METHODS[name], form.fields, "method.")
            body["output"] = entered(Output, form.fields, "output.")
            body["gate"] = entered(Gate, form.fields, "gate.")
            body["until"] = form.first("until") or None
        case BacktestCreate():
            body |= {"at": form.first("at"), "horizon_steps": form.first("horizon_steps")}
            asked_for = body["methods"] or []  # one may be there several times, with other parameters
            body["methods"] = [
                method
                for name in form.fields.get("methods", [])
                for method in [each for each in asked_for if each["name"] == name] or [{"name": name}]
            ]
        case InspectCreate():
            body["until"] = form.first("until") or None
    return body


def shown(draft: Draft, method: str | None, form: SignedForm | None) -> dict[str, Any]:
    """Say what the form holds: what the draft does, or what was entered where that was refused.

    Args:
        draft: of the job.
        method: the method to ask for instead, if it is one.
        form: what was refused.
    """
    # Checkpoints have arrived since, perhaps: without the step, a job run again would be on those as well.
    latest = str(draft.steps[-1]) if isinstance(draft.source, JobRecord) else ""
    until = form.first("until") if form else latest
    fields: dict[str, Any] = {"steps": draft.steps, "until": until, "method": None, "backtest": None}
    match draft.request:
        case JobCreate() as asked:
            fields |= _extrapolation(asked, method, form)
        case BacktestCreate() as asked:
            fields["backtest"] = _backtest(asked, form)
    return fields


def _extrapolation(asked: JobCreate, method: str | None, form: SignedForm | None) -> Mapping[str, Any]:
    name = method if method is not None and method in METHODS else asked.method.name
    said = beyond_defaults(asked.method)
    if name != asked.method.name:
        said = {parameter: value for parameter, value in said.items() if parameter == "horizon_steps"}
    parts: Mapping[str, tuple[type[BaseModel], Mapping[str, Any]]] = {
        "parameters": (METHODS[name], said),
        "output": (Output, beyond_defaults(asked.output)),
        "gate": (Gate, beyond_defaults(asked.gate)),
    }
    fields: dict[str, Any] = {"method": name}
    for part, (model, values) in parts.items():
        prefix = "method." if part == "parameters" else f"{part}."
        fields[part] = fields_of(model, entered(model, form.fields, prefix) if form else values, prefix)
    return fields


def _backtest(asked: BacktestCreate, form: SignedForm | None) -> Mapping[str, Any]:
    if form is not None:
        return {
            "at": form.first("at"),
            "horizon_steps": form.first("horizon_steps"),
            "chosen": set(form.fields.get("methods", [])),
        }
    methods = asked.methods if asked.methods is not None else default_methods()
    return {
        "at": str(asked.at),
        "horizon_steps": str(asked.horizon_steps),
        "chosen": {method.name for method in methods},
    }
