"""The benchmark of extraction on a tiny model: what it checks against dense float64 has to hold."""

from pathlib import Path

import torch
from benchmarks.extraction import Run
from benchmarks.models import MODELS


def test_triples_norms_and_spectra_are_the_dense_ones(tmp_path: Path) -> None:
    run = Run(tmp_path, MODELS["tiny"], rank=16, checkpoints=8, layers=1, device=torch.device("cpu"))
    rows = list(run.accuracy())
    assert [row[0] for row in rows] == ["1/8", "1e-3"]
    for _, *errors in rows:
        assert all(float(error) < 1e-6 for error in errors)
