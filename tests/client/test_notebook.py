"""What a notebook shows of a result."""

from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fixtures.reports import comparison, extrapolation, inspection

from nextrapolate.extrapolation import Extrapolation
from nextrapolate.schemas import AnyReport, Job, JobState

HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not attrs
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (extrapolation(), "weight-extrapolation"),
        (comparison(), "autoregression"),
        (inspection(), "down_proj"),
    ],
    ids=["extrapolation", "comparison", "inspection"],
)
def test_a_report_shows_itself(report: AnyReport, told: str) -> None:
    html = report._repr_html_()
    assert html.startswith("<p><b>✓ ")
    for question in ("Did it work?", "Why?", "How sure is that?", "What next?", told):
        assert question in html
    found = Tags(html)
    assert found.tags <= {"p", "b", "table", "tr", "th", "td"}
    assert found.open == []


def test_what_a_run_brought_is_text() -> None:
    report = inspection().model_copy(update={"warnings": [HOSTILE], "asked_method": HOSTILE})
    kind = report.kinds[0].model_copy(update={"kind": HOSTILE})
    html = report.model_copy(update={"kinds": [kind]})._repr_html_()
    assert html.count("&lt;script&gt;") == 4
    assert "script" not in Tags(html).tags


def test_a_comparison_tells_what_its_methods_warn_of() -> None:
    report = comparison()
    warned = report.methods[1].model_copy(update={"warnings": [HOSTILE]})
    html = report.model_copy(update={"methods": [report.methods[0], warned]})._repr_html_()
    assert "<p>relex: &lt;script&gt;" in html
    assert "script" not in Tags(html).tags


def test_an_extrapolation_says_where_its_adapter_is() -> None:
    job = Job(
        id="01J", state=JobState.SUCCEEDED, steps=[10], series=None, labels={}, created_at=datetime.now(UTC)
    )
    html = Extrapolation(job, Path("runs/<extrapolated>"), extrapolation())._repr_html_()
    assert "Where is it?" in html
    assert "runs/&lt;extrapolated&gt;" in html
