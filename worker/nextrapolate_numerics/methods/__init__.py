"""The methods, one file each, behind one interface (method.py)."""

from nextrapolate_numerics.methods.alpharl import AlphaRl
from nextrapolate_numerics.methods.auto import Auto
from nextrapolate_numerics.methods.autoregression import Autoregression
from nextrapolate_numerics.methods.dare import Dare
from nextrapolate_numerics.methods.expo import Expo
from nextrapolate_numerics.methods.maec import Maec
from nextrapolate_numerics.methods.method import Method
from nextrapolate_numerics.methods.next import Next
from nextrapolate_numerics.methods.next_paper import NextPaper
from nextrapolate_numerics.methods.none import NoUpdate
from nextrapolate_numerics.methods.relex import Relex
from nextrapolate_numerics.methods.soup import Soup
from nextrapolate_numerics.methods.weight_extrapolation import WeightExtrapolation
from nextrapolate_numerics.methods.wsm import Wsm

__all__ = [
    "AlphaRl",
    "Auto",
    "Autoregression",
    "Dare",
    "Expo",
    "Maec",
    "Method",
    "Next",
    "NextPaper",
    "NoUpdate",
    "Relex",
    "Soup",
    "WeightExtrapolation",
    "Wsm",
]
