"""How long recoveries took, read from what the jobs' own events say."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from chaos.faults import Fault
from nextrapolate.schemas import JobEvent


@dataclass(frozen=True)
class Recovery:
    """A fault, and when it was made good.

    Attributes:
        what: what was measured, in words.
        fault: what had happened.
        seconds: from there to the recovery.
    """

    what: str
    fault: Fault
    seconds: float


Events = Mapping[str, Sequence[JobEvent]]


def recoveries(faults: Iterable[Fault], events: Events) -> Iterator[Recovery]:
    """Measure every fault after which something can be measured."""
    claims = sorted(
        event.at.timestamp() for story in events.values() for event in story if event.type == "claimed"
    )
    for fault in faults:
        match fault.kind:
            case "worker-kill" | "worker-stop" | "child-kill" if fault.job:
                what, seconds = f"{fault.kind} until the job runs elsewhere", _until_again(fault, events)
            case "redis-kill":
                what = "redis-kill until a job is taken again"
                seconds = next((at - fault.at for at in claims if at > fault.at), None)
            case "cancel" if fault.job:
                what, seconds = "cancel until the worker is free", _until_end(fault, events)
            case "poison" if fault.job:
                what, seconds = "poison until it has failed", _until_end(fault, events)
            case _:
                continue
        if seconds is not None:
            yield Recovery(what, fault, seconds)


def _until_again(fault: Fault, events: Events) -> float | None:
    """Until the job is claimed once more; None where it had ended by itself, or had no attempts left."""
    for event in events[fault.job or ""]:
        if event.at.timestamp() <= fault.at:
            continue
        if event.type == "claimed":
            return event.at.timestamp() - fault.at
        if event.state.is_final:
            return None
    return None


def _until_end(fault: Fault, events: Events) -> float | None:
    ends = [event.at.timestamp() for event in events[fault.job or ""] if event.state.is_final]
    return ends[0] - fault.at if ends and ends[0] > fault.at else None
