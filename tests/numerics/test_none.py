"""No update: the last checkpoint to the last bit, and the scores of a baseline."""

from pathlib import Path

import pytest
import torch
from fixtures.dense import checkpoints
from safetensors.torch import load_file

from nextrapolate_numerics import GateThresholds, NoUpdate, Trajectory, backtest, extend, extract


def test_nothing_is_predicted_and_nothing_changes(run_folder: Path, tmp_path: Path) -> None:
    files = checkpoints(run_folder)
    extraction = extract(Trajectory.open(files), NoUpdate(), 30)
    update = NoUpdate().fit(extraction, 30)
    assert update.modules() == frozenset()
    scores = backtest(NoUpdate(), extraction, 30)
    assert scores.total.relative_error == pytest.approx(1.0)
    assert (scores.total.cosine, scores.total.size_ratio) == (0.0, 0.0)
    extension = extend(extraction, update, alpha=1.0, gate=GateThresholds(), backtest=scores, folder=tmp_path)
    assert not any(module.gated or module.update_norm for module in extension.modules)
    written, last = load_file(extension.model), load_file(files[-1].model)
    assert all(torch.equal(written[key], last[key]) for key in last)
