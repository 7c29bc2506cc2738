"""The stages of a job, and what a stage leaves to the next one."""

import ctypes

import psutil
import pytest

from nextrapolate.schemas import Stage
from nextrapolate_worker.profile import Profile

KEEPS_MEMORY = hasattr(ctypes.CDLL(None), "malloc_trim")
BLOCK, BLOCKS = 4096, 25_000


@pytest.mark.skipif(not KEEPS_MEMORY, reason="the C library gives back what is free by itself")
def test_what_a_stage_let_go_of_is_given_back_before_the_next() -> None:
    """However short a time after it last was: the stage before may have ended with its largest piece."""
    profile = Profile(lambda stage, done: None, {Stage.EXTRACT: 0.5, Stage.FIT: 0.5})
    with profile.stage(Stage.EXTRACT) as on_progress:
        blocks = [b"x" * BLOCK for _ in range(BLOCKS)]
        last = blocks[-1]  # at the end of the heap, so that the holes before it stay in the process
        on_progress(1.0)
        blocks.clear()
    before = psutil.Process().memory_info().rss
    with profile.stage(Stage.FIT):
        given_back = before - psutil.Process().memory_info().rss
    assert given_back > BLOCK * BLOCKS / 2
    assert len(last) == BLOCK
