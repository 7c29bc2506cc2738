"""The child's main: read one `Start`, run the pipeline, say how it went, end.

Started ahead of its job, it imports torch and readies the charts while it waits.
"""

import ctypes
import logging
import os
import signal
import sys
from typing import TextIO

from nextrapolate.schemas import Stage
from nextrapolate_store.logs import about, configure_logging
from nextrapolate_worker import pipeline
from nextrapolate_worker.errors import as_job_error, is_final
from nextrapolate_worker.messages import Done, Failed, Progress, Start
from nextrapolate_worker.rendering.figures import warm_up

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run one job and end."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker decides
    answers = _claim_stdout()
    warm_up()
    line = sys.stdin.readline()
    if not line:
        return

    def tell(stage: Stage, fraction: float) -> None:
        answers.write(Progress(stage=stage, fraction=fraction).line())

    configure_logging()
    work = Start.model_validate_json(line)
    try:
        artifacts = pipeline.run(work, tell)
    except Exception as error:  # noqa: BLE001 - whatever happened, the worker must hear of it
        if not is_final(error):
            with about(job_id=work.job, fence=work.fence):
                _log.exception("the work failed")
        answers.write(Failed(error=as_job_error(error), final=is_final(error)).line())
    else:
        answers.write(Done(artifacts=artifacts).line())


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the worker dies: nobody could commit the result (Linux only)."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the worker died before its child was ready")


def _claim_stdout() -> TextIO:
    """Keep the real stdout for messages, and send whatever libraries print to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
