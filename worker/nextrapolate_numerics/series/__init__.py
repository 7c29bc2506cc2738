"""A run's checkpoints as they lie on disk, put in order on the axis of steps; nothing is computed yet.

lora_config.py  what a checkpoint's adapter_config.json says of its factors
tensor_file.py  a safetensors file, held open and read as it is asked for
adapter.py      which tensors of a file are whose B and A
trajectory.py   all of a run's checkpoints: the carrier that everything starts from
drift.py        its steps with the jumps taken out: what training did

Data flows down the list.
"""

from nextrapolate_numerics.series.adapter import AdapterLayout, StoredFactor
from nextrapolate_numerics.series.drift import Drift, Span
from nextrapolate_numerics.series.lora_config import LoraConfig
from nextrapolate_numerics.series.trajectory import AdapterFiles, ModuleFactors, StoredModule, Trajectory

__all__ = [
    "AdapterFiles",
    "AdapterLayout",
    "Drift",
    "LoraConfig",
    "ModuleFactors",
    "Span",
    "StoredFactor",
    "StoredModule",
    "Trajectory",
]
