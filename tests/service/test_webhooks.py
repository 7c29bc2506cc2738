"""Webhooks, told to a real receiver over TLS."""

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.problems import problem
from fixtures.store import INPUTS, REQUEST
from fixtures.webhooks import Receiver
from redis import Redis

from nextrapolate.schemas import SeriesCreate, Webhook, WebhookMessage, WebhookState
from nextrapolate_service.app import create_app
from nextrapolate_service.errors import RefusedWebhookError
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.webhooks.addresses import check_address
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


@pytest.fixture
def allowed(settings: ServiceSettings) -> ServiceSettings:
    """Settings that let webhooks lie on this machine, and do not wait long."""
    here = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    return replace(settings, webhook_networks=here, webhook_pauses=(0.01, 0.01))


@pytest.fixture
def teller(allowed: ServiceSettings, receiver: Receiver, api_key: str) -> Iterator[TestClient]:
    with TestClient(create_app(allowed), headers={"Authorization": f"Bearer {api_key}"}) as client:
        yield client


@pytest.fixture
def series(store: Store) -> str:
    """A series of the tenant, without a service that would tell webhooks in its own way."""
    made = store.series.create("tests", SeriesCreate(name="run"))
    for step in (10, 20, 60):
        weights = store.blobs.put_bytes("tests", model_bytes(step))
        store.series.put_file("tests", made.id, step, "adapter_model.safetensors", weights)
        config = store.blobs.put_bytes("tests", CONFIG)
        store.series.put_file("tests", made.id, step, "adapter_config.json", config)
    return made.id


def submit(client: TestClient, series: str, **webhook: str) -> Any:
    method = {"name": "weight-extrapolation"}
    return client.post("/jobs", json={"series": series, "method": method, "webhook": webhook})


def webhook_of(client: TestClient, job: str) -> WebhookState:
    return WebhookState.model_validate(client.get(f"/jobs/{job}").json()["webhook"])


def through(client: TestClient, job: str) -> WebhookState:
    """Wait until nothing more will be told."""
    deadline = time.monotonic() + 60
    while (webhook := webhook_of(client, job)).state not in ("delivered", "given-up"):
        assert time.monotonic() < deadline, webhook
        time.sleep(0.02)
    return webhook


def test_a_job_that_ends_is_told_once_and_signed(
    teller: TestClient, series: str, receiver: Receiver, finish: Finish, store: Store
) -> None:
    job = submit(teller, series, url=receiver.url, secret=SECRET).json()
    assert job["webhook"] == {"url": receiver.url, "state": "waiting", "deliveries": []}
    finish(job["id"])
    webhook = through(teller, job["id"])
    (delivery,) = webhook.deliveries
    assert (webhook.state, delivery.attempt, delivery.status, delivery.error) == ("delivered", 1, 204, None)

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
    allowed: ServiceSettings,
    series: str,
    receiver: Receiver,
    finish: Finish,
    secret: str | None,
) -> None:
    job = submit(teller, series, url=receiver.url, **({"secret": secret} if secret else {})).json()
    folder = allowed.store.data_dir
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
    teller: TestClient, allowed: ServiceSettings, series: str, receiver: Receiver, finish: Finish
) -> None:
    job = submit(teller, series, url=receiver.url, secret=SECRET).json()["id"]
    (allowed.store.data_dir / "credentials" / f"{job}.webhook-secret").unlink()
    finish(job)
    webhook = through(teller, job)
    assert (webhook.state, len(webhook.deliveries)) == ("given-up", 1)
    assert "its secret is lost" in (webhook.deliveries[0].error or "")
    assert receiver.told == []


def test_a_job_that_is_cancelled_is_told_of(teller: TestClient, series: str, receiver: Receiver) -> None:
    job = submit(teller, series, url=receiver.url).json()
    teller.post(f"/jobs/{job['id']}/cancel")
    through(teller, job["id"])
    assert json.loads(receiver.told[0].body)["type"] == "job.cancelled"


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(
    teller: TestClient, series: str, receiver: Receiver, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[object] = []
    look_up = socket.getaddrinfo

    def noted(host: Any, *rest: Any, **options: Any) -> Any:
        looked_up.append(host)
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    job = submit(teller, series, url=receiver.url).json()
    finish(job["id"])
    through(teller, job["id"])
    assert looked_up.count("localhost") == 1


def test_what_fails_is_tried_again_under_the_same_id(
    teller: TestClient, series: str, receiver: Receiver, finish: Finish
) -> None:
    receiver.statuses = [500, 307, 200]
    job = submit(teller, series, url=receiver.url).json()
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
    teller: TestClient, series: str, receiver: Receiver, finish: Finish, status: int, attempts: int
) -> None:
    receiver.statuses = [status]
    job = submit(teller, series, url=receiver.url).json()
    finish(job["id"])
    webhook = through(teller, job["id"])
    assert webhook.state == "given-up"
    assert len(webhook.deliveries) == len(receiver.told) == attempts
    assert webhook.deliveries[-1].next_at is None


def test_a_receiver_that_is_not_who_it_should_be_is_told_nothing(
    teller: TestClient, series: str, receiver: Receiver, finish: Finish
) -> None:
    port = receiver.url.split("/")[2].split(":")[1]
    job = submit(teller, series, url=f"https://127.0.0.1:{port}/hooks").json()
    finish(job["id"])
    webhook = through(teller, job["id"])
    assert webhook.state == "given-up"
    assert "certificate" in (webhook.deliveries[0].error or "").lower()
    assert receiver.told == []


def test_nobody_listening_is_no_mistake_of_the_servers(
    teller: TestClient, series: str, finish: Finish
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"https://localhost:{taken.getsockname()[1]}/"
        job = submit(teller, series, url=url).json()
        finish(job["id"])
        assert through(teller, job["id"]).deliveries[0].error


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("a..b", "label empty or too long"),
        ("a" * 64 + ".example.org", "label empty or too long"),
        ("localhost:65536", "there is no port 65536: give one from 1 to 65535"),
        ("127.0.0.1:0", "there is no port 0"),
    ],
)
def test_what_an_earlier_version_took_for_an_address_is_given_up_at_once(
    teller: TestClient, store: Store, host: str, reason: str
) -> None:
    request = REQUEST.model_copy(update={"webhook": Webhook(url=f"https://{host}/")})
    job = store.jobs.submit("tests", request, INPUTS, idempotency_key=None, body_digest="")
    store.jobs.cancel("tests", job.id)
    webhook = through(teller, job.id)
    assert (webhook.state, len(webhook.deliveries)) == ("given-up", 1)
    assert reason in (webhook.deliveries[0].error or "")


def test_what_nobody_foresaw_is_given_up_in_the_end_and_holds_up_no_other(
    teller: TestClient, series: str, receiver: Receiver, finish: Finish, store: Store
) -> None:
    spoilt, good = (submit(teller, series, url=receiver.url, secret=SECRET).json()["id"] for _ in range(2))
    store.credentials.put(spoilt, "webhook-secret", "whsec_!")  # nothing can be signed with it
    finish(spoilt)
    finish(good)
    webhook = through(teller, spoilt)
    assert (webhook.state, len(webhook.deliveries)) == ("given-up", 3)
    assert "the server made a mistake" in (webhook.deliveries[0].error or "")
    assert through(teller, good).state == "delivered"


@pytest.fixture
def tarpit(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Takes connections, and never says a word on them; nobody gives up waiting for it."""
    monkeypatch.setattr("nextrapolate_service.webhooks.sending._CONNECTS_WITHIN_SECONDS", 600.0)
    monkeypatch.setattr("nextrapolate_service.webhooks.sending._ANSWERS_WITHIN_SECONDS", 600.0)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener


def ended(store: Store, tenant: str, url: str) -> str:
    """A job of the tenant that has ended, and whose webhook is at this address."""
    request = REQUEST.model_copy(update={"webhook": Webhook(url=url)})
    job = store.jobs.submit(tenant, request, INPUTS, idempotency_key=None, body_digest="")
    store.jobs.cancel(tenant, job.id)
    return job.id


def test_receivers_that_never_answer_hold_up_no_other_tenants(
    tarpit: socket.socket, store: Store, receiver: Receiver, allowed: ServiceSettings, api_key: str
) -> None:
    stuck = [ended(store, "others", f"https://127.0.0.1:{tarpit.getsockname()[1]}/") for _ in range(20)]
    good = ended(store, "tests", receiver.url)
    with TestClient(create_app(allowed), headers={"Authorization": f"Bearer {api_key}"}) as client:
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
    allowed: ServiceSettings,
    api_key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = [ended(store, "others", f"https://{number}.slow.example/") for number in range(16)]
    with ExitStack() as stack:
        headers = {"Authorization": f"Bearer {api_key}"}
        client = stack.enter_context(TestClient(create_app(allowed), headers=headers))
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


def test_a_name_for_a_private_address_is_told_nothing(
    settings: ServiceSettings, series: str, receiver: Receiver, finish: Finish, api_key: str
) -> None:
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
        job = submit(client, series, url=receiver.url).json()
        finish(job["id"])
        webhook = through(client, job["id"])
    assert (webhook.state, len(webhook.deliveries)) == ("given-up", 1)
    assert "is no public address" in (webhook.deliveries[0].error or "")
    assert receiver.told == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "https://",
        "https://user@example.org/",
        "https://user:secret@example.org/",
        "https://example.org/#fragment",
        "https://example.org/a b",
        "https://example.org\\@127.0.0.1/",
        "https://example.org:port/",
        "https://example.org:0/",
        "https://example.org:65536/",
        "https://8.8.8.8:99999/",
        "https://example.org/" + "a" * 2048,
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[fe80::1]/",
        "https://0.0.0.0/",
        "https://a..b/",
        "https://.example.org/",
        "https://" + "a" * 64 + ".example.org/",
        "https://xn--zz/",
    ],
)
def test_what_is_no_public_https_address_is_refused(client: TestClient, series: str, url: str) -> None:
    answer = submit(client, series, url=url)
    assert answer.status_code == 422, answer.text
    found = problem(answer, 422, answer.json()["code"])
    assert found.code in ("invalid-request", "refused-webhook")
    assert found.errors[0]["field"] == "webhook.url"


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), SECRET + "!", "whsec_" + "A" * 88],
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(
    client: TestClient, series: str, secret: str
) -> None:
    answer = submit(client, series, url="https://example.org/", secret=secret)
    found = problem(answer, 422, "invalid-request")
    assert found.errors[0]["field"] == "webhook.secret"
    assert len(secret) < 20 or secret not in answer.text


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:ffff:a9fe:a9:fe00:0",
        "::ffff:0:a9fe:a9fe",
        "::127.0.0.1",
        "::169.254.169.254",
        "fec0::1",
        "feff::1",
        "5f00::1",
        "192.0.0.9",
        "192.0.0.192",
        "::ffff:192.0.0.192",
        "64:ff9b::c000:c0",
        "2002:c000:c0::",
        "192.88.99.1",
        "168.63.129.16",
        "::ffff:168.63.129.16",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    with pytest.raises(RefusedWebhookError):
        check_address(ip_address(address), ())
    check_address(ip_address(address), (ip_network(address),))


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "168.63.129.17",
        "192.0.1.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2002:808:808::",
    ],
)
def test_addresses_that_are_public(address: str) -> None:
    check_address(ip_address(address), ())


def test_a_webhook_outlives_the_api(
    allowed: ServiceSettings, series: str, receiver: Receiver, finish: Finish, api_key: str
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    receiver.statuses = [503, 200]
    with TestClient(create_app(replace(allowed, webhook_pauses=(0.5,))), headers=headers) as client:
        job = submit(client, series, url=receiver.url, secret=SECRET).json()
        finish(job["id"])
        deadline = time.monotonic() + 60
        while not webhook_of(client, job["id"]).deliveries:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    with TestClient(create_app(allowed), headers=headers) as client:
        webhook = through(client, job["id"])
    assert (webhook.state, len(receiver.told)) == ("delivered", 2)
    assert "webhook-signature" in receiver.told[1].headers


def test_a_webhook_outlives_redis(
    allowed: ServiceSettings, series: str, receiver: Receiver, finish: Finish, api_key: str
) -> None:
    receiver.statuses = [204, 503, 200]
    patient = replace(allowed, webhook_pauses=(3600,))
    headers = {"Authorization": f"Bearer {api_key}"}
    with (
        TestClient(create_app(patient), headers=headers) as client,
        Redis.from_url(allowed.store.redis_url) as redis,
    ):
        told, waiting = (
            submit(client, series, url=receiver.url, secret=SECRET).json()["id"] for _ in range(2)
        )
        finish(told)
        before = through(client, told)
        finish(waiting)
        deadline = time.monotonic() + 60
        while not webhook_of(client, waiting).deliveries or redis.scard("next:unrecorded"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        redis.flushall()
        Store.rebuild(allowed.store, add_missing=False)
        assert webhook_of(client, told) == before
        assert through(client, waiting).state == "delivered"
    assert [message.headers["webhook-id"] for message in receiver.told] == [
        f"msg_{job}" for job in (told, waiting, waiting)
    ]
    assert all("webhook-signature" in message.headers for message in receiver.told)


def test_two_processes_tell_each_job_once(
    allowed: ServiceSettings, series: str, receiver: Receiver, finish: Finish, api_key: str
) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    with ExitStack() as stack:
        clients = [stack.enter_context(TestClient(create_app(allowed), headers=headers)) for _ in range(2)]
        jobs = [submit(clients[0], series, url=receiver.url).json()["id"] for _ in range(12)]
        for job in jobs:
            finish(job)
        for job in jobs:
            through(clients[1], job)
    assert sorted(told.headers["webhook-id"] for told in receiver.told) == sorted(
        f"msg_{job}" for job in jobs
    )


def test_an_attempt_that_nobody_finished_is_made_again(
    store: Store, series: str, finish: Finish, settings: ServiceSettings, api_key: str
) -> None:
    """In the store alone: the service that made the job is gone by the time it ends."""
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
        job = submit(client, series, url="https://example.org/").json()["id"]
    finish(job)
    (lost,) = store.deliveries.claim(9, hold_seconds=2)
    assert store.deliveries.claim(9) == []
    time.sleep(2.1)
    (again,) = store.deliveries.claim(9)
    assert (lost.job.id, lost.attempt, again.attempt) == (job, 1, 2)
    assert not store.deliveries.settle(lost, status=500, error="late", wait_seconds=1.0)
    assert store.deliveries.settle(again, status=200, error=None, wait_seconds=None)
    (delivery,) = store.jobs.get("tests", job).deliveries
    assert (delivery.attempt, delivery.status) == (2, 200)
    assert datetime.now(UTC) >= delivery.at
    assert store.deliveries.claim(9) == []
