"""Sessions: they stand for a key, end with it, and leave nothing of their token behind."""

import pytest
from redis import Redis

from nextrapolate_store.errors import KeyRevoked, SessionEnded
from nextrapolate_store.keys import KeyText, Scope, new_key
from nextrapolate_store.sessions import SESSION_SECONDS
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store


def test_a_session_stands_for_the_key_that_began_it(store: Store, store_settings: StoreSettings) -> None:
    key, _ = store.keys.create("lab", [Scope.WRITE])
    token = store.sessions.begin(key)
    assert Store.open(store_settings).sessions.find(token) == key
    assert store.sessions.begin(key) != token
    store.sessions.end(token)
    with pytest.raises(SessionEnded, match="sign in again"):
        store.sessions.find(token)
    store.sessions.end(token)


def test_a_session_ends_by_itself_and_its_token_is_nowhere(
    store: Store, store_settings: StoreSettings
) -> None:
    token = store.sessions.begin(store.keys.create("lab", [Scope.READ])[0])
    with Redis.from_url(store_settings.redis_url, decode_responses=True) as redis:
        (name,) = redis.keys("next:session:*")
        assert 0 < redis.ttl(name) <= SESSION_SECONDS
        assert token not in name
        assert token not in (redis.get(name) or "")


def test_a_revoked_key_ends_its_sessions(store: Store) -> None:
    key, _ = store.keys.create("lab", [Scope.READ])
    token, invitation = store.sessions.begin(key), store.sessions.invite(key)
    store.keys.revoke(key.id)
    with pytest.raises(KeyRevoked, match="sign in with another one"):
        store.sessions.find(token)
    with pytest.raises(KeyRevoked):
        store.sessions.accept(invitation)


def test_a_session_does_not_come_back_with_another_key_of_the_same_id(store: Store) -> None:
    """As the guide has the embedded server's key replaced: revoked, and another one adopted."""
    leaked = store.keys.adopt(KeyText.parse(new_key("local")), "local", list(Scope))
    token, invitation = store.sessions.begin(leaked), store.sessions.invite(leaked)
    store.keys.revoke("local")
    replaced = store.keys.adopt(KeyText.parse(new_key("local")), "local", list(Scope))
    for use, shown in ((store.sessions.find, token), (store.sessions.accept, invitation)):
        with pytest.raises(SessionEnded, match="replaced: sign in with the new one"):
            use(shown)
    assert store.sessions.find(store.sessions.begin(replaced)) == replaced


def test_an_invitation_is_good_for_once_and_is_no_session(store: Store) -> None:
    key, _ = store.keys.create("lab", [Scope.READ])
    invitation = store.sessions.invite(key)
    with pytest.raises(SessionEnded):
        store.sessions.find(invitation)
    assert store.sessions.accept(invitation) == key
    with pytest.raises(SessionEnded):
        store.sessions.accept(invitation)


@pytest.mark.parametrize("token", ["", "x", "next:session:", "\x00", "ü" * 5000])
def test_what_is_no_token_opens_nothing(token: str, store: Store) -> None:
    for use in (store.sessions.find, store.sessions.accept):
        with pytest.raises(SessionEnded):
            use(token)
