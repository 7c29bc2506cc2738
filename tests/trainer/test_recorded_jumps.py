"""Jumps that a thread which was given up and the one that posts tell the service of at the same time."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import torch
from fixtures.client_examples import NOW
from fixtures.scripted_job import script_series
from fixtures.scripted_server import Handler, ScriptedServer, answer

from nextrapolate import NExtClient
from nextrapolate.schemas import Series
from nextrapolate_trainer.series import Run, RunSeries


def test_two_threads_leave_no_jump_untold(scripted: ScriptedServer) -> None:
    both = threading.Barrier(2)
    known = Series(id="s1", name="run", base_model=None, labels={}, created_at=NOW, checkpoints=[], jumps=[])

    def when_both_have_asked(handler: Handler) -> None:
        both.wait(60)
        answer(known)(handler)

    script_series(scripted, 10, 20)
    scripted.on("POST", "/series/s1/jumps", when_both_have_asked)
    with NExtClient(scripted.url) as client, ThreadPoolExecutor(2) as threads:
        series = RunSeries(client, Run("run", None, {}), None)
        for step in (10, 20):
            series.post(step, {"q_proj.lora_A.weight": torch.zeros(1, 1)})
        for step in (10, 20):
            series.add_jump(step, f"j{step}")
        for told in [threads.submit(series.record_jumps) for _ in range(2)]:
            told.result(60)
        series.record_jumps()
    jumps = [json.loads(received.body)["job"] for received in scripted.received if "jumps" in received.path]
    assert sorted(jumps) == ["j10", "j10", "j20", "j20"], "both told by each, and nothing is left to tell"
