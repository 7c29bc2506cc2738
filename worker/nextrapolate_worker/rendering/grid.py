"""Modules as a grid: what they are, such as q_proj, by the layer they are in."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

_NO_LAYER = "-"


@dataclass(frozen=True)
class Grid:
    """A number for each kind of module and layer.

    Attributes:
        columns: the layers, ascending; a dash for modules outside of any.
        rows: by kind, in the order of their names, one number for each column; None where there is none.
            Where several modules share a cell, as experts do, it is their mean.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | None, ...]]

    @classmethod
    def of(cls, modules: Mapping[str, float | None]) -> "Grid":
        """Arrange numbers by the modules' names."""
        cells: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        for name, value in modules.items():
            if value is not None:
                cells[_place(name)].append(value)
        kinds = sorted({kind for kind, _ in cells})
        layers = sorted(
            {layer for _, layer in cells}, key=lambda layer: (layer == _NO_LAYER, len(layer), layer)
        )
        rows = {
            kind: tuple(fmean(cells[kind, layer]) if (kind, layer) in cells else None for layer in layers)
            for kind in kinds
        }
        return cls(tuple(layers), rows)


def _place(name: str) -> tuple[str, str]:
    """Kind and layer: the last part of the name, and its first number."""
    *path, kind = name.split(".")
    return kind, next((part for part in path if part.isdecimal()), _NO_LAYER)
