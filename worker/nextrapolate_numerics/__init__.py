"""Where a LoRA run is going, told from its checkpoints: the maths of nextrapolate, and nothing but the maths.

Data flows one way, each arrow a function from one frozen carrier to the next:

    files -> Trajectory -> Extraction -> Update -> adapter
             open          extract       fit       extend
                               └── backtest ──┘

    Trajectory, methods -> compare -> a Backtest each

and the layout is the same way:

    series/        checkpoints on disk                extract.py     one pass, for one method
    extraction/    one pass over them                 backtest.py    a method tried on the run's own past
    update.py      what a method returns; choice.py   inspection.py  a run measured, and what is advised
    methods/       one file each                      cost.py        bytes and operations of a pass
    extension/     an adapter out of an update        errors.py, progress.py, parallel.py, transfer.py
    lowrank.py     matrices kept as thin factors; gram_svd.py decomposes them
    scores.py      a predicted update against the true one

    checkpoints = [AdapterFiles(10, ten / "adapter_model.safetensors", ten / "adapter_config.json"), ...]
    trajectory = Trajectory.open(checkpoints)
    method = Next()
    extraction = extract(trajectory, method, horizon_steps=50, device="cpu")
    update = method.fit(extraction, horizon_steps=50)
    scores = backtest(method, extraction, horizon_steps=50)
    extension = extend(extraction, update, alpha=1.0, gate=GateThresholds(), backtest=scores, folder=out)

The contract:

- A delta dW = s B A is carried as its factors (LowRank). Two things alone are dense: the rows among which
  `maec` and `dare` select entries, 2^22 at a time, and a sum of so many points that their factors would be
  larger than the matrix (`combine`).
- Of the files a part of a module is read at a time, so that what is held of a series does not grow with the
  number of its checkpoints; the new adapter is held whole.
- Steps of training are the time axis, never the index of a checkpoint.
- Factors are float32; inner products and small cores are float64.
- The same inputs, parameters, device and number of threads give the same bytes; all randomness comes from a
  method's seed. Another number of threads changes last bits, and by some percent what the paper's
  preset has learnt after a thousand epochs.
- Methods see the drift alone: the trajectory with its jumps taken out (drift.py).
- A module that never moved gets exactly no update.
- Everything raised on purpose is a NumericsError, pickles, and says what to do.

Notation: module weights W (m, n) = (out_features, in_features); checkpoint i at step t_i with delta
dW_i = s B_i A_i; alpha the extending coefficient. Long functions take `on_progress`, called with the share
done.
"""

from nextrapolate_numerics import methods
from nextrapolate_numerics.backtest import Backtest, backtest, compare
from nextrapolate_numerics.choice import Choice
from nextrapolate_numerics.cost import Cost, extraction_cost
from nextrapolate_numerics.errors import (
    AbsentCheckpointError,
    AdapterError,
    BrokenAdapterError,
    JumpWithoutCheckpointError,
    LineStepError,
    MismatchedAdaptersError,
    MissingCheckpointError,
    NoBacktestError,
    NonFiniteResultError,
    NonFiniteWeightsError,
    NothingMovedError,
    NothingToPredictError,
    NumericsError,
    RoundedAwayError,
    ScoreCountError,
    SeriesError,
    StepOrderError,
    TooFewCheckpointsError,
    UnsupportedAdapterError,
)
from nextrapolate_numerics.extension import ExtendedModule, Extension, GateThresholds, extend
from nextrapolate_numerics.extract import extract
from nextrapolate_numerics.extraction import (
    Break,
    Evidence,
    Extraction,
    Linearity,
    ModuleGeometry,
    Rest,
    breaks,
    rests,
)
from nextrapolate_numerics.inspection import Geometry, Inspection, inspect
from nextrapolate_numerics.lowrank import LowRank, Triple
from nextrapolate_numerics.methods import *  # noqa: F403 - its __all__ is the list of methods
from nextrapolate_numerics.progress import Progress
from nextrapolate_numerics.scores import Products, Scores
from nextrapolate_numerics.series import AdapterFiles, ModuleFactors, Trajectory
from nextrapolate_numerics.update import Update

__all__ = [
    "AbsentCheckpointError",
    "AdapterError",
    "AdapterFiles",
    "Backtest",
    "Break",
    "BrokenAdapterError",
    "Choice",
    "Cost",
    "Evidence",
    "ExtendedModule",
    "Extension",
    "Extraction",
    "GateThresholds",
    "Geometry",
    "Inspection",
    "JumpWithoutCheckpointError",
    "LineStepError",
    "Linearity",
    "LowRank",
    "MismatchedAdaptersError",
    "MissingCheckpointError",
    "ModuleFactors",
    "ModuleGeometry",
    "NoBacktestError",
    "NonFiniteResultError",
    "NonFiniteWeightsError",
    "NothingMovedError",
    "NothingToPredictError",
    "NumericsError",
    "Products",
    "Progress",
    "Rest",
    "RoundedAwayError",
    "ScoreCountError",
    "Scores",
    "SeriesError",
    "StepOrderError",
    "TooFewCheckpointsError",
    "Trajectory",
    "Triple",
    "UnsupportedAdapterError",
    "Update",
    "backtest",
    "breaks",
    "compare",
    "extend",
    "extract",
    "extraction_cost",
    "inspect",
    "rests",
]
__all__ += methods.__all__
