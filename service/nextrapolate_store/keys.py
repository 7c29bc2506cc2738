"""API keys, `nx_<id>_<secret>`: who may call, for which tenant, to do what. Their secrets are not kept."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import chain
from typing import Self, cast

from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.decoding import Fields, timestamp_ms, when
from nextrapolate_store.documents import KeyDocument, RevocationDocument
from nextrapolate_store.errors import KeyNotFound, KeyRevoked, KeyUnknown
from nextrapolate_store.journal import Journal
from nextrapolate_store.tenants import checked_tenant

_FORM = re.compile(r"nx_(?P<id>[A-Za-z0-9]{1,64})_[A-Za-z0-9]{16,256}")
_NOBODYS_DIGEST = "0" * 64
_FINGERPRINT_LENGTH = 16


class Scope(StrEnum):
    """What a key opens."""

    READ = "read"
    """Looking at series and jobs, and downloading results."""
    WRITE = "write"
    """Posting series, checkpoints and jobs, and cancelling them; always together with READ."""
    METRICS = "metrics"
    """What the operator's monitoring reads, over all tenants."""


@dataclass(frozen=True)
class KeyRecord:
    """A key, as of the moment it was read.

    Attributes:
        id: the part of the key that is no secret.
        fingerprint: what tells it from another key of the same id, as an id may come again; no secret either.
        tenant: whatever is posted with the key is this tenant's.
        name: what the key is for, in the words of whoever made it.
        used_at: when it was last let in, to the hour; None where it never was.
        revoked_at: since when it is refused; None where it is not.
    """

    id: str
    fingerprint: str
    tenant: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class KeyText:
    """A key as its holder writes it, without the secret.

    The secret is random and long, 256 bits of those made here: one round of sha256 hides it, where a password
    would need many.
    """

    id: str
    digest: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a key.

        Raises:
            ValueError: it has not the form of one.
        """
        found = _FORM.fullmatch(text)
        if not found:
            raise ValueError("a key is written nx_<id>_<secret>, in letters and digits")
        return cls(found["id"], hashlib.sha256(text.encode()).hexdigest())


def new_key(key_id: str) -> str:
    """Make a key with 256 random bits."""
    return f"nx_{key_id}_{secrets.token_hex(32)}"


class KeyStore:
    """The keys of all tenants. All methods raise `StoreUnavailable` where Redis does not answer.

    Nothing is cached: a key that was revoked opens nothing from then on, in any process.
    """

    def __init__(self, redis: Connection, journal: Journal) -> None:
        self._redis = redis
        self._journal = journal
        self._put, self._admit = redis.load("put_key"), redis.load("admit")

    def create(self, tenant: str, scopes: Collection[Scope], name: str = "") -> tuple[KeyRecord, str]:
        """Make a key; the text that is returned with its record cannot be had again.

        Raises:
            ValueError: the tenant cannot have this name.
        """
        text = new_key(secrets.token_hex(6))
        return self.adopt(KeyText.parse(text), tenant, scopes, name), text

    def adopt(self, key: KeyText, tenant: str, scopes: Collection[Scope], name: str = "") -> KeyRecord:
        """Let a key in that was made elsewhere. One that is known already stays as it is, revoked or not.

        Raises:
            ValueError: the tenant cannot have this name.
        """
        opens = set(scopes) | ({Scope.READ} if Scope.WRITE in scopes else set())
        document = KeyDocument(
            id=key.id,
            digest=key.digest,
            tenant=checked_tenant(tenant),
            name=name,
            scopes=tuple(sorted(opens)),
            created_at=when(self._redis.now_ms()),
        )
        revoked_at = self._journal.read_revocation(key.id, key.digest)
        self.restore(self._journal.write_key(document), revoked_at)
        return self.get(key.id)

    def _note(self, document: KeyDocument) -> None:
        fields = {
            "tenant": document.tenant,
            "name": document.name,
            "scopes": " ".join(document.scopes),
            "created_at": str(timestamp_ms(document.created_at)),
        }
        self._put(args=[document.id, document.digest, *chain.from_iterable(fields.items())])

    def get(self, key_id: str) -> KeyRecord:
        """Read a key's record.

        Raises:
            KeyNotFound: there is no key of this id.
            StoreLost: Redis has lost its data, so that nobody knows.
        """
        return _record(self._fields(key_id))

    def _fields(self, key_id: str) -> Fields:
        fields = self._redis.fields(RedisKey.API_KEY + key_id)
        if "id" not in fields:
            self._redis.check_schema()
            raise KeyNotFound(f"there is no key {key_id}: `nextrapolate-server keys list` shows all")
        return fields

    def list(self) -> list[KeyRecord]:
        """Read the records of all keys, the revoked among them, oldest first."""
        ids = cast(set[str], self._redis.smembers(RedisKey.API_KEYS))
        return sorted((self.get(key_id) for key_id in ids), key=lambda key: (key.created_at, key.id))

    def revoke(self, key_id: str) -> KeyRecord:
        """Refuse a key from now on, for ever.

        Raises:
            KeyNotFound: there is no key of this id.
            OSError: it is refused, and the disk does not take the record of that.
        """
        digest = self._fields(key_id)["digest"]  # keys are never deleted: it is there from now on
        now = RevocationDocument(revoked_at=when(self._redis.now_ms()))
        try:
            revoked_at = self._journal.write_revocation(key_id, digest, now).revoked_at
        except OSError as error:  # a key that has leaked does not wait for a disk
            self._note_revocation(key_id, now.revoked_at)
            error.add_note(
                f"(key {key_id} is no longer accepted, but a rebuild would restore it: when the disk can "
                "be written again, revoke it once more)"
            )
            raise
        self._note_revocation(key_id, revoked_at)
        return self.get(key_id)

    def _note_revocation(self, key_id: str, revoked_at: datetime) -> None:
        self._redis.hsetnx(RedisKey.API_KEY + key_id, "revoked_at", timestamp_ms(revoked_at))

    def restore(self, document: KeyDocument, revoked_at: datetime | None) -> None:
        """Bring a key back from its records; of two with one id, the one that comes last is let in."""
        self._note(document)
        if revoked_at is not None:
            self._note_revocation(document.id, revoked_at)

    def verify(self, presented: str) -> KeyRecord:
        """Tell whose key this is, in a time that says nothing about how much of it is right.

        Raises:
            KeyUnknown: it is no key, or none of this store's.
            KeyRevoked: it was let in once.
            StoreLost: Redis has lost its data, so that nobody knows.
        """
        try:
            key = KeyText.parse(presented)
        except ValueError as error:
            raise KeyUnknown(f"this is not a key: {error}") from None
        fields = self._redis.fields(RedisKey.API_KEY + key.id)
        if not hmac.compare_digest(fields.get("digest", _NOBODYS_DIGEST), key.digest):
            self._redis.check_schema()
            raise KeyUnknown(
                "this is not one of the server's keys: check that it is complete, or get another one"
            )
        record = _record(fields)
        _check_revoked(record)
        return record

    def check_current(self, key: KeyRecord) -> None:
        """Make sure that a key which was let in still would be.

        Raises:
            KeyRevoked: it would not: it was revoked, or replaced by another of its id.
        """
        current = self.get(key.id)
        _check_revoked(current)
        if current.fingerprint != key.fingerprint:
            raise KeyRevoked(f"the key {key.id} was replaced: get the new one")

    def admit(self, key_id: str, *, per_second: float, at_once: int) -> float:
        """Count a request of this key; gives 0, or the seconds after which there is room for it."""
        wait_ms = cast(int, self._admit(args=[key_id, per_second, at_once]))
        return wait_ms / 1000


def _check_revoked(key: KeyRecord) -> None:
    if key.revoked_at is not None:
        raise KeyRevoked(f"the key {key.id} was revoked on {key.revoked_at:%Y-%m-%d}: get a new one")


def _record(fields: Fields) -> KeyRecord:
    return KeyRecord(
        id=fields["id"],
        fingerprint=fields["digest"][:_FINGERPRINT_LENGTH],
        tenant=fields["tenant"],
        name=fields["name"],
        scopes=frozenset(Scope(scope) for scope in fields["scopes"].split()),
        created_at=when(fields["created_at"]),
        used_at=when(fields["used_at"]) if "used_at" in fields else None,
        revoked_at=when(fields["revoked_at"]) if "revoked_at" in fields else None,
    )
