"""Parameters under DeepSpeed's ZeRO, all stages: partitioned, and held twice.

The optimizer keeps them in float32, each process a part, and after each step copies them over those that the
model computes with, which may be of 16 bits. A swap therefore writes both, or the next step takes it back
(https://github.com/deepspeedai/DeepSpeed/issues/2424). Every process has to make the same calls in the same
order: they are collectives.
"""

import torch
from torch import Tensor
from torch.nn import Parameter

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's, by the names that torch and DeepSpeed share."""


def is_partitioned(parameter: Parameter) -> bool:
    """Return whether DeepSpeed's optimizer holds the parameter: by stage 3, or by stages 1 and 2."""
    return _by_stage_3(parameter) or hasattr(parameter, "_hp_mapping")


def whole(parameter: Parameter) -> Tensor:
    """Return all of the parameter, as the optimizer holds it: float32."""
    from deepspeed.utils import safe_get_full_fp32_param

    gathered: Tensor = safe_get_full_fp32_param(parameter)
    return gathered


@torch.no_grad()
def set_whole(parameter: Parameter, value: Tensor) -> None:
    """Write `value`, all of it in each process, into the optimizer's copy and into the model's.

    Raises:
        ValueError: it has another shape than the whole parameter.
    """
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_set_full_fp32_param

    shape = getattr(parameter, "ds_shape", parameter.shape)  # stage 3 leaves the parameter itself empty
    if value.shape != shape:
        raise ValueError(f"a tensor of shape {tuple(shape)} cannot take {tuple(value.shape)}")
    value = value.to(parameter.device, torch.float32)
    safe_set_full_fp32_param(parameter, value)
    with GatheredParameters([parameter], modifier_rank=0, enabled=_by_stage_3(parameter)):
        parameter.copy_(value)


def clear_moments(parameter: Parameter) -> None:
    """Set Adam's moments of the parameter to 0; its count of steps, which others share, stays."""
    from deepspeed.utils import safe_get_full_optimizer_state, safe_set_full_optimizer_state

    for name in MOMENTS:
        moment = safe_get_full_optimizer_state(parameter, name)
        safe_set_full_optimizer_state(parameter, torch.zeros_like(moment), name)


def _by_stage_3(parameter: Parameter) -> bool:
    return hasattr(parameter, "ds_id")
