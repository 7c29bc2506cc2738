"""Whole jobs over hf:// and s3://, through a real server."""

import time
from pathlib import Path

import pytest
from fixtures.adapters import write_run
from fixtures.hatched_server import running_hatched_server
from fixtures.hub import Hub
from fixtures.s3 import Bucket
from hatchery.server import running_hatchery

from nextrapolate import NExtClient
from nextrapolate.schemas import ADAPTER_MODEL

pytestmark = pytest.mark.integration

STEPS = range(10, 70, 10)
TOKEN = "hf_of_the_caller"


def test_the_same_run_from_a_folder_a_hub_and_a_bucket(hub: Hub, bucket: Bucket, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", STEPS)
    for step in STEPS:
        files = {path.name: path.read_bytes() for path in (run / f"checkpoint-{step}").iterdir()}
        hub.push("org/run", f"step_{step}", files)
        for name, content in files.items():
            bucket.put(f"grpo/checkpoint-{step}/{name}", content)
    hub.tokens["org/run"] = TOKEN
    sources: tuple[str | Path, ...] = (
        "hf://org/run@step_{10..60..10}",
        run,
        f"s3://{bucket.name}/grpo/checkpoint-{{10..60..10}}",
    )
    allowed = {"NEXTRAPOLATE_HUB_ENDPOINT": hub.url, "NEXTRAPOLATE_S3_BUCKETS": bucket.name}
    with (
        running_hatchery(tmp_path) as hatchery,  # of its own: children get the bucket's environment from it
        running_hatched_server(tmp_path, hatchery, allowed | dict(bucket.environment)) as server,
        NExtClient(server.url, server.api_key, hub_token=TOKEN) as client,
    ):
        made = {
            client.extrapolate(source, method="weight-extrapolation", out=tmp_path / f"out-{number}")
            .job.artifacts[ADAPTER_MODEL]
            .sha256
            for number, source in enumerate(sources)
        }
        assert len(made) == 1
        deadline = time.monotonic() + 60
        while list((server.data_dir / "credentials").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        kept = [path for path in server.data_dir.rglob("*") if path.is_file()]
        assert not any(TOKEN.encode() in path.read_bytes() for path in kept), "not in records, logs or Redis"
        log = (server.data_dir / "logs" / "api.log").read_text()
        assert " POST /jobs " in log
        assert " PUT /series/" not in log, "what was fetched from the Hub need not be uploaded"
