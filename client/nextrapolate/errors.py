"""What can go wrong between a caller and the service.

    NextrapolateError
    ├── ConfigurationError        an address or a key that cannot be used
    ├── CheckpointError           a local folder that cannot be used
    ├── ParameterError            an unknown method, or a value that a request cannot have
    ├── ServiceUnreachable        nobody answers at the address
    ├── DownloadError             a result that is not there yet, or arrived damaged
    ├── WaitTimeoutError          the caller's time is up; the job goes on
    ├── JobFailedError            the job ended without a result: `.job.error` says whose it is to mend
    ├── JobCancelledError         somebody cancelled the job
    └── APIError                  the service refused, and says why: `.problem`
        ├── AuthenticationError   401, 403
        ├── QuotaExceededError    403 or 429: a quota of the tenant is used up
        ├── NotFoundError         404
        ├── ConflictError         409
        ├── InvalidRequestError   any other 4xx that is the caller's to mend
        └── ServerError           5xx, 424

All of them are picklable: each passes its arguments on to `Exception`.
"""

from nextrapolate.schemas import Job, Problem


class NextrapolateError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigurationError(NextrapolateError):
    """An address or a key that cannot be used as it is."""


class CheckpointError(NextrapolateError):
    """A local folder that cannot be read as checkpoints, or written as a result."""


class ParameterError(NextrapolateError):
    """A value that a request cannot have, found before it is sent.

    A method that does not exist, a parameter that it does not take, a value out of its range, what cannot be
    an id, a blank name, or whatever else the request's schema does not allow. That a job's report is of
    another kind than was asked for is found in the answer.
    """


class ServiceUnreachable(NextrapolateError):
    """Nobody answered at the address, for as long as the client was willing to try."""


class DownloadError(NextrapolateError):
    """A job's result cannot be had: it is not there yet, or a file arrived damaged."""


class WaitTimeoutError(NextrapolateError):
    """The job was not finished within the caller's timeout; it goes on all the same."""

    def __init__(self, job_id: str, timeout: float) -> None:
        super().__init__(job_id, timeout)
        self.job_id = job_id
        self.timeout = timeout

    def __str__(self) -> str:
        return f"job {self.job_id} is not finished after {self.timeout:g} s; wait again, or cancel it"


class _EndedJobError(NextrapolateError):
    """A job that ended without a result."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.job = job


class JobFailedError(_EndedJobError):
    """The job failed; `job.error` has the code, the reason and whose it is to mend."""

    def __str__(self) -> str:
        reason = self.job.error.detail if self.job.error else "the service gave no reason"
        return f"job {self.job.id} failed: {reason}"


class JobCancelledError(_EndedJobError):
    """The job was cancelled."""

    def __str__(self) -> str:
        return f"job {self.job.id} was cancelled"


class APIError(NextrapolateError):
    """The service refused: `problem` is its answer, `retry_after` the seconds that it asks to wait."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem, retry_after)
        self.problem = problem
        self.retry_after = retry_after

    def __str__(self) -> str:
        return self.problem.detail


class AuthenticationError(APIError):
    """The key is missing, wrong or not allowed to do this."""

    def __str__(self) -> str:
        return f"{self.problem.detail} (the key comes from api_key, --api-key or NEXTRAPOLATE_API_KEY)"


class QuotaExceededError(APIError):
    """A quota of the tenant is used up; `problem` says which, `problem.retryable` whether it frees itself."""


class NotFoundError(APIError):
    """There is no such series, job or file for this key."""


class ConflictError(APIError):
    """The request contradicts what the service already has."""


class InvalidRequestError(APIError):
    """The request cannot be used as it is; `problem.errors` names the fields."""


class ServerError(APIError):
    """The service could not do its part; `problem.retryable` tells whether later may help."""
