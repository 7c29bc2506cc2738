"""The methods of the API, and the numerics behind each."""

from dataclasses import fields

import nextrapolate_numerics as numerics
from nextrapolate import schemas

NUMERICS: dict[type[schemas.Method], type[numerics.Method]] = {
    schemas.AutoMethod: numerics.Auto,
    schemas.WeightExtrapolationMethod: numerics.WeightExtrapolation,
    schemas.AutoregressionMethod: numerics.Autoregression,
    schemas.RelexMethod: numerics.Relex,
    schemas.AlphaRlMethod: numerics.AlphaRl,
    schemas.ExpoMethod: numerics.Expo,
    schemas.SoupMethod: numerics.Soup,
    schemas.WsmMethod: numerics.Wsm,
    schemas.DareMethod: numerics.Dare,
    schemas.MaecMethod: numerics.Maec,
    schemas.NoneMethod: numerics.NoUpdate,
}
NEXT_PRESETS: dict[str, type[numerics.Method]] = {"default": numerics.Next, "paper": numerics.NextPaper}


def numerics_method(method: schemas.Method) -> numerics.Method:
    """Make the numerics' method, with those of the caller's parameters that it has.

    The others are for the pipeline, such as alpha, or for another preset.
    """
    found = NEXT_PRESETS[method.preset] if isinstance(method, schemas.NextMethod) else NUMERICS[type(method)]
    return found(**method.model_dump(include={field.name for field in fields(found)}))
