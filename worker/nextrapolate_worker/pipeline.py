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

from nextrapolate.schemas import BacktestCreate, FileInfo, InspectCreate, JobCreate, Stage
from nextrapolate_worker.loading import load
from nextrapolate_worker.messages import Start
from nextrapolate_worker.profile import Profile
from nextrapolate_worker.tasks import comparison, extrapolation, inspection


def run(work: Start, tell: Callable[[Stage, float], None]) -> dict[str, FileInfo]:
    """Run one job and leave its artifacts in `work.folder`.

    Args:
        work: what to do, and on which files.
        tell: is told the stage and the share of the whole job that is done.

    Returns:
        Size and digest of each artifact, by name.

    Raises:
        NumericsError: the checkpoints cannot be used; says which and why.
        WorkerError: a file has gone, or the device is not there.
    """
    match work.request:
        case JobCreate() as request:
            return extrapolation.run(request, load(work, Profile(tell, extrapolation.SHARES)))
        case BacktestCreate() as request:
            return comparison.run(request, load(work, Profile(tell, comparison.SHARES)))
        case InspectCreate():
            return inspection.run(load(work, Profile(tell, inspection.SHARES)))
