"""Sessions of browsers: who has shown an API key, and need not show it again for some hours.

A session stands for the key that began it and ends with it at the latest, also where another key takes over
its id. What a browser keeps is a token of 256 random bits; Redis keeps its digest alone. Sessions are on no
disk: whoever loses one shows the key again.
"""

import hashlib
import secrets
from typing import cast

from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.errors import KeyNotFound, KeyRevoked, SessionEnded
from nextrapolate_store.keys import KeyRecord, KeyStore

SESSION_SECONDS = 12 * 3600
INVITATION_SECONDS = 3600


class SessionStore:
    """The sessions of all tenants.

    All methods raise `StoreUnavailable` where Redis does not answer; those that look one up `StoreLost` where
    Redis has lost its data.
    """

    def __init__(self, redis: Connection, keys: KeyStore) -> None:
        self._redis = redis
        self._keys = keys

    def begin(self, key: KeyRecord) -> str:
        """Begin a session of whoever has just shown this key, and give its token."""
        return self._make(RedisKey.SESSION, key, SESSION_SECONDS)

    def find(self, token: str) -> KeyRecord:
        """Tell whose session this is.

        Raises:
            SessionEnded: nobody's any more; or its key was replaced.
            KeyRevoked: its key was revoked.
        """
        stands_for = cast(str | None, self._redis.get(RedisKey.SESSION + _digest(token)))
        return self._key(stands_for, "this session has ended: sign in again with your API key")

    def end(self, token: str) -> None:
        """End a session, if there is one."""
        self._redis.delete(RedisKey.SESSION + _digest(token))

    def invite(self, key: KeyRecord) -> str:
        """Let one browser in without showing the key; gives the token of an invitation."""
        return self._make(RedisKey.INVITATION, key, INVITATION_SECONDS)

    def accept(self, invitation: str) -> KeyRecord:
        """Take an invitation, which is good for once: where the answer is lost on the way, it is used up.

        Raises:
            SessionEnded: it was taken, or is too old; or its key was replaced.
            KeyRevoked: its key was revoked.
        """
        stands_for = cast(str | None, self._redis.getdel(RedisKey.INVITATION + _digest(invitation)))
        return self._key(stands_for, "this link was used before, or is too old: sign in with your API key")

    def _make(self, prefix: RedisKey, key: KeyRecord, seconds: int) -> str:
        token = secrets.token_urlsafe(32)
        self._redis.set(prefix + _digest(token), f"{key.id} {key.fingerprint}", ex=seconds)
        return token

    def _key(self, stands_for: str | None, otherwise: str) -> KeyRecord:
        if stands_for is None:
            self._redis.check_schema()
            raise SessionEnded(otherwise)
        key_id, fingerprint = stands_for.split(" ")
        try:
            key = self._keys.get(key_id)
        except KeyNotFound as error:
            raise SessionEnded(str(error)) from None
        if key.revoked_at is not None:
            raise KeyRevoked(f"the key {key.id} was revoked: sign in with another one")
        if key.fingerprint != fingerprint:
            raise SessionEnded(f"the key {key.id} was replaced: sign in with the new one")
        return key


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
