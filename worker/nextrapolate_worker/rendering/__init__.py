"""Reports for people: a page that stands alone, and the adapter's model card."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from nextrapolate.reading import read
from nextrapolate.schemas import AnyReport, Report
from nextrapolate_worker.rendering.figures import Cell
from nextrapolate_worker.rendering.illustration import figures_of


def _number(value: Cell) -> str:
    """Four digits that count, and a dash for what is not there."""
    if value is None:
        return "–"  # noqa: RUF001 - a dash is meant
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_templates = Environment(
    loader=PackageLoader("nextrapolate_worker"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_templates.filters["number"] = _number


def report_page(report: AnyReport) -> str:
    """Render report.html: one self-contained file, no script, no outside request."""
    template = _templates.get_template(f"{report.task}.html")
    return template.render(report=report, reading=read(report), figures=figures_of(report))


def model_card(report: Report) -> str:
    """Render the README.md that travels with the adapter."""
    return _templates.get_template("model_card.md").render(report=report)
