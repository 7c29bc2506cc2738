"""The methods of the API, and the numerics behind each."""

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
    NoUpdate,
    Relex,
    Soup,
    WeightExtrapolation,
    Wsm,
)
from nextrapolate_numerics import Method as NumericsMethod

NUMERICS: dict[type[Method], type[NumericsMethod]] = {
    AutoMethod: Auto,
    NextMethod: Next,
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
_SHARED_BY_ALL = {"name", "alpha", "horizon_steps"}
"""Parameters that the pipeline applies, the same for every method."""


def numerics_method(method: Method) -> NumericsMethod:
    """Give the numerics' method with the parameters that the caller asked for."""
    return NUMERICS[type(method)](**method.model_dump(exclude=_SHARED_BY_ALL))
