"""The methods of the API, and the numerics behind each."""

from dataclasses import fields

from nextrapolate.schemas import (
    AlphaRlMethod,
    AutoMethod,
    AutoregressionMethod,
    DareMethod,
    ExpoMethod,
    MaecMethod,
    Method,
    NextMethod,
    NoneMethod,
    RelexMethod,
    SoupMethod,
    WeightExtrapolationMethod,
    WsmMethod,
)
from nextrapolate_numerics import (
    AlphaRl,
    Auto,
    Autoregression,
    Dare,
    Expo,
    Maec,
    Next,
    NextPaper,
    NoUpdate,
    Relex,
    Soup,
    WeightExtrapolation,
    Wsm,
)
from nextrapolate_numerics import Method as NumericsMethod

NUMERICS: dict[type[Method], type[NumericsMethod]] = {
    AutoMethod: Auto,
    WeightExtrapolationMethod: WeightExtrapolation,
    AutoregressionMethod: Autoregression,
    RelexMethod: Relex,
    AlphaRlMethod: AlphaRl,
    ExpoMethod: Expo,
    SoupMethod: Soup,
    WsmMethod: Wsm,
    DareMethod: Dare,
    MaecMethod: Maec,
    NoneMethod: NoUpdate,
}
NEXT_PRESETS: dict[str, type[NumericsMethod]] = {"default": Next, "paper": NextPaper}


def numerics_method(method: Method) -> NumericsMethod:
    """Make the numerics' method, with those of the caller's parameters that it has.

    The others are for the pipeline, such as alpha, or for another preset.
    """
    found = NEXT_PRESETS[method.preset] if isinstance(method, NextMethod) else NUMERICS[type(method)]
    return found(**method.model_dump(include={field.name for field in fields(found)}))
