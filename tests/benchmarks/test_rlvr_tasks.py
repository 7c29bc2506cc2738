"""Each task against answers worked out by hand, and against what trainers and base models need of it."""

from pathlib import Path

import pytest
from benchmarks.rlvr.bases import SIZES, base_of
from benchmarks.rlvr.tasks import TASKS
from demo.language import VOCABULARY
from demo.make_base import BASE, make_model
from demo.task import ADDITION, HELD_OUT, Task

EXAMPLES = {
    "addition": ("37+85=", ["122", "48", "132", "85"]),
    "addition-large": ("37+85=", ["122", "48", "132", "85"]),
    "modular": ("(37+85)%60=", ["2", "122", "48", "58"]),
    "sorting": ("308130=", ["001338", "833100", "031803", "0138"]),
    "brackets": ("(<()<>(=", [")>)", ")>)", "(<(", ")>))"]),
}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    return TASKS[request.param]


def test_the_kinds_answer_as_by_hand(task: Task) -> None:
    question, answers = EXAMPLES[task.name]
    assert [kind.answer(question) for kind in task.kinds] == answers
    assert task.answer(question) == answers[0]


def test_brackets_close_innermost_first() -> None:
    assert [kind.answer("<((=") for kind in TASKS["brackets"].kinds] == ["))>", ">))", "<((", "))>)"]


def test_only_the_exact_answer_is_rewarded(task: Task) -> None:
    question, (right, *_) = EXAMPLES[task.name]
    given = [right, f"{right}0", f" {right}", ""]
    assert task.exact_match([question] * 4, given) == [1.0, 0.0, 0.0, 0.0]


def test_held_out_questions_are_held_out(task: Task) -> None:
    training, held_out = task.split()
    assert len(held_out) == HELD_OUT
    assert len({*training, *held_out}) == len(training) + len(held_out) >= 8000
    assert task.split() == (training, held_out)


def test_the_language_can_say_it_all(task: Task) -> None:
    training, held_out = task.split()
    for question in training + held_out:
        answers = [kind.answer(question) for kind in task.kinds]
        assert set(question + "".join(answers)) <= set(VOCABULARY)
        assert max(map(len, answers)) < task.max_answer_tokens


def test_the_right_answer_is_one_among_others(task: Task) -> None:
    _, questions = task.split()
    assert sum(kind.share for kind in task.kinds) == pytest.approx(1.0)
    known = [
        sum(kind.share for kind in task.kinds if kind.answer(question) == task.answer(question))
        for question in questions
    ]
    assert 0.25 <= sum(known) / len(known) <= 0.40


def test_a_base_that_is_there_is_not_trained_again(tmp_path: Path) -> None:
    (tmp_path / "sorting").mkdir()
    assert base_of(TASKS["sorting"], tmp_path) == tmp_path / "sorting"
    assert base_of(ADDITION, tmp_path) == BASE


def test_a_larger_base_has_eight_times_the_parameters() -> None:
    small, large = (make_model(**SIZES.get(name, {})) for name in ("addition", "addition-large"))
    assert 7.5 < large.num_parameters() / small.num_parameters() < 8.5
