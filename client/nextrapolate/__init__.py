"""nextrapolate: skip RLVR steps by extrapolating the LoRA checkpoints of a run.

A run's checkpoints go to a nextrapolate service, and an adapter comes back that stands for training
`horizon_steps` further on.

    from nextrapolate import NExtClient

    with NExtClient() as client:
        result = client.extrapolate("runs/grpo", until=150, horizon_steps=50)
    print(result.path, result.report.verdict)

`extrapolate` takes a run's folder, a list of checkpoint folders, a list of URIs that the service may read, or
a series that it has already. The calls it is made of (`create_series`, `put_checkpoint`, `submit`, `wait`,
`download`, ...) are there one by one; `AsyncNExtClient` has the same for coroutines.

The contract: nothing is uploaded before everything local has been checked; a job is submitted once, however
often the network makes the client repeat itself; a wait outlives a restart of the service; a result folder
appears whole and with verified digests, or not at all. Whatever goes wrong with the service, or with what it
is asked, is a `NextrapolateError` that says what to do; what goes wrong with this machine's disk stays an
OSError.
"""

from importlib.metadata import version

from nextrapolate.async_client import AsyncNExtClient
from nextrapolate.client import NExtClient
from nextrapolate.errors import (
    APIError,
    AuthenticationError,
    CheckpointError,
    ConfigurationError,
    ConflictError,
    DownloadError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    NextrapolateError,
    NotFoundError,
    ParameterError,
    QuotaExceededError,
    ServerError,
    ServiceUnreachable,
    WaitTimeoutError,
)
from nextrapolate.extrapolation import Extrapolation
from nextrapolate.notebook import report_html
from nextrapolate.progress import Progress
from nextrapolate.schemas import (
    BacktestCreate,
    CheckpointRef,
    Comparison,
    Gate,
    InspectCreate,
    Inspection,
    Job,
    JobCreate,
    JobEvent,
    JobState,
    Output,
    Report,
    Series,
    Webhook,
)
from nextrapolate.schemas import methods as _methods
from nextrapolate.schemas.methods import *  # noqa: F403 - its __all__ is the list of methods

__version__ = version("nextrapolate")

for _report in (Report, Comparison, Inspection):
    _report._repr_html_ = report_html

__all__ = [
    "APIError",
    "AsyncNExtClient",
    "AuthenticationError",
    "BacktestCreate",
    "CheckpointError",
    "CheckpointRef",
    "Comparison",
    "ConfigurationError",
    "ConflictError",
    "DownloadError",
    "Extrapolation",
    "Gate",
    "InspectCreate",
    "Inspection",
    "InvalidRequestError",
    "Job",
    "JobCancelledError",
    "JobCreate",
    "JobEvent",
    "JobFailedError",
    "JobState",
    "NExtClient",
    "NextrapolateError",
    "NotFoundError",
    "Output",
    "ParameterError",
    "Progress",
    "QuotaExceededError",
    "Report",
    "Series",
    "ServerError",
    "ServiceUnreachable",
    "WaitTimeoutError",
    "Webhook",
    "__version__",
]
__all__ += _methods.__all__
