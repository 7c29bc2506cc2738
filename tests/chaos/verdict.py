"""The promises, and which of them were broken."""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fixtures.redis import running as running_redis

from chaos.callers import Acknowledged, Kind
from chaos.deployment import TENANT, Deployment
from chaos.recovery import Events
from nextrapolate.schemas import ADAPTER_MODEL, JobEvent, JobState
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store.connection import RedisKey
from nextrapolate_store.queue import BROKER_KEY_PREFIX, BROKER_LIST
from nextrapolate_store.records import JobRecord
from nextrapolate_store.store import Store

_PAGE = 1000
_TAKEN_BY_THE_DEAD = {"worker-lost", "child-died"}
"""How a job may fail here: nothing is wrong with any but its workers and children."""


@dataclass(frozen=True)
class Outcome:
    """How the jobs ended.

    Attributes:
        jobs: every record.
        events: every job's story.
        counters: the store's.
        broken: each broken promise, in a sentence.
    """

    jobs: Sequence[JobRecord]
    events: Events
    counters: Mapping[str, str]
    broken: tuple[str, ...]


@dataclass(frozen=True)
class _Found:
    """What the promises are judged by."""

    deployment: Deployment
    acknowledged: Mapping[str, Acknowledged]
    jobs: Mapping[str, JobRecord]
    events: Events
    counters: Mapping[str, str]
    max_attempts: int

    def acknowledged_as(self, kind: Kind) -> Iterator[JobRecord]:
        for job in self.jobs.values():
            if job.id in self.acknowledged and self.acknowledged[job.id].kind is kind:
                yield job


def judge(deployment: Deployment, acknowledged: Sequence[Acknowledged], folder: Path) -> Outcome:
    """Look at everything that is left of a campaign."""
    store = deployment.store
    jobs = _all_jobs(store)
    events = {job.id: _all_events(store, job.id) for job in jobs}
    found = _Found(
        deployment=deployment,
        acknowledged={job.id: job for job in acknowledged},
        jobs={job.id: job for job in jobs},
        events=events,
        counters=deployment.look.fields(RedisKey.COUNTERS),
        max_attempts=deployment.settings.max_attempts,
    )
    broken = [sentence for promise in _PROMISES for sentence in promise(found)]
    broken += _rebuilt_differently(found, folder)
    return Outcome(jobs, events, found.counters, tuple(broken))


def _all_jobs(store: Store) -> list[JobRecord]:
    jobs: list[JobRecord] = []
    cursor = None
    while True:
        page, cursor = store.jobs.list(TENANT, limit=_PAGE, cursor=cursor)
        jobs += [store.jobs.get(TENANT, job.id) for job in page]
        if cursor is None:
            return jobs


def _all_events(store: Store, job_id: str) -> list[JobEvent]:
    story: list[JobEvent] = []
    while events := store.jobs.events(job_id, story[-1].id if story else None):
        story += events
    return story


def _lost_or_made_up(found: _Found) -> Iterator[str]:
    """Every job that was acknowledged is there, under one id, and no other."""
    for job_id in found.acknowledged.keys() - found.jobs.keys():
        yield f"{job_id} was acknowledged, and is lost"
    for job_id in found.jobs.keys() - found.acknowledged.keys():
        yield f"{job_id} was not acknowledged, although its caller asked until it was"


def _unfinished(found: _Found) -> Iterator[str]:
    for job in found.jobs.values():
        if not job.state.is_final:
            yield f"{job.id} is {job.state}, after all this time"


def _ended_twice(found: _Found) -> Iterator[str]:
    """A story has one end, and it is the last word; no attempt goes without a claim."""
    for job in found.jobs.values():
        story = found.events[job.id]
        ends = [event.type for event in story if event.state.is_final]
        if len(ends) != 1 or not story[-1].state.is_final:
            yield f"{job.id} has the ends {ends}, and {story[-1].type} is its last event"
        claims = sum(event.type == "claimed" for event in story)
        if claims < job.attempt:
            yield f"{job.id} was claimed {claims} times, and had {job.attempt} attempts"
    for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
        counted = int(found.counters.get(f"jobs:{state}", 0))
        there = sum(job.state is state for job in found.jobs.values())
        if counted != there:
            yield f"{counted} jobs came to be {state}, and {there} are"


def _ended_wrongly(found: _Found) -> Iterator[str]:
    """Ordinary jobs succeed or lose all attempts; poison fails with its reason; the rest is cancelled."""
    for job in found.acknowledged_as(Kind.ORDINARY):
        lost = job.state is JobState.FAILED and _lost_all_attempts(found, job)
        if not (lost or job.state is JobState.SUCCEEDED):
            yield f"{job.id} is {job.state} after {job.attempt} attempts: {job.error}"
    for job in found.acknowledged_as(Kind.POISON):
        if not (job.state is JobState.FAILED and _lost_all_attempts(found, job)):
            yield f"poison {job.id} is {job.state} after {job.attempt} attempts: {job.error}"
    for job in found.acknowledged_as(Kind.LONG):
        lost = job.state is JobState.FAILED and _lost_all_attempts(found, job)
        if not (lost or job.state is JobState.CANCELLED):
            yield f"{job.id} was cancelled, and is {job.state}: {job.error}"


def _lost_all_attempts(found: _Found, job: JobRecord) -> bool:
    code = job.error.code if job.error else None
    return code in _TAKEN_BY_THE_DEAD and job.attempt == found.max_attempts


def _spoilt(found: _Found) -> Iterator[str]:
    """Every result is what its digest says; who asked for the same has the same adapter."""
    adapters: dict[str, set[str]] = {}
    for job in found.jobs.values():
        if job.state is JobState.SUCCEEDED and not job.artifacts:
            yield f"{job.id} succeeded without a result"
        for name, info in job.artifacts.items():
            content = found.deployment.store.job_folders.result_path(job, name).read_bytes()
            if (len(content), hashlib.sha256(content).hexdigest()) != (info.bytes, info.sha256):
                yield f"{name} of {job.id} is not what its digest says"
        if ADAPTER_MODEL in job.artifacts and job.id in found.acknowledged:
            asked = adapters.setdefault(found.acknowledged[job.id].asks, set())
            asked.add(job.artifacts[ADAPTER_MODEL].sha256)
    for asks, digests in adapters.items():
        if len(digests) > 1:
            yield f"jobs that asked for {asks} got {len(digests)} different adapters"


def _indexed_wrongly(found: _Found) -> Iterator[str]:
    """Every index holds the jobs that it should by their records."""
    look = found.deployment.look
    by_state = {
        f"{RedisKey.TENANT_JOBS}{TENANT}:{state}": {
            job.id for job in found.jobs.values() if job.state is state
        }
        for state in JobState
    }
    expected = {**by_state, f"{RedisKey.TENANT_JOBS}{TENANT}": found.jobs.keys()}
    expected |= {RedisKey.ENDED: {job.id for job in found.jobs.values() if job.state.is_final}}
    expected |= {RedisKey.QUEUED: set(), RedisKey.LEASES: set()}
    for key, ids in expected.items():
        there = set(look.zrange(key, 0, -1))
        if there != ids:
            wrong = sorted(there ^ ids)
            yield f"{key} holds {len(there)} jobs, {len(ids)} by the records; it differs in {wrong}"
    left = look.scard(RedisKey.UNRECORDED)
    if left:
        yield f"the ends of {left} jobs are not on disk"


def _left_in_the_queue(found: _Found) -> Iterator[str]:
    """No message waits; what dead workers took along, and kombu gives back in an hour, is of ended jobs."""
    look = found.deployment.look
    waiting = look.llen(BROKER_LIST)
    if waiting:
        yield f"{waiting} messages are left in the broker's list"
    for message in look.hvals(f"{BROKER_KEY_PREFIX}unacked"):
        body, _, _ = json.loads(message)
        (job_id,), _, _ = json.loads(base64.b64decode(body["body"]))
        if job_id not in found.jobs or not found.jobs[job_id].state.is_final:
            yield f"a message of {job_id}, which has not ended, is held by a dead worker"


def _rebuilt_differently(found: _Found, folder: Path) -> Iterator[str]:
    """An empty Redis, filled again from the records on disk, tells the same of every job."""
    empty = EmbeddedRedis.prepare(find_redis_server(None), folder / "rebuilt")
    settings = replace(found.deployment.settings, redis_url=empty.url)
    with running_redis(empty, "--appendfsync", "no"):
        Store.rebuild(settings, add_missing=False)
        store = Store.open(settings)
        rebuilt = {job.id: job for job in _all_jobs(store)}
        store.close()
    for job_id in rebuilt.keys() | found.jobs.keys():
        if rebuilt.get(job_id) != found.jobs.get(job_id):
            yield f"{job_id} would be rebuilt as {rebuilt.get(job_id)}, and is {found.jobs.get(job_id)}"


_PROMISES: tuple[Callable[[_Found], Iterator[str]], ...] = (
    _lost_or_made_up,
    _unfinished,
    _ended_twice,
    _ended_wrongly,
    _spoilt,
    _indexed_wrongly,
    _left_in_the_queue,
)
