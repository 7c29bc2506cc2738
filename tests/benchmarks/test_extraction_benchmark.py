"""The benchmark of extraction on a tiny model: what it checks against dense float64 has to hold."""

import subprocess
import sys
from pathlib import Path

import torch
from benchmarks.extraction import Run
from benchmarks.models import MODELS

BEYOND_THESE = """
import sys, torch, numpy, safetensors.torch

before = set(sys.modules)
import benchmarks.extraction, benchmarks.predictor

print(*{name.partition(".")[0] for name in sys.modules} - {name.partition(".")[0] for name in before})
"""


def test_the_numerics_benchmarks_need_torch_numpy_and_safetensors_alone() -> None:
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", BEYOND_THESE], cwd=root, capture_output=True, text=True, check=True
    )
    beyond = set(found.stdout.split()) - sys.stdlib_module_names
    assert beyond == {"benchmarks", "nextrapolate_numerics"}


def test_triples_norms_and_spectra_are_the_dense_ones(tmp_path: Path) -> None:
    run = Run(tmp_path, MODELS["tiny"], rank=16, checkpoints=8, layers=1, device=torch.device("cpu"))
    rows = list(run.accuracy())
    assert [row[0] for row in rows] == ["1/8", "1e-3"]
    for _, *errors in rows:
        assert all(float(error) < 1e-6 for error in errors)
