"""The same answers on a GPU as on the CPU; what is here needs torch, numpy, safetensors and pytest alone."""

from pathlib import Path

import pytest
import torch
from fixtures.adapters import write_run
from fixtures.dense import checkpoints
from safetensors.torch import load_file, save_file

from nextrapolate_numerics import (
    Autoregression,
    Extraction,
    GateThresholds,
    Method,
    Next,
    NextPaper,
    NonFiniteWeightsError,
    Trajectory,
    backtest,
    extend,
    extract,
)
from nextrapolate_numerics.extraction import groups, sending
from nextrapolate_numerics.gram_svd import Core

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

STEPS = (10, 20, 30, 40, 50, 60, 70)
PAPER = NextPaper(epochs=8)
METHODS: dict[str, Method] = {"next": Next(), "paper": PAPER, "autoregression": Autoregression()}
WIDE = {"model.layers.0.mlp.up_proj": (96, 80), "model.layers.1.mlp.up_proj": (96, 80), "still": (90, 70)}


def extracted(run: Path, method: Method, device: str) -> Extraction:
    return extract(Trajectory.open(checkpoints(run)), method, 20, geometry=True, device=device)


@pytest.mark.parametrize("rank", [4, 40])
@pytest.mark.parametrize("name", METHODS)
def test_the_adapter_is_that_of_the_cpu(tmp_path: Path, name: str, rank: int) -> None:
    """A rank of 40 is one whose small matrices a GPU does not decompose as a batch."""
    run, adapters = write_run(tmp_path / "run", STEPS, modules=WIDE, rank=rank), []
    for device in ("cpu", "cuda"):
        extraction = extracted(run, METHODS[name], device)
        assert extraction.moved == WIDE.keys() - {"still"}
        update = METHODS[name].fit(extraction, 20)
        scores = backtest(METHODS[name], extraction, 20)
        folder = tmp_path / device
        folder.mkdir()
        extend(extraction, update, alpha=1.5, gate=GateThresholds(), backtest=scores, folder=folder)
        adapters.append(load_file(folder / "adapter_model.safetensors"))
    one, other = adapters
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-3, atol=1e-3 * float(one[key].abs().max()))


def test_geometry_and_triples_are_those_of_the_cpu(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", STEPS)
    one, other = (extracted(run, PAPER, device) for device in ("cpu", "cuda"))
    for name in one.moved:
        torch.testing.assert_close(one.grams[name], other.grams[name], rtol=1e-10, atol=0)
        ratios = (torch.tensor(each.geometry[name].energy_ratios) for each in (one, other))
        torch.testing.assert_close(*ratios, rtol=1e-6, atol=0)
        for kind in ("globals", "locals", "targets"):
            triples, others = (getattr(each.triples[name], kind) for each in (one, other))
            for part in ("sigma", "u", "v"):
                torch.testing.assert_close(
                    getattr(triples, part), getattr(others, part), rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("smallest", [1.0, 1e-3, 1e-6, 0.0])
def test_spectra_of_wide_matrices_are_those_of_the_matrices(smallest: float, scale: float) -> None:
    """Where one of a batch is hardly of full rank, or not at all, the CPU's threads decompose them."""
    generator = torch.Generator().manual_seed(0)
    B, A = (torch.randn(5, *size, generator=generator, dtype=torch.float64) for size in ((90, 40), (40, 70)))
    fall = torch.linspace(1, smallest, 40, dtype=torch.float64) ** 2
    B[3], A[3] = scale * B[3] * fall, fall[:, None] * A[3]
    found = Core.spectrum((B.mT @ B).cuda(), (A @ A.mT).cuda()).cpu()
    expected = torch.linalg.svdvals(B @ A)[:, :40]
    assert ((found - expected).abs() <= 1e-7 * expected[:, :1]).all()


@pytest.mark.parametrize("pinned", [4, 4_000])
def test_many_groups_that_are_sent_while_others_are_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: int
) -> None:
    """More points than readers, more pieces than rooms, and groups of which nothing moved."""
    shapes = {"up": (96, 80), "down": (80, 96), "still": (20, 30)}
    modules = {f"layers.{index}.{name}": shape for index in range(9) for name, shape in shapes.items()}
    run = write_run(tmp_path / "run", range(10, 410, 10), modules=modules, rank=8)
    for files in checkpoints(run):
        tensors = load_file(files.model)
        tensors |= {key: tensors[key] * 0 for key in tensors if "still.lora_B" in key}
        save_file(tensors, files.model, metadata={"format": "pt"})
    monkeypatch.setattr(groups, "_LAUNCHED", 1)
    monkeypatch.setattr(sending, "PINNED_BYTES", pinned)
    one, other = (extracted(run, PAPER, device) for device in ("cpu", "cuda"))
    assert one.moved == other.moved == {name for name in modules if not name.endswith("still")}
    for name in one.moved:
        torch.testing.assert_close(one.grams[name], other.grams[name], rtol=1e-10, atol=0)
        torch.testing.assert_close(
            one.triples[name].globals.u, other.triples[name].globals.u, rtol=1e-4, atol=1e-5
        )


def test_the_same_bits_twice(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", STEPS)
    one, other = (PAPER.fit(extracted(run, PAPER, "cuda"), 20) for _ in range(2))
    trajectory = Trajectory.open(checkpoints(run))
    assert one.modules()
    for name in one.modules():
        assert torch.equal(one.delta(name, trajectory).B, other.delta(name, trajectory).B)


def test_a_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", STEPS)
    path = checkpoints(run)[3].model
    tensors = load_file(path)
    key = next(key for key in tensors if "lora_B" in key and tensors[key].any())
    tensors[key][0, 0] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(NonFiniteWeightsError, match="step 40"):
        extracted(run, Next(), "cuda")


def test_training_repeated_from_a_recording_is_training(tmp_path: Path) -> None:
    """The first epochs are launched one by one, the others from a recording; on the CPU there is none.

    Nor does that round factors of products to 10 bits, which 40 epochs make a hundredth of.
    """
    run = write_run(tmp_path / "run", STEPS)
    method = NextPaper(epochs=40, learning_rate=1e-3)
    one, other = (method.fit(extracted(run, method, device), 20) for device in ("cpu", "cuda"))
    trajectory = Trajectory.open(checkpoints(run))
    for name in one.modules():
        left, right = (each.delta(name, trajectory) for each in (one, other))
        assert (left + right.scaled(-1.0)).norm() < 3e-2 * left.norm()
