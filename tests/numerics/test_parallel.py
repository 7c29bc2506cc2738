"""Modules on several threads: the same bytes as on one, in the same order."""

from collections.abc import Iterator
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


@pytest.mark.parametrize(
    "method", [Next(), NextPaper(epochs=2), Relex()], ids=lambda each: type(each).__name__
)
def test_another_number_of_threads_gives_the_same_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    monkeypatch.setattr(groups, "_ON_CPU", groups._Room(products=1, factors=1))
    series = checkpoints(write_run(tmp_path / "run", STEPS))
    before = torch.get_num_threads()
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
    torch.set_num_threads(before)
    one, other = adapters
    assert all(torch.equal(one[name], other[name]) for name in one)
