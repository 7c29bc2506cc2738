"""The guard's score by the evaluation that the trainer has of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from peft import PeftModel

from nextrapolate_trainer.guard import Score
from nextrapolate_trainer.trl_internals import Trainer, completions_unlogged


def own_evaluation(trainer: Trainer) -> Score:
    """The mean reward of the trainer's own evaluation; of several sets of prompts each counts once.

    Its callbacks do not hear of it, for some steer the run by evaluations; nor do its history and its records
    of completions keep it.
    """
    questions = trainer.eval_dataset
    # One by one, by name, which its type does not say: of all at once TRL tells the last one's reward alone.
    names: list[Any] = list(questions) if isinstance(questions, dict) else [None]

    def score(_: PeftModel) -> float:
        with _unheard(trainer):
            return fmean(trainer.evaluate(name)["eval_reward"] for name in names)

    return score


@contextmanager
def _unheard(trainer: Trainer) -> Iterator[None]:
    handler, history = trainer.callback_handler, trainer.state.log_history
    callbacks, known, training = handler.callbacks, len(history), trainer.is_in_train
    handler.callbacks = []
    # transformers 5.0 says that training is over before the callbacks hear so. Outside of it an evaluation in
    # 16 bits (bf16_full_eval) leaves the weights rounded.
    trainer.is_in_train = True
    try:
        with completions_unlogged(trainer):
            yield
    finally:
        handler.callbacks, trainer.is_in_train = callbacks, training
        del history[known:]
