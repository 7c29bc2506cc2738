"""A run that is interrupted: nobody tells its callbacks, and what it has collected arrives all the same."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fixtures.scripted_job import script_series
from fixtures.scripted_server import Handler, ScriptedServer, answer

from nextrapolate_trainer.uploads import Uploads

PROGRAM = Path(__file__).parent / "programs" / "interrupted.py"
FILE = "adapter_model.safetensors"


@pytest.mark.integration
def test_the_end_of_the_program_waits_for_what_was_collected(
    scripted: ScriptedServer, tmp_path: Path
) -> None:
    script_series(scripted, 2)

    def late(handler: Handler) -> None:
        time.sleep(2)
        answer({"missing": [FILE]})(handler)

    scripted.on("POST", "/series/s1/checkpoints/2", late)
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), scripted.url],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode != 0
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")
    assert f"/series/s1/checkpoints/2/{FILE}" in [each.path for each in scripted.received]


def test_no_thread_is_left_where_nothing_is_to_be_posted() -> None:
    before = threading.active_count()
    uploads = Uploads(lambda step, adapter: None, lambda: None)
    for step in (10, 20):
        uploads.put(step, {})
        uploads.wait_for(step, timeout=60)
    ends = time.monotonic() + 60
    while threading.active_count() > before:
        assert time.monotonic() < ends
        time.sleep(0.01)
