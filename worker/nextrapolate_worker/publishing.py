"""Writing a report for good: its verdict, then all of it as JSON, and as a page for people."""

from pathlib import Path

from nextrapolate.reading import read
from nextrapolate.schemas import MODEL_CARD, REPORT, REPORT_PAGE, AnyReport, FileInfo, Report
from nextrapolate_worker.files import flush
from nextrapolate_worker.rendering import model_card, report_page


def publish(report: AnyReport, folder: Path) -> dict[str, FileInfo]:
    """Write report.json and report.html, and the model card where there is an adapter; flushed to disk.

    What a report was made with as its verdict is replaced by what its numbers say.
    """
    report = report.model_copy(update={"verdict": read(report).verdict})
    texts = {REPORT: report.model_dump_json(indent=1), REPORT_PAGE: report_page(report)}
    if isinstance(report, Report):
        texts[MODEL_CARD] = model_card(report)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return flush(folder, *texts)
