"""The campaign: which runs it plans, how it makes them, and what it reads off them."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from benchmarks.rlvr.campaign import figures, results, tables
from benchmarks.rlvr.campaign.__main__ import chosen
from benchmarks.rlvr.campaign.compare import Pair, noise, summary
from benchmarks.rlvr.campaign.lanes import Place, able_to_begin, make_all
from benchmarks.rlvr.campaign.one_run import branch, make
from benchmarks.rlvr.campaign.plan import (
    FRESH_SEEDS,
    SEEDS,
    Planned,
    at_best_rates,
    campaign,
    planned,
)
from benchmarks.rlvr.campaign.results import (
    Point,
    Results,
    at,
    curve,
    monotone,
    seconds_to,
    steps_to,
    steps_until_kept,
)
from benchmarks.rlvr.campaign.sweep import ALPHAS, AVERAGE, ENDED_AT, Sweep, Swept, asked
from benchmarks.rlvr.campaign.tables.cells import NOTHING
from benchmarks.rlvr.campaign.tables.of_savings import savings
from benchmarks.rlvr.campaign.variants import BEST, BY_OTHERS, VARIANTS
from benchmarks.rlvr.record import RECORD, JumpRow, Record, Row, Settings, newest_checkpoint
from demo.evaluate import Accuracy
from demo.server import Server
from fixtures.server import EmbeddedServer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nextrapolate import NExtClient

SHORT = Settings(
    "addition", "grpo", learning_rate=5e-5, seed=0, steps=6, save_every=2, measure_every=2, branches_at=4
)
JUMPS = {"method": "auto", "collect_every": 2, "jump_at": 4, "jump_every": 2, "horizon_steps": 4}
HELD_OUT = 50


def record(
    settings: Settings,
    accuracies: dict[int, float],
    jumps: dict[int, float] | None = None,
    greedy: dict[int, float] | None = None,
) -> Record:
    return Record(
        settings,
        [
            Row(step, float(step), Accuracy(sampled, (greedy or accuracies)[step]))
            for step, sampled in accuracies.items()
        ],
        [
            JumpRow(step, 0.5, Accuracy(sampled, sampled), 1.0, 0.2, None)
            for step, sampled in (jumps or {}).items()
        ],
    )


def cells_of(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


VANILLA = record(SHORT, {0: 0.1, 20: 0.3, 40: 0.5})
JUMPING = record(SHORT, {0: 0.1, 20: 0.3, 40: 0.6}, {20: 0.4})


def test_a_curve_goes_through_both_sides_of_a_jump() -> None:
    assert [(point.step, point.accuracy) for point in curve(JUMPING)] == [
        (0, 0.1),
        (20, 0.3),
        (20, 0.4),
        (40, 0.6),
    ]


@pytest.mark.parametrize(("step", "accuracy"), [(0, 0.1), (10, 0.2), (20, 0.4), (30, 0.5), (40, 0.6)])
def test_between_measurements_accuracy_lies_on_a_line(step: int, accuracy: float) -> None:
    assert at(JUMPING, step) == pytest.approx(accuracy)


def test_beyond_its_end_a_run_has_no_accuracy() -> None:
    with pytest.raises(LookupError, match="not come to step 60"):
        at(JUMPING, 60)


@pytest.mark.parametrize(
    ("accuracy", "steps"), [(0.1, 0.0), (0.2, 10.0), (0.3, 20.0), (0.35, 20.0), (0.5, 30.0), (0.7, None)]
)
def test_steps_to_an_accuracy(accuracy: float, steps: float | None) -> None:
    assert steps_to(JUMPING, accuracy) == (None if steps is None else pytest.approx(steps))


@pytest.mark.parametrize(
    ("accuracies", "steps"),
    [
        ({0: 0.1, 20: 0.5, 40: 0.3, 60: 0.5}, 50.0),
        ({0: 0.1, 20: 0.5, 40: 0.6}, 15.0),
        ({0: 0.5, 20: 0.6}, 0.0),
        ({0: 0.1, 20: 0.5, 40: 0.3}, None),
    ],
)
def test_an_accuracy_is_kept_where_the_run_is_never_below_it_again(
    accuracies: dict[int, float], steps: float | None
) -> None:
    kept = steps_until_kept(record(SHORT, accuracies), 0.4)
    assert kept == (None if steps is None else pytest.approx(steps))


def test_a_curve_that_never_falls_lies_between_the_noise() -> None:
    noisy = [Point(step, accuracy) for step, accuracy in enumerate((0.1, 0.5, 0.3, 0.4, 0.9, 0.7))]
    fitted = [point.accuracy for point in monotone(noisy)]
    assert fitted == pytest.approx([0.1, 0.4, 0.4, 0.4, 0.8, 0.8])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_closest_curve_that_never_falls(accuracies: list[float]) -> None:
    """It rises, keeps the mean, and is orthogonal to what it leaves out: a projection on a cone."""
    fitted = [point.accuracy for point in monotone([Point(0, accuracy) for accuracy in accuracies])]
    assert all(before <= after + 1e-12 for before, after in pairwise(fitted))
    assert sum(fitted) == pytest.approx(sum(accuracies))
    left_out = [accuracy - fit for accuracy, fit in zip(accuracies, fitted, strict=True)]
    assert sum(fit * rest for fit, rest in zip(fitted, left_out, strict=True)) == pytest.approx(0, abs=1e-9)


def test_what_is_saved_depends_on_how_it_is_counted() -> None:
    """Runs that touch the goal at 100 and at 200, the one for good, the others not."""
    steady, touching = {0: 0.1, 100: 0.6, 400: 0.6}, {0: 0.1, 100: 0.3, 200: 0.6, 300: 0.3, 400: 0.9}
    vanilla = {0: 0.1, 400: 0.6}
    runs: dict[str, Record] = {}
    for accuracies, seed in ((steady, 4), (touching, 5), (touching, 6)):
        for beside, rows in ((BEST, accuracies), ("vanilla", vanilla)):
            for run in at_best_rates([beside], [seed]):
                runs[run.name] = record(replace(run.settings, steps=400), rows)
    found = {
        counted: cells
        for counted, seeds, title, *cells in cells_of(savings(Results(runs)))
        if (seeds, title) == ("fresh", VARIANTS[BEST].title)
    }
    assert found["first there"][:4] == ["400 ± 0", "167 ± 17", "9 of 9", "233 ± 17"]
    assert found["there for good"][1] == f"{(100 + 350 + 350) / 3:.0f} ± 42"
    assert found["by fits that never fall"][1] == f"{(100 + 333.3 + 333.3) / 3:.0f} ± 39"
    assert "all six" not in savings(Results(runs))


def test_a_run_is_compared_at_equal_steps() -> None:
    long = record(replace(SHORT, steps=400), {0: 0.1, 20: 0.3, 40: 0.5, 400: 0.55})
    pair = Pair(planned(BEST, "addition"), JUMPING, rival=long)
    assert pair.differences == pytest.approx({20: 0.1, 40: 0.1})
    assert pair.worst == pytest.approx(0.1)
    assert pair.goal == 0.55
    assert pair.steps == pytest.approx(35)


def test_greedy_accuracy_is_compared_with_greedy_accuracy() -> None:
    sampled = {0: 0.1, 20: 0.3, 40: 0.5, 400: 0.6}
    rival = record(replace(SHORT, steps=400), sampled, greedy={0: 0.2, 20: 0.5, 40: 0.7, 400: 0.8})
    made = record(SHORT, {0: 0.1, 20: 0.7, 40: 0.8}, greedy={0: 0.2, 20: 0.6, 40: 0.9})
    pair = Pair(planned(BEST, "addition"), made, rival).greedy
    assert pair.goal == 0.8
    assert pair.steps == pytest.approx(20 + 20 * 2 / 3)
    assert pair.steps_until_kept == pytest.approx(20 + 20 * 2 / 3)
    assert pair.differences == pytest.approx({20: 0.1, 40: 0.2})


def test_noise_is_what_two_runs_of_one_kind_lie_apart() -> None:
    apart = {0: 0.2, 100: 0.4, 400: 0.8}, {0: 0.2, 100: 0.42, 400: 0.84}
    runs = [planned("vanilla", "addition", seed=seed) for seed in (0, 1)]
    found = Results({run.name: record(run.settings, rows) for run, rows in zip(runs, apart, strict=True)})
    # Variances of 0.0002 and 0.0008, twice that of a difference, and two standard deviations of it.
    assert noise(found, "addition", 5e-5) == pytest.approx(2 * (2 * 0.0005) ** 0.5)
    assert noise(Results({runs[0].name: found.records[runs[0].name]}), "addition", 5e-5) is None


def test_seconds_to_a_step_are_those_of_training_and_of_waiting() -> None:
    assert [seconds_to(JUMPING, step) for step in (0, 10, 20, 30)] == [0, 10, 20.5, 30.5]


def test_a_guard_has_answers_given_before_every_jump_and_after_it() -> None:
    # At each of 20 jumps 2 adapters or 3 answer 128 questions 8 times; a step of training has 128 answers.
    due = dict.fromkeys(range(10, 210, 10), 0.3)
    for run, adapters in (("guarded", 2), ("guarded-alphas", 3), ("guarded-averages", 3), (BEST, 0)):
        settings = replace(planned(run, "addition").settings, steps=200)
        made = record(settings, {0: 0.1, 200: 0.5}, due)
        pair = Pair(Planned(run, settings), made, rival=record(settings, {0: 0.1, 400: 0.5}))
        assert pair.guard_answers == 20 * adapters * 1024 / (200 * 128)
        # A goal of 0.5 is reached at the end, after all 20 jumps.
        assert pair.steps_with_guard == 200 + 20 * adapters * 8


def test_every_planned_run_has_a_name_and_settings_of_its_own() -> None:
    runs = campaign()
    assert len({run.name for run in runs}) == len(runs)
    assert len({json.dumps(run.settings.__dict__, sort_keys=True) for run in runs}) == len(runs)


def test_a_run_that_branches_off_waits_for_its_start(tmp_path: Path) -> None:
    vanilla, jumping = planned("vanilla", "addition"), planned("at150-auto", "addition")
    assert jumping.start == vanilla
    assert able_to_begin([jumping, vanilla], tmp_path, lanes=2) == [vanilla]
    last = tmp_path / vanilla.name / "checkpoint-400"
    last.mkdir(parents=True)
    (last / "trainer_state.json").touch()
    assert able_to_begin([jumping, vanilla], tmp_path, lanes=1) == [jumping]


def test_runs_are_chosen_by_name_in_the_order_of_the_names() -> None:
    names = [run.name for run in chosen(["sorting-5e-05-vanilla-s1", "addition-5e-05-vanilla-s*", "*-s1"])]
    assert names[:2] == ["sorting-5e-05-vanilla-s1", "addition-5e-05-vanilla-s0"]
    assert len(set(names)) == len(names)
    with pytest.raises(SystemExit, match="no run is called"):
        chosen(["multiplication-*"])


def test_tables_and_figures_tell_what_there_is(tmp_path: Path) -> None:
    runs = [planned(variant, "addition") for variant in ("vanilla", BEST)]
    vanilla = record(runs[0].settings, {0: 0.2, 150: 0.4, 400: 0.8}, greedy={0: 0.5, 150: 0.7, 400: 0.9})
    jumping = record(runs[1].settings, {0: 0.2, 150: 0.8, 250: 0.9}, greedy={0: 0.5, 150: 0.7, 250: 0.9})
    lost = planned(BY_OTHERS[-1], "addition")
    found = Results({run.name: made for run, made in zip(runs, (vanilla, jumping), strict=True)})
    found.records[lost.name] = record(lost.settings, {0: 0.2, 150: 0.3, 250: 0.1})
    told_of_steps = tables.SECTIONS["steps"](found)
    assert "1 of 1 runs reached it, after 150 steps in the mean (150 to 150); greedy, 1 of 1" in told_of_steps
    assert f"{VARIANTS[lost.variant].title}: none of 1 runs reached it; greedy, none of 1" in told_of_steps
    assert "| 150 | 250 |" in told_of_steps
    assert "".join(["| 150, 1 of 1 runs "] * 3 + ["| 250, 1 of 1 runs |"]) in tables.SECTIONS["best"](found)
    told = {name for name, table in tables.SECTIONS.items() if not table(found).startswith(NOTHING)}
    assert told == {"steps", "rates", "best", "guard"}
    assert all(table(Results({})).startswith(NOTHING) for table in tables.SECTIONS.values())
    assert "| addition | auto |" not in tables.SWEPT["alpha"](found, [])
    swept = [Swept(runs[0].name, "auto", alpha, 0.4 + alpha / 10, 0.9) for alpha in ALPHAS]
    assert "| +0.050 | +0.100 |" in tables.SWEPT["alpha"](found, swept)
    drawn = figures.draw(found, swept, tmp_path)
    assert [path.name for path in drawn] == ["rlvr-steps.svg", "rlvr-alpha.svg"]
    assert all(path.read_text().startswith("<svg") for path in drawn)
    assert figures.draw(Results({}), [], tmp_path) == []


def test_the_lead_at_the_end_has_an_interval_where_all_seeds_are_there() -> None:
    made = {}
    for seed, lead in enumerate((0.01, 0.02, 0.03)):
        vanilla, jumping = (planned(variant, "addition", 4e-4, seed) for variant in ("vanilla", BEST))
        made[vanilla.name] = record(vanilla.settings, {0: 0.2, 400: 0.8})
        made[jumping.name] = record(jumping.settings, {0: 0.2, 400: 0.8 + lead})
    # Student's t of 2 degrees of freedom, 4.303, times 0.01 over the root of 3.
    assert "| +0.020 (-0.005 to +0.045) |" in tables.SECTIONS["guard"](Results(made))
    del made[jumping.name]
    assert "| +0.015 |" in tables.SECTIONS["guard"](Results(made))


def test_fresh_seeds_are_asked_at_the_rate_that_the_others_found_best() -> None:
    seeds = (*((seed, 0.8) for seed in SEEDS), *((seed, 0.6) for seed in FRESH_SEEDS))
    made = {}
    for seed, end in seeds:
        vanilla, jumping = (planned(variant, "addition", 4e-4, seed) for variant in ("vanilla", BEST))
        made[vanilla.name] = record(vanilla.settings, {0: 0.2, 400: end})
        made[jumping.name] = record(jumping.settings, {0: 0.2, 200: end, 400: 0.9})
    columns, _, *rows = tables.SECTIONS["again"](Results(made)).splitlines()
    assert "addition, 0.0004" in columns
    assert [row.split(" | ")[1] for row in rows] == ["400 (400, 400, 400)", "200 (200, 200, 200)"]
    assert rows[1].endswith("| 0 of 6, +0.200 at worst |")
    earlier = {name: found for name, found in made.items() if found.settings.seed in SEEDS}
    assert tables.SECTIONS["again"](Results(earlier)) == NOTHING


def test_falling_rates_stand_beside_constant_ones() -> None:
    ways = {"vanilla": 0.8, "decayed": 0.84, "decayed-cycles": 0.9}
    made = {}
    for way, end in ways.items():
        run = planned(way, "addition", 4e-4)
        made[run.name] = record(run.settings, {0: 0.2, 200: 0.5, 400: end})
    assert tables.SECTIONS["falling"](Results({name: made[name] for name in list(made)[:1]})) == NOTHING
    _, _, *rows = tables.SECTIONS["falling"](Results(made)).splitlines()
    cells = [row.strip("| ").split(" | ") for row in rows]
    titles = [VARIANTS[way].title for way in ways]
    assert [row[:4] for row in cells] == [["addition", "0.0004", title, "1"] for title in titles]
    assert [row[4:] for row in cells] == [
        ["0.350", "0.500", f"{(0.5 + end) / 2:.3f}", f"{end:.3f}", f"{end:.3f}", reached]
        for end, reached in zip(ways.values(), ("400", "376", "350"), strict=True)
    ]


def test_one_jump_is_a_row_for_each_method_whatever_the_tasks() -> None:
    made = {}
    for task, gain in (("addition", 0.02), ("sorting", 0.04)):
        vanilla, jumping = planned("vanilla", task), planned("at150-auto", task)
        made[vanilla.name] = record(vanilla.settings, {0: 0.2, 150: 0.4, 250: 0.5, 400: 0.8})
        after = {0: 0.2, 150: 0.4, 250: 0.5 + gain}
        made[jumping.name] = record(jumping.settings, after, {150: 0.4 + 2 * gain})
    *_, row = tables.SECTIONS["one-jump"](Results(made)).splitlines()
    cells = row.strip("| ").split(" | ")
    assert cells[:7] == [
        "auto, 50 ahead", "2", "+0.060 ± 0.028", "+0.020", "", "+0.040", "+0.030 ± 0.014",
    ]  # fmt: skip
    assert cells[7] == "+15"


def test_an_average_stands_beside_the_model_that_it_was_made_of() -> None:
    run = planned("vanilla", "sorting", 4e-4)
    found = Results({run.name: record(run.settings, {0: 0.2, 200: 0.5, 300: 0.6, 400: 0.7})})
    swept = [
        Swept(run.name, AVERAGE, 1.0, sampled, 0.9, step) for step, sampled in ((200, 0.55), (300, 0.58))
    ]
    *_, row = tables.SWEPT["averages"](found, swept).splitlines()
    assert row == "| sorting | 0.0004 | vanilla | 1 | 0.500 | 0.550 | 0.600 | 0.580 | 0.700 |  |"


def test_a_run_may_end_with_an_average_once_that_has_what_vanilla_has_after_400() -> None:
    made, swept = {}, []
    for run in at_best_rates(("vanilla", BEST), FRESH_SEEDS):
        jumps = run.variant == BEST
        made[run.name] = record(run.settings, {0: 0.2, 400: 0.8})
        # 0.5 after 100 steps, and 0.1 or 0.2 more after each further 100.
        slope = 0.002 if jumps else 0.001
        swept += [Swept(run.name, AVERAGE, 1.0, 0.5 + slope * (step - 100), 0.9, step) for step in ENDED_AT]
    columns, _, *rows = tables.SWEPT["ended"](Results(made), swept).splitlines()
    assert "addition, 0.0004 | modular, 0.0004 | sorting, 0.0002" in columns
    assert [row.strip("| ").split(" | ") for row in rows] == [
        [title, *[f"{step} ({step}, {step}, {step})"] * 3, all_of_them, f"{400 - step} ± 0", all_of_them]
        for title, step in (("vanilla", 400), (VARIANTS[BEST].title, 250))
        for all_of_them in [f"{step} ± 0, 9 of 9 runs"]
    ]
    assert tables.SWEPT["ended"](Results(made), swept[1:]).count("\n") == 2, "a way lacks an average"
    assert tables.SWEPT["ended"](Results(made), []) == NOTHING


def test_nothing_is_swept_twice(tmp_path: Path) -> None:
    wanted = list(asked())
    assert len({(each.run.name, each.method, each.step) for each in wanted}) == len(wanted)
    assert all(each.step <= each.run.settings.steps for each in wanted)
    Sweep(tmp_path / "sweep.json").complete(tmp_path, Console(quiet=True), HELD_OUT)
    assert not (tmp_path / "sweep.json").exists()


def test_a_shorter_run_than_planned_is_told_as_far_as_it_goes() -> None:
    run, rival = planned(BEST, "addition", 4e-4), planned("vanilla", "addition", 4e-4)
    made = record(replace(run.settings, steps=300), {0: 0.2, 300: 0.9})
    found = Results({run.name: made, rival.name: record(rival.settings, {0: 0.2, 300: 0.7, 400: 0.8})})
    [entry] = summary(found, [run])
    assert (entry["steps"], entry["sampled"], entry["rival_sampled"]) == (300, 0.9, 0.8)
    [row] = [row for row in tables.SECTIONS["rates"](found).splitlines() if "100 ahead" in row]
    assert row.split(" | ")[5:7] == ["0.900", ""]


@pytest.fixture
def place(embedded_server: EmbeddedServer, tmp_path: Path) -> Place:
    return Place(tmp_path, Server(embedded_server.url, embedded_server.api_key), HELD_OUT)


@pytest.mark.integration
def test_lanes_make_the_runs_and_do_not_repeat_them(place: Place) -> None:
    runs = [Planned(BEST, replace(SHORT, jumps=JUMPS))]
    console = Console(quiet=True)
    assert make_all(runs, place, 1, console) == {}
    results.keep(runs, place.folder, place.folder)
    [kept] = Results.read(place.folder).records.values()
    assert [row.step for row in kept.rows] == [0, 2, 4, 6]
    assert [(jump.step, jump.alpha) for jump in kept.jumps] == [(4, 1.0)]
    made = (place.folder / runs[0].name / RECORD).stat().st_mtime_ns
    assert make_all(runs, place, 1, console) == {}
    assert (place.folder / runs[0].name / RECORD).stat().st_mtime_ns == made


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_branch_goes_on_from_another_run(place: Place, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    steps: list[int] = []

    def tell(step: int, accuracy: Accuracy) -> None:
        steps.append(step)

    with NExtClient(place.server.url, place.server.api_key) as client:
        vanilla = make(Planned("vanilla", SHORT), tmp_path, client, tell, HELD_OUT)
        jumping = Planned(BEST, replace(SHORT, jumps=JUMPS, start="vanilla"))
        branch(jumping, tmp_path / Planned("vanilla", SHORT).name, tmp_path / jumping.name, client)
        newest = newest_checkpoint(tmp_path / jumping.name)
        assert newest is not None
        assert newest.name == "checkpoint-4"
        made = make(jumping, tmp_path, client, tell, HELD_OUT)
    assert steps == [1, 2, 3, 4, 5, 6, 5, 6]
    assert made.rows[:3] == vanilla.rows[:3]
    assert [jump.alpha for jump in made.jumps] == [1.0]
    assert made.rows[3].accuracy != vanilla.rows[3].accuracy
