"""The guard: a score of the model on held-out prompts decides whether a jump is kept, and which.

How long a step may be cannot be read off the weights. It can be tried: the score of the run's own adapter, of
each one on offer, and the best of them stays.
"""

import math
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from peft import PeftModel

from nextrapolate_trainer.errors import GuardError, RankError

Score = Callable[[PeftModel], float]
"""Tells how good a model is; higher is better."""


@dataclass(frozen=True)
class Trial:
    """What the guard measured."""

    own: float
    """Score of the run's own adapter."""
    offered: tuple[float, ...]
    """Scores of the extrapolated ones, in their order."""
    seconds: float

    def best(self, tolerance: float) -> int | None:
        """Return the place of the best adapter on offer; None where it is more than `tolerance` worse.

        A score that is not a number is worse than any other; if the run's own is, nothing is known.
        """
        best = max(range(len(self.offered)), key=lambda i: _comparable(self.offered[i]))
        return best if self.offered[best] >= self.own - tolerance else None

    def metrics(self, *, kept: bool) -> dict[str, float]:
        """Return what goes into the trainer's logs, where one of the adapters was kept or none."""
        return {
            "next/guard_own": self.own,
            "next/guard_best": max(self.offered, key=_comparable),
            "next/guard_kept": float(kept),
            "next/guard_seconds": self.seconds,
        }


def measure(model: PeftModel, score: Score, device: torch.device) -> float:
    """Return the model's score, and leave no trace: mode, random numbers and gradients are as before.

    Every call draws the same random numbers, so that adapters are compared on the same dice.

    Args:
        model: the model.
        score: tells how good it is.
        device: where it computes; its parameters may lie elsewhere, offloaded.

    Raises:
        GuardError: the score could not be had; says of what, and where in the caller's code.
        RankError: so it was in another process.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), _same_dice(device):
            return float(score(model))
    except RankError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise GuardError(f"the guard failed: {error!r} at {place.filename}:{place.lineno}") from error
    finally:
        _unmerge(model)
        model.train(training)


def _unmerge(model: PeftModel) -> None:
    """Take the adapter out of the base weights, where a score that failed has left it in them.

    TRL merges it to send weights to vLLM; what is merged would be taken out as another adapter later.
    """
    if any(getattr(module, "merged", False) for module in model.modules()):
        model.unmerge_adapter()


@contextmanager
def _same_dice(device: torch.device) -> Iterator[None]:
    """Put the state of all random number generators back at the end."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _comparable(score: float) -> float:
    return -math.inf if math.isnan(score) else score
