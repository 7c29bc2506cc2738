"""Logs: a line each, that says what it is about."""

import json
import logging
import threading
from collections.abc import Iterator

import pytest

from nextrapolate_store.logs import about, configure_logging


@pytest.fixture(autouse=True)
def _own_root() -> Iterator[None]:
    """Leave the logging of the tests as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    logging.captureWarnings(False)
    root.handlers = handlers
    root.setLevel(level)


def test_for_machines_a_line_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    log = logging.getLogger("nextrapolate_store.test")
    with about(job_id="j1", fence=2):
        log.warning("claimed,\nattempt %d", 3, extra={"seconds": 0.5})
    log.info("later")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["at"] < second["at"]
    expected = {"level": "WARNING", "logger": log.name, "message": "claimed,\nattempt 3", "seconds": 0.5}
    assert expected.items() <= first.items()
    assert (first["job_id"], first["fence"]) == ("j1", 2)
    assert not {"job_id", "fence"} & second.keys()


def test_for_people_it_is_one_they_can_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXTRAPOLATE_LOG_FORMAT", "text")
    configure_logging()
    with about(request_id="r1"), about(job_id="j1"):
        logging.getLogger("test").error("no room")
    assert capsys.readouterr().err.endswith(" ERROR    test: no room [request_id=r1 job_id=j1]\n")


def test_what_a_line_is_about_is_each_threads_own(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()
    both_inside = threading.Barrier(2)

    def work(job_id: str) -> None:
        with about(job_id=job_id):
            both_inside.wait(60)
            logging.getLogger(job_id).info("here")

    threads = [threading.Thread(target=work, args=(job_id,)) for job_id in ("j1", "j2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert sorted((line["logger"], line["job_id"]) for line in lines) == [("j1", "j1"), ("j2", "j2")]


@pytest.mark.parametrize(("variable", "value"), [("FORMAT", "xml"), ("LEVEL", "LOUD")])
def test_a_setting_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(f"NEXTRAPOLATE_LOG_{variable}", value)
    with pytest.raises(ValueError, match=f"^NEXTRAPOLATE_LOG_{variable} is '{value}': write "):
        configure_logging()


def test_a_setting_that_is_empty_is_not_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORMAT", "LEVEL"):
        monkeypatch.setenv(f"NEXTRAPOLATE_LOG_{variable}", "")
    configure_logging()
    log = logging.getLogger("test")
    log.debug("left out")
    log.info("here")
    assert json.loads(capsys.readouterr().err)["message"] == "here"


def test_a_level_may_be_in_small_letters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXTRAPOLATE_LOG_LEVEL", "warning")
    configure_logging()
    log = logging.getLogger("test")
    log.info("left out")
    log.warning("here")
    assert json.loads(capsys.readouterr().err)["message"] == "here"
