"""API keys: whose they are, what they open, how often, and that nothing of their secret is kept."""

import errno
import hashlib
import hmac
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from nextrapolate_store.errors import KeyNotFound, KeyRefused, KeyRevoked, KeyUnknown, StoreLost
from nextrapolate_store.journal import Journal
from nextrapolate_store.keys import KeyText, Scope, new_key
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

NEVER = 1e-6
"""Requests a second, so few that no bucket fills up while a test runs."""


def test_a_key_opens_what_it_was_made_for(store: Store) -> None:
    made, text = store.keys.create("lab", [Scope.WRITE], "trainer")
    assert text.startswith(f"nx_{made.id}_")
    assert (made.tenant, made.name, set(made.scopes)) == ("lab", "trainer", {Scope.READ, Scope.WRITE})
    assert (made.used_at, made.revoked_at) == (None, None)
    assert store.keys.verify(text) == made
    reader, _ = store.keys.create("page", [Scope.READ])
    assert reader.scopes == {Scope.READ}
    assert {key.tenant: key for key in store.keys.list()} == {"lab": made, "page": reader}


def test_a_revoked_key_opens_nothing_in_any_process_from_then_on(
    store: Store, store_settings: StoreSettings
) -> None:
    made, text = store.keys.create("lab", [Scope.READ])
    other, other_text = store.keys.create("page", [Scope.READ])
    elsewhere = Store.open(store_settings)
    assert elsewhere.keys.verify(text) == made
    revoked = store.keys.revoke(made.id)
    assert revoked.revoked_at is not None
    with pytest.raises(KeyRevoked, match=f"the key {made.id} was revoked on"):
        elsewhere.keys.verify(text)
    assert store.keys.revoke(made.id) == revoked  # the first time counts
    assert elsewhere.keys.verify(other_text) == other
    assert {key.tenant: key for key in store.keys.list()} == {"lab": revoked, "page": other}
    with pytest.raises(KeyNotFound, match="keys list"):
        store.keys.revoke("nobody")
    elsewhere.close()


def test_a_key_from_a_file_is_adopted_once(store: Store) -> None:
    first, second = KeyText.parse(new_key("local")), KeyText.parse(new_key("local"))
    adopted = store.keys.adopt(first, "local", list(Scope))
    assert store.keys.adopt(first, "local", list(Scope)) == adopted
    store.keys.revoke("local")
    assert store.keys.adopt(first, "local", list(Scope)).revoked_at is not None
    assert store.keys.adopt(second, "local", list(Scope)).revoked_at is None
    assert [key.id for key in store.keys.list()] == ["local"]


def test_a_key_is_refused_though_the_disk_takes_no_record_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, text = store.keys.create("lab", [Scope.READ])

    def failing(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "write_revocation", failing)
        with pytest.raises(OSError, match="Read-only") as error:
            store.keys.revoke(made.id)
    assert "revoke it once more" in error.value.__notes__[0]
    with pytest.raises(KeyRevoked):
        store.keys.verify(text)
    assert store.keys.revoke(made.id).revoked_at is not None


def test_a_key_that_was_revoked_is_not_let_in_again_by_a_redis_that_has_forgotten_it(
    store: Store, store_settings: StoreSettings
) -> None:
    text = new_key("local")
    store.keys.adopt(KeyText.parse(text), "local", list(Scope))
    revoked = store.keys.revoke("local")
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.flushall()
    assert store.keys.adopt(KeyText.parse(text), "local", list(Scope)) == revoked
    with pytest.raises(KeyRevoked):
        store.keys.verify(text)


def test_nothing_of_a_secret_is_kept(store: Store, store_settings: StoreSettings) -> None:
    _, text = store.keys.create("lab", [Scope.READ])
    secret = text.rsplit("_", 1)[1]
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        (kept,) = [redis.hgetall(key) for key in redis.scan_iter("*") if redis.type(key) == "hash"]
    assert kept["digest"] == hashlib.sha256(text.encode()).hexdigest()
    assert not any(secret[:8] in value for value in kept.values())
    assert secret not in repr(KeyText.parse(text))


def test_secrets_are_compared_in_constant_time_even_for_ids_that_are_not_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return hmac_compare(one, other)

    hmac_compare = hmac.compare_digest
    made, text = store.keys.create("lab", [Scope.READ])
    monkeypatch.setattr(hmac, "compare_digest", compare)
    store.keys.verify(text)
    for wrong in (new_key(made.id), new_key("nobody")):
        with pytest.raises(KeyUnknown):
            store.keys.verify(wrong)
    assert len(compared) == 3
    assert {len(digest) for pair in compared for digest in pair} == {64}


@pytest.fixture
def labs(store: Store) -> Store:
    """A store with the one key that texts could be taken for."""
    store.keys.adopt(KeyText.parse("nx_lab_" + "0" * 64), "lab", [Scope.READ])
    return store


@settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    presented=st.text(max_size=60)
    | st.from_regex(r"\Anx_[A-Za-z0-9]{1,9}_[A-Za-z0-9]{16,32}\n?\Z")
    | st.builds("nx_{}_{}".format, st.text(max_size=8), st.text(max_size=70))
)
def test_no_other_text_is_a_key(labs: Store, presented: str) -> None:
    with pytest.raises(KeyRefused):
        labs.keys.verify(presented)


def test_a_tenant_whose_name_could_be_a_path_is_refused(store: Store) -> None:
    for name in ("", "..", "a/b", "a:b", "ä", "x" * 65):
        with pytest.raises(ValueError, match="not the name of a tenant"):
            store.keys.create(name, [Scope.READ])


def rest(store_settings: StoreSettings, key_id: str, seconds: float) -> None:
    """Make Redis' clock so much later for a key; less than nothing sets it back."""
    with Redis.from_url(store_settings.redis_url) as redis:
        redis.incrbyfloat(f"next:api-key-bucket:{key_id}", -1000 * seconds)


def test_a_key_that_comes_too_often_is_told_when_there_is_room(
    store: Store, store_settings: StoreSettings
) -> None:
    made, _ = store.keys.create("lab", [Scope.READ])
    waits = [store.keys.admit(made.id, per_second=0.01, at_once=3) for _ in range(4)]
    assert waits[:3] == [0, 0, 0]
    assert 0 < waits[3] <= 100
    rest(store_settings, made.id, waits[3])
    assert store.keys.admit(made.id, per_second=0.01, at_once=3) == 0
    other, _ = store.keys.create("lab", [Scope.READ])
    assert store.keys.admit(other.id, per_second=0.01, at_once=3) == 0


def test_a_rested_bucket_holds_no_more_than_it_should(store: Store, store_settings: StoreSettings) -> None:
    made, _ = store.keys.create("lab", [Scope.READ])
    for _ in range(2):
        admitted = [store.keys.admit(made.id, per_second=0.01, at_once=2) == 0 for _ in range(3)]
        assert admitted == [True, True, False]
        rest(store_settings, made.id, seconds=1000)


def test_a_clock_that_was_set_back_locks_no_key_out(store: Store, store_settings: StoreSettings) -> None:
    """What was written an hour ahead of Redis' clock is what a step back of an hour leaves."""
    made, _ = store.keys.create("lab", [Scope.READ])
    assert store.keys.admit(made.id, per_second=20, at_once=3) == 0
    rest(store_settings, made.id, seconds=-3600)
    wait = store.keys.admit(made.id, per_second=20, at_once=3)
    assert 0 < wait <= 0.05
    time.sleep(wait)
    assert store.keys.admit(made.id, per_second=20, at_once=3) == 0


def test_a_key_that_is_lost_while_its_request_is_let_in_leaves_nothing_behind(
    store: Store, store_settings: StoreSettings
) -> None:
    made, text = store.keys.create("lab", [Scope.READ])
    store.keys.verify(text)
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        redis.flushall()
        assert store.keys.admit(made.id, per_second=20, at_once=3) == 0
        assert redis.keys("next:*") == [f"next:api-key-bucket:{made.id}"]
        redis.hset(f"next:api-key:{made.id}", "revoked_at", 1)  # as a revocation leaves it that comes after
    with pytest.raises(StoreLost):
        store.keys.get(made.id)
    with pytest.raises(StoreLost):
        store.keys.verify(text)
    Store.rebuild(store_settings, add_missing=False)
    assert store.keys.verify(text) == made


def test_twenty_at_once_get_as_many_places_as_there_are(store: Store) -> None:
    made, _ = store.keys.create("lab", [Scope.READ])
    with ThreadPoolExecutor(20) as pool:
        waits = list(pool.map(lambda _: store.keys.admit(made.id, per_second=NEVER, at_once=7), range(20)))
    assert waits.count(0) == 7


def test_counting_requests_waits_for_no_disk(store: Store, store_settings: StoreSettings) -> None:
    made, _ = store.keys.create("lab", [Scope.READ])
    assert store.keys.admit(made.id, per_second=100, at_once=100) == 0
    assert store.keys.get(made.id).used_at is not None
    with Redis.from_url(store_settings.redis_url) as redis:
        written = redis.info("persistence")["aof_current_size"]
        for _ in range(50):
            assert store.keys.admit(made.id, per_second=100, at_once=100) == 0
        assert redis.info("persistence")["aof_current_size"] == written
