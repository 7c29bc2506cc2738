"""Modules on several threads: the same bytes as on one, in the same order."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import current_thread

import pytest
import torch
from fixtures.adapters import write_run
from fixtures.dense import checkpoints
from safetensors.torch import load_file

from nextrapolate_numerics import GateThresholds, Method, Next, NextPaper, Relex, Trajectory, extend, extract
from nextrapolate_numerics.extraction import groups
from nextrapolate_numerics.parallel import in_threads

STEPS = (10, 20, 30, 40, 50, 60)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_callers_of_several_threads_leave_torch_its_own() -> None:
    def call(_: int) -> list[int]:
        return list(in_threads(lambda item: item + int(torch.zeros(1)), range(50)))

    with ThreadPoolExecutor(5) as callers:
        assert all(found == list(range(50)) for found in callers.map(call, range(20)))
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("items", "most", "each"), [(1, 4, 3), (2, 4, 1), (9, 1, 3), (9, 0, 3)])
def test_few_items_have_more_threads_each(items: int, most: int, each: int) -> None:
    assert set(in_threads(lambda _: torch.get_num_threads(), range(items), most)) == {each}


@pytest.mark.usefixtures("threads")
def test_results_come_in_order_from_several_threads_of_one_each() -> None:
    def work(item: int) -> tuple[int, int, str]:
        return item, torch.get_num_threads(), current_thread().name

    numbers, each, names = zip(*in_threads(work, range(20)), strict=True)
    assert numbers == tuple(range(20))
    assert set(each) == {1}
    assert all(name.startswith("modules") for name in names)
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
def test_what_one_raises_is_raised_and_torch_has_its_threads_again() -> None:
    def work(item: int) -> int:
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        list(in_threads(work, [2, 1, 0, 3]))
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    "method", [Next(), NextPaper(epochs=2), Relex()], ids=lambda each: type(each).__name__
)
def test_another_number_of_threads_gives_the_same_evidence_and_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    monkeypatch.setattr(groups, "_ON_CPU", groups._Room(products=1, factors=1))
    series = checkpoints(write_run(tmp_path / "run", STEPS))
    extraction = extract(Trajectory.open(series), method, 20, geometry=True)
    update = method.fit(extraction, 20)
    adapters = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        folder = tmp_path / str(threads)
        folder.mkdir()
        found = extract(Trajectory.open(series), method, 20, geometry=True)
        for name in extraction.moved:
            assert torch.equal(found.grams[name], extraction.grams[name])
            assert found.geometry[name].energy_ratios == extraction.geometry[name].energy_ratios
        extend(found, update, alpha=1.5, gate=GateThresholds(), backtest=None, folder=folder)
        adapters.append(load_file(folder / "adapter_model.safetensors"))
    one, other = adapters
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_pair_of_points_is_held_however_high_the_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The products of one are 64 MB at rank 2048: more than may be held, and the least that does."""
    monkeypatch.setattr(groups, "_OF_ONE", 16 * 64**2 // 2)  # as rank 64 finds it here
    run = write_run(tmp_path / "run", (10, 20), modules={"q_proj": (3, 3)}, rank=64)
    trajectory = Trajectory.open(checkpoints(run))
    assert groups.most_pairs(trajectory, torch.device("cpu")) == 1
    extraction = extract(trajectory, Next(), 20, geometry=True)
    assert extraction.moved == frozenset(trajectory.module_names)


@pytest.mark.parametrize(("rank", "points", "groups_at_once"), [(4, 45, 4), (16, 45, 2), (64, 45, 1)])
def test_threads_share_the_memory_of_inner_products(
    tmp_path: Path, rank: int, points: int, groups_at_once: int
) -> None:
    run = write_run(tmp_path / "run", (10, 20), rank=rank)
    assert groups.at_once(Trajectory.open(checkpoints(run)), points**2) == groups_at_once
