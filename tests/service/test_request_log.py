"""What the log has of a request: all of it is found by the id that the caller was told."""

import json
import logging
from collections.abc import Iterator

import httpx
import pytest
from fixtures.listening import listening

from nextrapolate_service.app import create_app
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.logs import configure_logging


@pytest.fixture(autouse=True)
def _own_root() -> Iterator[None]:
    """Leave the logging of the tests as it was."""
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    handlers, level, propagates = root.handlers, root.level, uvicorn.propagate
    uvicorn.propagate = True  # a server of another test may have set up logs of its own
    yield
    logging.captureWarnings(False)
    root.handlers, uvicorn.propagate = handlers, propagates
    root.setLevel(level)


def test_a_mistake_is_logged_under_the_id_that_its_caller_was_told(
    settings: ServiceSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(settings)

    @app.get("/mistake")
    def mistake() -> None:
        raise RuntimeError("a sentence for the log")

    configure_logging()
    with listening(app) as port:
        url = f"http://127.0.0.1:{port}"
        told = [httpx.get(f"{url}/mistake").json()["request_id"] for _ in range(2)]
        httpx.get(f"{url}/nowhere", headers={"X-Request-Id": "later"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    found = [line["request_id"] for line in lines if "a sentence for the log" in line.get("exc_info", "")]
    assert found == told
    of_later = [line["message"] for line in lines if line.get("request_id") == "later"]
    assert "GET /nowhere 404" in of_later
