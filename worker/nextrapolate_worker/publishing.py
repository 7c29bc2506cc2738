"""Writing a report for good: as JSON, and as a page for people."""

from pathlib import Path

from nextrapolate.schemas import MODEL_CARD, REPORT, REPORT_PAGE, AnyReport, FileInfo, Report
from nextrapolate_worker.files import flush
from nextrapolate_worker.rendering import model_card, report_page


def publish(report: AnyReport, folder: Path) -> dict[str, FileInfo]:
    """Write report.json and report.html, and the model card where there is an adapter; flushed to disk."""
    texts = {REPORT: report.model_dump_json(indent=1), REPORT_PAGE: report_page(report)}
    if isinstance(report, Report):
        texts[MODEL_CARD] = model_card(report)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return flush(folder, *texts)
