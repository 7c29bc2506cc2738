"""The reports for people: whole, self-contained, and made of nothing but what the run's report says."""

import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from fixtures.reports import comparison, extrapolation, inspection, scored

from nextrapolate.methods import label, make_method
from nextrapolate.reading import read
from nextrapolate.schemas import AnyReport, Comparison, ExpoMethod, Report, WsmMethod
from nextrapolate_worker import rendering
from nextrapolate_worker.rendering import figures, model_card, report_page, warm_up
from nextrapolate_worker.rendering.grid import Grid

REPORTS: dict[str, AnyReport] = {
    "extrapolate": extrapolation(),
    "backtest": comparison(),
    "inspect": inspection(),
}
FIGURES = {
    "extrapolate": ["errors", "cosines", "drift", "energy", "linearity", "sizes", "spectrum"],
    "backtest": ["errors", "cosines"],
    "inspect": ["drift", "energy", "linearity"],
}


class Page(HTMLParser):
    """What of a page the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]


@pytest.fixture(params=REPORTS)
def report(request: pytest.FixtureRequest) -> AnyReport:
    return REPORTS[request.param]


def test_a_warm_process_has_every_template_and_chart_ready(report: AnyReport) -> None:
    templates, charts = rendering._templates.cache, figures._specification
    assert templates is not None
    templates.clear()
    charts.cache_clear()
    warm_up()
    ready = len(templates), charts.cache_info().misses
    report_page(report)
    assert (len(templates), charts.cache_info().misses) == ready


def test_the_page_answers_first_and_shows_every_chart(report: AnyReport) -> None:
    html = report_page(report)
    page = Page(html)
    start = "".join(Page(html[: html.index("<main>")]).texts)
    for question in ("Did it work?", "Why?", "How sure is that?", "What next?"):
        assert question in start
    assert read(report).verdict in start
    headings = re.findall(r"<h2 id=\"([a-z-]+)\">", html)
    assert headings == ["evidence", "geometry", "what-was-done", "lineage", "how-to-use-it"]
    assert re.findall(r'<figure id="(\w+)">', html) == FIGURES[report.task]
    charts = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(charts) == page.tags["svg"] == len(FIGURES[report.task])
    assert all(len(text) > 40 for text in charts)
    assert page.tags["details"] >= page.tags["figure"]


def test_the_page_stands_alone(report: AnyReport) -> None:
    page = Page(report_page(report))
    assert page.tags["style"] == 1
    assert page.tags.keys().isdisjoint({"script", "link", "img", "iframe", "object", "base"})
    assert not page.values("style")
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []
    for _, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action"):
            assert value.startswith("#")
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    text = " ".join(value for _, _, value in page.attributes)
    for target in re.findall(r"url\(#([^)]+)\)", text) + [value[1:] for value in page.values("href")]:
        assert target in ids


def test_labels_of_many_layers_stand_apart() -> None:
    html = report_page(extrapolation(layers=80))
    for name in ("cosines", "sizes"):
        chart = html.split(f'<figure id="{name}">')[1].split("</figure>")[0]
        shown = re.findall(r'translate\(([\d.]+),16\)"[^>]*opacity="1">\d+</text>', chart)
        assert len(shown) > 10
        # Two digits are some 15 pixels wide.
        assert all(float(after) - float(before) > 20 for before, after in pairwise(shown)), shown


def test_a_module_without_an_update_is_no_hole_without_a_reason() -> None:
    report = extrapolation()
    assert "An empty cell" not in report_page(report)
    gated, *others = report.modules
    modules = [gated.model_copy(update={"update_norm": 0.0, "gated": "energy ratio"}), *others]
    html = report_page(report.model_copy(update={"modules": modules}))
    assert (
        "An empty cell is a module to which nothing is added, because it was gated or never trained."
    ) in html


def test_wide_tables_and_charts_scroll_by_themselves(report: AnyReport) -> None:
    html = report_page(report)
    for tag in ("<table", "<svg"):
        for before in html.split(tag)[:-1]:
            assert re.search(r'<div class="scroll"[^>]*>\s*$', before), before[-200:]
    assert html.count("<pre") == html.count('<pre tabindex="0">'), "a keyboard scrolls what it can reach"


def test_names_are_escaped_wherever_they_stand() -> None:
    name = "model.layers.0.</text></svg><script>alert(1)</script>"
    report = extrapolation(name=name)
    page = Page(report_page(report))
    assert page.tags["script"] == 0
    assert "script>alert(1)</script>" in "".join(page.texts)


def test_the_run_and_the_time_stand_above_the_title(report: AnyReport) -> None:
    eyebrow = report_page(report).split("<h1>")[0].rpartition("<p")[2]
    assert " · <bdi>grpo, seed 7</bdi> · 2026-03-01 12:30 UTC</p>" in eyebrow
    hostile = report_page(report.model_copy(update={"run": "<script>", "made_at": None}))
    assert "<bdi>&lt;script&gt;</bdi></p>" in hostile
    if isinstance(report, Report):
        card = model_card(report)
        assert "Made by nextrapolate on 2026-03-01 12:30 UTC for training step 200 from" in card
        assert "150 of the run `grpo, seed 7`." in card
        odd = report.model_copy(update={"run": "a`b\n\n# <script>"})
        assert "150 of the run `a'b # <script>`." in model_card(odd)


def test_the_headline_stands_first(report: AnyReport) -> None:
    html = report_page(report)
    assert html.index(f"✓ {read(report).headline}</strong>") < html.index("<main>")


def test_one_method_with_other_parameters_is_told_apart_by_them() -> None:
    report: Comparison = comparison()
    best = report.methods[0]
    assert best.total is not None
    methods = [
        best.model_copy(
            update={
                "method": make_method("next", preset="paper", alpha=alpha),
                "total": best.total.model_copy(update={"relative_error": error}),
            }
        )
        for alpha, error in ((0.7, 0.6), (1.5, 0.7))
    ]
    html = report_page(report.model_copy(update={"methods": methods}))
    first, second = (label(scored.method) for scored in methods)
    assert first == "next alpha=0.7 preset=paper"
    assert second == "next preset=paper"
    assert "--method next --alpha 0.7 --set preset=paper --horizon-steps" in html
    (chart,) = re.findall(
        r'<svg role="img" aria-label="Bar chart of relative errors.*?</svg>', html, re.DOTALL
    )
    ticks = {float(text) for text in re.findall(r"<text[^>]*>(\d\.\d+)</text>", chart)}
    assert max(ticks) <= 1.0


def test_charts_set_apart_the_method_that_the_verdict_names() -> None:
    report: Comparison = comparison()
    average = report.model_copy(update={"methods": [scored("soup", 0.5), *report.methods]})
    html = report_page(average)
    assert read(average).verdict.startswith("autoregression predicts best")
    assert "The coloured bar is the smallest error that a backtest can judge." in html
    assert "Cosine of autoregression by module and layer" in html
    assert "The coloured bar is the smallest error." in report_page(report)
    alone = report.model_copy(update={"methods": [scored("soup", 0.5)]})
    assert "The coloured bar is the smallest error." in report_page(alone)


def test_reports_without_evidence_say_so() -> None:
    why = "no module changed from step 100 to step 150"
    short = extrapolation().model_copy(update={"backtest": None, "rivals": [], "unmeasured": why})
    assert f"There is no backtest: {why}." in report_page(short)
    average = extrapolation().model_copy(update={"method": WsmMethod(), "target_step": 150})
    assert "<title>Step 150 by wsm" in report_page(average)
    nothing: Comparison = comparison()
    silent = [
        scores.model_copy(update={"total": None, "reason": "2 checkpoints are too few", "modules": []})
        for scores in nothing.methods
    ]
    html = report_page(nothing.model_copy(update={"methods": silent}))
    assert "2 checkpoints are too few" in html
    assert "<figure" not in html


def test_a_backtest_shows_what_its_methods_warn_of() -> None:
    report: Comparison = comparison()
    assert "What to know about the predictions" not in report_page(report)
    best, *others = report.methods
    warned = best.model_copy(update={"warnings": ["Nine tenths <were> explained.", "So much for that."]})
    html = report_page(report.model_copy(update={"methods": [warned, *others]}))
    assert "Nine tenths &lt;were&gt; explained. So much for that.</td>" in html


def test_what_is_printed_can_be_found_in_the_report(tmp_path: Path) -> None:
    report = extrapolation()
    html = report_page(report)
    for digest in report.inputs.values():
        assert digest in html
    for profile in report.stages:
        assert f"{profile.seconds:.3f}" in html
    assert ">2.5<" in html  # MB
    assert ">3.7<" in html  # GFLOP/s


def test_a_grid_arranges_modules_by_kind_and_layer() -> None:
    grid = Grid.of(
        {
            "model.layers.10.q_proj": 3.0,
            "model.layers.2.q_proj": 2.0,
            "model.layers.2.mlp.experts.0.up_proj": 1.0,
            "model.layers.2.mlp.experts.1.up_proj": 5.0,
            "lm_head": 7.0,
            "model.layers.3.v_proj": None,
        }
    )
    assert grid.columns == ("2", "10", "-")
    assert grid.rows == {
        "lm_head": (None, None, 7.0),
        "q_proj": (2.0, 3.0, None),
        "up_proj": (3.0, None, None),
    }


def test_a_method_that_goes_as_far_as_its_alpha_names_no_step_that_it_reaches() -> None:
    pushed = extrapolation().model_copy(update={"method": ExpoMethod()})
    card, page = model_card(pushed), report_page(pushed)
    assert "from step 150, as far as alpha says" in card
    assert "<title>Step 150, pushed on by expo" in page
    assert "200 (predicted)" not in page
    forecast = extrapolation()
    assert "for training step 200 from" in model_card(forecast)
    assert "200 (predicted)" in report_page(forecast)
