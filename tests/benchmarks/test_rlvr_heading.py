"""How long a run keeps its heading, against dense matrices."""

from pathlib import Path
from statistics import fmean

import pytest
import torch
from benchmarks.models import checkpoints_of, write_series
from benchmarks.rlvr.heading import headings
from fixtures.dense import dense_deltas


def test_cosines_are_those_of_the_dense_weights(tmp_path: Path) -> None:
    files = write_series(tmp_path, {"q_proj": (12, 8), "v_proj": (6, 8)}, rank=2, checkpoints=8, step=1 / 8)
    assert files == checkpoints_of(tmp_path)
    weights = torch.stack(
        [torch.cat([delta.flatten() for delta in dense_deltas(at).values()]) for at in files]
    )
    at = torch.cat([torch.zeros_like(weights[:1]), weights])  # the base model is step 0, then 10, 20, .. 80

    def cosine(step: int, stretch: int) -> float:
        before, here, after = (at[(step + ahead) // 10] for ahead in (-stretch, 0, stretch))
        return float(torch.nn.functional.cosine_similarity(here - before, after - here, dim=0))

    assert headings(tmp_path, (10, 30, 50)) == {
        (10, 0): pytest.approx(fmean(cosine(step, 10) for step in (10, 20, 30, 40))),
        (10, 1): pytest.approx(fmean(cosine(step, 10) for step in (50, 60, 70))),
        (30, 0): pytest.approx(fmean(cosine(step, 30) for step in (30, 40))),
        (30, 1): pytest.approx(cosine(50, 30)),
    }, "a run of 80 steps has no two stretches of 50"
