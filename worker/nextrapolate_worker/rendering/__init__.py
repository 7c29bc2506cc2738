"""Reports for people: a page that stands alone, and the adapter's model card."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from nextrapolate.digits import number
from nextrapolate.methods import label
from nextrapolate.reading import read
from nextrapolate.schemas import AnyReport, Report
from nextrapolate_worker.rendering.figures import draw_each_once
from nextrapolate_worker.rendering.illustration import figures_of


def _code(name: str) -> str:
    """A name as code in Markdown, which a backtick in it or an empty line would end."""
    return "`" + " ".join(name.replace("`", "'").split()) + "`"


_templates = Environment(
    loader=PackageLoader("nextrapolate_worker"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_templates.filters |= {"number": number, "label": label, "code": _code}


def warm_up() -> None:
    """Do ahead of a job what takes a process much longer the first time: compile templates, draw charts."""
    for name in _templates.list_templates(extensions=["html", "css", "md"]):
        _templates.get_template(name)
    draw_each_once()


def report_page(report: AnyReport) -> str:
    """Render report.html: one self-contained file, no script, no outside request."""
    template = _templates.get_template(f"{report.task}.html")
    return template.render(report=report, reading=read(report), figures=figures_of(report))


def model_card(report: Report) -> str:
    """Render the README.md that travels with the adapter."""
    return _templates.get_template("model_card.md").render(report=report)
