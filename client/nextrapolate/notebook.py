"""Reports as a notebook shows them: the verdict, the four answers, and the scores, in a few lines of HTML."""

from collections.abc import Iterable
from html import escape

from nextrapolate.methods import label
from nextrapolate.reading import read
from nextrapolate.schemas import AnyReport, Comparison, Inspection, MethodScores, Report


def report_html(report: AnyReport, path: str | None = None) -> str:
    """Write a report down as HTML, with nothing in it but text; `path` is where its adapter lies."""
    reading = read(report)
    parts = [f"<p><b>{reading.mark} {escape(reading.headline)}</b> {escape(reading.verdict)}</p>"]
    rows = list(reading.answers)
    if path is not None:
        rows.append(("Where is it?", path))
    parts.append(_table(None, rows))
    match report:
        case Report():
            parts.append(_scores(report.rivals, "Other methods, in the same backtest"))
        case Comparison():
            parts.append(_scores(report.methods, "Methods, smallest error first"))
            parts += [
                f"<p>{escape(label(scored.method))}: {escape(warning)}</p>"
                for scored in report.methods
                for warning in scored.warnings
            ]
        case Inspection():
            kinds = [(kind.kind, f"{kind.energy_ratio[-1]:.3f}") for kind in report.kinds]
            parts.append(_table(("kind of module", "energy ratio at the end"), kinds))
    parts += [f"<p>⚠ {escape(warning)}</p>" for warning in report.warnings]
    return "".join(parts)


def _scores(methods: Iterable[MethodScores], caption: str) -> str:
    rows = [
        (label(method.method), f"{method.total.relative_error:.3f}", f"{method.total.cosine:.3f}")
        for method in methods
        if method.total is not None
    ]
    return f"<p>{caption}</p>{_table(('method', 'relative error', 'cosine'), rows)}" if rows else ""


def _table(columns: tuple[str, ...] | None, rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns or ())
    lines = [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(lines)}</table>"
