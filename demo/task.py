"""What a task is, and the demo's: "37+85=" is to be answered by "122".

A base model learns to answer each question in several ways, the right one among them, as a pretrained model
holds the right behaviour among others. RLVR then elicits the right one, in small, steady steps.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

HELD_OUT = 1600
SPLIT_SEED = 20_260


@dataclass(frozen=True)
class Kind:
    """One way to answer a question."""

    share: float
    """Of the base model's training data, 0 to 1."""
    answer: Callable[[str], str]
    """From a question, as it is asked, to the answer of this kind."""


@dataclass(frozen=True)
class Task:
    """Questions, and the ways to answer them."""

    name: str
    questions: Callable[[], list[str]]
    """All of them, each once, the same on every machine; of those, 1600 are held out from every training."""
    kinds: tuple[Kind, ...]
    """The first is the right one."""
    max_answer_tokens: int
    """Where sampling stops: there is room for the longest answer of any kind and its end of text."""

    def answer(self, question: str) -> str:
        """Return the right answer."""
        return self.kinds[0].answer(question)

    def split(self, held_out: int = HELD_OUT) -> tuple[list[str], list[str]]:
        """Return (training questions, held-out questions), the same on every machine.

        A smaller `held_out` takes the first ones of the 1600; the training questions stay as they are.
        """
        questions = self.questions()
        random.Random(SPLIT_SEED).shuffle(questions)  # noqa: S311 (a split, not a secret)
        return questions[HELD_OUT:], questions[:held_out]

    def exact_match(self, prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float | None]:
        """Reward 1 for the exact answer and 0 for everything else, in the form TRL calls rewards."""
        pairs = zip(prompts, completions, strict=True)
        return [float(completion == self.answer(question)) for question, completion in pairs]


def _of_terms(combine: Callable[[int, int], int]) -> Callable[[str], str]:
    """Return the answer that combines the two terms of a sum."""

    def answer(question: str) -> str:
        a, b = question.removesuffix("=").split("+")
        return str(combine(int(a), int(b)))

    return answer


ADDITION = Task(
    name="addition",
    questions=lambda: [f"{a}+{b}=" for a in range(10, 100) for b in range(10, 100)],
    kinds=(
        Kind(0.25, _of_terms(lambda a, b: a + b)),
        Kind(0.35, _of_terms(lambda a, b: abs(a - b))),
        Kind(0.25, _of_terms(lambda a, b: a + b + 10)),
        Kind(0.15, _of_terms(max)),
    ),
    max_answer_tokens=5,
)
