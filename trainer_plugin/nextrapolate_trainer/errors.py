"""What can go wrong between a trainer and the service, which ends no run, and in generating.

TrainerPluginError
├── UploadError                a checkpoint did not reach the service
├── InvalidAdapterError        what came back must not be loaded
├── SwapError                  the adapter could not be written into the model
├── UnsupportedRunError        the plugin cannot serve this kind of run
└── UnsupportedGenerationError logits cannot be extrapolated in this call of generate
"""


class TrainerPluginError(Exception):
    """Base of the plugin's errors."""


class UploadError(TrainerPluginError):
    """A checkpoint that a jump needs did not reach the service."""


class InvalidAdapterError(TrainerPluginError):
    """The service's adapter does not fit the run: other tensors, not finite, or too far away."""


class SwapError(TrainerPluginError):
    """The adapter was not taken up by the model as it was given."""


class UnsupportedRunError(TrainerPluginError):
    """The plugin cannot serve this kind of run."""


class UnsupportedGenerationError(TrainerPluginError):
    """Logits cannot be extrapolated in this call of generate."""
