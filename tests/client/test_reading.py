"""What a report says to somebody who has ten seconds."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from fixtures.client_examples import write_checkpoints
from fixtures.read_reports import CASES, compared, extrapolated
from fixtures.reports import comparison, extrapolation, inspection, scored

from nextrapolate.evidence import backtest
from nextrapolate.methods import make_method
from nextrapolate.reading import read
from nextrapolate.schemas import (
    ChoiceReport,
    Comparison,
    ExpoMethod,
    MethodScores,
    Report,
    RunBreak,
    WeightExtrapolationMethod,
    WsmMethod,
)


@pytest.mark.parametrize(
    ("relative_error", "tone", "why", "following"),
    [
        (
            0.6,
            "good",
            "came 40% closer than no jump (relative error 0.60",
            "evaluate it against checkpoint 150",
        ),
        (
            0.6,
            "good",
            "None of the 2 other methods did better (the best was weight-extrapolation",
            "train on from",
        ),
        (0.8, "good", "weight-extrapolation did better (0.70)", "Load it"),
        (1.3, "bad", "was 30% further off than no jump", "run the job again with weight-extrapolation"),
    ],
)
def test_an_extrapolation_is_read_by_its_backtest(
    relative_error: float, tone: str, why: str, following: str
) -> None:
    reading = read(extrapolation(relative_error=relative_error))
    assert reading.tone == tone
    assert "Asked at step 100 for step 150" in reading.why
    assert why in reading.why
    assert following in reading.following
    assert "26 of 28 modules" in reading.sure


def test_a_definition_of_straightness_that_no_module_has_is_left_out() -> None:
    run = inspection()
    one, *others = run.linearity
    assert list(run.linearity_by_definition) == [
        "held out, each coordinate about its mean",
        "held out, all about one mean",
        "in sample, each about its mean",
    ]
    modules = [module.model_copy(update={"held_out_pooled": None}) for module in (one, *others)]
    modules[0] = modules[0].model_copy(update={"held_out_by_coordinate": None})
    known = run.model_copy(update={"linearity": modules}).linearity_by_definition
    assert {name: len(values) for name, values in known.items()} == {
        "held out, each coordinate about its mean": len(others),
        "in sample, each about its mean": len(run.linearity),
    }


def test_a_scaled_update_is_read_as_it_is_applied() -> None:
    report = extrapolation(relative_error=0.9)
    assert report.backtest is not None
    applied = report.backtest.total.model_copy(update={"relative_error": 1.4})
    scaled = report.model_copy(update={"backtest": report.backtest.model_copy(update={"applied": applied})})
    assert read(scaled).tone == "bad"
    assert scaled.recommended is False


@pytest.mark.parametrize(
    ("error", "tone", "recommended", "said"),
    [
        (0.99, "good", True, "came 1% closer than no jump (relative error 0.99;"),
        (0.9996, "unknown", None, "came as close as no jump (relative error 1.00;"),
        (1.0004, "unknown", None, "came as close as no jump (relative error 1.00;"),
        (1.01, "bad", False, "was 1% further off than no jump (relative error 1.01;"),
    ],
)
def test_what_comes_as_close_as_no_jump_speaks_neither_for_nor_against(
    error: float, tone: str, recommended: bool | None, said: str
) -> None:
    """A run that wanders at random has an error on either side of 1, by chance."""
    report = extrapolation(relative_error=error)
    reading = read(report)
    assert (reading.tone, report.recommended) == (tone, recommended)
    assert said in reading.why
    assert ("speaks neither for nor against using it" in reading.worked) is (recommended is None)


@pytest.mark.parametrize(("end_step", "tone"), [(150, "bad"), (100, "good")])
def test_a_backtest_speaks_for_no_jump_beyond_a_break(end_step: int, tone: str) -> None:
    """Both were asked at step 100."""
    broken = RunBreak(begin_step=end_step - 10, end_step=end_step, times=17.4)
    report = extrapolation(relative_error=0.6)
    geometry = report.geometry.model_copy(update={"breaks": [broken]})
    broken_run = report.model_copy(update={"geometry": geometry})
    reading = read(broken_run)
    assert reading.tone == tone
    assert json.loads(broken_run.model_dump_json())["recommended"] is (tone == "good")
    assert ("From step 140 to 150 the adapter moved 17 times as far" in reading.why) is (tone == "bad")
    inspected = read(inspection().model_copy(update={"breaks": [broken]}))
    assert ("From step 140 to 150" in inspected.why) is (tone == "bad")


@pytest.mark.parametrize("relative_error", [0.6, 1.3])
def test_an_adapter_that_nothing_was_added_to_says_so(relative_error: float) -> None:
    report = extrapolation(relative_error=relative_error)
    still = [module.model_copy(update={"update_norm": 0.0}) for module in report.modules]
    reading = read(report.model_copy(update={"modules": still}))
    assert reading.tone != "good"
    assert reading.worked.startswith("No: no module got an update")
    assert "Load it" not in reading.following
    assert "Train on from checkpoint" in reading.following


def test_what_adds_nothing_does_not_advise_to_compare_a_checkpoint_with_itself() -> None:
    none = read(CASES["nothing added by none"].report)
    assert none.why == "none adds nothing: it is what other methods are compared with."
    assert none.following == "Train on from checkpoint 150, or run the job again with weight-extrapolation."
    nothing_left = CASES["nothing added, though the past speaks for it"].report
    assert isinstance(nothing_left, Report)
    assert nothing_left.recommended is None
    gated = read(nothing_left)
    assert gated.why.startswith(
        "The gate left 28 of 28 modules at the last checkpoint. Asked at step 100 for"
    )
    assert "it came 40% closer than no jump" in gated.why
    zero = extrapolated(relative_error=1.0, method=make_method("auto", alpha=0), rivals=[])
    still = [module.model_copy(update={"update_norm": 0.0}) for module in zero.modules]
    unscaled = read(zero.model_copy(update={"modules": still}))
    assert unscaled.why.startswith("auto alpha=0.0 changes no module.")
    assert unscaled.following == "Train on from checkpoint 150."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            1.3,
            "30% further off than no jump (relative error 1.30; no jump is 1): so far it leads back.",
        ),
        (1.0, "it came as close as no jump (relative error 1.00; no jump is 1)."),
        (0.9, "it came 10% closer than no jump (relative error 0.90; no jump is 1)."),
    ],
)
def test_only_what_is_further_off_leads_back(error: float, said: str) -> None:
    average = extrapolated(relative_error=error, method=WsmMethod(), target_step=150)
    assert read(average).why.endswith(said)


def test_an_average_is_not_held_against_a_forecast() -> None:
    report = extrapolation(relative_error=1.3)
    average = report.model_copy(update={"method": WsmMethod(), "target_step": report.steps[-1]})
    reading = read(average)
    assert (average.recommended, reading.tone) == (None, "unknown")
    assert "wsm forecasts nothing" in reading.why
    assert "Evaluate the adapter against checkpoint 150" in reading.following
    without = read(average.model_copy(update={"backtest": None}))
    assert without.why == "wsm forecasts nothing, so that no backtest speaks for or against it."


def test_momentum_over_jumps_is_not_held_against_training_alone() -> None:
    report = extrapolation(relative_error=1.3).model_copy(
        update={"method": WeightExtrapolationMethod(momentum=True), "jumps": [100]}
    )
    reading = read(report)
    assert (report.recommended, reading.tone) == (None, "unknown")
    assert "the update holds the run's earlier jumps" in reading.why
    assert "30% further off than no jump (relative error 1.30; no jump is 1), against training" in reading.why
    assert "Evaluate the adapter against checkpoint 150" in reading.following
    without = read(report.model_copy(update={"backtest": None}))
    assert without.why.endswith("no backtest speaks for or against it.")
    assert read(report.model_copy(update={"jumps": []})).tone == "bad"


def test_auto_tells_of_all_its_backtests() -> None:
    choice = ChoiceReport(why="", backtests=28, relative_error=0.55, candidates=[], kinds=[])
    reading = read(extrapolation().model_copy(update={"choice": choice}))
    fitted = "; the update is fitted to them, so that this is never above 1."
    assert f"In all 28 backtests together the relative error is 0.55{fitted}" in reading.sure
    alone = read(extrapolation().model_copy(update={"choice": choice, "backtest": None}))
    assert alone.tone == "unknown"
    assert "28 over other parts of this run, with a relative error of 0.55" in alone.sure
    assert alone.sure.endswith(f" (no jump: 1){fitted}")


def test_a_method_that_names_no_step_is_read_without_one() -> None:
    assert "for step 200" in read(extrapolation()).worked
    pushed = read(extrapolation().model_copy(update={"method": ExpoMethod()})).worked
    assert "an adapter that goes on from step 150 was made" in pushed


def test_without_other_methods_nobody_is_compared() -> None:
    reading = read(extrapolation(relative_error=1.3).model_copy(update={"rivals": []}))
    assert "others" not in reading.why
    assert "ask again later or for fewer steps" in reading.following


def test_what_was_not_measured_is_not_judged() -> None:
    extrapolated = extrapolation().model_copy(update={"choice": None})
    for report, evidence in ((extrapolated, "backtest"), (inspection(), "evidence")):
        still = read(report.model_copy(update={evidence: None, "unmeasured": "no module changed"}))
        assert (still.tone, still.sure) == ("unknown", "Not at all: nothing was measured on this run.")
        assert still.why == "There is no backtest: no module changed."
        assert read(report.model_copy(update={evidence: None})).why == "There is no backtest."
    silent = [
        scores.model_copy(update={"total": None, "reason": "too few checkpoints"})
        for scores in comparison().methods
    ]
    reading = read(comparison().model_copy(update={"methods": silent}))
    assert (reading.tone, reading.why) == ("unknown", "too few checkpoints")


def test_a_backtest_is_read_by_its_best_method() -> None:
    reading = read(comparison())
    assert reading.tone == "good"
    assert reading.why.startswith("autoregression came 40% closer")
    assert reading.why.endswith("Second best: relex (0.80).")
    assert "Extrapolate with autoregression over 50 steps" in reading.following
    worse = comparison().model_copy(update={"methods": comparison().methods[-1:]})
    assert read(worse).tone == "bad"


@pytest.mark.parametrize(
    ("relative_errors", "tone", "headline"),
    [
        ({"auto": 0.955, "relex": 0.99}, "good", "A method beats no jump."),
        ({"auto": 0.965, "relex": 0.99}, "unknown", "No better than chance."),
        ({"auto": 0.996, "relex": 0.999}, "bad", "No method beats no jump."),
        ({"auto": 0.965, "none": 1.0}, "good", "A method beats no jump."),
        ({"soup": 0.5, "auto": 0.965}, "good", "A method beats no jump."),
        ({"auto": 0.996, "none": 1.0}, "bad", "No method beats no jump."),
    ],
)
def test_the_best_of_many_has_to_be_closer_than_one_method_alone(
    relative_errors: dict[str, float], tone: str, headline: str
) -> None:
    """Chance alone brings the best of many below .995; `none` and averages are not among those."""
    reading = read(compared(**relative_errors))
    assert (reading.tone, reading.headline) == (tone, headline)


def test_an_average_is_scored_but_never_the_best() -> None:
    reading = read(compared(soup=0.5, autoregression=0.6, relex=0.7, none=1.0))
    assert reading.why.startswith("autoregression came 40% closer")
    assert reading.why.endswith(
        "Second best: relex (0.70). soup came closer (0.50), but forecasts nothing: no backtest can judge it."
    )
    assert "4 of 4 methods were scored" in reading.worked
    last = read(compared(autoregression=0.6, soup=0.8, none=1.0)).why
    assert last.endswith("Second best: none (1.00).")
    assert read(compared(soup=0.5, wsm=0.6)).why == "These forecast nothing: soup, wsm."


def test_another_method_is_advised_only_where_it_does_better_than_chance() -> None:
    def advised(*rivals: MethodScores) -> str:
        reading = read(extrapolated(relative_error=1.3, rivals=list(rivals)))
        return f"{reading.why} {reading.following}"

    clear = advised(scored("relex", 0.955), scored("expo", 0.99))
    assert "relex did better (0.95). Train on from checkpoint 150, or run the job again with relex." in clear
    chance = advised(scored("relex", 0.965), scored("expo", 0.99))
    assert "relex did better (0.96), as the best of 2 may by chance. Train on" in chance
    assert chance.endswith("and ask again later or for fewer steps.")
    assert advised(scored("relex", 0.965)).endswith("or run the job again with relex.")
    average = advised(scored("soup", 0.5), scored("relex", 0.965))
    assert average.endswith("or run the job again with relex."), "an average is no forecast to advise"
    assert "soup" not in average


@pytest.mark.parametrize(
    ("relative_error", "following"),
    [(0.6, "Extrapolate: a backtest"), (0.9, "in short jumps"), (1.1, "do not jump")],
)
def test_an_inspection_says_whether_it_pays(relative_error: float, following: str) -> None:
    report = inspection()
    assert report.evidence is not None
    scores = report.evidence.total.model_copy(update={"relative_error": relative_error})
    reading = read(
        report.model_copy(update={"evidence": report.evidence.model_copy(update={"total": scores})})
    )
    assert following in reading.following
    assert "1 more never moved" in reading.worked
    assert "known, autoregression " in reading.why
    assert "known, auto " in read(report.model_copy(update={"asked_method": "auto"})).why
    assert "mean cosine between successive increments is 0.90" in reading.sure


COMMANDS = {
    "won": ["extrapolate RUN_FOLDER --method autoregression --horizon-steps 50"],
    "won, an average closer": ["extrapolate RUN_FOLDER --method autoregression --horizon-steps 50"],
    "no better than chance": ["backtest RUN_FOLDER --at 100 --horizon-steps 20"],
    "not won, an average closer": ["backtest RUN_FOLDER --at 100 --horizon-steps 20"],
    "not won": ["backtest RUN_FOLDER --at 100 --horizon-steps 20"],
    "none scored": ["backtest RUN_FOLDER --at 120 --horizon-steps 30"],
    "pays": [
        "backtest RUN_FOLDER --at 100 --horizon-steps 50",
        "extrapolate RUN_FOLDER --horizon-steps 50",
    ],
    "pays a little": [
        "backtest RUN_FOLDER --at 100 --horizon-steps 10",
        "extrapolate RUN_FOLDER --horizon-steps 10",
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_commands_are_of_checkpoints_that_are_there_and_ask_what_is_not_known(
    name: str, tmp_path: Path
) -> None:
    report, commands = CASES[name].report, read(CASES[name].report).commands
    lines = commands.lines if commands else ()
    assert list(lines) == [f"nextrapolate {line}" for line in COMMANDS.get(name, [])]
    folder = write_checkpoints(tmp_path / "run", *report.steps)
    for line in lines:
        words = line.split()
        options = dict(pairwise(words))
        if words[1] == "backtest":
            at, horizon_steps = int(options["--at"]), int(options["--horizon-steps"])
            backtest(folder, at=at, horizon_steps=horizon_steps, methods=None)  # refuses steps not there
            if isinstance(report, Comparison):
                assert (at, at + horizon_steps) != (report.at, report.target_step)


def test_without_a_checkpoint_between_there_is_nothing_to_ask_again() -> None:
    for name in ("not won", "none scored"):
        sparse = CASES[name].report.model_copy(update={"steps": [50, 100, 150]})
        assert read(sparse).commands is None


def test_every_reading_answers_the_same_four_questions() -> None:
    for report in (extrapolation(), comparison(), inspection()):
        answers = read(report).answers
        assert [question for question, _ in answers] == [
            "Did it work?",
            "Why?",
            "How sure is that?",
            "What next?",
        ]
        assert all(answer for _, answer in answers)
