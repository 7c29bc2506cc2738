"""What the processes of a run have in common, asked of a group of one or two."""

import logging
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from nextrapolate_trainer.fail_open import fail_open
from nextrapolate_trainer.ranks import group_timeout, tell

DIES = """
import os, sys, torch.distributed as dist
dist.init_process_group("gloo", sys.argv[1], rank=0, world_size=2)
os._exit(9)
"""


def test_the_timeout_that_counts_is_the_group_s_own(tmp_path: Path) -> None:
    met = f"file://{tmp_path / 'store'}"
    dist.init_process_group("gloo", met, rank=0, world_size=1, timeout=timedelta(seconds=12))
    try:
        assert group_timeout(1800) == 12
    finally:
        dist.destroy_process_group()


@pytest.mark.integration
def test_a_process_that_has_died_is_no_defect_of_the_plugin(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    met = f"file://{tmp_path / 'store'}"
    with subprocess.Popen([sys.executable, "-c", DIES, met]):
        dist.init_process_group("gloo", met, rank=1, world_size=2, timeout=timedelta(seconds=60))
    try:
        with fail_open("no jump after step 8, training goes on from its own weights"):
            tell(None)
    finally:
        dist.destroy_process_group()
    [line] = [record for record in caplog.records if record.name == "nextrapolate"]
    assert (line.levelno, line.exc_info) == (logging.ERROR, None)
    assert line.getMessage().startswith(
        "training cannot go on: this run's processes cannot reach each other any more, maybe since one "
        "has died: "
    )
