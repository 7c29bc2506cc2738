"""What a webhook is told of a job, to a real receiver over TLS, and how often it is tried."""

import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable
from html import unescape

import pytest
from fastapi.testclient import TestClient
from fixtures.webhooks import KEY, SECRET, Receiver, submit, through

from nextrapolate.schemas import WebhookMessage
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]


def page_of(client: TestClient, job: str) -> str:
    """The job's page, as people read it."""
    return unescape(client.get(f"/jobs/{job}", headers={"Accept": "text/html"}).text)


def test_a_job_that_ends_is_told_once_and_signed(
    teller: TestClient, stored_series: str, receiver: Receiver, finish: Finish, store: Store
) -> None:
    job = submit(teller, stored_series, url=receiver.url, secret=SECRET).json()
    assert job["webhook"] == {"url": receiver.url, "state": "waiting", "deliveries": []}
    finish(job["id"])
    webhook = through(teller, job["id"])
    (delivery,) = webhook.deliveries
    assert (webhook.state, delivery.attempt, delivery.status, delivery.error) == ("delivered", 1, 204, None)
    assert "<br>It was told.</td>" in page_of(teller, job["id"])

    (told,) = receiver.told
    assert told.path == "/hooks?from=tests"
    assert told.headers["host"] == receiver.url.split("/")[2]
    assert told.headers["webhook-id"] == f"msg_{job['id']}"
    assert abs(int(told.headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{told.headers['webhook-id']}.{told.headers['webhook-timestamp']}.".encode() + told.body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert told.headers["webhook-signature"] == f"v1,{expected}"

    message = WebhookMessage.model_validate_json(told.body)
    ended = store.jobs.get("tests", job["id"])
    assert (message.type, message.timestamp) == ("job.succeeded", ended.finished_at)
    assert (message.data.id, message.data.state, message.data.error) == (job["id"], "succeeded", None)


@pytest.mark.parametrize("secret", [SECRET, None])
def test_the_secret_is_nowhere_but_where_it_serves_and_goes_when_it_has(
    teller: TestClient,
    webhook_settings: ServiceSettings,
    stored_series: str,
    receiver: Receiver,
    finish: Finish,
    secret: str | None,
) -> None:
    job = submit(teller, stored_series, url=receiver.url, **({"secret": secret} if secret else {})).json()
    folder = webhook_settings.store.data_dir
    kept = [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    expected = [folder / "credentials" / f"{job['id']}.webhook-secret"] if secret else []
    assert kept == expected
    assert "whsec" not in teller.get(f"/jobs/{job['id']}").text
    finish(job["id"])
    through(teller, job["id"])
    assert ("webhook-signature" in receiver.told[0].headers) == (secret is not None)
    deadline = time.monotonic() + 60
    while any(path.exists() for path in expected):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_was_to_be_signed_is_never_told_unsigned(
    teller: TestClient,
    webhook_settings: ServiceSettings,
    stored_series: str,
    receiver: Receiver,
    finish: Finish,
) -> None:
    job = submit(teller, stored_series, url=receiver.url, secret=SECRET).json()["id"]
    (webhook_settings.store.data_dir / "credentials" / f"{job}.webhook-secret").unlink()
    finish(job)
    webhook = through(teller, job)
    assert (webhook.state, len(webhook.deliveries)) == ("given-up", 1)
    assert "its secret is lost" in (webhook.deliveries[0].error or "")
    assert receiver.told == []


def test_a_job_that_is_cancelled_is_told_of(
    teller: TestClient, stored_series: str, receiver: Receiver
) -> None:
    job = submit(teller, stored_series, url=receiver.url).json()
    teller.post(f"/jobs/{job['id']}/cancel")
    through(teller, job["id"])
    assert json.loads(receiver.told[0].body)["type"] == "job.cancelled"


def test_what_fails_is_tried_again_under_the_same_id(
    teller: TestClient, stored_series: str, receiver: Receiver, finish: Finish
) -> None:
    receiver.statuses = [500, 307, 200]
    job = submit(teller, stored_series, url=receiver.url).json()
    finish(job["id"])
    webhook = through(teller, job["id"])
    assert webhook.state == "delivered"
    assert [delivery.status for delivery in webhook.deliveries] == [500, 307, 200]
    assert "redirects are not followed" in (webhook.deliveries[1].error or "")
    for delivery in webhook.deliveries[:2]:
        assert delivery.next_at is not None
        assert delivery.next_at > delivery.at
    assert {told.headers["webhook-id"] for told in receiver.told} == {f"msg_{job['id']}"}


@pytest.mark.parametrize(("status", "attempts"), [(500, 3), (410, 1)])
def test_it_is_given_up_in_the_end(
    teller: TestClient, stored_series: str, receiver: Receiver, finish: Finish, status: int, attempts: int
) -> None:
    receiver.statuses = [status]
    job = submit(teller, stored_series, url=receiver.url).json()
    assert "It is told when the job has ended." in page_of(teller, job["id"])
    finish(job["id"])
    webhook = through(teller, job["id"])
    assert webhook.state == "given-up"
    assert len(webhook.deliveries) == len(receiver.told) == attempts
    assert webhook.deliveries[-1].next_at is None
    page = page_of(teller, job["id"])
    assert f"<bdi>{receiver.url}</bdi>" in page
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    assert f"Given up after {times}: {webhook.deliveries[-1].error}</td>" in page


def test_a_receiver_that_is_not_who_it_should_be_is_told_nothing(
    teller: TestClient, stored_series: str, receiver: Receiver, finish: Finish
) -> None:
    port = receiver.url.split("/")[2].split(":")[1]
    job = submit(teller, stored_series, url=f"https://127.0.0.1:{port}/hooks").json()
    finish(job["id"])
    webhook = through(teller, job["id"])
    assert webhook.state == "given-up"
    assert "certificate" in (webhook.deliveries[0].error or "").lower()
    assert receiver.told == []


def test_nobody_listening_is_no_mistake_of_the_servers(
    teller: TestClient, stored_series: str, finish: Finish
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"https://localhost:{taken.getsockname()[1]}/"
        job = submit(teller, stored_series, url=url).json()
        finish(job["id"])
        assert through(teller, job["id"]).deliveries[0].error


def test_what_nobody_foresaw_is_given_up_in_the_end_and_holds_up_no_other(
    teller: TestClient, stored_series: str, receiver: Receiver, finish: Finish, store: Store
) -> None:
    spoilt, good = (
        submit(teller, stored_series, url=receiver.url, secret=SECRET).json()["id"] for _ in range(2)
    )
    store.credentials.put(spoilt, "webhook-secret", "whsec_!")  # nothing can be signed with it
    finish(spoilt)
    finish(good)
    webhook = through(teller, spoilt)
    assert (webhook.state, len(webhook.deliveries)) == ("given-up", 3)
    assert "the server made a mistake" in (webhook.deliveries[0].error or "")
    assert through(teller, good).state == "delivered"
