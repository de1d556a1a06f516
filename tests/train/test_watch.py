"""Spikes, slow steps and clocks: noticed once, neither too early nor for good."""

from __future__ import annotations

import json
import math
import random

import pytest

from niblick.errors import ConfigError
from niblick.train.schedule import Clock, Pace, ScheduleConfig
from niblick.train.watch import FIRST, SLOW_STEPS, WINDOW, Watch


def falling(steps: int) -> list[float]:
    draw = random.Random(1)
    return [2 + 3 * math.exp(-i / 40) + draw.gauss(0, 0.03) for i in range(steps)]


def test_a_falling_noisy_loss_is_no_spike() -> None:
    watch = Watch()
    assert not [loss for loss in falling(400) if watch.spike(loss)]


def test_a_spike_is_told_once() -> None:
    watch = Watch()
    for loss in falling(200):
        watch.spike(loss)
    said = [watch.spike(loss) for loss in (3.5, 4.0, 3.9, 2.0, 2.0, 5.0)]
    assert [bool(s) for s in said] == [True, False, False, False, False, True]
    assert "jumped to 3.5000, from 2.0" in str(said[0])
    assert watch.spike(math.nan) == "the loss is nan"


def test_what_the_watch_remembers_goes_through_json() -> None:
    losses = [*falling(100), 3.9, 3.9, 2.2]
    for cut in (3, FIRST, 60, 101):
        whole, watch = Watch(), Watch()
        for loss in losses[:cut]:
            whole.spike(loss)
            watch.spike(loss)
        resumed = Watch(json.loads(json.dumps(watch.state())))
        assert [whole.spike(x) for x in losses[cut:]] == [resumed.spike(x) for x in losses[cut:]]


def test_routers_that_stay_dead_are_told_once_across_a_resume() -> None:
    dead = {"boundary_rate": 1.0, "mean_p": 1.0, "spread_p": 0.0}
    watch = Watch()
    assert not watch.routers.warnings([dead], 1, ["cosine"]) and not watch.routers.warnings([dead], 1, ["cosine"])
    resumed = Watch(json.loads(json.dumps(watch.state())))
    assert len(resumed.routers.warnings([dead], 1, ["cosine"])) == 1
    assert not resumed.routers.warnings([dead], 1, ["cosine"])


def test_steps_that_become_slow() -> None:
    watch = Watch()
    assert not any(watch.slow(0.1, 1000) for _ in range(50))
    assert not watch.slow(5.0, 1000), "one slow step is nothing"
    assert not watch.slow(0.1, 1000)
    said = [watch.slow(0.4, 1000) for _ in range(WINDOW + FIRST + 20)]
    assert [i for i, s in enumerate(said) if s] == [SLOW_STEPS - 1]
    assert said[SLOW_STEPS - 1] == "throughput fell to 2,500 tokens/s, from 10,000"
    assert [bool(watch.slow(1.0, 1000)) for _ in range(SLOW_STEPS)][-1], "the new speed has become the usual one"


class Time:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_clock_stands_still_while_paused() -> None:
    time = Time()
    clock = Clock(7.0, time)
    time.seconds += 3
    with clock.paused():
        time.seconds += 50
    time.seconds += 1
    assert clock.read() == 11.0


def test_no_step_starts_that_would_overshoot() -> None:
    schedule = ScheduleConfig(steps=1000, max_seconds=600, reserve_seconds=40)
    assert schedule.limit_seconds == 560
    assert not schedule.finished(5, 550.0, 9.9)
    assert schedule.finished(5, 550.0, 10.1)
    assert schedule.finished(5, 560.0)
    assert schedule.progress(0, 280) == 0.5
    assert schedule.lr_scale(100, 560.0) == 0
    pace = Pace(3)
    assert pace.longest == 0
    for seconds in (9.0, 1.0, 2.0, 1.5):
        pace.add(seconds)
    assert pace.longest == 2.0


def test_a_reserve_that_does_not_fit() -> None:
    for cap, reserve in ((10.0, 10.0), (10.0, -1.0)):
        with pytest.raises(ConfigError, match="reserve_seconds"):
            ScheduleConfig(max_seconds=cap, reserve_seconds=reserve)
