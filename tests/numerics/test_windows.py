"""A run of many checkpoints, of which few products are held at a time: all is told as if all were held."""

from pathlib import Path

import pytest
import torch
from fixtures.adapters import write_run
from fixtures.combinations import predicted
from fixtures.dense import checkpoints

from nextrapolate_numerics import Evidence, Extraction, Next, Trajectory, backtest
from nextrapolate_numerics.extraction import Seen, gather, look
from nextrapolate_numerics.extraction.windows import Windows
from nextrapolate_numerics.series import Drift

STEPS = [step for step in range(10, 510, 10) if step not in (40, 110, 120)]
EVERYTHING = Evidence(gram=True, triples=Seen.ALL, parts=frozenset({2, 4}), geometry=True)
HORIZON = 20


def extracted(
    monkeypatch: pytest.MonkeyPatch, trajectory: Trajectory, evidence: Evidence, most: int
) -> tuple[Extraction, Windows]:
    """What is learnt where so many products may be held, and how."""
    monkeypatch.setattr(look, "most_pairs", lambda *_: most)
    windows = look.Look.of(trajectory, evidence, HORIZON, torch.device("cpu")).windows
    return gather(trajectory, evidence, HORIZON), windows


@pytest.mark.parametrize(("jumps", "most"), [([], 100), ([50], 100), ([30, 80, 200], 300)], ids=str)
@pytest.mark.parametrize(
    "evidence",
    [
        EVERYTHING,
        Evidence(geometry=True),
        Evidence(triples=Seen.ALL, geometry=True),
        Evidence(parts=frozenset({3}), geometry=True),
    ],
    ids=["everything", "geometry", "triples", "parts"],
)
def test_windows_tell_what_all_products_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evidence: Evidence, jumps: list[int], most: int
) -> None:
    run = checkpoints(write_run(tmp_path / "run", STEPS))
    made = checkpoints(write_run(tmp_path / "jumps", jumps, seed=1)) if jumps else []
    trajectory = Trajectory.open(run, made)
    whole, one = extracted(monkeypatch, trajectory, evidence, 10_000)
    found, windows = extracted(monkeypatch, trajectory, evidence, most)
    assert (len(one.windows), len(one.others)) == (1, 0)
    assert len(windows.windows) + len(windows.others) > 1
    assert windows.most_held < one.most_held
    assert [at for window in windows.windows for at in window.steps] == list(one.windows[0].steps)
    for name in sorted(whole.moved):
        close(found.energy_ratios[name], whole.energy_ratios[name])
        close(found.drift_norms[name], whole.drift_norms[name])
        if evidence.geometry:
            close(found.grams[name], whole.grams[name])
            close(found.geometry[name].energy_ratios, whole.geometry[name].energy_ratios)
            assert found.geometry[name].linearity.in_sample == pytest.approx(
                whole.geometry[name].linearity.in_sample
            )
        for kind in ("globals", "locals", "targets") if evidence.triples else ():
            one_of, other = (getattr(each.triples[name], kind) for each in (found, whole))
            close(one_of.sigma, other.sigma)
            close(one_of.u, other.u)
            close(one_of.v, other.v)
        if evidence.parts:
            close(found.parts[name].products, whole.parts[name].products)
            close(found.parts[name].with_coming, whole.parts[name].with_coming)


@pytest.mark.parametrize("jumps", [[], [50]], ids=str)
def test_a_method_learns_from_windows_what_it_would_from_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: list[int]
) -> None:
    """Next needs products with the points that came within a horizon; a backtest's may be somewhat longer."""
    run = checkpoints(write_run(tmp_path / "run", STEPS))
    made = checkpoints(write_run(tmp_path / "jumps", jumps, seed=1)) if jumps else []
    trajectory, method = Trajectory.open(run, made), Next()
    updates, scores = [], []
    for most in (10_000, 300):
        found, _ = extracted(monkeypatch, trajectory, method.needs | Evidence(geometry=True), most)
        updates.append(predicted(method.fit(found, HORIZON), trajectory))
        scores.append(backtest(method, found, HORIZON).total.relative_error)
    assert updates[0] == pytest.approx(updates[1], rel=1e-8, abs=1e-12)
    assert scores[0] == pytest.approx(scores[1], rel=1e-8)


def test_what_is_held_grows_no_further_with_the_checkpoints() -> None:
    held = []
    for count in (40, 80, 160):
        drift = Drift.of(range(10, 10 * count + 1, 10), [], starts_at_base=True)
        windows = Windows.of(drift, EVERYTHING, 50, 400)
        held.append(windows.most_held)
        products = sum(len(window.pairs.kept) for window in windows.windows)
        assert products < 25 * 2 * count, "as many for each checkpoint"
        others = sum(map(len, windows.others))
        assert count * (count + 1) / 2 - products <= others < count * (count + 1) / 2
    assert max(held) <= 400


def close(one: object, other: object) -> None:
    """The same up to the order of sums."""
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
