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


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"max_seconds": 0.0}, {"warmdown_share": 1.5}, {"warmdown_steps": -1}], ids=str
)
def test_values_that_do_not_fit(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        ScheduleConfig(**values)  # type: ignore[arg-type]
