"""The operator's commands for tenants, as they are typed."""

import json

import pytest
from typer.testing import CliRunner, Result

from nextrapolate.schemas import SeriesCreate
from nextrapolate_service.server.cli import main
from nextrapolate_store.keys import Scope
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store
from nextrapolate_store.tenants import Quota, Quotas, Usage


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["tenants", *arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def deployed(store: Store, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of a deployment with two tenants, whose settings come from the environment."""
    monkeypatch.setenv("NEXTRAPOLATE_REDIS_URL", store_settings.redis_url)
    monkeypatch.setenv("NEXTRAPOLATE_DATA_DIR", str(store_settings.data_dir))
    store.quotas.set_defaults(Quotas())
    for tenant in ("lab", "ops"):
        store.keys.create(tenant, [Scope.READ])
    store.series.create("lab", SeriesCreate(name="run"))
    store.blobs.put_bytes("lab", bytes(3 << 20))
    return store


def test_a_list_has_a_line_for_each_tenant(deployed: Store) -> None:
    names, lab, ops = run("list").stdout.splitlines()
    assert names.split()[:5] == ["tenant", "bytes", "series", "queued", "jobs"]
    assert names.split()[5:] == ["running", "jobs", "kept", "jobs", "uploads"]
    assert lab.split("  ")[0] == "lab"
    assert "3.0MiB of 1.0TiB" in lab
    assert "1 of 10000" in lab
    assert "0B of 1.0TiB" in ops
    (first, _) = json.loads(run("list", "--json").stdout)
    assert first["tenant"] == "lab"
    assert first["bytes"] == {"used": 3 << 20, "limit": 1 << 40}


def test_quotas_are_set_and_reset(deployed: Store, store_settings: StoreSettings) -> None:
    told = run("set", "lab", "--bytes", "500GiB", "--running-jobs", "2").stdout
    assert "bytes: 3.0MiB of 500.0GiB" in told
    usage = deployed.quotas.usage("lab")
    assert usage[Quota.BYTES].limit == 500 << 30
    assert usage[Quota.RUNNING_JOBS] == Usage(0, 2)
    assert usage[Quota.SERIES] == Usage(1, 10_000)
    run("reset", "lab")
    assert deployed.quotas.usage("lab")[Quota.RUNNING_JOBS].limit == 100
    logs = sorted((store_settings.data_dir / "audit").iterdir())
    changed, reset = (json.loads(line) for log in logs for line in log.read_text().splitlines())
    assert (changed["did"], changed["tenant"]) == ("set_quotas", "lab")
    assert changed["quotas"] == {"bytes": 500 << 30, "running_jobs": 2}
    assert reset["did"] == "reset_quotas"


def test_mistakes_are_told_in_a_sentence(deployed: Store) -> None:
    assert "give a quota to set" in run("set", "lab", code=2).stderr
    assert "write it like 500GiB" in run("set", "lab", "--bytes", "lots", code=2).stderr
    assert "greater than or equal to 0" in run("set", "lab", "--series", "-1", code=2).stderr


@pytest.mark.parametrize("command", [("set", "typo", "--series", "1"), ("reset", "typo")])
def test_a_tenant_that_never_had_a_key_is_refused_by_name(
    deployed: Store, store_settings: StoreSettings, command: tuple[str, ...]
) -> None:
    refused = run(*command, code=1)
    assert "there is no tenant 'typo': the tenants are lab, ops" in refused.stderr
    assert refused.stdout == ""
    assert not (store_settings.data_dir / "tenants" / "typo").exists()
    assert not (store_settings.data_dir / "audit").exists()
