"""A job from files to artifacts, in seven stages.

    1 resolve    sources -> files
    2 load       files -> Trajectory                                      loading.py, for every task
    3 extract    Trajectory -> Extraction: Gram matrices, leading triples
    4 fit        Extraction -> Update
    5 backtest   Extraction -> Scores, where the answer is known
    6 extend     last checkpoint + alpha * Update -> adapter
    7 publish    what was made -> flushed to disk, with digests           tasks/, one file each

A backtest leaves out 4 and 6, an inspection 4 to 6. Each stage is a function from one frozen carrier to the
next; only the tasks see all of them.
"""

from collections.abc import Callable

from nextrapolate.schemas import BacktestCreate, InspectCreate, JobCreate, Stage
from nextrapolate_worker.loading import load
from nextrapolate_worker.messages import Done, Start
from nextrapolate_worker.profile import Profile
from nextrapolate_worker.tasks import comparison, extrapolation, inspection


def run(work: Start, tell: Callable[[Stage, float], None]) -> Done:
    """Run one job and leave its artifacts in `work.folder`.

    Args:
        work: what to do, and on which files.
        tell: is told the stage and the share of the whole job that is done.

    Raises:
        NumericsError: the checkpoints cannot be used; says which and why.
        WorkerError: a file has gone, or the device is not there.
    """
    match work.request:
        case JobCreate() as request:
            profile = Profile(tell, extrapolation.SHARES)
            artifacts = extrapolation.run(request, load(work, profile))
        case BacktestCreate() as request:
            profile = Profile(tell, comparison.SHARES)
            artifacts = comparison.run(request, load(work, profile))
        case InspectCreate():
            profile = Profile(tell, inspection.SHARES)
            artifacts = inspection.run(load(work, profile))
    return Done(artifacts=artifacts, stage_seconds=profile.seconds)
