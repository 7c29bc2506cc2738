import pytest

from nextrapolate_trainer.schedule import Schedule, rl_extra


def test_one_jump() -> None:
    schedule = Schedule(collect_every=10, jump_at=150)
    assert [step for step in range(1000) if schedule.jumps_after(step)] == [150]
    assert [step for step in range(45) if schedule.collects_after(step)] == [10, 20, 30, 40]


def test_cycles() -> None:
    schedule = Schedule(collect_every=10, jump_at=40, jump_every=20)
    assert [step for step in range(101) if schedule.jumps_after(step)] == [40, 60, 80, 100]


@pytest.mark.parametrize(
    ("jump_every", "step", "end", "told"),
    [
        (None, 0, 41, None),
        (None, 0, 40, "ends after step 40, before a jump that is due when the step after 40 begins"),
        (None, 0, 30, "ends after step 30, before a jump that is due when the step after 40 begins"),
        (None, 40, 80, None),
        (None, 50, 80, "resumes from step 50, but its only jump was due after step 40"),
        (20, 0, 79, None),
        (20, 0, 80, "ends after step 80, before a jump that is due when the step after 80 begins"),
        (20, 50, 70, None),
        (20, 70, 79, "ends after step 79, before a jump that is due when the step after 80 begins"),
    ],
)
def test_a_jump_that_a_run_does_not_come_to_is_told(
    jump_every: int | None, step: int, end: int, told: str | None
) -> None:
    schedule = Schedule(collect_every=10, jump_at=40, jump_every=jump_every)
    said = schedule.never_comes_to(step, end, has_jumped=False)
    assert said is None if told is None else said and told in said
    at_its_end = schedule.jumps_after(end)
    assert bool(schedule.never_comes_to(step, end, has_jumped=True)) == at_its_end, "others were told before"


@pytest.mark.parametrize(
    ("schedule", "end", "last", "enough"),
    [
        (Schedule(10, 150), 100_000, None, None),
        (Schedule(10, 150, 100), 10_240, None, None),
        (Schedule(10, 150, 100), 10_250, 10_250, 11),
        (Schedule(10, 150, 100), 20_049, 19_950, 20),
        (Schedule(10, None, finishes=True), 10_245, None, None),
        (Schedule(1, 10, 10, finishes=True), 1_030, 1_030, 2),
        (Schedule(1, 2_000), 1_999, None, None),
    ],
)
def test_a_run_that_collects_more_than_a_job_takes_is_told(
    schedule: Schedule, end: int, last: int | None, enough: int | None
) -> None:
    told = schedule.collects_too_many(end)
    assert (told is None) is (last is None)
    if told is not None:
        assert f"after step {last}, and a job takes at most 1024" in told
        assert f"set collect_every to {enough} or more" in told


@pytest.mark.parametrize(
    ("train_steps", "collect_every"), [(20, 10), (30, 10), (10, 5), (25, 5), (7, 1), (2, 1)]
)
def test_the_cycle_of_rl_extra(train_steps: int, collect_every: int) -> None:
    cycle = rl_extra(train_steps, jump_steps=60)
    assert cycle["collect_every"] == collect_every
    assert cycle["horizon_steps"] == 60
    schedule = Schedule(cycle["collect_every"], cycle["jump_at"], cycle["jump_every"])
    jumps = [step for step in range(101) if schedule.jumps_after(step)]
    assert jumps == list(range(train_steps, 101, train_steps))
    assert sum(schedule.collects_after(step) for step in range(train_steps + 1)) >= 2


def test_a_stretch_of_one_step_is_no_trajectory() -> None:
    with pytest.raises(ValueError, match="must be at least 2"):
        rl_extra(train_steps=1, jump_steps=10)


def test_every_jump_starts_from_a_collected_checkpoint() -> None:
    with pytest.raises(ValueError, match=r"jump_at is 155.*collect_every \(10\)"):
        Schedule(collect_every=10, jump_at=155)
    with pytest.raises(ValueError, match="jump_every is 15"):
        Schedule(collect_every=10, jump_at=150, jump_every=15)


def test_a_run_may_jump_at_its_end_alone() -> None:
    schedule = Schedule(collect_every=10, jump_at=None, finishes=True)
    assert not any(schedule.jumps_after(step) for step in range(1000))
    assert schedule.never_comes_to(0, 40, has_jumped=False) is None
    assert Schedule(10, jump_at=40, finishes=True).never_comes_to(0, 40, has_jumped=False) is None
    assert Schedule(10, jump_at=50, finishes=True).never_comes_to(0, 40, has_jumped=False) is not None
    for jump_every, finishes in ((None, False), (10, True)):
        with pytest.raises(ValueError, match="jump_at is None: then give finish"):
            Schedule(10, None, jump_every, finishes)


def test_the_next_jump_is_the_first_that_another_step_follows_or_the_last() -> None:
    cycle = Schedule(collect_every=10, jump_at=40, jump_every=20)
    assert [cycle.next_jump(step, 80) for step in (0, 40, 41, 60, 61)] == [40, 40, 60, 60, None]
    assert Schedule(10, jump_at=40).next_jump(41, 80) is None
    assert Schedule(10, jump_at=40, finishes=True).next_jump(41, 80) == 80
    assert Schedule(10, jump_at=None, finishes=True).next_jump(0, 85) == 85


@pytest.mark.parametrize("name", ["collect_every", "jump_at", "jump_every"])
def test_steps_are_positive(name: str) -> None:
    steps = {"collect_every": 10, "jump_at": 150, "jump_every": 10, name: 0}
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Schedule(steps["collect_every"], steps["jump_at"], steps["jump_every"])
