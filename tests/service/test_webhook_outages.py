"""Webhooks while others are slow or gone: receivers, name servers, the API, Redis, another process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fixtures.webhooks import SECRET, Receiver, ended, submit, through, webhook_of
from redis import Redis

from nextrapolate_service.app import create_app
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]


@pytest.fixture
def tarpit(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Takes connections, and never says a word on them; nobody gives up waiting for it."""
    monkeypatch.setattr("nextrapolate_service.webhooks.sending._CONNECTS_WITHIN_SECONDS", 600.0)
    monkeypatch.setattr("nextrapolate_service.webhooks.sending._ANSWERS_WITHIN_SECONDS", 600.0)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener


def test_receivers_that_never_answer_hold_up_no_other_tenants(
    tarpit: socket.socket, store: Store, receiver: Receiver, webhook_settings: ServiceSettings, api_key: str
) -> None:
    stuck = [ended(store, "others", f"https://127.0.0.1:{tarpit.getsockname()[1]}/") for _ in range(20)]
    good = ended(store, "tests", receiver.url)
    with TestClient(create_app(webhook_settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
        assert through(client, good).state == "delivered"
        assert all(store.jobs.get("others", job).deliveries == () for job in stuck)
        tarpit.close()
        deadline = time.monotonic() + 60
        while any(len(store.jobs.get("others", job).deliveries) < 3 for job in stuck):  # none was forgotten
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Names below slow.example are looked up until this is set, as if their servers did not answer."""
    answered = threading.Event()
    look_up = socket.getaddrinfo

    def slow(host: Any, *rest: Any, **options: Any) -> Any:
        if str(host).endswith("slow.example"):
            answered.wait(300)
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    return answered


def test_names_that_nobody_answers_for_hold_up_no_other_tenants(
    answered: threading.Event,
    store: Store,
    receiver: Receiver,
    webhook_settings: ServiceSettings,
    api_key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = [ended(store, "others", f"https://{number}.slow.example/") for number in range(16)]
    with ExitStack() as stack:
        headers = {"Authorization": f"Bearer {api_key}"}
        client = stack.enter_context(TestClient(create_app(webhook_settings), headers=headers))
        stack.callback(answered.set)
        with monkeypatch.context() as hasty:
            hasty.setattr("nextrapolate_service.webhooks.sending._ANSWERS_WITHIN_SECONDS", 0.2)
            deadline = time.monotonic() + 60
            while any(len(store.jobs.get("others", job).deliveries) < 3 for job in stuck):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        for job in stuck:
            assert "no answer within" in (store.jobs.get("others", job).deliveries[-1].error or "")
        assert through(client, ended(store, "tests", receiver.url)).state == "delivered"


def test_a_webhook_outlives_the_api(
    webhook_settings: ServiceSettings, stored_series: str, receiver: Receiver, finish: Finish, api_key: str
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    receiver.statuses = [503, 200]
    with TestClient(create_app(replace(webhook_settings, webhook_pauses=(0.5,))), headers=headers) as client:
        job = submit(client, stored_series, url=receiver.url, secret=SECRET).json()
        finish(job["id"])
        deadline = time.monotonic() + 60
        while not webhook_of(client, job["id"]).deliveries:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    with TestClient(create_app(webhook_settings), headers=headers) as client:
        webhook = through(client, job["id"])
    assert (webhook.state, len(receiver.told)) == ("delivered", 2)
    assert "webhook-signature" in receiver.told[1].headers


def test_a_webhook_outlives_redis(
    webhook_settings: ServiceSettings, stored_series: str, receiver: Receiver, finish: Finish, api_key: str
) -> None:
    receiver.statuses = [204, 503, 200]
    patient = replace(webhook_settings, webhook_pauses=(3600,))
    headers = {"Authorization": f"Bearer {api_key}"}
    with (
        TestClient(create_app(patient), headers=headers) as client,
        Redis.from_url(webhook_settings.store.redis_url) as redis,
    ):
        told, waiting = (
            submit(client, stored_series, url=receiver.url, secret=SECRET).json()["id"] for _ in range(2)
        )
        finish(told)
        before = through(client, told)
        finish(waiting)
        deadline = time.monotonic() + 60
        while not webhook_of(client, waiting).deliveries or redis.scard("next:unrecorded"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        redis.flushall()
        Store.rebuild(webhook_settings.store, add_missing=False)
        assert webhook_of(client, told) == before
        assert through(client, waiting).state == "delivered"
    assert [message.headers["webhook-id"] for message in receiver.told] == [
        f"msg_{job}" for job in (told, waiting, waiting)
    ]
    assert all("webhook-signature" in message.headers for message in receiver.told)


def test_two_processes_tell_each_job_once(
    webhook_settings: ServiceSettings, stored_series: str, receiver: Receiver, finish: Finish, api_key: str
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    with ExitStack() as stack:
        clients = [
            stack.enter_context(TestClient(create_app(webhook_settings), headers=headers)) for _ in range(2)
        ]
        jobs = [submit(clients[0], stored_series, url=receiver.url).json()["id"] for _ in range(12)]
        for job in jobs:
            finish(job)
        for job in jobs:
            through(clients[1], job)
    assert sorted(told.headers["webhook-id"] for told in receiver.told) == sorted(
        f"msg_{job}" for job in jobs
    )


def test_an_attempt_that_nobody_finished_is_made_again(
    store: Store, stored_series: str, finish: Finish, settings: ServiceSettings, api_key: str
) -> None:
    """In the store alone: the service that made the job is gone by the time it ends."""
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
        job = submit(client, stored_series, url="https://example.org/").json()["id"]
    finish(job)
    (lost,) = store.deliveries.claim(9, hold_seconds=60)
    assert store.deliveries.claim(9) == []
    with Redis.from_url(settings.store.redis_url) as redis:
        for holds in ("next:deliveries", "next:tenant-telling:tests"):
            redis.zincrby(holds, -60_000, job)  # as if a minute had passed
    (again,) = store.deliveries.claim(9)
    assert (lost.job.id, lost.attempt, again.attempt) == (job, 1, 2)
    assert not store.deliveries.settle(lost, status=500, error="late", wait_seconds=1.0)
    assert store.deliveries.settle(again, status=200, error=None, wait_seconds=None)
    (delivery,) = store.jobs.get("tests", job).deliveries
    assert (delivery.attempt, delivery.status) == (2, 200)
    assert datetime.now(UTC) >= delivery.at
    assert store.deliveries.claim(9) == []
