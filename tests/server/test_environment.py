"""Settings from the environment: what cannot be used is said in one line, with its name and what to write."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from nextrapolate_service.settings import ServiceSettings
from nextrapolate_store.environment import warnings_of_unknown_settings
from nextrapolate_worker.settings import WorkerSettings

NEEDED = {"NEXTRAPOLATE_REDIS_URL": "redis://127.0.0.1:1/0", "NEXTRAPOLATE_DATA_DIR": "data"}
SERVER = str(Path(sys.executable).parent / "nextrapolate-server")


@pytest.fixture(autouse=True)
def needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in NEEDED.items():
        monkeypatch.setenv(variable, value)


def test_a_setting_that_is_misspelt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXTRAPOLATE_URL", "http://of.the.client")
    assert warnings_of_unknown_settings() == []
    monkeypatch.setenv("NEXTRAPOLATE_LEASE_SECOND", "5")
    monkeypatch.setenv("NEXTRAPOLATE_WHATEVER", "x")
    misspelt, other = warnings_of_unknown_settings()
    assert misspelt == "NEXTRAPOLATE_LEASE_SECOND is no setting: is NEXTRAPOLATE_LEASE_SECONDS meant?"
    assert other.startswith("NEXTRAPOLATE_WHATEVER is no setting")


def test_what_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    service, worker = ServiceSettings.from_environment(), WorkerSettings.from_environment()
    for name in ("LEASE_SECONDS", "QUOTA_BYTES", "HUB_ENDPOINT", "TRUSTED_PROXIES", "DEVICE", "THREADS"):
        monkeypatch.setenv(f"NEXTRAPOLATE_{name}", "")
    assert ServiceSettings.from_environment() == service
    assert WorkerSettings.from_environment() == worker


def test_counts_and_sizes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "EVENT_STREAMS": "7",
        "AUDIT_DAYS": "30",
        "DISK_RESERVE_BYTES": "2GiB",
        "S3_BUCKETS": "one, two,",
        "FILE_ROOTS": "/a:/b",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"NEXTRAPOLATE_{name}", value)
    settings = ServiceSettings.from_environment()
    assert (settings.event_streams, settings.audit_days) == (7, 30)
    assert settings.disk_reserve_bytes == 2 << 30
    assert settings.s3_buckets == {"one", "two"}
    assert settings.file_roots == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("name", "wrong", "wanted"),
    [
        ("LEASE_SECONDS", "abc", "a number from 0.001 to 1,000,000"),
        ("LEASE_SECONDS", "-1", "a number from 0.001"),
        ("MAX_ATTEMPTS", "2.5", "a whole number, 1 or more"),
        ("MAX_ATTEMPTS", "0", "a whole number, 1 or more"),
        ("SWEEP_MINUTES", "soon", "a number from 0.001"),
        ("RATE_LIMIT", "-1", "a number from 0 to"),
        ("RATE_BURST", "0", "a whole number, 1 or more"),
        ("QUOTA_BYTES", "a lot", "a size such as 2GiB"),
        ("QUOTA_BYTES", "-1", "a size such as 2GiB"),
        ("QUOTA_BYTES", "9" * 400 + "GiB", "a size such as 2GiB"),
        ("QUOTA_SERIES", "-1", "a whole number, 0 or more"),
        ("QUOTA_QUEUED_JOBS", "10k", "a whole number, 0 or more"),
        ("DISK_RESERVE_BYTES", "2 gigs", "a size such as 2GiB"),
        ("AUDIT_DAYS", "0", "a whole number, 1 or more"),
        ("EVENT_STREAMS", "0", "a whole number, 1 or more"),
        ("DISK_RESERVE_BYTES", "5%", "a size such as 2GiB"),
        ("DISK_RESERVE_BYTES", "1,000,000,000", "a size such as 2GiB"),
        ("QUOTA_BYTES", "1GiB,2GiB", "a size such as 2GiB"),
        ("QUOTA_BYTES", "1.5.2GB", "a size such as 2GiB"),
        ("HUB_ENDPOINT", "nonsense", "https://huggingface.co"),
    ],
)
def test_what_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: str, wanted: str
) -> None:
    monkeypatch.setenv(f"NEXTRAPOLATE_{name}", wrong)
    with pytest.raises(ValueError, match=f"^NEXTRAPOLATE_{name} is '{wrong}': write {wanted}"):
        ServiceSettings.from_environment()


@pytest.mark.parametrize("device", ["mps", "gpu", "cuda:", "cuda:x"])
def test_a_device_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv("NEXTRAPOLATE_DEVICE", device)
    with pytest.raises(ValueError, match=f"^NEXTRAPOLATE_DEVICE is '{device}': write auto, cpu, cuda or"):
        WorkerSettings.from_environment()
    monkeypatch.setenv("NEXTRAPOLATE_DEVICE", "cuda:1")
    assert WorkerSettings.from_environment().computing.device == "cuda:1"


@pytest.mark.parametrize("url", ["nonsense", "http://redis:6379", "redis://:secret/word@redis:6379/0"])
def test_what_is_no_url_of_a_redis_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("NEXTRAPOLATE_REDIS_URL", url)
    for settings in (ServiceSettings, WorkerSettings):
        with pytest.raises(
            ValueError, match=r"^NEXTRAPOLATE_REDIS_URL is not the URL of a Redis: "
        ) as raised:
            settings.from_environment()
        assert "secret" not in str(raised.value)


def test_roots_are_absolute_and_may_be_mounted_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEXTRAPOLATE_FILE_ROOTS", f"{tmp_path}:relative")
    with pytest.raises(
        ValueError, match=r"^NEXTRAPOLATE_FILE_ROOTS: 'relative' is not an absolute path; write "
    ):
        ServiceSettings.from_environment()
    monkeypatch.setenv("NEXTRAPOLATE_FILE_ROOTS", f"{tmp_path}:{tmp_path / 'later'}")
    assert ServiceSettings.from_environment().file_roots == (tmp_path, tmp_path / "later")
    assert [record.getMessage() for record in caplog.records] == [
        f"NEXTRAPOLATE_FILE_ROOTS: there is no folder {tmp_path / 'later'} yet"
    ]


@pytest.mark.parametrize("name", ["TRUSTED_PROXIES", "WEBHOOK_NETWORKS"])
@pytest.mark.parametrize("wrong", ["caddy", "10.0.0.1/8", "*"])
def test_what_is_no_network_is_named(monkeypatch: pytest.MonkeyPatch, name: str, wrong: str) -> None:
    monkeypatch.setenv(f"NEXTRAPOLATE_{name}", f"10.0.0.0/8, {wrong}")
    with pytest.raises(
        ValueError, match=rf"^NEXTRAPOLATE_{name}: .*networks such as 172\.18\.0\.0/16"
    ) as failed:
        ServiceSettings.from_environment()
    assert wrong in str(failed.value)


def run_and_fail(*command: str, environment: Mapping[str, str]) -> str:
    failed = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=240
    )
    assert failed.returncode == 1
    return failed.stderr


@pytest.mark.integration
@pytest.mark.parametrize(
    ("part", "name", "wrong"),
    [
        ("api", "LEASE_SECONDS", "abc"),
        ("api", "LOG_FORMAT", "xml"),
        ("worker", "LEASE_SECONDS", "abc"),
        ("worker", "THREADS", "0"),
    ],
)
def test_a_part_that_does_not_start_says_why_in_one_line(part: str, name: str, wrong: str) -> None:
    variable = f"NEXTRAPOLATE_{name}"
    (said,) = run_and_fail(SERVER, part, environment={variable: wrong}).splitlines()
    assert said.startswith(f"nextrapolate-server: {variable}")
    assert repr(wrong) in said


@pytest.mark.integration
def test_the_embedded_server_says_what_its_part_said(tmp_path: Path) -> None:
    command = (SERVER, "--port", "0", "--data-dir", str(tmp_path / "data"))
    (said,) = run_and_fail(*command, environment={"NEXTRAPOLATE_QUOTA_SERIES": "many"}).splitlines()
    assert said.startswith("nextrapolate-server: the API ended with exit code 1: see ")
    assert ", which ends: nextrapolate-server: NEXTRAPOLATE_QUOTA_SERIES is 'many': write a whole " in said
