"""What is said of a jump."""

import logging

import pytest
from fixtures.client_examples import a_report
from fixtures.reports import extrapolation

from nextrapolate.schemas import NextMethod
from nextrapolate_trainer.jumper import Jump, Pause
from nextrapolate_trainer.summary import JumpSummary

AT = "http://127.0.0.1:8008/jobs/j1"


def test_what_the_report_warns_of_is_said_with_the_jump() -> None:
    report = a_report().model_copy(update={"warnings": ["modules_to_save keep their last value"]})
    jump = Jump(30, NextMethod(), "j1", {}, 0.5, frozenset(), report, Pause(0.0, 0.0, 0.0), AT)
    said = str(JumpSummary.of(jump, None, swap_seconds=0.0, reset_modules=0))
    assert f", job j1 ({AT}): the update is" in said
    assert said.endswith(f"{report.verdict}\nnote: modules_to_save keep their last value")


@pytest.mark.parametrize(("relative_error", "level"), [(0.6, logging.INFO), (1.3, logging.WARNING)])
def test_a_jump_that_the_report_speaks_against_is_a_warning(relative_error: float, level: int) -> None:
    report = extrapolation(relative_error=relative_error)
    jump = Jump(30, NextMethod(), "j1", {}, 0.5, frozenset(), report, Pause(0.0, 0.0, 0.0), AT)
    summary = JumpSummary.of(jump, None, swap_seconds=0.0, reset_modules=0)
    assert summary.log_level == level
    assert summary.metrics()["next/recommended"] == (level == logging.INFO)


def test_of_an_average_no_backtest_is_logged() -> None:
    report = extrapolation()
    assert report.backtest is not None
    average = report.model_copy(update={"target_step": report.steps[-1]})
    for told, cosine in ((report, report.backtest.total.cosine), (average, None)):
        jump = Jump(30, NextMethod(), "j1", {}, 0.5, frozenset(), told, Pause(0.0, 0.0, 0.0), AT)
        summary = JumpSummary.of(jump, None, swap_seconds=0.0, reset_modules=0)
        assert summary.backtest_cosine == cosine
        assert summary.metrics().get("next/backtest_cosine") == cosine
