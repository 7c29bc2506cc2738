"""What comes before a body is bounded, in bytes and in time, and so is its silence."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from fixtures.listening import listening
from starlette.types import Receive, Scope, Send

from nextrapolate_service import bounded_http
from nextrapolate_service.bounded_http import MOST_HEAD_BYTES, BoundedHttp

REQUEST = b"GET / HTTP/1.1\r\nHost: here\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    text = str(length).encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture
def port() -> Iterator[int]:
    with listening(app, http=BoundedHttp) as port:
        yield port


def connected(port: int) -> closing[socket.socket]:
    return closing(socket.create_connection(("127.0.0.1", port), timeout=60))


def answer(connection: socket.socket, body: bytes) -> bytes:
    """What comes up to this body, or up to the end of the connection."""
    found = b""
    while not found.endswith(body) and (piece := connection.recv(1 << 16)):
        found += piece
    return found


LAST_CHUNK = b"Transfer-Encoding: chunked\r\n\r\n0\r\n"


@pytest.mark.parametrize(
    "begun",
    [REQUEST + b"a: ", b"GET /", REQUEST + b"a: b\r\n" * 10, REQUEST + LAST_CHUNK + b"a: "],
    ids=["header", "address", "many", "trailer"],
)
def test_a_head_without_an_end_is_refused(port: int, begun: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(begun)
        piece = b"a: b\r\n" * 1000 if begun.endswith(b"\n") else b"x" * 7000
        sent = 0
        try:
            while sent < 100 * MOST_HEAD_BYTES:
                connection.sendall(piece)
                sent += len(piece)
            found = answer(connection, b"")
        except ConnectionError:
            found = b""
    assert sent < 100 * MOST_HEAD_BYTES or found.startswith(b"HTTP/1.1 400 ")
    with connected(port) as another:
        another.sendall(REQUEST + b"\r\n")
        assert answer(another, b"\r\n\r\n0").startswith(b"HTTP/1.1 200 ")


def test_a_long_head_and_any_body_are_taken_one_request_after_the_other(port: int) -> None:
    head = REQUEST + b"a: " + b"x" * (MOST_HEAD_BYTES - 1000) + b"\r\n"
    body = b"y" * (4 * MOST_HEAD_BYTES)
    with connected(port) as connection:
        for _ in range(3):
            connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert answer(connection, str(len(body)).encode()).startswith(b"HTTP/1.1 200 ")


def test_a_request_may_begin_in_one_piece_with_the_end_of_a_long_body(port: int) -> None:
    body = b"y" * (2 * MOST_HEAD_BYTES)
    with connected(port) as connection:
        connection.sendall(REQUEST + f"Content-Length: {len(body)}\r\n\r\n".encode())
        connection.sendall(body + REQUEST)
        assert answer(connection, str(len(body)).encode()).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        assert answer(connection, b"\r\n\r\n0").startswith(b"HTTP/1.1 200 ")


def test_a_line_end_after_an_answer_holds_no_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(port) as connection:
        connection.sendall(REQUEST + b"\r\n")
        assert answer(connection, b"\r\n\r\n0").startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.3)
        connection.sendall(b"\r\n")
        assert answer(connection, b"nothing of the kind") == b""


@pytest.mark.parametrize("begun", [b"", b"GET / HT", REQUEST], ids=["nothing", "a word", "some headers"])
def test_a_connection_on_which_no_request_arrives_is_closed(
    port: int, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.3)
    with connected(port) as connection:
        connection.sendall(begun)
        assert answer(connection, b"nothing of the kind") == b""


def test_what_comes_after_the_answer_holds_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """However steadily it comes."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    monkeypatch.setattr(bounded_http, "BODY_SILENCE_SECONDS", 0.5)
    with listening(refuse, http=BoundedHttp) as port, connected(port) as connection:
        connection.sendall(REQUEST + b"Content-Length: 1000\r\n\r\n")
        assert answer(connection, b"\r\n\r\nno").startswith(b"HTTP/1.1 401 ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 200:
                connection.sendall(b"x")
                sent += 1
                time.sleep(0.05)
    assert sent < 200


def test_a_body_may_take_longer_than_a_head(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.3)
    with connected(port) as connection:
        connection.sendall(REQUEST + b"Content-Length: 2\r\n\r\n")
        time.sleep(0.6)
        connection.sendall(b"ok")
        assert answer(connection, b"\r\n\r\n2").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("arrived", [b"", b"o"], ids=["nothing", "half"])
def test_a_body_that_does_not_go_on_is_given_up(
    port: int, arrived: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_http, "BODY_SILENCE_SECONDS", 0.3)
    with connected(port) as connection:
        connection.sendall(REQUEST + b"Content-Length: 2\r\n\r\n" + arrived)
        assert answer(connection, b"nothing of the kind") == b""


def test_a_body_that_goes_on_slowly_is_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "BODY_SILENCE_SECONDS", 0.8)
    with connected(port) as connection:
        connection.sendall(REQUEST + b"Content-Length: 8\r\n\r\n")
        for _ in range(8):
            time.sleep(0.2)
            connection.sendall(b"x")
        assert answer(connection, b"\r\n\r\n8").startswith(b"HTTP/1.1 200 ")


def test_a_body_that_nobody_reads_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_http, "BODY_SILENCE_SECONDS", 0.2)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        await app(scope, receive, send)

    body = b"y" * (1 << 20)
    with listening(slow, http=BoundedHttp) as port, connected(port) as connection:
        connection.sendall(REQUEST + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert answer(connection, str(len(body)).encode()).startswith(b"HTTP/1.1 200 ")
