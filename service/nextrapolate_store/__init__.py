"""The store: jobs, series and API keys in Redis, blobs in a folder. The only package that knows a Redis key.

    settings.py   where the store lives; environment.py reads what variables hold
    store.py      `Store.open`, and its parts:
    jobs.py         jobs: submit, claim, beat, commit, cancel, reconcile, events; job_lists.py, page by page
    series.py       runs, their checkpoints and their jumps
    blobs.py        files, written atomically, addressed by their sha256; upload.py, one on its way in
    job_folders.py  where a job's records lie, and what its attempts make
    credentials.py  what a caller lends to one job
    deliveries.py   webhooks that are due, and what came of each attempt
    keys.py         API keys: who may call, for which tenant, to do what
    tenants.py      who shares series, jobs and files; quotas.py, how much of them
    sessions.py     browsers that have shown a key
    statistics.py   what is counted, for all processes together
    recorder.py     how jobs ended, written to disk
    sweeper.py      what nobody needs any more, removed; retention.py says when
    content/      what a checkpoint's files may hold
    remote/       files that lie elsewhere: found, pinned and fetched
    deployment.py which Redis and which folder belong together
    journal.py    the records on disk, documents.py what they hold; rebuild.py brings Redis back from them
    one_by_one.py work on many jobs, where one that cannot be read holds up no other
    files.py      files and folders that are there as a whole, or not at all
    logs.py       how service and worker log
    records.py    what comes out
    decoding.py, paging.py  how records are read, one by one and page by page
    ids.py        ids of jobs and series
    errors.py     what is refused
    queue.py      how Celery's messages travel between service and worker
    connection.py the connection to Redis: keys, scripts, timeouts, retries
    lua/          the scripts: every change of a record is one, told in its own first lines

A job's record in Redis is the truth, and every change of it is one script on Redis' own clock. Each script
may be sent twice: where a reply was lost, the second run finds the work done and gives the same answer.
Messages of the queue are wake-ups only. What has been acknowledged is on disk, too: Redis can be rebuilt.

    store = Store.open(StoreSettings.from_environment())
    job = store.jobs.submit("default", request, inputs, idempotency_key=None, body_digest=digest)
    claim = store.jobs.claim(job.id, worker="host:1")
    folder = store.job_folders.result_folder(job.id, claim.fence)
    artifacts = ...                         # write into the folder, and flush it
    store.jobs.commit(job.id, claim.fence, artifacts)
"""

from nextrapolate_store.errors import StoreError
from nextrapolate_store.records import JobInputs, JobRecord, SeriesRecord
from nextrapolate_store.settings import StoreSettings
from nextrapolate_store.store import Store

__all__ = ["JobInputs", "JobRecord", "SeriesRecord", "Store", "StoreError", "StoreSettings"]
