"""The tasks: each a language of questions, the right answer, and wrong ones that its base model knows too.

`addition` is the demo's. The others ask for another kind of work: `modular` for two operations in a row,
`sorting` for a rearrangement, `brackets` for a stack.
"""

import random
from dataclasses import replace

from demo.task import ADDITION, Kind, Task

QUESTIONS = 12_000
"""Drawn from languages too large to be used whole."""
DRAW_SEED = 7


def _draw(numbers: range) -> list[int]:
    return random.Random(DRAW_SEED).sample(numbers, QUESTIONS)


def _terms(question: str) -> tuple[int, int, int]:
    """Return a, b and c of "(a+b)%c="."""
    inside, c = question.removeprefix("(").removesuffix("=").split(")%")
    a, b = inside.split("+")
    return int(a), int(b), int(c)


def _modular_questions() -> list[str]:
    drawn = [(10 + n // 450, 10 + n // 5 % 90, 50 + n % 5 * 10) for n in _draw(range(90 * 90 * 5))]
    return [f"({a}+{b})%{c}=" for a, b, c in drawn]


def _remainder(question: str) -> str:
    a, b, c = _terms(question)
    return str((a + b) % c)


def _whole_sum(question: str) -> str:
    a, b, _ = _terms(question)
    return str(a + b)


def _remainder_of_difference(question: str) -> str:
    a, b, c = _terms(question)
    return str(abs(a - b) % c)


def _modulus_less_remainder(question: str) -> str:
    a, b, c = _terms(question)
    return str(c - (a + b) % c)


MODULAR = Task(
    name="modular",
    questions=_modular_questions,
    kinds=(
        Kind(0.25, _remainder),
        Kind(0.30, _whole_sum),
        Kind(0.30, _remainder_of_difference),
        Kind(0.15, _modulus_less_remainder),
    ),
    max_answer_tokens=5,
)


def _sorting_questions() -> list[str]:
    return [f"{number:06}=" for number in _draw(range(10**6))]


def _ascending(question: str) -> str:
    return "".join(sorted(question.removesuffix("=")))


def _descending(question: str) -> str:
    return _ascending(question)[::-1]


def _reversed(question: str) -> str:
    return question.removesuffix("=")[::-1]


def _without_repeats(question: str) -> str:
    return "".join(sorted(set(question.removesuffix("="))))


SORTING = Task(
    name="sorting",
    questions=_sorting_questions,
    kinds=(
        Kind(0.25, _ascending),
        Kind(0.35, _descending),
        Kind(0.25, _reversed),
        Kind(0.15, _without_repeats),
    ),
    max_answer_tokens=7,
)

PAIRS = {"(": ")", "<": ">"}


def _open_brackets(length: int, choose: random.Random) -> str:
    """Return a text of that length whose brackets open and close in order, some of them still open."""
    text, still_open = "", ""
    while len(text) < length:
        if still_open and choose.random() < 0.4:
            text += PAIRS[still_open[-1]]
            still_open = still_open[:-1]
        else:
            text += (opened := choose.choice("(<"))
            still_open += opened
    return text


def _still_open(question: str) -> str:
    """Return the brackets that are open at the end, the outermost first."""
    still_open = ""
    for character in question.removesuffix("="):
        still_open = still_open + character if character in PAIRS else still_open[:-1]
    return still_open


def _brackets_questions() -> list[str]:
    choose = random.Random(DRAW_SEED)
    found: dict[str, None] = {}
    while len(found) < QUESTIONS:
        text = _open_brackets(choose.randint(10, 16), choose)
        if 2 <= len(_still_open(text)) <= 6:
            found[f"{text}="] = None
    return list(found)


def _closing(question: str) -> str:
    return "".join(PAIRS[bracket] for bracket in reversed(_still_open(question)))


def _closing_outermost_first(question: str) -> str:
    return _closing(question)[::-1]


def _closing_once_too_often(question: str) -> str:
    return _closing(question) + ")"


BRACKETS = Task(
    name="brackets",
    questions=_brackets_questions,
    kinds=(
        Kind(0.25, _closing),
        Kind(0.30, _closing_outermost_first),
        Kind(0.25, _still_open),
        Kind(0.20, _closing_once_too_often),
    ),
    max_answer_tokens=8,
)

ADDITION_LARGE = replace(ADDITION, name="addition-large")
"""The demo's, for a base model of its own, eight times as large (bases.py)."""

TASKS = {task.name: task for task in (ADDITION, MODULAR, SORTING, BRACKETS, ADDITION_LARGE)}
