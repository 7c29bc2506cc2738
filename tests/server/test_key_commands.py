"""The operator's commands for keys, as they are typed."""

import json
import socket
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from fixtures.server import EmbeddedServer
from typer.testing import CliRunner, Result

from nextrapolate_service.server.cli import main
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["keys", *arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def deployed(store: Store, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of a deployment whose settings come from the environment."""
    monkeypatch.setenv("NEXTRAPOLATE_REDIS_URL", store_settings.redis_url)
    monkeypatch.setenv("NEXTRAPOLATE_DATA_DIR", str(store_settings.data_dir))
    return store


def test_a_key_is_shown_once_and_alone_on_stdout(deployed: Store) -> None:
    made = run("create", "--tenant", "lab", "--name", "the trainer's")
    record = deployed.keys.verify(made.stdout.strip())
    assert (record.tenant, record.name, sorted(record.scopes)) == ("lab", "the trainer's", ["read", "write"])
    assert "cannot be shown again" in made.stderr
    assert made.stdout.strip() not in run("list").output + run("list", "--json").output


def day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}"


def test_a_list_has_a_line_for_each_key(deployed: Store) -> None:
    run("create", "--tenant", "lab", "--scope", "read", "--name", "a page with [brackets] " + "x" * 100)
    run("create", "--tenant", "ops", "--scope", "metrics", "--scope", "read")
    page, monitor = sorted(deployed.keys.list(), key=lambda key: key.tenant)
    deployed.keys.admit(page.id, per_second=1, at_once=1)
    run("revoke", page.id)
    names, *lines = run("list").stdout.splitlines()
    first, second = sorted(lines, key=lambda line: "metrics" in line)
    assert names.split() == ["key", "tenant", "name", "scopes", "created", "last", "used", "state"]
    assert first.split("  ")[0] == page.id
    assert f"[brackets] {'x' * 100}  read" in first
    used, revoked = deployed.keys.get(page.id).used_at, deployed.keys.get(page.id).revoked_at
    assert first.split()[-4:] == [day(page.created_at), day(used), "revoked", day(revoked)]
    assert second.split() == [monitor.id, "ops", "metrics", "read", day(monitor.created_at), "-", "active"]
    assert len(run("list", "--tenant", "ops").stdout.splitlines()) == 2


def test_json_is_for_programs(deployed: Store) -> None:
    made = json.loads(run("create", "--tenant", "lab", "--json").stdout)
    record = deployed.keys.verify(made.pop("key"))
    assert (made["id"], made["scopes"], made["revoked_at"]) == (record.id, ["read", "write"], None)
    assert json.loads(run("list", "--json").stdout) == [made]
    revoked = json.loads(run("revoke", record.id, "--json").stdout)
    assert revoked["revoked_at"] is not None


def test_mistakes_are_told_in_a_sentence(
    deployed: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no key nobody" in run("revoke", "nobody", code=1).stderr
    assert "'a/b' is not the name of a tenant" in run("create", "--tenant", "a/b", code=1).stderr
    said = run("create", "--tenant", "lab", "--scope", "all", code=2).stderr
    assert "Invalid value for '--scope': 'all' is not one of 'read', 'write', 'metrics'" in said
    assert "no server runs on" in run("list", "--data-dir", str(tmp_path), code=1).stderr
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "password").write_text("of a server that was killed")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "redis" / "redis.sock"))
    assert "no server runs on" in run("list", "--data-dir", str(tmp_path), code=1).stderr
    monkeypatch.delenv("NEXTRAPOLATE_REDIS_URL")
    monkeypatch.chdir(tmp_path)
    assert "start `nextrapolate-server --data-dir nextrapolate-data` first" in run("list", code=1).stderr


def test_what_an_operator_does_is_in_the_audit_log(deployed: Store, store_settings: StoreSettings) -> None:
    made = run("create", "--tenant", "lab").stdout.strip()
    key_id = made.split("_")[1]
    run("list")
    run("revoke", key_id)
    noted = "".join(file.read_text() for file in sorted((store_settings.data_dir / "audit").iterdir()))
    created, revoked = (json.loads(line) for line in noted.splitlines())
    assert (created["did"], created["tenant"], created["ids"]) == ("create_key", "lab", {"key_id": key_id})
    assert created["scopes"] == ["read", "write"]
    assert (revoked["did"], revoked["operator"]) == ("revoke_key", created["operator"])
    assert made.split("_")[2] not in noted


@pytest.mark.integration
def test_keys_are_made_and_revoked_while_the_server_runs(embedded_server: EmbeddedServer) -> None:
    folder = ("--data-dir", str(embedded_server.data_dir))
    made = run("create", "--tenant", "guest", *folder).stdout.strip()
    guest = {"Authorization": f"Bearer {made}"}
    with httpx.Client(base_url=embedded_server.url, headers=guest, timeout=60) as client:
        assert client.get("/series").json()["items"] == []
        run("revoke", made.split("_")[1], *folder)
        assert client.get("/series").status_code == 401
