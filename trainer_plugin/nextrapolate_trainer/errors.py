"""What can go wrong between a trainer and the service, which ends no run, and in generating.

TrainerPluginError
├── UploadError                a checkpoint did not reach the service
├── RunRefusedError            the service takes no checkpoint of such a run
├── JumpTimeoutError           the service took longer than the run waits
├── RunStopsError              the run is to stop, and does not wait for a jump
├── InvalidAdapterError        what came back must not be loaded
├── JumpRefusedError           the guard or the report speaks against the jump
├── GuardError                 the guard itself failed
├── SwapError                  the adapter could not be written into the model
├── StateError                 a checkpoint does not say how the run stood
├── RankError                  a process of the run failed, and all of them with it
├── GroupLostError             the processes of the run cannot reach each other any more
├── UnsupportedRunError        the plugin cannot serve this kind of run
├── ExportError                a verl checkpoint holds no adapter that can be taken out
└── UnsupportedGenerationError logits cannot be extrapolated in this call of generate
"""


class TrainerPluginError(Exception):
    """Base of the plugin's errors."""


class UploadError(TrainerPluginError):
    """A checkpoint that a jump needs did not reach the service."""


class RunRefusedError(TrainerPluginError):
    """The service takes no checkpoint of such a run, which is logged once, when it says so."""


class JumpTimeoutError(TrainerPluginError):
    """The service did not deliver within the time that the run waits."""


class RunStopsError(TrainerPluginError):
    """The run has been asked to stop while it waited for a jump, such as by a machine that is taken away."""


class InvalidAdapterError(TrainerPluginError):
    """The service's adapter does not fit the run: other tensors, not finite, or too far away."""


class JumpRefusedError(TrainerPluginError):
    """The guard found the run better off without the jump, or only a recommended one was to be made."""


class GuardError(TrainerPluginError):
    """The guard raised something, or returned no number."""


class SwapError(TrainerPluginError):
    """The adapter was not taken up by the model as it was given."""


class StateError(TrainerPluginError):
    """A checkpoint does not say how the run stood with the service."""


class RankError(TrainerPluginError):
    """A process of the run failed at what all of them do together.

    Attributes:
        reported: whether the process that failed says so itself, in its own words.
    """

    def __init__(self, reason: str, *, reported: bool = False) -> None:
        super().__init__(reason)
        self.reported = reported


class GroupLostError(TrainerPluginError):
    """The run's processes cannot reach each other any more, as when one has died: the run is about to end."""


class UnsupportedRunError(TrainerPluginError):
    """The plugin cannot serve this kind of run."""


class ExportError(TrainerPluginError):
    """A verl checkpoint holds no adapter that can be taken out of it."""


class UnsupportedGenerationError(TrainerPluginError):
    """Logits cannot be extrapolated in this call of generate."""
