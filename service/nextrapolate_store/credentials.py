"""What a caller lends to one job: in files of their own, private to this user, gone when they have served.

    {data_dir}/credentials/{job}.{name}

Not in job.json, which is kept, and not in Redis, whose append-only file remembers what was deleted.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

from nextrapolate.schemas import Delivery, JobState
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.deployment import Deployment
from nextrapolate_store.files import is_older, write_over
from nextrapolate_store.journal import Journal
from nextrapolate_store.one_by_one import OneByOne

_log = logging.getLogger(__name__)

Credential = Literal["hub-token", "webhook-secret"]

_UNACKNOWLEDGED_SECONDS = 600
"""How old the credential of a job that is not there has to be: its submit may still be on its way."""


class CredentialStore:
    """The credentials of all jobs."""

    def __init__(self, redis: Connection, deployment: Deployment, journal: Journal, data_dir: Path) -> None:
        self._redis = redis
        self._journal = journal
        self._deployment = deployment
        self._folder = data_dir / "credentials"
        self._one_by_one = OneByOne(_log, "what was lent to it is kept")

    def put(self, job_id: str, name: Credential, secret: str) -> None:
        """Keep what was lent to this job."""
        write_over(self._path(job_id, name), secret, mode=0o600)

    def get(self, job_id: str, name: Credential) -> str | None:
        """Give what was lent to this job; None where nothing was, or the job is over."""
        try:
            return self._path(job_id, name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def forget_over(self) -> None:
        """Delete what was lent to jobs that are over, secrets once their webhook is through; any time.

        What belongs to a job of which that cannot be read stays.

        Raises:
            StoreLost: Redis has lost its data, so that nobody knows which are.
            StoreMismatched: the data folder is another deployment's.
        """
        self._deployment.check()
        for job_id, name, path in self._kept():
            with self._one_by_one.job(job_id):
                if self._is_over(job_id, name, path):
                    path.unlink(missing_ok=True)

    def _is_over(self, job_id: str, name: Credential, path: Path) -> bool:
        job = RedisKey.JOB + job_id
        state, attempt = cast(list[str | None], self._redis.hmget(job, "state", "delivery"))
        if state is None:
            self._redis.check_schema()
            # One that has a job.json may be brought back; where it is not, the sweeper removes that in time.
            return is_older(path, _UNACKNOWLEDGED_SECONDS) and not self._journal.has_job(job_id)
        if not JobState(state).is_final or name == "hub-token":
            return JobState(state).is_final
        # Of the record itself, and no more of it than that: an index may lack a webhook that waits for others
        # of its tenant, and thousands may wait for the same receiver.
        last = cast(str | None, self._redis.hget(job, f"delivery:{attempt}"))
        return last is not None and Delivery.model_validate_json(last).next_at is None

    def _kept(self) -> Iterator[tuple[str, Credential, Path]]:
        names: tuple[Credential, ...] = ("hub-token", "webhook-secret")
        for name in names:
            for path in self._folder.glob(f"*.{name}"):
                yield path.name.removesuffix(f".{name}"), name, path

    def _path(self, job_id: str, name: Credential) -> Path:
        return self._folder / f"{job_id}.{name}"
