"""The child's main: read one `Start`, run the pipeline, say how it went, end.

Started ahead of its job, it imports torch and readies page and charts while it waits.
"""

import logging
import os
import resource
import signal
import sys
from typing import TextIO

from nextrapolate_worker.leash import die_with_parent

if __name__ == "__main__":
    die_with_parent()  # first of all: a worker may die in the seconds that it takes to import torch

from nextrapolate.schemas import AS_KEPT, Stage
from nextrapolate_store.logs import about, configure_logging
from nextrapolate_worker import pipeline
from nextrapolate_worker.errors import as_job_error, is_final, is_the_machines
from nextrapolate_worker.messages import Failed, Progress, Ready, Start
from nextrapolate_worker.rendering import warm_up

_log = logging.getLogger(__name__)


def main() -> None:
    """Run one job and end."""
    die_with_parent()  # of whoever has forked this, instead of starting it
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker decides
    _allow_open_files()
    answers = _claim_stdout()
    warm_up()
    answers.write(Ready().line())
    line = sys.stdin.readline()
    if not line:
        return

    def tell(stage: Stage, fraction: float) -> None:
        answers.write(Progress(stage=stage, fraction=fraction).line())

    configure_logging()
    work = Start.model_validate_json(line, context=AS_KEPT)
    with about(job_id=work.job, fence=work.fence):
        try:
            done = pipeline.run(work, tell)
        except Exception as error:  # noqa: BLE001 - whatever happened, the worker must hear of it
            if not is_final(error):
                _log.exception("the work failed")
            failed = Failed(error=as_job_error(error), final=is_final(error), machine=is_the_machines(error))
            answers.write(failed.line())
        else:
            answers.write(done.line())


def _allow_open_files() -> None:
    """As many as the system lets this process have: of a job each checkpoint's is open, and each jump's."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _claim_stdout() -> TextIO:
    """Keep the real stdout for messages, and send whatever libraries print to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main()
