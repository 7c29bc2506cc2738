"""From an update to an adapter on disk: gated, added to the last checkpoint, and fitted to the run's rank.

gate.py      modules that keep their own weights
refit.py     a matrix of higher rank, as factors of the run's own rank and gauge
writer.py    factors, as PeftModel.from_pretrained and vLLM read them
cautions.py  what a reader of the result should know
extend.py    the extension itself

Data flows down the list.
"""

from nextrapolate_numerics.extension.extend import ExtendedModule, Extension, extend
from nextrapolate_numerics.extension.gate import GateThresholds

__all__ = ["ExtendedModule", "Extension", "GateThresholds", "extend"]
