"""The geometry of a run, as reports show it."""

from nextrapolate.schemas import KindGeometry, ModuleLinearity, RunBreak, RunGeometry, StepGeometry
from nextrapolate_numerics import Geometry


def run_geometry(geometry: Geometry) -> RunGeometry:
    """Put a geometry into the words of report.json."""
    return RunGeometry(
        still_modules=list(geometry.still),
        track=[
            StepGeometry(
                step=passage.step,
                drift_norm=passage.drift_norm,
                speed=passage.speed,
                steadiness=passage.steadiness,
            )
            for passage in geometry.track
        ],
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
            ModuleLinearity(
                name=name,
                held_out_by_coordinate=module.linearity.held_out_by_coordinate,
                held_out_pooled=module.linearity.held_out_pooled,
                in_sample=module.linearity.in_sample,
            )
            for name, module in geometry.modules.items()
        ],
        breaks=[
            RunBreak(begin_step=found.begin_step, end_step=found.end_step, times=found.times)
            for found in geometry.breaks
        ],
    )
