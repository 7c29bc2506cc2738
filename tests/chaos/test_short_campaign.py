"""A short campaign, so that the long ones find a harness that works; and what one of them found."""

from pathlib import Path

import pytest

from chaos import campaign, summary
from chaos.campaign import Plan
from chaos.deployment import Size

pytestmark = pytest.mark.integration


def run(plan: Plan, folder: Path) -> campaign.Result:
    result = campaign.run(plan, folder, print)
    print(*summary.lines(result), sep="\n")
    return result


def test_a_short_campaign_keeps_every_promise(tmp_path: Path) -> None:
    kinds = ("worker-kill", "redis-kill", "child-kill", "wake-ups-lost")
    size = Size(workers=2, apis=1, lease_seconds=2)
    result = run(Plan(seed=1, jobs=8, faults=4, kinds=kinds, seconds=400, size=size), tmp_path)
    assert result.outcome.broken == ()
    assert (len(result.acknowledged), len(result.faults)) == (8, 4)


def test_a_worker_whose_connections_fall_silent_in_a_job_takes_work_again(tmp_path: Path) -> None:
    plan = Plan(seed=1, jobs=4, faults=1, kinds=("half-open",), seconds=400, size=Size(workers=1, apis=1))
    result = run(plan, tmp_path)
    assert result.outcome.broken == ()
    assert result.faults[0].job is not None
    (noticed,) = result.recoveries
    assert noticed.seconds < 90
