import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from fixtures.problems import problem
from fixtures.redis import running
from redis import Redis

from nextrapolate.console import complain
from nextrapolate.errors import NotFoundError
from nextrapolate.methods import METHODS
from nextrapolate.schemas import Problem
from nextrapolate_service import context
from nextrapolate_service.app import create_app
from nextrapolate_service.context import MAX_JSON_BYTES
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.keys import new_key
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One service for all requests that leave nothing behind.

    Its Redis is its own: the other is emptied for each test.
    """
    folder = tmp_path_factory.mktemp("refusing")
    key = new_key("tests")
    (folder / "api_key").write_text(key)
    embedded = EmbeddedRedis.prepare(find_redis_server(None), folder / "data")
    settings = ServiceSettings(
        store=StoreSettings(embedded.url, folder / "data"), api_key_file=folder / "api_key"
    )
    with (
        running(embedded, "--appendfsync", "no"),
        TestClient(create_app(settings), headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        yield client


def test_every_endpoint_but_the_probes_wants_the_key(client: TestClient) -> None:
    del client.headers["Authorization"]
    document = client.get("/openapi.json").json()
    open_to_all = []
    for path, operations in document["paths"].items():
        for method in operations:
            answer = client.request(method, path.format(series_id="x", job_id="x", step=1, file="README.md"))
            if answer.status_code != 401:
                open_to_all.append(path)
            elif method != "head":
                found = problem(answer, 401, "unauthorized")
                assert "Authorization: Bearer" in found.detail
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert open_to_all == ["/livez", "/readyz"]


@pytest.mark.parametrize("key", ["", "nx_tests_0000", "nx_other_" + "0" * 64, "ü".encode()])
def test_a_wrong_key_is_refused(refusing: TestClient, key: str | bytes) -> None:
    given = key if isinstance(key, bytes) else key.encode()
    answer = refusing.get("/jobs", headers={b"Authorization": b"Bearer " + given})
    problem(answer, 401, "unauthorized")


def test_a_request_keeps_its_id(client: TestClient) -> None:
    assert client.get("/livez", headers={"X-Request-Id": "run-7.a"}).headers["X-Request-Id"] == "run-7.a"
    made_up = client.get("/livez", headers={"X-Request-Id": "two words"}).headers["X-Request-Id"]
    assert made_up not in ("", "two words")


def test_an_unknown_route_and_an_unknown_method_are_problems(client: TestClient) -> None:
    problem(client.get("/nowhere"), 404, "route-not-found")
    answer = client.delete("/jobs")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "GET, POST"
    assert client.put("/livez").headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    ("path", "fault", "advice", "command"),
    [
        (
            "/jobs/j9",
            "there is no job j9",
            "GET /jobs lists the existing ones",
            "`nextrapolate jobs list` lists the existing ones",
        ),
        (
            "/series/s9",
            "there is no series s9",
            "GET /series lists the existing ones",
            "`nextrapolate series list` lists the existing ones",
        ),
        (
            "/nowhere",
            "there is nothing at this address",
            "GET /openapi.json lists what there is",
            "is --url, or NEXTRAPOLATE_URL, right?",
        ),
    ],
)
def test_what_is_not_there_says_where_to_look(
    client: TestClient, capsys: pytest.CaptureFixture[str], path: str, fault: str, advice: str, command: str
) -> None:
    """By a request to who sent one, by a command at a terminal, and by a page's links in a browser."""
    found = Problem.model_validate(client.get(path).json())
    assert (found.detail, found.advice) == (f"{fault}: {advice}", advice)
    complain(NotFoundError(found))
    assert capsys.readouterr().err == f"nextrapolate: {fault}: {command}\n"
    page = client.get(path, headers={"Accept": "text/html"}).text
    assert f"<p>{fault}</p>" in page
    assert advice not in page


def test_probes_may_ask_for_heads(client: TestClient) -> None:
    for path in ("/livez", "/readyz"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_an_unknown_method_is_answered_with_those_there_are(client: TestClient) -> None:
    answer = client.post("/jobs", json={"series": "x", "method": {"name": "newton"}})
    (error,) = problem(answer, 422, "invalid-request").errors
    assert error["field"] == "method.name"
    assert error["known"] == list(METHODS)
    assert all(name in error["message"] for name in METHODS)


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        ("/jobs", '{"method": "auto"}', "method", 'the name of a method, such as {"name": "auto"}'),
        ("/jobs", '{"task": "backtest", "at": 1, "methods": ["auto"]}', "methods.0", '{"name": "auto"}'),
        ("/jobs", '{"gate": null}', "gate", "write it as a JSON object"),
        ("/jobs", '{"labels": []}', "labels", "write it as a JSON object"),
        ("/jobs", '{"method": {"name": "expo", "alpha": NaN}}', "method.alpha", "should be a number"),
        ("/jobs", '{"webhook": {"url": "http://a"}}', "webhook.url", "write it as https://host/path"),
        ("/jobs", '{"horizon_steps": 50}', "horizon_steps", "write it into `method`"),
        (
            "/series/x/checkpoints/1",
            '{"files": {"adapter_config.json": "AB"}}',
            "files.adapter_config.json",
            "64 hexadecimal digits",
        ),
    ],
)
def test_common_mistakes_are_told_in_plain_words(
    client: TestClient, path: str, body: str, field: str, message: str
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    told = {error["field"]: error["message"] for error in problem(answer, 422, "invalid-request").errors}
    assert message in told[field]


@pytest.mark.parametrize(("task", "field"), [("extrapolate", "method"), ("backtest", "at")])
def test_an_unknown_field_is_answered_with_those_there_are(client: TestClient, task: str, field: str) -> None:
    answer = client.post("/jobs", json={"task": task, "series": "x", "at": 1, "serie": "x"})
    told = {error["field"]: error for error in problem(answer, 422, "invalid-request").errors}
    assert {"series", field} <= set(told["serie"]["known"])


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_parameter_is_answered_with_those_of_its_method(refusing: TestClient, name: str) -> None:
    answer = refusing.post("/jobs", json={"series": "x", "method": {"name": name, "alhpa": 2}})
    (error,) = problem(answer, 422, "invalid-request").errors
    assert error["field"] == "method.alhpa"
    assert error["known"] == sorted(METHODS[name].model_fields.keys() - {"name"})
    assert "alpha" in error["message"]


@pytest.mark.parametrize("task", ["train", "", None, 5, ["inspect"]])
def test_an_unknown_task_is_answered_with_those_there_are(refusing: TestClient, task: object) -> None:
    (error,) = problem(
        refusing.post("/jobs", json={"series": "x", "task": task}), 422, "invalid-request"
    ).errors
    assert (error["field"], error["known"]) == ("task", ["extrapolate", "backtest", "inspect"])


def test_a_value_that_may_be_of_two_kinds_is_named_as_it_was_written(client: TestClient) -> None:
    method = {"name": "weight-extrapolation", "window_steps": "long"}
    answer = client.post("/jobs", json={"series": "s", "method": method})
    found = problem(answer, 422, "invalid-request")
    assert {error["field"] for error in found.errors} == {"method.window_steps"}


def test_each_wrong_field_is_named(client: TestClient) -> None:
    body = {"series": "x", "method": {"name": "next", "alpha": -1, "seed": "a"}, "gates": {}}
    found = problem(client.post("/jobs", json=body), 422, "invalid-request")
    assert {error["field"] for error in found.errors} == {"method.alpha", "method.seed", "gates"}


def test_the_first_of_many_wrong_fields_are_named_and_the_others_counted(refusing: TestClient) -> None:
    body = {"series": "x", **{f"field{number}": 1 for number in range(900)}}
    found = problem(refusing.post("/jobs", json=body), 422, "invalid-request")
    assert [error["field"] for error in found.errors] == [f"field{number}" for number in range(20)]
    assert found.detail.endswith("; and 895 more: errors lists the first 20")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs", {"series": "x"}),
        ("/series", {"name": "run"}),
        ("/series/x/checkpoints/1", {"files": {}}),
        ("/series/x/jumps", {"step": 1, "job": "x"}),
    ],
)
def test_more_wrong_fields_than_anybody_reads_are_counted_alone(
    refusing: TestClient, path: str, body: dict[str, object]
) -> None:
    """FastAPI would copy them all: ninety thousand stopped the event loop for seconds."""
    many = {f"field{number}": 1 for number in range(1001)}
    (error,) = problem(refusing.post(path, json=body | many), 422, "invalid-request").errors
    assert error["field"] == "body"
    assert re.match(r"100[12] values in it are wrong, too many to list", error["message"])


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_half_a_character_is_refused_in_whatever_form(
    browser: TestClient, api_key: str, series_id: str, accept: str
) -> None:
    headers = {"Authorization": f"Bearer {api_key}", "Accept": accept, "Content-Type": "application/json"}
    for path, body in (
        (f"/series/{series_id}/jumps", rb'{"step": 1, "job": "\ud800"}'),
        ("/series", rb'{"name": "\ud800"}'),
        ("/series", rb'{"name": "run", "\ud800": 1}'),
        (f"/series/{series_id}/checkpoints/1", rb'{"files": {"\ud800": "x"}}'),
    ):
        assert 400 <= browser.post(path, content=body, headers=headers).status_code < 500, path


@pytest.mark.parametrize("step", [2**53, 10**300])
def test_a_step_that_not_every_reader_can_tell_from_the_next_is_refused(
    client: TestClient, series_id: str, step: int
) -> None:
    references = [{"uri": "file:///run/a", "step": 1}, {"uri": "file:///run/b", "step": step}]
    for path, body, field in (
        (f"/series/{series_id}/jumps", {"step": step, "job": "x"}, "step"),
        ("/jobs", {"series": series_id, "until": step}, "until"),
        ("/jobs", {"series": series_id, "task": "inspect", "until": step}, "until"),
        ("/jobs", {"series": series_id, "task": "backtest", "at": step}, "at"),
        ("/jobs", {"checkpoints": references}, "checkpoints.1.step"),
    ):
        found = problem(client.post(path, json=body), 422, "invalid-request")
        assert found.detail == f"{field}: a step must be less than {2**53}"


def test_labels_are_bounded(client: TestClient, series_id: str) -> None:
    many = {str(number): "x" for number in range(33)}
    for path, body in (("/jobs", {"series": series_id}), ("/series", {"name": "run"})):
        found = problem(client.post(path, json={**body, "labels": many}), 422, "invalid-request")
        assert found.detail == "labels: at most 32 labels are allowed, got 33"
        for long in ({"x" * 65: ""}, {"x": "y" * 257}):
            problem(client.post(path, json={**body, "labels": long}), 422, "invalid-request")
        del many["32"]
        assert client.post(path, json={**body, "labels": many}).is_success
        many["32"] = "x"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"series": NaN}',
        b"\xff",
        b'{"series": "\\ud800"}',
        b"[" * 100_000,
        b"9" * 5000,
    ],
)
def test_a_body_that_is_no_request_is_the_callers_mistake(refusing: TestClient, body: bytes) -> None:
    answer = refusing.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["blame"] == "user"


@pytest.mark.parametrize("body", [b'{"series": ' + b"9" * 5000 + b"}", b"[" * 100_000 + b"]" * 100_000])
def test_json_that_python_does_not_read_is_told_why(refusing: TestClient, body: bytes) -> None:
    answer = refusing.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    found = problem(answer, 400, "malformed-request")
    assert found.detail.endswith("without numbers of thousands of digits and thousands of levels")


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(refusing: TestClient, announced: bool) -> None:
    body = b" " * (MAX_JSON_BYTES + 1)
    content = body if announced else iter([body])
    answer = refusing.post("/jobs", content=content, headers={"Content-Type": "application/json"})
    problem(answer, 413, "body-too-large")


def begun(live_url: str, head: str) -> socket.socket:
    """A connection on which the first byte of a body of a megabyte has been sent."""
    address = urlsplit(live_url)
    connection = socket.create_connection((address.hostname, address.port), timeout=60)
    connection.sendall(f"POST {head}\r\nHost: here\r\nContent-Length: 1048576\r\n\r\n{{".encode())
    return connection


def test_a_body_that_takes_too_long_is_refused(
    live_url: str, api_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "MAX_JSON_SECONDS", 0.3)
    with begun(live_url, f"/jobs HTTP/1.1\r\nAuthorization: Bearer {api_key}") as connection:
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")  # up to the connection's end
    assert head.startswith(b"HTTP/1.1 408 ")
    found = Problem.model_validate_json(body)
    assert (found.code, found.retryable) == ("body-too-slow", True)


@pytest.mark.parametrize(
    "head",
    [
        "/jobs HTTP/1.1",
        f"/series HTTP/1.1\r\nAuthorization: Bearer nx_other_{'0' * 64}",
        "/series/x/checkpoints/1 HTTP/1.1",
        "/series/x/jumps HTTP/1.1",
        "/jobs HTTP/1.1\r\nAccept: text/html",
        "/jobs/x/cancel HTTP/1.1\r\nAccept: text/html\r\nCookie: a=b",
    ],
)
def test_nothing_of_a_body_is_waited_for_where_the_key_is_wrong(live_url: str, head: str) -> None:
    with begun(live_url, head) as connection:
        answer = connection.recv(1 << 16)
    if "text/html" in head:
        assert b"\r\nlocation: /login?next=/" in answer
    else:
        assert answer.startswith(b"HTTP/1.1 401 ")


def test_a_form_that_anybody_may_send_is_short(client: TestClient) -> None:
    problem(client.post("/login", data={"key": "x" * (16 << 10)}), 400, "malformed-form")


def test_a_mistake_of_ours_is_a_problem_and_tells_nothing(settings: ServiceSettings) -> None:
    app = create_app(settings)

    @app.get("/mistake")
    def mistake() -> None:
        raise RuntimeError("a secret")

    with TestClient(app, raise_server_exceptions=False) as client:
        found = problem(client.get("/mistake"), 500, "internal-error", blame="server")
    assert found.retryable
    assert "secret" not in found.detail


def test_every_error_in_the_document_is_a_problem(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            for status, response in operation["responses"].items():
                if int(status) >= 400 and path != "/readyz":
                    assert list(response["content"]) == ["application/problem+json"], (path, status)
    names = [
        operation["operationId"]
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert len(names) == len(set(names))
    assert "create_job" in names


@pytest.mark.parametrize("path", ["/series", "/jobs"])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b"[1]", "application/json"),
        (b"null", "application/json"),
        (b"1", "application/json"),
        (b"{}", "text/plain"),
        (b'{"series": "x"}', "application/x-www-form-urlencoded"),
        (b'{"series": "x"}', None),
    ],
)
def test_a_body_that_is_no_json_object_is_told_what_to_be(
    refusing: TestClient, path: str, body: bytes, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = refusing.post(path, content=body, headers=headers)
    found = problem(answer, 422, "invalid-request")
    assert found.detail == "body: send a JSON object, with Content-Type: application/json"


def test_a_single_checkpoint_is_told_how_many_are_needed(client: TestClient) -> None:
    body = {"checkpoints": [{"uri": "file:///run/checkpoint-10"}], "method": {"name": "next"}}
    found = problem(client.post("/jobs", json=body), 422, "too-few-checkpoints")
    assert "next needs at least" in found.detail
    assert "there are 1" in found.detail
    body = {"checkpoints": [], "method": {"name": "next"}}
    found = problem(client.post("/jobs", json=body), 422, "invalid-request")
    assert found.detail == "checkpoints: at least 1 are needed, got 0"


def test_every_reference_in_the_document_leads_somewhere(client: TestClient) -> None:
    answer = client.get("/openapi.json")
    referenced = set(re.findall(r'"#/components/schemas/(\w+)"', answer.text))
    assert "JobEvent" in referenced
    assert referenced <= answer.json()["components"]["schemas"].keys()


def test_methods_come_with_paper_and_parameters(client: TestClient) -> None:
    methods = {method["name"]: method for method in client.get("/methods").json()["methods"]}
    assert set(methods) == set(METHODS)
    assert methods["next"]["paper"] == "arXiv:2604.11446"
    assert methods["expo"]["title"].startswith("ExPO: W_c + alpha (W_c - W_0), from the base model")
    assert methods["auto"]["paper"] is None
    assert methods["none"]["paper"] is None
    assert methods["next"]["parameters"]["properties"]["alpha"]["default"] == 1.0


@pytest.mark.parametrize("levels", [99, 150, 230, 300, 900])
def test_a_body_that_is_nested_too_deep_is_told_so_and_one_less_deep_can_be_read_again(
    client: TestClient, settings: ServiceSettings, levels: int
) -> None:
    nested = "[" * (levels - 2) + "]" * (levels - 2)  # below the body itself and lora_config
    body = f'{{"name": "run", "lora_config": {{"r": 8, "lora_alpha": 16, "more": {nested}}}}}'
    answer = client.post("/series", content=body, headers={"Content-Type": "application/json"})
    if levels <= 100:
        assert answer.status_code == 201
        with Redis.from_url(settings.store.redis_url) as redis:
            redis.flushall()
        assert Store.rebuild(settings.store, add_missing=False).unreadable == ()
    else:
        assert "nested too deep" in problem(answer, 422, "invalid-request").detail
