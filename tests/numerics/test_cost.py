"""What an extraction is said to have cost, against what torch counts and what the files hold."""

from pathlib import Path

import pytest
from fixtures.adapters import MODULES
from fixtures.dense import checkpoints
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from nextrapolate_numerics import Autoregression, Trajectory, extract, extraction_cost
from nextrapolate_numerics.extraction.gram import Pairs
from nextrapolate_numerics.extraction.tiles import TiledGroup


@pytest.mark.parametrize("blurred", ["", "lora_A", "lora_B", "q_proj", "weight"])
def test_products_and_bytes_are_counted(blurred: str, run_folder: Path) -> None:
    for each in checkpoints(run_folder)[::2] if blurred else []:
        tensors = load_file(each.model)
        save_file({k: x.bfloat16() if blurred in k else x for k, x in tensors.items()}, each.model)
    trajectory = Trajectory.open(checkpoints(run_folder))
    extraction = extract(trajectory, Autoregression(), 50)
    cost = extraction_cost(extraction)
    files = [load_file(files.model) for files in checkpoints(run_folder)]
    assert cost.bytes_read == sum(tensor.nbytes for tensors in files for tensor in tensors.values())
    assert len(extraction.moved) < len(MODULES)
    group = TiledGroup.of((name, trajectory.stored(name)) for name in sorted(extraction.moved))
    with FlopCounterMode(display=False) as counter:
        group.multiplied(Pairs.of(len(trajectory.points)))
    # rows are multiplied in blocks, of whose own products one half is the other's mirror
    assert cost.flops <= counter.get_total_flops() < 2 * cost.flops
