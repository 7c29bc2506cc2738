"""What the processes of a run have in common, asked of a group of one."""

from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

from nextrapolate_trainer.ranks import group_timeout


def test_the_timeout_that_counts_is_the_group_s_own(tmp_path: Path) -> None:
    met = f"file://{tmp_path / 'store'}"
    dist.init_process_group("gloo", met, rank=0, world_size=1, timeout=timedelta(seconds=12))
    try:
        assert group_timeout(1800) == 12
    finally:
        dist.destroy_process_group()
