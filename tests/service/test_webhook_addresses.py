"""Which addresses and secrets a webhook may have: where the job is submitted, and again where it is told."""

import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from fastapi.testclient import TestClient
from fixtures.problems import problem
from fixtures.webhooks import SECRET, Receiver, submit, through

from nextrapolate_service.app import create_app
from nextrapolate_service.errors import RefusedWebhookError
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.webhooks.addresses import check_address

Finish = Callable[[str], dict[str, bytes]]


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
def test_what_is_no_public_https_address_is_refused(client: TestClient, stored_series: str, url: str) -> None:
    answer = submit(client, stored_series, url=url)
    assert answer.status_code == 422, answer.text
    found = problem(answer, 422, answer.json()["code"])
    assert found.code in ("invalid-request", "refused-webhook")
    assert found.errors[0]["field"] == "webhook.url"


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), SECRET + "!", "whsec_" + "A" * 88],
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(
    client: TestClient, stored_series: str, secret: str
) -> None:
    answer = submit(client, stored_series, url="https://example.org/", secret=secret)
    found = problem(answer, 422, "invalid-request")
    assert found.errors[0]["field"] == "webhook.secret"
    assert len(secret) < 20 or secret not in answer.text


def test_a_name_for_a_private_address_is_told_nothing(
    settings: ServiceSettings, stored_series: str, receiver: Receiver, finish: Finish, api_key: str
) -> None:
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {api_key}"}) as client:
        job = submit(client, stored_series, url=receiver.url).json()
        finish(job["id"])
        webhook = through(client, job["id"])
    assert (webhook.state, len(webhook.deliveries)) == ("given-up", 1)
    # Not which: that is what the server's own network knows.
    assert (webhook.deliveries[0].error or "").startswith("localhost is not at a public address: ")
    assert "127.0.0.1" not in (webhook.deliveries[0].error or "")
    assert receiver.told == []


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(
    teller: TestClient,
    stored_series: str,
    receiver: Receiver,
    finish: Finish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_up: list[object] = []
    look_up = socket.getaddrinfo

    def noted(host: Any, *rest: Any, **options: Any) -> Any:
        looked_up.append(host)
        return look_up(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    job = submit(teller, stored_series, url=receiver.url).json()
    finish(job["id"])
    through(teller, job["id"])
    assert looked_up.count("localhost") == 1


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
