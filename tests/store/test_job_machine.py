"""The job protocol against a model of it, under every order of calls that hypothesis can think of."""

import shutil
from dataclasses import dataclass, field, replace

import hypothesis.strategies as st
from fixtures.store import ARTIFACTS, OUT_OF_MEMORY, TENANT, submit
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from nextrapolate.schemas import JobState
from nextrapolate_store.records import Beat
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota, Quotas

MAX_ATTEMPTS = 2
MAX_RUNNING = 2
HELD = (JobState.RUNNING, JobState.CANCELLING)


@dataclass
class Model:
    """What the store must know of one job."""

    state: JobState = JobState.QUEUED
    fence: int = 0
    attempt: int = 0
    claims: int = 0
    """Of which its events tell; those that a worker gave back are among them."""
    recorded: bool = False
    """Its end is on disk."""
    expired: bool = False
    parked: bool = False
    """It waits, out of the queue, until fewer jobs run."""
    failures: list[str] = field(default_factory=list)

    def holds(self, fence: int) -> bool:
        return self.state in HELD and fence == self.fence

    def end_attempt(self, code: str) -> None:
        self.failures.append(code)
        if self.state is JobState.CANCELLING:
            self.state = JobState.CANCELLED
        else:
            self.state = JobState.FAILED if self.attempt >= MAX_ATTEMPTS else JobState.QUEUED


class JobMachine(RuleBasedStateMachine):
    jobs = Bundle("jobs")
    ages = st.sampled_from([0, 0, 0, 1])
    """How many claims ago the fence was given out that a caller shows."""

    def __init__(self, settings: StoreSettings, redis: Redis) -> None:
        super().__init__()
        redis.flushall()
        shutil.rmtree(settings.data_dir, ignore_errors=True)
        self.settings, self.redis, self.store = settings, redis, Store.open(settings)
        self.store.quotas.set_defaults(Quotas(running_jobs=MAX_RUNNING))
        self.models: dict[str, Model] = {}
        self.most_running = MAX_RUNNING

    def teardown(self) -> None:
        self.store.close()

    @precondition(lambda self: len(self.models) < 3)  # more jobs than that have too little happen to each
    @rule(target=jobs)
    def submit(self) -> str:
        job_id = submit(self.store).id
        self.models[job_id] = Model()
        return job_id

    @rule(job=jobs)
    def claim(self, job: str) -> None:
        model = self.models[job]
        is_queued, room = model.state is JobState.QUEUED, self.room()
        claimed = self.store.jobs.claim(job, worker="test")
        assert (claimed is not None) == (is_queued and room > 0)
        model.parked = is_queued and room == 0
        if claimed is not None:
            assert claimed.fence > model.fence
            model.state, model.fence, model.expired = JobState.RUNNING, claimed.fence, False
            model.attempt, model.claims = model.attempt + 1, model.claims + 1
            assert claimed.attempt == model.attempt

    @rule(job=jobs, age=ages, progress=st.sampled_from([None, 0.25, 0.5]))
    def beat(self, job: str, age: int, progress: float | None) -> None:
        model = self.models[job]
        fence = model.fence - age
        beat = self.store.jobs.beat(job, fence, stage=None, progress=progress)
        if not model.holds(fence):
            assert beat is Beat.LOST
        else:
            assert beat is (Beat.HELD if model.state is JobState.RUNNING else Beat.CANCEL)
            model.expired = False

    @rule(job=jobs, age=ages)
    def commit(self, job: str, age: int) -> None:
        model = self.models[job]
        fence = model.fence - age
        held = model.holds(fence) and model.state is JobState.RUNNING
        repeated = model.state is JobState.SUCCEEDED and fence == model.fence
        assert self.store.jobs.commit(job, fence, ARTIFACTS) == (held or repeated)
        if held:
            model.state = JobState.SUCCEEDED

    @rule(job=jobs, age=ages)
    def fail(self, job: str, age: int) -> None:
        model = self.models[job]
        fence = model.fence - age
        held = model.holds(fence)
        repeated = model.state in (JobState.FAILED, JobState.CANCELLED) and fence == model.fence
        assert self.store.jobs.fail(job, fence, OUT_OF_MEMORY) == (held or repeated)
        if held:
            model.state = JobState.FAILED if model.state is JobState.RUNNING else JobState.CANCELLED
            model.failures.append(OUT_OF_MEMORY.code)

    @rule(job=jobs, age=ages)
    def give_up(self, job: str, age: int) -> None:
        model = self.models[job]
        fence = model.fence - age
        if model.holds(fence):
            model.end_attempt(OUT_OF_MEMORY.code)
        assert self.store.jobs.give_up(job, fence, OUT_OF_MEMORY) is model.state

    @rule(job=jobs, age=ages)
    def release(self, job: str, age: int) -> None:
        model = self.models[job]
        fence = model.fence - age
        if model.holds(fence):
            model.attempt -= 1
            model.state = JobState.QUEUED if model.state is JobState.RUNNING else JobState.CANCELLED
        assert self.store.jobs.release(job, fence, "stopped") is model.state

    @rule(job=jobs, age=ages)
    def confirm_cancelled(self, job: str, age: int) -> None:
        model = self.models[job]
        fence = model.fence - age
        held = model.holds(fence) and model.state is JobState.CANCELLING
        repeated = model.state is JobState.CANCELLED and fence == model.fence
        assert self.store.jobs.confirm_cancelled(job, fence) == (held or repeated)
        if held:
            model.state = JobState.CANCELLED

    @rule(job=jobs)
    def cancel(self, job: str) -> None:
        model = self.models[job]
        if model.state in (JobState.SUCCEEDED, JobState.FAILED):
            return
        if model.state is JobState.QUEUED:
            model.state, model.parked = JobState.CANCELLED, False
        elif model.state is JobState.RUNNING:
            model.state = JobState.CANCELLING
        assert self.store.jobs.cancel(TENANT, job).state is model.state

    @rule(job=jobs)
    def end_lease(self, job: str) -> None:
        model = self.models[job]
        ended = self.redis.zadd("next:leases", {job: 0}, xx=True, ch=True)
        assert bool(ended) == (model.state in HELD and not model.expired)
        model.expired = model.state in HELD

    @rule()
    def reconcile(self) -> None:
        expired = {job: model for job, model in self.models.items() if model.state in HELD and model.expired}
        for model in expired.values():
            model.end_attempt("worker-lost")
        done = self.store.jobs.reconcile()
        assert sorted((*done.requeued, *done.failed, *done.cancelled)) == sorted(expired)
        for job in done.requeued:
            assert job in done.wake
        parked = sorted(job for job, model in self.models.items() if model.parked)
        for job in parked[: self.room()]:
            assert job in done.wake
            self.models[job].parked = False

    def room(self) -> int:
        """How many more jobs may run."""
        return max(0, self.most_running - sum(model.state in HELD for model in self.models.values()))

    @rule(most=st.integers(0, 3))
    def set_quota(self, most: int) -> None:
        self.store.quotas.set(TENANT, {Quota.RUNNING_JOBS: most})
        self.most_running = most

    @rule()
    def record_ends(self) -> None:
        ended = [model for model in self.models.values() if model.state.is_final and not model.recorded]
        assert self.store.recorder.record_ends() == len(ended)
        for model in ended:
            model.recorded = True

    @rule(job=consumes(jobs), target=jobs)
    def sweep(self, job: str) -> object:
        """As if one job had ended long ago: it leaves no trace, and one that has not ended stays."""
        self.redis.zadd("next:ended", {job: 0}, xx=True)
        swept = self.store.sweeper.sweep()
        if not self.models[job].state.is_final:
            assert swept.jobs == 0
            return job
        assert swept.jobs == 1
        assert self.redis.keys(f"*{job}*") == []
        assert not (self.settings.data_dir / "jobs" / job).exists()
        del self.models[job]
        return multiple()

    @rule()
    def lose_redis_and_rebuild(self) -> None:
        """An end that was written down is as it was; other jobs are queued again, under higher fences."""
        self.redis.flushall()
        self.store.quotas.set_defaults(Quotas(running_jobs=MAX_RUNNING))
        done = Store.rebuild(self.settings, add_missing=False)
        again = {job: model for job, model in self.models.items() if not model.recorded}
        assert (done.ended, done.queued) == (len(self.models) - len(again), len(again))
        for job, model in again.items():
            fence = self.store.jobs.get(TENANT, job).fence
            assert fence > model.fence
            self.models[job] = Model(fence=fence)

    @invariant()
    def records_agree_with_the_model(self) -> None:
        listed, _ = self.store.jobs.list(TENANT, limit=1000, cursor=None)
        assert [record.id for record in listed] == sorted(self.models, reverse=True)
        for record in listed:
            model = self.models[record.id]
            assert (record.state, record.fence, record.attempt) == (model.state, model.fence, model.attempt)
            assert (record.finished_at is not None) == record.state.is_final
            assert bool(record.artifacts) == (record.state is JobState.SUCCEEDED)
            assert (record.error and record.error.code) == self._expected_error(model)

    @staticmethod
    def _expected_error(model: Model) -> str | None:
        if model.state is not JobState.FAILED:
            return None
        told = [code for code in model.failures if code != "worker-lost"]
        return told[-1] if told else "worker-lost"

    @invariant()
    def indexes_agree_with_the_records(self) -> None:
        by_state = {
            state: {
                record.id for record in self.store.jobs.list(TENANT, limit=1000, cursor=None, state=state)[0]
            }
            for state in JobState
        }
        assert by_state == {
            state: {job for job, model in self.models.items() if model.state is state} for state in JobState
        }
        parked = {job for job, model in self.models.items() if model.parked}
        assert set(self.redis.zrange("next:queued", 0, -1)) == by_state[JobState.QUEUED] - parked
        assert set(self.redis.zrange(f"next:tenant-parked:{TENANT}", 0, -1)) == parked
        held = by_state[JobState.RUNNING] | by_state[JobState.CANCELLING]
        assert set(self.redis.zrange("next:leases", 0, -1)) == held
        ended = {job for job, model in self.models.items() if model.state.is_final}
        assert set(self.redis.zrange("next:ended", 0, -1)) == ended
        assert set(self.redis.zrange("next:told", 0, -1)) == ended
        unrecorded = {job for job in ended if not self.models[job].recorded}
        assert self.redis.smembers("next:unrecorded") == unrecorded

    @invariant()
    def quotas_agree_with_the_records(self) -> None:
        states = [model.state for model in self.models.values()]
        usage = self.store.quotas.usage(TENANT)
        assert usage[Quota.QUEUED_JOBS].used == states.count(JobState.QUEUED)
        assert usage[Quota.RUNNING_JOBS].used == sum(state in HELD for state in states)
        stored = states.count(JobState.SUCCEEDED) * sum(info.bytes for info in ARTIFACTS.values())
        assert usage[Quota.BYTES].used == stored

    @invariant()
    def events_tell_the_whole_story(self) -> None:
        for job, model in self.models.items():
            events = self.store.jobs.events(job, None)
            types = [event.type for event in events]
            assert events[-1].state is model.state
            assert types.count("succeeded") == (model.state is JobState.SUCCEEDED)
            assert types.count("claimed") == model.claims
            assert sum(event.state.is_final for event in events) == model.state.is_final


def test_no_job_is_lost_and_none_commits_twice(store_settings: StoreSettings) -> None:
    few_attempts = replace(store_settings, max_attempts=MAX_ATTEMPTS)
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:

        class Bound(JobMachine):
            def __init__(self) -> None:
                super().__init__(few_attempts, redis)

        run_state_machine_as_test(
            Bound, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
        )
