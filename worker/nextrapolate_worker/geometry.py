"""The geometry of a run, as reports show it."""

from dataclasses import asdict

from nextrapolate.schemas import KindGeometry, ModuleLinearity, RunBreak, RunGeometry, StepGeometry
from nextrapolate_numerics import Geometry


def run_geometry(geometry: Geometry) -> RunGeometry:
    """Put a geometry into the words of report.json."""
    return RunGeometry(
        still_modules=list(geometry.still),
        track=[StepGeometry(**asdict(passage)) for passage in geometry.track],
        kinds=[
            KindGeometry(
                kind=kind.name,
                modules=kind.modules,
                energy_ratio=list(kind.energy_ratios),
                drift_norm=list(kind.drift_norms),
                variance_explained=list(kind.variance_explained),
            )
            for kind in geometry.kinds
        ],
        linearity=[
            ModuleLinearity(name=name, **asdict(module.linearity))
            for name, module in geometry.modules.items()
        ],
        breaks=[RunBreak(**asdict(found)) for found in geometry.breaks],
    )
