"""Reports that earlier versions wrote are read and shown by this one, whatever fields it has added since.

`tests/fixtures/kept_reports/TASK-N.json` were left by real jobs over the runs of `fixtures.adapters`. They
are never edited: a report that has new fields is kept beside them, as the next N.
"""

import json
from html import unescape
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from nextrapolate.notebook import report_html
from nextrapolate.reading import read
from nextrapolate.schemas import AnyReport, Report
from nextrapolate_worker.rendering import model_card, report_page

KEPT = sorted((Path(__file__).parents[1] / "fixtures" / "kept_reports").glob("*.json"))


@pytest.fixture(params=KEPT, ids=lambda path: path.stem)
def kept(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def missing(kept: object, now: object, where: str = "") -> list[str]:
    """Name what a kept report says and what was read from it does not say any more."""
    if isinstance(kept, dict) and isinstance(now, dict):
        return [line for key in kept for line in missing(kept[key], now.get(key), f"{where}.{key}")]
    if isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        pairs = zip(kept, now, strict=True)
        return [line for index, pair in enumerate(pairs) for line in missing(*pair, f"{where}.{index}")]
    return [] if kept == now else [where]


def test_there_is_one_of_each_task() -> None:
    assert {path.stem.partition("-")[0] for path in KEPT} == {"extrapolate", "backtest", "inspect"}


def test_a_kept_report_says_what_it_said(kept: Path) -> None:
    report: AnyReport = TypeAdapter[AnyReport](AnyReport).validate_json(kept.read_bytes())
    assert missing(json.loads(kept.read_bytes()), report.model_dump(mode="json")) == []


def test_a_kept_report_is_shown(kept: Path) -> None:
    report: AnyReport = TypeAdapter[AnyReport](AnyReport).validate_json(kept.read_bytes())
    for page in (report_page(report), report_html(report)):
        for said in (read(report).verdict, read(report).worked):
            assert said in unescape(page)
    if isinstance(report, Report):
        assert str(report.target_step) in model_card(report)
