import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fixtures.problems import problem
from fixtures.reports import extrapolation

from nextrapolate_service.results import _read, found_by
from nextrapolate_store.store import Store

Finish = Callable[..., dict[str, bytes]]

MODEL = "adapter_model.safetensors"


@pytest.fixture
def job_id(client: TestClient, series_id: str) -> str:
    """A queued job."""
    return str(client.post("/jobs", json={"series": series_id}).json()["id"])


def test_results_are_what_was_committed(client: TestClient, job_id: str, finish: Finish) -> None:
    files = finish(job_id)
    for name in files.keys() - {"report.json"}:
        answer = client.get(f"/jobs/{job_id}/adapter/{name}")
        assert answer.content == files[name]
        assert answer.headers["ETag"] == f'"{hashlib.sha256(files[name]).hexdigest()}"'
        head = client.head(f"/jobs/{job_id}/adapter/{name}")
        assert (head.headers["ETag"], head.content) == (answer.headers["ETag"], b"")
        assert head.headers["Content-Length"] == str(len(files[name]))
    report = client.get(f"/jobs/{job_id}/report")
    assert report.headers["Content-Type"] == "application/json"
    assert report.content == files["report.json"]


def test_no_cache_in_between_keeps_what_one_person_may_see(
    client: TestClient, job_id: str, finish: Finish
) -> None:
    """Answers to a session's cookie are protected by nothing else."""
    finish(job_id)
    file = f"/jobs/{job_id}/adapter/{MODEL}"
    etag = client.head(file).headers["ETag"]
    for path in (file, f"/jobs/{job_id}/report", f"/jobs/{job_id}", f"/jobs/{job_id}/events", "/jobs"):
        assert client.get(path).headers["Cache-Control"] == "private, no-cache", path
    for asked in ({"Range": "bytes=2-4"}, {"If-None-Match": etag}):
        assert client.get(file, headers=asked).headers["Cache-Control"] == "private, no-cache", asked


def test_a_download_goes_on_where_it_broke_off(client: TestClient, job_id: str, finish: Finish) -> None:
    content = finish(job_id)[MODEL]
    path = f"/jobs/{job_id}/adapter/{MODEL}"
    etag = client.head(path).headers["ETag"]
    rest = client.get(path, headers={"Range": "bytes=10-", "If-Range": etag})
    assert (rest.status_code, rest.content) == (206, content[10:])
    rest = client.get(path, headers={"Range": "bytes=10-", "If-Range": rest.headers["Last-Modified"]})
    assert (rest.status_code, rest.content) == (206, content[10:])
    assert client.get(path, headers={"Range": "bytes=2-4"}).content == content[2:5]
    assert client.get(path, headers={"Range": "bytes=-3"}).content == content[-3:]
    changed = client.get(path, headers={"Range": "bytes=999999-", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, content)


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=999999-",
        "bytes=-0",
        "bytes=0-1,-00",
        "bytes=0-1,",
        "bytes=" + ",".join(f"{start}-{start}" for start in range(0, 200, 2)),
        "bytes=" + "9" * 100 + "-",
    ],
)
def test_ranges_that_make_no_sense_are_refused(
    client: TestClient, job_id: str, finish: Finish, ranges: str
) -> None:
    finish(job_id)
    for path in (f"/jobs/{job_id}/adapter/{MODEL}", f"/jobs/{job_id}/report"):
        whole = client.get(path)
        same: tuple[dict[str, str], ...] = (
            {},
            {"If-Range": whole.headers["ETag"]},
            {"If-Range": whole.headers["Last-Modified"]},
        )
        for condition in same:
            answer = client.get(path, headers={"Range": ranges, **condition})
            problem(answer, 416, "range-refused")
            assert answer.headers["Content-Range"] == f"bytes */{len(whole.content)}"


def test_ranges_of_other_units_and_of_a_head_are_passed_over(
    client: TestClient, job_id: str, finish: Finish
) -> None:
    content = finish(job_id)[MODEL]
    path = f"/jobs/{job_id}/adapter/{MODEL}"
    for ranges in ("rows=0-1", "nonsense"):
        answer = client.get(path, headers={"Range": ranges})
        assert (answer.status_code, answer.content) == (200, content)
    for ranges in ("bytes=0-1", "bytes=999999-"):
        head = client.head(path, headers={"Range": ranges})
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(content)))


def test_what_the_caller_has_is_not_sent_again(client: TestClient, job_id: str, finish: Finish) -> None:
    finish(job_id)
    path = f"/jobs/{job_id}/adapter/{MODEL}"
    etag = client.head(path).headers["ETag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        answer = client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_job_without_results_says_so(client: TestClient, store: Store, job_id: str) -> None:
    for path in ("report", f"adapter/{MODEL}"):
        found = problem(client.get(f"/jobs/{job_id}/{path}"), 409, "job-not-succeeded")
        assert found.retryable
        assert "queued" in found.detail
    claim = store.jobs.claim(job_id, "test")
    assert claim is not None
    client.post(f"/jobs/{job_id}/cancel")
    stopping = problem(client.get(f"/jobs/{job_id}/report"), 409, "job-not-succeeded")
    assert not stopping.retryable
    assert stopping.detail.endswith(f"has no results: GET /jobs/{job_id} says why")
    assert store.jobs.confirm_cancelled(job_id, claim.fence)
    assert not problem(client.get(f"/jobs/{job_id}/report"), 409, "job-not-succeeded").retryable


def test_a_result_that_is_none_is_404(client: TestClient, job_id: str, finish: Finish) -> None:
    finish(job_id)
    for name in ("job.json", "nope"):
        problem(client.get(f"/jobs/{job_id}/adapter/{name}"), 404, "file-not-found")
    assert client.get(f"/jobs/{job_id}/adapter/%2e%2e%2fjob.json").status_code == 404


def test_a_result_that_the_disk_has_lost_says_so(
    client: TestClient, browser: TestClient, series_id: str, job_id: str, finish: Finish, store: Store
) -> None:
    finish(job_id, report=extrapolation())
    shutil.rmtree(store.job_folders.path(job_id) / str(store.jobs.get("tests", job_id).fence))
    jump = {"step": 60, "job": job_id}
    for answer in (
        client.get(f"/jobs/{job_id}/report"),
        client.head(f"/jobs/{job_id}/adapter/{MODEL}"),
        client.get(f"/jobs/{job_id}/adapter/{MODEL}"),
        client.post(f"/series/{series_id}/jumps", json=jump),
    ):
        assert answer.status_code == 500
        if answer.content:
            found = problem(answer, 500, "result-lost", blame="server")
            assert not found.retryable
            assert "run the job again" in found.detail
    assert browser.get(f"/jobs/{job_id}").status_code == 200
    assert "run the job again" in browser.get(f"/jobs/{job_id}/report").text


def test_a_report_that_could_not_be_read_once_is_read_the_next_time(
    client: TestClient, job_id: str, finish: Finish, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(job_id, report=extrapolation())
    job = store.jobs.get("tests", job_id)
    assert found_by(store, job).report == extrapolation()
    _read.cache_clear()

    def broken(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", broken)
        found = found_by(store, job)
    assert found.report is None
    assert "(stale file handle): try again" in str(found.unreadable)
    assert found_by(store, job).report == extrapolation()


def test_a_report_of_another_version_is_said_to_be_there_and_logged_once(
    browser: TestClient,
    job_id: str,
    finish: Finish,
    store: Store,
    caplog: pytest.LogCaptureFixture,
) -> None:
    finish(job_id, report=extrapolation())
    job = store.jobs.get("tests", job_id)
    path = store.job_folders.result_path(job, "report.json")
    kept = json.loads(path.read_bytes())
    del kept["backtest"]["applied"]
    path.write_text(json.dumps(kept))
    said = "another version of nextrapolate, or is damaged: extrapolate.backtest.applied: Field required"
    for address in (f"/jobs/{job_id}", f"/compare?jobs={job_id}", f"/jobs/{job_id}"):
        assert said in browser.get(address).text
    assert browser.get(f"/jobs/{job_id}/report").status_code == 200
    assert [record.getMessage() for record in caplog.records if said in record.getMessage()] == [
        f"its report is not shown: {found_by(store, job).unreadable}"
    ]
