"""One attempt at a job: claim it, keep its lease alive while a child works, commit what the child made.

Whatever happens to this process, the job is safe: an attempt that stops beating loses its lease, the
reconciler queues the job again, and a commit under an old fence is refused. A worker that is asked to stop
does not let it come to that: it gives its job back at once.
"""

import errno
import logging
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack

from nextrapolate.schemas import JobError
from nextrapolate_store.logs import about
from nextrapolate_store.one_by_one import OneByOne
from nextrapolate_store.records import Beat, Claim
from nextrapolate_store.store import Store
from nextrapolate_worker.lease import LOST, Lease, Stopped
from nextrapolate_worker.messages import Done, Failed, Progress, Ready, Start
from nextrapolate_worker.naming import in_the_callers_terms
from nextrapolate_worker.nursery import Child, ChildDied, Nursery
from nextrapolate_worker.settings import WorkerSettings

_log = logging.getLogger(__name__)
_left = OneByOne(_log, "left in the queue, for a worker that can read it")

_LOOK_SECONDS = 0.5
_BEGINS_WITHIN_SECONDS = 300.0
"""How long a child may say nothing at first: it names its first stage as soon as it has imported torch."""
_SPEAKS_WITHIN_SECONDS = 3600.0
"""And from then on, module after module and epoch after epoch: minutes, where they are many or large."""
_REST_SECONDS = 60.0
"""How long a worker takes no job whose machine could not work on the last one: others come first."""
_STOP_FOLLOWS_SECONDS = 5.0
"""How much later than its child a worker may hear that both are to stop."""
_MAY_BE_THE_JOBS_OWN = (errno.ENOENT, errno.ENOTDIR, errno.EIO)
"""What one job's folder may lack and others have: given back at no cost, such a job would never end."""


def run_job(
    store: Store, settings: WorkerSettings, nursery: Nursery, job_id: str, stopping: threading.Event
) -> None:
    """Make one attempt at the job, if it is still there to be claimed; none once `stopping` is set.

    A wake-up may come twice, late, or for a job that is long done: then the claim is refused and nothing
    happens. Nor does for a job of a later version, which is left to a worker that can read it.

    Raises:
        nextrapolate_store.errors.StoreUnavailable: the claim did not get through; the wake-up is sent again.
        nextrapolate_store.errors.StoreMismatched: the data folder is not here any more; so is it then.
    """
    if stopping.is_set():  # the reconciler wakes another worker
        return
    store.check_folder()
    claim = None
    with _left.job(job_id):  # it is woken again every few seconds
        claim = store.jobs.claim(job_id, worker=f"{socket.gethostname()}:{os.getpid()}")
    if claim is None:
        return
    with about(job_id=job_id, fence=claim.fence):
        started = time.monotonic()
        _log.info("claimed, attempt %d", claim.attempt)
        lease = Lease(store.jobs, claim, settings.store.lease_seconds)
        outcome: Done | Failed | Beat | Stopped
        broken = False
        with ExitStack() as child_ends:
            try:
                work = _work(store, settings, claim)
            except OSError as error:
                outcome, broken = _not_begun(error, machine=error.errno not in _MAY_BE_THE_JOBS_OWN), True
            else:
                outcome = _by_a_child(nursery, child_ends, work, lease, stopping)
            # The results of a child that is done are on disk: whoever waits for the job does not wait for the
            # system to take a process apart. Any other may still compute, and until it has ended the job is
            # neither another worker's nor called cancelled. The next child starts once this function returns:
            # a GPU's memory is given back with the process.
            if not isinstance(outcome, Done):
                child_ends.close()
            ending = lease.settle(outcome)
        _tell(ending, time.monotonic() - started, outcome)
        if isinstance(outcome, Failed) and (broken or outcome.machine):
            store.job_folders.discard_attempt(job_id, claim.fence)
            _log.error("this machine takes no job for %g s: %s", _REST_SECONDS, outcome.error.detail)
            stopping.wait(_REST_SECONDS)


def _tell(ending: str, seconds: float, outcome: Done | Failed | Beat | Stopped) -> None:
    """Log how the attempt ended: as a warning where that was no caller's doing."""
    if isinstance(outcome, Failed):
        level = logging.WARNING if outcome.error.blame == "server" else logging.INFO
        _log.log(level, "%s after %.1f s: %s: %s", ending, seconds, outcome.error.code, outcome.error.detail)
    else:
        _log.log(logging.WARNING if ending == LOST else logging.INFO, "%s after %.1f s", ending, seconds)


def _work(store: Store, settings: WorkerSettings, claim: Claim) -> Start:
    return Start(
        job=claim.job.id,
        started_at=claim.job.started_at,
        fence=claim.fence,
        tenant=claim.job.tenant,
        request=claim.job.request,
        inputs=claim.job.inputs,
        data_dir=settings.store.data_dir,
        folder=store.job_folders.result_folder(claim.job.id, claim.fence),
        stages=store.job_folders.stages_folder(claim.job.id),
        computing=settings.computing,
        hub_token=store.credentials.get(claim.job.id, "hub-token"),
    )


def _by_a_child(
    nursery: Nursery, child_ends: ExitStack, work: Start, lease: Lease, stopping: threading.Event
) -> Done | Failed | Beat | Stopped:
    """Give the work to a child, which lives until `child_ends` is closed."""
    try:
        child = child_ends.enter_context(nursery.take())
    except OSError as error:
        return _not_begun(error, machine=True)
    return _watch(child, work, lease, stopping)


def _watch(
    child: Child, work: Start, lease: Lease, stopping: threading.Event
) -> Done | Failed | Beat | Stopped:
    """Beat until the child is done or has died, or the lease or `stopping` says to stop it."""
    progress: Progress | None = None
    is_ready = False
    hangs_at = time.monotonic() + _BEGINS_WITHIN_SECONDS
    child.start(work)
    try:
        while True:
            answer = child.answer(timeout=_LOOK_SECONDS)
            if isinstance(answer, Failed):
                return answer.model_copy(update={"error": in_the_callers_terms(answer.error, work)})
            if isinstance(answer, Done):
                return answer
            if isinstance(answer, Ready):
                is_ready = True
                continue
            if stopping.is_set():
                return Stopped()
            if answer is not None:
                progress = answer
                hangs_at = time.monotonic() + _SPEAKS_WITHIN_SECONDS
            elif time.monotonic() > hangs_at:
                return _hangs(progress)
            beat = lease.keep(progress)
            if beat is not Beat.HELD:
                return beat
    except ChildDied as death:
        # What stops all processes of a unit at once, as systemd and Slurm do, stops the child first.
        if death.code == -signal.SIGTERM and stopping.wait(_STOP_FOLLOWS_SECONDS):
            return Stopped()
        return _failure(death.code, is_ready)


def _hangs(progress: Progress | None) -> Failed:
    did = f"did not begin within {_BEGINS_WITHIN_SECONDS:g} s"
    if progress is not None:
        did = f"has said nothing for {_SPEAKS_WITHIN_SECONDS:g} s, in the stage {progress.stage}"
    detail = (
        f"the process that does the work {did}: check the worker's log, and whether the disks and the GPU "
        "of that machine respond"
    )
    return Failed(error=JobError(code="child-hung", detail=detail, blame="server"), final=False)


def _not_begun(error: OSError, *, machine: bool) -> Failed:
    """This worker has no folder or no process for the job: its disk takes nothing, or Python is gone."""
    detail = f"the worker could not begin: {error}; look at its data folder's disk, and at its machine"
    job_error = JobError(code="internal-error", detail=detail, blame="server")
    return Failed(error=job_error, final=False, machine=machine)


def _failure(code: int, is_ready: bool) -> Failed:
    if code == -signal.SIGKILL:
        reason = "was killed (SIGKILL), most often because memory ran out: give the worker more memory"
    elif code == -signal.SIGBUS:
        reason = "was killed by SIGBUS: a checkpoint was cut short while it was read; save it again"
    elif code < 0:
        reason = f"was killed by {signal.Signals(-code).name}"
    else:
        reason = f"exited with code {code} and no result; the worker's log has its last output"
    if not is_ready:
        reason += "; it had not read the work yet, so check that machine's libraries and memory"
    error = JobError(code="child-died", detail=f"the process that did the work {reason}", blame="server")
    return Failed(error=error, final=False, machine=not is_ready)
