"""What a run tells: which steps are written down, and the lines in a terminal that is none."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from niblick.console import RunConsole
from niblick.facts.events import Start, Step, Validation, Warmup
from niblick.run.directory import Run
from niblick.run.pipeline import Journal
from niblick.train.telling import LogTimes


def test_slow_steps_are_all_logged_and_fast_ones_by_time() -> None:
    slow = LogTimes(200)
    assert all(slow.due(step, 3.8 * step) for step in range(1, 40))
    fast = LogTimes(10**9)
    told = [step for step in range(1, 60_001) if fast.due(step, 0.01 * step)]
    assert told[:10] == [*range(1, 11)] and 250 < len(told) < 350
    assert max(b - a for a, b in itertools.pairwise(told)) <= 601, "1% of ten minutes"
    assert fast.due(3001, 30.0), "after a rollback the clock stands where it stood"


def test_the_last_step_is_written_before_what_follows(tmp_path: Path) -> None:
    journal = Journal(Run(tmp_path), every=20)
    for step in range(1, 40):
        journal(Step(step=step, loss=5 / step, train_seconds=step / 1000))
    journal(Validation(step=39, loss=1.5, bpb=2.0))
    told = [(event.event, getattr(event, "step", None)) for event in Run(tmp_path).events()]
    assert told == [*(("step", n) for n in (*range(1, 11), 20, 39)), ("validation", 39)]


def test_lines_say_what_is_smoothed_and_how_long_it_will_take(capsys: pytest.CaptureFixture[str]) -> None:
    console = RunConsole()
    console(Start(preset="mine", parameters=9, steps=20_000, max_seconds=600, warmup_steps=2, bytes_per_token=1.0))
    for step in (1, 2):
        console(Warmup(step=step, steps=2, step_seconds=3.0))
    for step in (1, 2, 3):
        console(Step(step=step, loss=4.0 - step, progress=step / 3))
    console(Validation(step=3, loss=1.5, bpb=2.0))
    lines = capsys.readouterr().err.splitlines()
    assert "warm-up 0/2" in lines[1], "before the first of its steps, which may be long"
    assert (
        lines[2] == "warm-up done: 3 s a step, so 20,000 steps take 16h40m; schedule.max_seconds ends it after 10m00s"
    )
    assert "step     3  loss 1.0000  smoothed 4.1" in lines[3] and lines[4].startswith("step 3  validation")
