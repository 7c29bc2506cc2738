"""Whatever goes wrong with an extrapolation ends no training run: it is logged, and the run goes on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nextrapolate.errors import NextrapolateError
from nextrapolate_trainer.errors import (
    GroupLostError,
    JumpRefusedError,
    RankError,
    RunRefusedError,
    RunStopsError,
    TrainerPluginError,
)

logger = logging.getLogger("nextrapolate")


@contextmanager
def fail_open(consequence: str) -> Iterator[None]:
    """Log whatever goes wrong inside, after what follows from it, and go on."""
    try:
        yield
    except RunRefusedError as error:
        # It was logged when the service said so.
        logger.debug("%s: %s", consequence, error)
    except RankError as error:
        logger.log(logging.DEBUG if error.reported else logging.ERROR, "%s: %s", consequence, error)
    except GroupLostError as error:
        # The trainer is the next to find out, and ends: what would have followed is of no interest.
        logger.error("training cannot go on: %s", error)
    except (JumpRefusedError, RunStopsError) as error:
        # Nothing is broken: this is what a guard is for, and what a run that is to stop has asked for.
        logger.warning("%s: %s", consequence, error)
    except (TrainerPluginError, NextrapolateError, OSError) as error:
        logger.error("%s: %s", consequence, error)
    except Exception:  # a defect of ours must not cost somebody a training run
        logger.exception("%s", consequence)
