"""Accuracy on the held-out questions, sampled and greedy, in one forward pass and without sampling noise.

At temperature 1 and without top-k the probability of sampling exactly the right answer is the product of its
tokens' probabilities, end of text included: its mean over the questions is the expected sampled accuracy. And
greedy decoding gives exactly the right answer if and only if each of its tokens is the most probable one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from demo.task import Task

IGNORED = -100


@dataclass(frozen=True)
class Accuracy:
    """Shares of the held-out questions answered exactly right, 0 to 1."""

    sampled: float
    greedy: float


@dataclass(frozen=True)
class Grades:
    """What a model makes of each question, both float64 (questions,)."""

    sampled: Tensor
    """Probability of sampling exactly the right answer."""
    greedy: Tensor
    """1 where greedy decoding gives exactly the right answer, else 0."""

    @property
    def accuracy(self) -> Accuracy:
        """The means."""
        return Accuracy(self.sampled.mean().item(), self.greedy.mean().item())


def encode(
    tokenizer: PreTrainedTokenizerFast, questions: Sequence[str], answers: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return (tokens, labels), both int64 (questions, length): question, answer, end of text, right-padded.

    Labels are the tokens of the answer and of the end of text; every other place holds -100.
    """
    rows, labels = [], []
    encoded = (tokenizer(list(texts))["input_ids"] for texts in (questions, answers))
    for asked, answer in zip(*encoded, strict=True):
        answered = [*answer, tokenizer.eos_token_id]
        rows.append(torch.tensor(asked + answered))
        labels.append(torch.tensor([IGNORED] * len(asked) + answered))
    pad = nn.utils.rnn.pad_sequence
    return (
        pad(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
        pad(labels, batch_first=True, padding_value=IGNORED),
    )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    task: Task,
    questions: Sequence[str],
    batch_size: int = 400,
) -> Grades:
    """Grade `model` on `questions`; its mode and its random state stay untouched."""
    tokens, labels = encode(tokenizer, questions, [task.answer(question) for question in questions])
    was_training = model.training
    model.train(False)
    sampled, greedy = [], []
    for start in range(0, len(questions), batch_size):
        rows = slice(start, start + batch_size)
        scores = model(input_ids=tokens[rows]).logits[:, :-1].double().log_softmax(-1)
        wanted = labels[rows, 1:]
        asked = wanted != IGNORED
        chosen = scores.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        sampled.append((chosen * asked).sum(-1).exp())
        greedy.append(((scores.argmax(-1) == wanted) | ~asked).all(-1).double())
    model.train(was_training)
    return Grades(torch.cat(sampled), torch.cat(greedy))
