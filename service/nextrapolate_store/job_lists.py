"""Lists of jobs: page by page, or by a text in their words; newest first."""

import logging
from collections.abc import Collection

from nextrapolate.schemas import JobState
from nextrapolate_store.connection import Connection, RedisKey
from nextrapolate_store.decoding import Fields, listed_job, pairs
from nextrapolate_store.one_by_one import OneByOne
from nextrapolate_store.paging import page_start, read_page
from nextrapolate_store.records import ListedJob

_log = logging.getLogger(__name__)

_Jobs = list[ListedJob]
"""`JobLists` has a method of the name `list`."""

_JOBS_A_SEARCH, _BYTES_A_SEARCH = 100, 1 << 20
"""How much one script looks at: Redis serves nobody else meanwhile."""


class JobLists:
    """The jobs that there are. One whose record cannot be read is left out of all lists, and logged once."""

    def __init__(self, redis: Connection) -> None:
        self._redis = redis
        self._one_by_one = OneByOne(_log, "left out of the lists of jobs")
        self._page, self._find, self._read = redis.load("page"), redis.load("find"), redis.load("read")

    def list(
        self, tenant: str, *, limit: int, cursor: str | None, state: JobState | None = None
    ) -> tuple[_Jobs, str | None]:
        """Read one page of the tenant's jobs, newest first, and the cursor of the next; None on the last.

        Raises:
            InvalidCursor: the cursor is no id.
        """
        index = RedisKey.TENANT_JOBS + tenant
        rows, more = read_page(self._page, index, [RedisKey.JOB], limit, cursor, part=_part(state))
        return self._readable([fields for (fields,) in rows]), rows[-1][0]["id"] if more else None

    def find(
        self,
        tenant: str,
        text: str,
        *,
        limit: int,
        look_at: int,
        cursor: str | None,
        state: JobState | None = None,
    ) -> tuple[_Jobs, str | None]:
        """Read those of the tenant's jobs, newest first, that have a text in their words.

        Words are the id, the task, the method, the labels, and the id and the name of the series; capitals
        are as good as small letters. No more than `look_at` jobs are looked at, less where their requests are
        long. The cursor leads on from there, and is None where there are no more.

        Raises:
            InvalidCursor: the cursor is no id.
        """
        lowered = text.encode().lower()  # of ASCII alone, as the script does it
        index = RedisKey.TENANT_JOBS + tenant + _part(state)
        found: _Jobs = []
        wanted = limit
        while True:
            amounts = [wanted, min(look_at, _JOBS_A_SEARCH), _BYTES_A_SEARCH]
            more, last = self._find(keys=[index], args=[page_start(cursor), lowered, *amounts])
            records = map(pairs, self._read(keys=[RedisKey.JOB + job_id for job_id in more]))
            found += self._readable([record for record in records if record])
            cursor, look_at, wanted = last or None, look_at - _JOBS_A_SEARCH, wanted - len(more)
            if cursor is None or wanted == 0 or look_at <= 0:
                return found, cursor

    def _readable(self, records: Collection[Fields]) -> _Jobs:
        jobs: _Jobs = []
        for fields in records:
            with self._one_by_one.job(fields["id"]):
                jobs.append(listed_job(fields))
        return jobs


def _part(state: JobState | None) -> str:
    return f":{state}" if state else ""
