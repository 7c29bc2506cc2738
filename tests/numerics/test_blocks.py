"""Modules as a GPU works on them, here on the CPU: what a CPU tells of them one after the other."""

from pathlib import Path

import pytest
import torch
from fixtures.adapters import write_run
from fixtures.dense import checkpoints
from safetensors.torch import load_file, save_file
from torch import Tensor

from nextrapolate_numerics import Trajectory
from nextrapolate_numerics.extraction import sending
from nextrapolate_numerics.extraction.blocks import SentGroup
from nextrapolate_numerics.extraction.deltas import Delta, points_of
from nextrapolate_numerics.extraction.gram import Pairs
from nextrapolate_numerics.extraction.groups import Group, moving
from nextrapolate_numerics.extraction.sending import Factors
from nextrapolate_numerics.extraction.tiles import TiledGroup

MODULES = {
    "layers.0.up": (70, 90),
    "layers.0.down": (90, 70),
    "layers.1.up": (70, 90),
    "layers.10.up": (70, 90),
    "layers.1.down": (90, 70),
    "head": (700, 900),
}
FROZEN = {"neck": (5, 6)}
STEPS = (10, 20, 30, 40)


def written_otherwise(file: Path) -> None:
    """Without PEFT's prefix, in another order, and one factor in float64."""
    tensors = {key.removeprefix("base_model.model."): tensor for key, tensor in load_file(file).items()}
    tensors["layers.10.up.lora_A.weight"] = tensors["layers.10.up.lora_A.weight"].double()
    save_file(tensors, file)


@pytest.fixture(params=[1, 3_000, 1 << 20], ids=["each factor a piece", "some in one", "all in one"])
def groups(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TiledGroup, SentGroup]:
    """The same modules in both ways, read as they are sent to a GPU."""
    monkeypatch.setattr(sending, "PINNED_BYTES", 4 * request.param)
    run = write_run(tmp_path / "run", STEPS, modules=MODULES | FROZEN, rank=16)
    written_otherwise(checkpoints(run)[2].model)
    trajectory = Trajectory.open(checkpoints(run))
    moved = moving(trajectory, trajectory.module_names)
    factors = Factors.of(moved, trajectory)
    room, pieces = torch.full((len(STEPS), factors.entries), torch.nan), factors.pieces()
    assert sum((piece.which for piece in pieces), ()) == factors.which
    for point in range(len(STEPS)):
        parts = torch.split(room[point], [piece.entries for piece in pieces])
        for piece, part in zip(pieces, parts, strict=True):
            trajectory.read(point, piece.which, part)
    sent = SentGroup.of(factors.modules(room, trajectory.config.scaling))
    return TiledGroup.of((name, trajectory.stored(name)) for name in sent.names), sent


def test_the_same_modules_those_of_one_shape_together(groups: tuple[TiledGroup, SentGroup]) -> None:
    tiled, sent = groups
    assert sorted(sent.names) == sorted(MODULES)
    assert sorted(map(len, sent.blocks)) == [1, 2, 3]
    assert sent.names == tiled.names
    assert sent.entries == tiled.entries


@pytest.mark.parametrize("wanted", [None, [(0, 0), (1, 1), (2, 2), (3, 3), (1, 0), (2, 3)]])
def test_products_and_sums(
    groups: tuple[TiledGroup, SentGroup], wanted: list[tuple[int, int]] | None
) -> None:
    one, other = (group.multiplied(Pairs.of(4, wanted), sums=True) for group in groups)
    for name in ("left", "right", "left_sums", "right_sums", "scaling"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-12)
    assert not groups[1].multiplied(Pairs.of(4), sums=False).left_sums.numel()


def test_vectors_from_coordinates(groups: tuple[TiledGroup, SentGroup]) -> None:
    deltas: list[Delta] = [((None, 1),), ((1, 3),), ((None, 0), (2, 3))]
    u, v = (torch.zeros(len(MODULES), len(deltas), 4, 16, dtype=torch.float64) for _ in range(2))
    for index, delta in enumerate(deltas):
        for side in (u, v):
            side[:, index, points_of(delta)] = torch.randn(16, dtype=torch.float64)

    def vectors(group: Group) -> list[tuple[Tensor, Tensor]]:
        some = group.combined(u, v, deltas)
        return [of_module for left, right in some for of_module in zip(left, right, strict=True)]

    tiled, sent = groups
    for one, other in zip(vectors(tiled), vectors(sent), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
