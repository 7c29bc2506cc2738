"""The greedy soup: its recipe under an oracle's scores, its predicted scores against the formula."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.adapters import write_run
from fixtures.combinations import Vector, dense_drift, fitted
from hypothesis import given, settings
from hypothesis import strategies as st

from nextrapolate_numerics import ScoreCountError, Soup
from nextrapolate_numerics.methods.score_surface import ScoreSurface
from nextrapolate_numerics.methods.soup import greedy_selection

STEPS = [10, 20, 30, 40, 60, 70]


def gaussian_process(known: list[Vector], scores: Vector, point: Vector) -> float:
    """The posterior mean from dense vectors, one distance at a time."""
    distances = np.array([[np.linalg.norm(one - other) for other in known] for one in known])
    apart = sorted(distances[i, j] for i in range(len(known)) for j in range(i) if distances[i, j] > 0)
    length = apart[(len(apart) - 1) // 2]
    K = np.exp(-(distances**2) / (2 * length**2)) + 0.1 * np.eye(len(known))
    k = np.exp(-(np.array([np.linalg.norm(point - one) for one in known]) ** 2) / (2 * length**2))
    return float(scores.mean() + k @ np.linalg.inv(K) @ (scores - scores.mean()))


def dense_greedy(drift: dict[int, Vector], scores: dict[int, float], window: list[int]) -> list[int]:
    """Recipe 1 of the paper, a mean being scored by the dense Gaussian process."""
    known, given = [drift[step] for step in scores], np.array(list(scores.values()))
    soup: list[int] = []
    best = -np.inf
    for step in sorted(window, key=lambda step: (-scores[step], -step)):
        mean = np.mean([drift[one] for one in [*soup, step]], axis=0)
        reached = gaussian_process(known, given, mean)
        if reached >= best:
            soup, best = [*soup, step], reached
    return soup


@settings(deadline=None, max_examples=25)
@given(
    scores=st.lists(st.floats(0, 1, width=16), min_size=6, max_size=6),
    window=st.sampled_from([1, 30, 100]),
    jumped=st.booleans(),
)
def test_the_greedy_soup_is_the_papers_under_predicted_scores(
    scores: list[float], window: int, jumped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    run = write_run(folder / "run", STEPS)
    jumps = write_run(folder / "jumps", [30], seed=5) if jumped else None
    drift = dense_drift(run, jumps)
    inside = [step for step in STEPS if step >= {1: 60, 30: 40, 100: 10}[window]]
    chosen = dense_greedy(drift, dict(zip(STEPS, scores, strict=True)), inside)
    expected = np.mean([drift[step] for step in chosen], axis=0) - drift[70]
    update, actual = fitted(
        Soup(selection="greedy", scores=tuple(scores), window_steps=window), run, 30, jumps
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)
    assert f"at step {', '.join(map(str, sorted(chosen)))}." in update.warnings[0]
    assert "predicted from their scores, not measured" in update.warnings[0]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99))
def test_under_an_oracle_each_addition_is_worth_it(seed: int) -> None:
    """Scores that fall with the distance from a point that is known: the mean comes closer to it."""
    generator = np.random.default_rng(seed)
    models, best = generator.normal(size=(8, 3)), generator.normal(size=3)

    def score(chosen: list[int]) -> float:
        return -float(np.linalg.norm(models[chosen].mean(axis=0) - best))

    order = sorted(range(8), key=lambda index: -score([index]))
    chosen = greedy_selection(order, score)
    assert chosen[0] == order[0]
    for count in range(1, len(chosen)):
        assert score(chosen[: count + 1]) >= score(chosen[:count])
    for left_out in set(order) - set(chosen):
        before = [index for index in chosen if order.index(index) < order.index(left_out)]
        assert score([*before, left_out]) < score(before)


def test_the_surface_is_the_gaussian_process() -> None:
    generator = np.random.default_rng(0)
    points, scores, weights = (
        generator.normal(size=(6, 40)),
        generator.normal(size=6),
        generator.normal(size=6),
    )
    surface = ScoreSurface(torch.from_numpy(points @ points.T), torch.from_numpy(scores))
    expected = gaussian_process(list(points), scores, weights @ points)
    assert surface.at(torch.from_numpy(weights)) == pytest.approx(expected, rel=1e-9)


def test_scores_that_never_differ_make_the_uniform_soup(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", STEPS)
    _, uniform = fitted(Soup(), run, 30)
    _, greedy = fitted(Soup(selection="greedy", scores=(0.5,) * 6), run, 30)
    np.testing.assert_allclose(greedy, uniform, rtol=1e-9, atol=1e-12)


def test_one_score_for_each_checkpoint_is_asked_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", STEPS)
    with pytest.raises(ScoreCountError, match="There are 3 scores, but 6 checkpoints"):
        fitted(Soup(selection="greedy", scores=(0.1, 0.2, 0.3)), run, 30)


@pytest.mark.parametrize("soup", [{"selection": "greedy"}, {"scores": (0.1, 0.2)}])
def test_scores_and_greedy_go_together(soup: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="selection='greedy' and scores go together"):
        Soup(**soup)  # type: ignore[arg-type]
