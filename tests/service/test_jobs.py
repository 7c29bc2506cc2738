import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from fixtures.adapter_bytes import CONFIG, model_bytes
from fixtures.problems import problem
from redis import Redis

from nextrapolate.schemas import MOST_CHECKPOINTS, FileInfo, JobCreate, SeriesCreate
from nextrapolate_service.settings import ServiceSettings
from nextrapolate_service.submission import Submission, submit
from nextrapolate_service.wakeup import WakeUps
from nextrapolate_store.connection import Connection
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.errors import IdempotencyMismatch
from nextrapolate_store.job_folders import JobFolders
from nextrapolate_store.journal import Journal
from nextrapolate_store.records import JobRecord
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

Finish = Callable[[str], dict[str, bytes]]

LINE = {"name": "weight-extrapolation"}


def write_run(folder: Path, steps: tuple[int, ...] = (10, 20, 60)) -> list[dict[str, object]]:
    """Write adapters below `folder`, and give their references."""
    for step in steps:
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "adapter_config.json").write_bytes(CONFIG)
        (checkpoint / "adapter_model.safetensors").write_bytes(model_bytes(step))
    return [{"uri": f"file://{folder}/checkpoint-{step}"} for step in steps]


def test_a_job_over_a_series_goes_its_way(client: TestClient, series_id: str, finish: Finish) -> None:
    answer = client.post("/jobs", json={"series": series_id, "labels": {"run": "a"}})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert (job["state"], job["queue_position"], job["steps"]) == ("queued", 0, [10, 20, 60])
    finish(job["id"])
    done = client.get(f"/jobs/{job['id']}").json()
    assert (done["state"], done["attempt"], done["queue_position"]) == ("succeeded", 1, None)
    assert set(done["artifacts"]) >= {"adapter_model.safetensors", "report.json"}
    assert done["labels"] == {"run": "a"}


def test_a_series_of_one_file_is_refused(client: TestClient) -> None:
    series = client.post("/series", json={"name": "still"}).json()["id"]
    for step in (10, 20, 30):
        for name, content in (("adapter_config.json", CONFIG), ("adapter_model.safetensors", model_bytes(1))):
            client.put(f"/series/{series}/checkpoints/{step}/{name}", content=content)
    refusal = problem(client.post("/jobs", json={"series": series, "method": LINE}), 422, "nothing-moved")
    assert "steps 10 to 30" in refusal.detail


def test_until_leaves_later_checkpoints_out(client: TestClient, series_id: str) -> None:
    job = client.post("/jobs", json={"series": series_id, "until": 20, "method": LINE}).json()
    assert job["steps"] == [10, 20]


def test_a_job_over_files_reads_their_steps(client: TestClient, tmp_path: Path) -> None:
    references = write_run(tmp_path / "runs")
    job = client.post("/jobs", json={"checkpoints": references}).json()
    assert job["steps"] == [10, 20, 60]
    given = [{**reference, "step": step} for step, reference in zip((0, 1, 51), references, strict=True)]
    assert client.post("/jobs", json={"checkpoints": given}).json()["steps"] == [0, 1, 51]


def test_a_job_over_files_tells_where_they_are(
    client: TestClient, browser: TestClient, tmp_path: Path
) -> None:
    references = write_run(tmp_path / "runs")
    job = client.post("/jobs", json={"checkpoints": references}).json()
    assert job["checkpoints"] == [{**reference, "step": None} for reference in references]
    assert client.get(f"/jobs/{job['id']}").json()["checkpoints"] == job["checkpoints"]
    page = browser.get(f"/jobs/{job['id']}").text
    assert all(f"<code>{reference['uri']}</code>" in page for reference in references)
    (listed,) = client.get("/jobs").json()["items"]
    assert listed["checkpoints"] is None, "a page of lists could be a hundred megabytes"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda run: (run / "checkpoint-20" / "adapter_config.json").unlink(), "refused-uri"),
        (lambda run: (run / "checkpoint-20" / "adapter_model.safetensors").unlink(), "refused-uri"),
        (
            lambda run: (run / "checkpoint-20" / "adapter_model.safetensors").rename(
                run / "checkpoint-20" / "adapter_model.bin"
            ),
            "broken-adapter",
        ),
        (
            lambda run: (run / "checkpoint-20" / "adapter_model.safetensors").write_bytes(b"PK\x03\x04"),
            "broken-adapter",
        ),
        (
            lambda run: (run / "checkpoint-20" / "adapter_model.safetensors").write_bytes(model_bytes()[:-4]),
            "broken-adapter",
        ),
        (
            lambda run: (run / "checkpoint-20" / "adapter_config.json").write_text(
                '{"r": 3, "lora_alpha": 4}'
            ),
            "mismatched-adapters",
        ),
        (
            lambda run: (run / "checkpoint-20" / "adapter_config.json").write_text(
                '{"r": 2, "lora_alpha": 4, "use_dora": true}'
            ),
            "unsupported-adapter",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused(
    client: TestClient, tmp_path: Path, damage: Callable[[Path], object], code: str
) -> None:
    references = write_run(tmp_path / "runs")
    damage(tmp_path / "runs")
    found = problem(client.post("/jobs", json={"checkpoints": references}), 422, code)
    assert "20" in found.detail
    assert client.get("/jobs").json()["items"] == []


def test_uris_that_are_not_read_are_refused(client: TestClient, tmp_path: Path) -> None:
    write_run(tmp_path / "elsewhere")
    for uri in (
        "s3://bucket/checkpoint-{}",
        f"file://{tmp_path}/elsewhere/checkpoint-{{}}",
        "file:///etc/passwd",
        "http://127.0.0.1/checkpoint-{}",
    ):
        given: list[dict[str, object]] = [{"uri": uri.format(step), "step": step} for step in (10, 20, 60)]
        problem(client.post("/jobs", json={"checkpoints": given}), 422, "refused-uri")


def test_steps_have_to_ascend(client: TestClient, tmp_path: Path) -> None:
    first, second, third = write_run(tmp_path / "runs")
    for references, says in (
        ([first, first, second], "twice"),
        ([first, third, second], "step 20 comes after 60"),
    ):
        found = problem(client.post("/jobs", json={"checkpoints": references}), 422, "step-order")
        assert says in found.detail


def test_too_few_checkpoints_says_how_many_are_needed(client: TestClient, series_id: str) -> None:
    paper = {"name": "next", "preset": "paper"}
    answer = client.post("/jobs", json={"series": series_id, "until": 20, "method": paper})
    assert (
        "next needs at least 6 checkpoints at this spacing and horizon, but there are 2"
        in problem(answer, 422, "too-few-checkpoints").detail
    )
    answer = client.post("/jobs", json={"series": series_id, "until": 0, "method": LINE})
    assert (
        "weight-extrapolation needs at least 2 checkpoints"
        in problem(answer, 422, "too-few-checkpoints").detail
    )


def test_a_series_of_two_ranks_is_refused(client: TestClient, series_id: str) -> None:
    folder = f"/series/{series_id}/checkpoints/40"
    client.put(f"{folder}/adapter_config.json", content=json.dumps({"r": 3, "lora_alpha": 4}))
    client.put(f"{folder}/adapter_model.safetensors", content=model_bytes(rank=3))
    found = problem(client.post("/jobs", json={"series": series_id}), 422, "mismatched-adapters")
    assert "step 40 has rank 3" in found.detail


def test_a_series_with_a_hole_in_it_is_refused(client: TestClient, series_id: str) -> None:
    client.put(f"/series/{series_id}/checkpoints/40/adapter_config.json", content=CONFIG)
    problem(client.post("/jobs", json={"series": series_id}), 422, "checkpoint-incomplete")


def test_the_series_lora_config_stands_in(client: TestClient) -> None:
    series = client.post("/series", json={"name": "run", "lora_config": json.loads(CONFIG)}).json()
    for step in (10, 20):
        path = f"/series/{series['id']}/checkpoints/{step}/adapter_model.safetensors"
        client.put(path, content=model_bytes(step))
    assert client.post("/jobs", json={"series": series["id"], "method": LINE}).status_code == 202
    dora = {**json.loads(CONFIG), "use_dora": True}
    problem(client.post("/series", json={"name": "run", "lora_config": dora}), 422, "unsupported-adapter")


def test_a_lora_config_is_bounded_as_an_adapter_config_is(client: TestClient) -> None:
    config = {**json.loads(CONFIG), "target_modules": ["q_proj"] * 6000}
    begun = client.post("/series", json={"name": "run", "lora_config": config})
    found = problem(begun, 413, "body-too-large")
    assert found.errors[0]["field"] == "lora_config"
    fewer = {**config, "target_modules": ["q_proj"] * 2000}
    assert client.post("/series", json={"name": "run", "lora_config": fewer}).status_code == 201


def test_so_is_one_that_the_service_reads_itself(client: TestClient, tmp_path: Path) -> None:
    references = write_run(tmp_path / "runs")
    large = json.dumps({**json.loads(CONFIG), "target_modules": ["q_proj"] * 9000})
    (tmp_path / "runs" / "checkpoint-20" / "adapter_config.json").write_text(large)
    submitted = client.post("/jobs", json={"checkpoints": references, "method": LINE})
    found = problem(submitted, 413, "body-too-large")
    assert found.detail.startswith("step 20: adapter_config.json is larger than")


def test_a_job_that_a_later_version_wrote_is_there_later(
    client: TestClient, series_id: str, store_settings: StoreSettings
) -> None:
    job = client.post("/jobs", json={"series": series_id, "method": LINE}).json()["id"]
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.hset(f"next:job:{job}", "request", '{"task": "distil"}')
    found = problem(client.get(f"/jobs/{job}"), 503, "record-unreadable", blame="server")
    assert found.retryable
    assert job in found.detail


def test_a_series_may_have_more_checkpoints_than_a_job(
    client: TestClient, store: Store, store_settings: StoreSettings
) -> None:
    series = store.series.create("tests", SeriesCreate(name="long", lora_config=json.loads(CONFIG))).id
    with Connection.open(store_settings.redis_url) as redis:
        deployment = Deployment(redis, store_settings.data_dir)
        folders = JobFolders(store_settings.data_dir)
        history = Journal(store_settings.data_dir, deployment, folders).read_series(series)
    weights = {
        step: {"adapter_model.safetensors": FileInfo(bytes=56, sha256=f"{step:064x}")}
        for step in range(MOST_CHECKPOINTS + 1)
    }
    store.series.restore(replace(history, checkpoints=weights))  # uploading them would take long
    answer = client.post("/jobs", json={"series": series, "method": LINE})
    found = problem(answer, 422, "too-many-checkpoints")
    assert f"at most {MOST_CHECKPOINTS} checkpoints, but there are {MOST_CHECKPOINTS + 1}" in found.detail
    until = {"series": series, "method": LINE, "until": MOST_CHECKPOINTS - 1}
    assert len(client.post("/jobs", json=until).json()["steps"]) == MOST_CHECKPOINTS


def test_what_is_not_there_is_404(client: TestClient) -> None:
    for unknown in ("nope", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "\u00e4", "a b"):
        problem(client.get(f"/series/{unknown}"), 404, "series-not-found")
        problem(client.get(f"/jobs/{unknown}"), 404, "job-not-found")
        problem(client.post(f"/jobs/{unknown}/cancel"), 404, "job-not-found")
        problem(client.get(f"/jobs/{unknown}/events"), 404, "job-not-found")
        problem(client.get(f"/jobs/{unknown}/report"), 404, "job-not-found")
        problem(client.post("/jobs", json={"series": unknown}), 404, "series-not-found")


def test_another_tenants_job_is_404(client: TestClient, series_id: str, store: Store) -> None:
    job = client.post("/jobs", json={"series": series_id}).json()
    record = store.jobs.get("tests", job["id"])
    theirs = store.jobs.submit("others", record.request, record.inputs, idempotency_key=None, body_digest="")
    problem(client.get(f"/jobs/{theirs.id}"), 404, "job-not-found")
    assert [item["id"] for item in client.get("/jobs").json()["items"]] == [job["id"]]


def test_the_same_key_and_body_are_the_same_job(client: TestClient, series_id: str) -> None:
    key = {"Idempotency-Key": "once"}
    whole = JobCreate(series=series_id, labels={"run": "a", "seed": "0"}).model_dump(mode="json")
    first = client.post("/jobs", json=whole, headers=key).json()
    short = {"labels": {"seed": "0", "run": "a"}, "series": series_id}  # says the same in fewer words
    again = client.post("/jobs", json=short, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    for asked in ({"until": 60}, {"method": {"name": "relex"}}, {"task": "inspect"}):
        problem(client.post("/jobs", json=short | asked, headers=key), 422, "idempotency-mismatch")
    assert len(client.get("/jobs").json()["items"]) == 1


class LaterJobCreate(JobCreate):
    """A request as a later version has it, with a field more."""

    priority: int = 0


def test_a_repeat_is_the_same_job_to_a_version_that_has_a_field_more(
    client: TestClient, series_id: str, store: Store, settings: ServiceSettings
) -> None:
    first = client.post("/jobs", json={"series": series_id}, headers={"Idempotency-Key": "once"}).json()
    wake_ups = WakeUps(settings.store.redis_url)

    def repeat(**others: int) -> JobRecord:
        body = LaterJobCreate(series=series_id, **others)
        return submit(store, settings, wake_ups, Submission("tests", body, "once"))

    assert repeat().id == repeat(priority=0).id == first["id"]
    with pytest.raises(IdempotencyMismatch):
        repeat(priority=1)
    wake_ups.close()


def test_a_repeat_is_the_same_job_although_its_series_is_gone(client: TestClient, series_id: str) -> None:
    key = {"Idempotency-Key": "once"}
    first = client.post("/jobs", json={"series": series_id}, headers=key).json()
    assert client.delete(f"/series/{series_id}").status_code == 204
    again = client.post("/jobs", json={"series": series_id}, headers=key)
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    other = client.post("/jobs", json={"series": series_id, "until": 60}, headers=key)
    problem(other, 422, "idempotency-mismatch")
    problem(client.post("/jobs", json={"series": series_id}), 404, "series-not-found")


def test_cancel_is_final(client: TestClient, series_id: str, finish: Finish) -> None:
    job = client.post("/jobs", json={"series": series_id}).json()
    for _ in range(2):
        assert client.post(f"/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    done = client.post("/jobs", json={"series": series_id}).json()
    finish(done["id"])
    problem(client.post(f"/jobs/{done['id']}/cancel"), 409, "job-finished")


def test_lists_come_in_pages_newest_first(client: TestClient, series_id: str) -> None:
    ids = [client.post("/jobs", json={"series": series_id}).json()["id"] for _ in range(5)]
    seen, cursor = [], None
    while True:
        page = client.get("/jobs", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        seen += [item["id"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == ids[::-1]
    assert client.get("/jobs?state=failed").json() == {"items": [], "next_cursor": None}
    assert [item["id"] for item in client.get("/series").json()["items"]] == [series_id]
    problem(client.get("/jobs?cursor=x"), 422, "invalid-cursor")
    problem(client.get("/jobs?limit=0"), 422, "invalid-request")


@pytest.mark.parametrize("path", ["/jobs?status=failed", "/jobs?text=math", "/series?state=failed"])
def test_a_filter_that_a_list_does_not_have_is_refused(client: TestClient, path: str) -> None:
    told = problem(client.get(path), 422, "invalid-request")
    assert "there is no such field" in told.detail


def test_a_jump_is_recorded_and_used(
    client: TestClient, series_id: str, store: Store, finish: Finish
) -> None:
    job = client.post("/jobs", json={"series": series_id, "until": 20, "method": LINE}).json()
    jump = {"step": 20, "job": job["id"]}
    problem(client.post(f"/series/{series_id}/jumps", json=jump), 409, "job-not-succeeded")
    problem(client.post(f"/series/{series_id}/jumps", json={"step": 20, "job": "x"}), 404, "job-not-found")
    finish(job["id"])
    answer = client.post(f"/series/{series_id}/jumps", json=jump)
    assert answer.status_code == 201
    assert answer.json()["jumps"] == [jump]
    later = client.post("/jobs", json={"series": series_id}).json()
    assert [adapter.step for adapter in store.jobs.get("tests", later["id"]).inputs.jumps] == [20]
