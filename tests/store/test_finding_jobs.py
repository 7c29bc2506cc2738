"""Jobs found by a text in their words, and what lists tell of jobs."""

import json
from dataclasses import fields

import pytest
from fixtures.store import ARTIFACTS, INPUTS, OUT_OF_MEMORY, STEPS, claim
from fixtures.store import submit as submit_any
from redis import Redis

from nextrapolate.methods import make_method
from nextrapolate.schemas import BacktestCreate, CheckpointRef, JobCreate, JobRequest, JobState, SeriesCreate
from nextrapolate_store.errors import InvalidCursor
from nextrapolate_store.records import JobSummary
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store


def submit(store: Store, request: JobRequest, tenant: str = "lab") -> str:
    return store.jobs.submit(tenant, request, INPUTS, idempotency_key=None, body_digest="").id


def found(store: Store, text: str, state: JobState | None = None, *, look_at: int = 100) -> list[str]:
    records, cursor = store.jobs.find("lab", text, limit=50, look_at=look_at, cursor=None, state=state)
    assert cursor is None
    return [record.id for record in records]


def test_jobs_are_found_by_each_of_their_words(store: Store) -> None:
    series = store.series.create("lab", SeriesCreate(name="Äpfel GRPO")).id
    line = submit(
        store, JobCreate(series=series, method=make_method("weight-extrapolation"), labels={"team": "Maths"})
    )
    test = submit(store, BacktestCreate(series="gone", at=10, horizon_steps=10))
    submit(store, JobCreate(series=series, labels={"team": "maths"}), tenant="stranger")
    assert found(store, "WEIGHT-ex") == [line]
    assert found(store, "maths") == [line]
    assert found(store, "team") == [line]
    assert found(store, "Äpfel grpo") == [line]
    assert found(store, series) == [line]
    assert found(store, "backtest") == [test]
    assert found(store, test.lower()) == [test]
    assert found(store, ".*") == []
    assert found(store, "") == [test, line]
    store.jobs.cancel("lab", test)
    assert found(store, "", JobState.QUEUED) == [line]


def test_finding_goes_on_from_where_it_stopped(store: Store) -> None:
    jobs = [submit(store, JobCreate(series="s", labels={"run": f"run-{number % 2}"})) for number in range(20)]
    wanted = list(reversed(jobs[1::2]))
    pages, cursor = [], None
    while True:
        records, cursor = store.jobs.find("lab", "run-1", limit=4, look_at=6, cursor=cursor)
        pages.append([record.id for record in records])
        if cursor is None:
            break
    assert [job for page in pages for job in page] == wanted
    assert all(len(page) <= 3 for page in pages), "six are looked at, and half of them are wanted"
    first, cursor = store.jobs.find("lab", "run-1", limit=2, look_at=100, cursor=None)
    second, _ = store.jobs.find("lab", "run-1", limit=2, look_at=100, cursor=cursor)
    assert [record.id for record in first + second] == wanted[:4]
    with pytest.raises(InvalidCursor):
        store.jobs.find("lab", "run", limit=2, look_at=100, cursor="nonsense")


def test_a_search_goes_on_from_script_to_script(store: Store) -> None:
    jobs = [submit(store, JobCreate(series="s", labels={"run": f"run-{number}."})) for number in range(250)]
    for number in (249, 150, 149, 0):
        assert found(store, f"run-{number}.", look_at=1000) == [jobs[number]]
    records, cursor = store.jobs.find("lab", "run-0.", limit=1, look_at=249, cursor=None)
    assert (records, cursor) == ([], jobs[1])
    records, cursor = store.jobs.find("lab", "run-", limit=120, look_at=1000, cursor=None)
    assert ([record.id for record in records], cursor) == (jobs[:129:-1], jobs[130])


def test_of_long_requests_no_script_reads_many(store: Store) -> None:
    long = [CheckpointRef(uri=f"file:///{'long' * 1000}/checkpoint-{step}") for step in range(250)]
    jobs = [submit(store, JobCreate(checkpoints=long)) for _ in range(7)]
    cursors: list[str | None] = [None]
    while cursors == [None] or cursors[-1]:
        records, after = store.jobs.find("lab", "elsewhere", limit=9, look_at=100, cursor=cursors[-1])
        assert records == []
        cursors.append(after)
    assert cursors == [None, jobs[5], jobs[3], jobs[1], None], "two of a million bytes are too many for one"
    assert found(store, "elsewhere", look_at=1000) == []


# What lists tell --------------------------------------------------------------------------------------


def test_lists_tell_of_a_job_what_its_record_does_but_its_inputs(store: Store) -> None:
    queued, failed, done = (submit_any(store, tenant="lab") for _ in range(3))
    store.jobs.fail(failed.id, claim(store, failed).fence, OUT_OF_MEMORY)
    store.jobs.commit(done.id, claim(store, done).fence, ARTIFACTS)
    pages = (
        store.jobs.list("lab", limit=9, cursor=None),
        store.jobs.find("lab", "", limit=9, look_at=9, cursor=None),
    )
    for listed, _ in pages:
        assert [job.id for job in listed] == sorted((queued.id, failed.id, done.id), reverse=True)
        for job in listed:
            record = store.jobs.get("lab", job.id)
            assert [getattr(job, field.name) for field in fields(JobSummary)] == [
                getattr(record, field.name) for field in fields(JobSummary)
            ]
            assert job.steps == record.steps == STEPS


def test_of_the_inputs_lists_read_the_steps_alone(store: Store, store_settings: StoreSettings) -> None:
    """Files of a kind that nobody knows are not looked at, and one that has no steps is left out."""
    jobs = [submit_any(store, tenant="lab").id for _ in range(2)]
    inputs = {"checkpoints": [{"step": 7, "model": {"kind": "of a later version"}}]}
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.hset(f"next:job:{jobs[0]}", "inputs", json.dumps(inputs))
        redis.hset(f"next:job:{jobs[1]}", "inputs", "{}")
    listed, _ = store.jobs.list("lab", limit=9, cursor=None)
    assert [(job.id, job.steps) for job in listed] == [(jobs[0], (7,))]
