"""Writing a report for good: as JSON, and as a page for people."""

from pathlib import Path

from nextrapolate.schemas import AnyReport, FileInfo, Report
from nextrapolate_worker.files import flush
from nextrapolate_worker.rendering import model_card, report_page


def publish(report: AnyReport, folder: Path) -> dict[str, FileInfo]:
    """Write report.json and report.html, and the model card where there is an adapter; flushed to disk."""
    texts = {"report.json": report.model_dump_json(indent=1), "report.html": report_page(report)}
    if isinstance(report, Report):
        texts["README.md"] = model_card(report)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return flush(folder, *texts)
