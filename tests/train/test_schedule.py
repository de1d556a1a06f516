"""Budget and learning rate, by steps and by the clock."""

from __future__ import annotations

import pytest

from niblick.errors import ConfigError
from niblick.train.schedule import ScheduleConfig


def test_warmdown_by_steps_as_published() -> None:
    schedule = ScheduleConfig(steps=100, warmdown_steps=40)
    assert [schedule.lr_scale(s, 0.0) for s in (0, 59, 60, 80, 99)] == [1, 1, 1, 0.5, 0.025]


def test_warmdown_by_the_clock_as_published() -> None:
    """600 s, 100 ms a step so far: 1,200 steps are 120 s."""
    schedule = ScheduleConfig(steps=20_000, max_seconds=600, warmdown_steps=1_200)
    assert schedule.lr_scale(0, 0.0) == 1
    assert schedule.lr_scale(4_799, 479.9) == 1
    assert schedule.lr_scale(5_400, 540.0) == pytest.approx(0.5)
    assert schedule.lr_scale(6_000, 600.0) == 0


def test_warmdown_as_a_share_of_whichever_cap_rules() -> None:
    schedule = ScheduleConfig(steps=1_000, max_seconds=100, warmdown_share=0.5)
    assert schedule.lr_scale(100, 50.0) == 1
    assert schedule.lr_scale(100, 75.0) == pytest.approx(0.5)
    assert schedule.lr_scale(900, 10.0) == pytest.approx(0.2)
    assert ScheduleConfig(steps=10, warmdown_share=0.0).lr_scale(9, 0.0) == 1


def test_budget() -> None:
    schedule = ScheduleConfig(steps=10, max_seconds=5)
    assert not schedule.finished(9, 4.9)
    assert schedule.finished(10, 0)
    assert schedule.finished(0, 5.0)
    assert schedule.progress(5, 1.0) == 0.5
    assert schedule.progress(1, 4.0) == 0.8


def test_a_floor_of_steps_stretches_the_time() -> None:
    """Two seconds a step: 10 s are over after 5 of the 8 steps, which then rule like a cap of 16 s."""
    schedule = ScheduleConfig(steps=100, max_seconds=10, min_steps=8, warmdown_share=0.5)
    assert [schedule.progress(s, 2.0 * s) for s in (0, 2, 4, 6, 8)] == [0, 0.25, 0.5, 0.75, 1]
    assert schedule.lr_scale(6, 12.0) == pytest.approx(0.5)
    assert not any(schedule.finished(s, 2.0 * s, 5.0) for s in range(8))
    assert schedule.finished(8, 16.0)
    published = ScheduleConfig(steps=100, max_seconds=10, min_steps=8, warmdown_steps=4)
    assert [published.lr_scale(s, 2.0 * s) for s in (4, 6, 8)] == pytest.approx([1, 0.5, 0])


def test_a_floor_ends_with_the_last_step() -> None:
    schedule = ScheduleConfig(steps=8, max_seconds=10, min_steps=20, warmdown_steps=4)
    assert [schedule.lr_scale(s, 2.0 * s) for s in (4, 6)] == pytest.approx([1, 0.5])
    assert schedule.finished(8, 16.0) and not schedule.finished(7, 14.0)
    exact = ScheduleConfig(max_seconds=10, min_steps=150)
    assert all(exact.finished(150, 20 + seconds / 7) for seconds in range(1000))  # no rounding asks for one more


def test_a_floor_that_is_reached_in_time_changes_nothing() -> None:
    floor = ScheduleConfig(steps=100, max_seconds=10, min_steps=8, warmdown_share=0.5)
    plain = ScheduleConfig(steps=100, max_seconds=10, warmdown_share=0.5)
    for step in range(30):
        seconds = 0.5 * step
        for question in ("progress", "lr_scale", "finished"):
            assert getattr(floor, question)(step, seconds) == getattr(plain, question)(step, seconds)
    assert floor.finished(20, 9.8, 0.5) and not floor.finished(18, 9.0, 0.5)


@pytest.mark.parametrize(
    "values",
    [
        {"min_steps": -1},
        {"steps": 0},
        {"max_seconds": 0.0},
        {"warmdown_share": 1.5},
        {"warmdown_steps": -1},
    ],
    ids=str,
)
def test_values_that_do_not_fit(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        ScheduleConfig(**values)  # type: ignore[arg-type]
