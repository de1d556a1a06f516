"""Phases and ETA: real logs replayed by a clock of the test's own, at the speed they were written and faster."""

from __future__ import annotations

import itertools
import re
import statistics
from pathlib import Path

import pytest
from figures import LOGS

from niblick.monitor.log_lines import LogReader
from niblick.monitor.run_facts import PHASES, Curve, Facts, Point
from niblick.monitor.timing import Lengths, Pace, Timing, phase_seconds, timing

REPLAYED = [name for name in LOGS if not name.startswith("SP8192")]
"""That one's copy has no line of training."""


class Replay:
    """Feeds a log's lines at the times of its own clock, `speed` times faster; validations take `pause` seconds."""

    def __init__(self, text: str, speed: float, pause: float = 0.0) -> None:
        self.reader, self.pace, self.lengths = LogReader(), Pace(), Lengths()
        self.now = self.last_at = 1000.0
        self.lines: list[tuple[float, str]] = []
        offset = 0.0
        for line in text.splitlines():
            found = re.search(r"train_time:\s*(\d+)ms", line)
            clock = int(found[1]) / 1000 if found else None
            offset += pause if "val_loss" in line and found else 0.0
            before = self.lines[-1][0] if self.lines else 0.0
            self.lines.append((max(before, clock + offset) if clock is not None else before, line))
        self.speed = speed
        self.end = max(at for at, line in self.lines if "train_time" in line)

    def timings(self, count: int) -> list[tuple[float, Timing]]:
        """What is told at `count` moments of the training, with the seconds that then remained in truth."""
        found, place = [], 0
        for i in range(count):
            at = self.end * i / count
            while place < len(self.lines) and self.lines[place][0] <= at:
                line_at, line = self.lines[place]
                self.last_at = 1000.0 + line_at / self.speed
                self.reader.feed(line, self.last_at)
                if self.reader.facts.phase == "training" and self.reader.facts.train_seconds:
                    self.pace.observe(self.last_at, self.reader.facts.train_seconds)
                place += 1
            now = 1000.0 + at / self.speed
            told = timing(self.reader.facts, now, self.last_at, self.pace, self.lengths)
            found.append(((self.end - at) / self.speed, told))
        return found


def errors(found: list[tuple[float, Timing]]) -> list[float]:
    """Relative errors of the training phase's ETA from 20% on."""
    return [
        abs(told.phase_eta - left) / left
        for left, told in found[len(found) // 5 :]
        if told.phase == "training" and told.phase_eta is not None
    ]


@pytest.mark.parametrize("name", REPLAYED)
@pytest.mark.parametrize(("speed", "pause"), [(1, 0), (60, 0), (1000, 0), (1, 8), (60, 8)])
def test_replayed_by_the_clock(shared: Path, name: str, speed: float, pause: float) -> None:
    """The cap ends these runs."""
    found = Replay((shared / "data" / "logs" / name).read_text(), speed, pause).timings(400)
    wrong = errors(found)
    assert len(wrong) > 300
    assert statistics.median(wrong) < 0.10


@pytest.mark.parametrize("name", REPLAYED)
@pytest.mark.parametrize("speed", [1, 60])
def test_replayed_by_steps(shared: Path, name: str, speed: float) -> None:
    """The same logs as if the last step had been what was asked for, without a cap."""
    text = (shared / "data" / "logs" / name).read_text()
    text = text.replace("/20000", f"/{LOGS[name]['step']}").replace("max_wallclock_seconds:600.000", "")
    wrong = errors(Replay(text, speed).timings(400))
    assert len(wrong) > 300
    assert statistics.median(wrong) < 0.10


def test_between_lines_time_goes_on(shared: Path) -> None:
    """A log with a line every 42 seconds: ETA and share move with every second."""
    found = Replay((shared / "data" / "logs" / REPLAYED[0]).read_text(), 1).timings(600)[200:500]
    etas = [told.phase_eta or 0.0 for _, told in found]
    shares = [told.share or 0.0 for _, told in found]
    assert all(a > b for a, b in itertools.pairwise(etas))
    assert all(a < b for a, b in itertools.pairwise(shares))


def test_lines_that_come_all_at_once_do_not_send_the_bar_to_its_end() -> None:
    """A writer that was held up: ten lines of two seconds each within a tenth of a second, then silence."""
    pace, facts = Pace(), Facts(max_seconds=600.0)
    facts.enter("training", 0.0)
    for i in range(1, 11):
        facts.step, facts.train_seconds = i, 2.0 * i
        facts.curve.add(Point(i, 2.0 * i, 2.0))
        pace.observe(100.0 + i / 100, 2.0 * i)
    shares = [timing(facts, 100.1 + after, 100.1, pace, Lengths()).share for after in (0.0, 0.001, 1.0, 30.0)]
    assert shares[0] == pytest.approx(20 / 600) and shares[-1] == shares[-2] == pytest.approx(24 / 600)
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("name", LOGS)
def test_phases_come_in_their_order(shared: Path, name: str) -> None:
    reader, order = LogReader(), []
    for line in (shared / "data" / "logs" / name).read_text().splitlines():
        reader.feed(line)
        if reader.facts.phase != "starting" and (not order or order[-1] != reader.facts.phase):
            order.append(reader.facts.phase)
    order = [p for p in order if p != "done"] + ["done"]
    if name.startswith("SP8192"):  # its script warms up twice
        order = order[2:]
    assert [PHASES.index(p) for p in order] == sorted(PHASES.index(p) for p in order)
    assert order[0] == "warmup" and len(order) > 3


def done(facts: Facts, **seconds: float) -> Facts:
    at = 0.0
    for phase, length in seconds.items():
        facts.enter(phase, at)
        at += length
    facts.enter("done", at)
    return facts


def test_silent_phases_are_learned_from_runs_of_the_same_kind() -> None:
    lengths = Lengths()
    for i, seconds in enumerate((90.0, 100.0, 110.0)):
        lengths.learn(str(i), "net", done(Facts(), training=600, packaging=20, quantized_validation=seconds, ttt=300))
    lengths.learn("other", "small", done(Facts(), training=60, packaging=1, quantized_validation=2))
    facts = Facts(max_seconds=600.0, train_seconds=500.0, step=10)
    facts.enter("training", 0.0)
    told = timing(facts, 500.0, 500.0, Pace(), lengths, "net")
    assert (told.phase_eta, told.eta) == (100.0, 100 + 20 + 100 + 300)
    assert timing(facts, 500.0, 500.0, Pace(), lengths, "small").eta == 100 + 1 + 2
    assert timing(facts, 500.0, 500.0, Pace(), lengths, "unheard of").eta == 100
    facts.enter("quantized_validation", 600.0)
    told = timing(facts, 640.0, 600.0, Pace(), lengths, "net")
    assert (told.phase, told.phase_eta, told.eta, told.share) == ("quantized_validation", 60.0, 360.0, 0.4)
    assert timing(facts, 900.0, 600.0, Pace(), lengths, "net").phase_eta == 0.0


def test_a_run_tells_of_its_own_validation() -> None:
    facts = Facts(max_seconds=600.0, train_seconds=600.0, step=10, steps=10)
    for phase, at in (("initial_validation", 0.0), ("training", 12.0), ("final_validation", 612.0)):
        facts.enter(phase, at)
    told = timing(facts, 615.0, 612.0, Pace(), Lengths())
    assert (told.phase_eta, told.eta) == (9.0, 9.0 + 12.0)


def training_since(at: float) -> Facts:
    facts = Facts(steps=1000, max_seconds=600.0, train_seconds=100.0, step=100)
    facts.enter("training", at)
    for i in range(1, 11):
        facts.curve.add(Point(10 * i, 10.0 * i, 2.0))
    return facts


def test_silence_is_a_stall_only_when_it_is_long() -> None:
    facts = training_since(0.0)
    assert timing(facts, 150.0, 100.0, Pace(), Lengths()).phase == "training"
    told = timing(facts, 250.0, 100.0, Pace(), Lengths())
    assert (told.phase, told.working, told.eta, told.age) == ("stalled", "training", None, 150.0)
    facts.enter("packaging", 600.0)
    assert timing(facts, 1400.0, 600.0, Pace(), Lengths()).phase == "packaging"
    assert timing(facts, 1600.0, 600.0, Pace(), Lengths()).phase == "stalled"


def test_a_clock_at_its_end_means_the_last_validation() -> None:
    facts = training_since(0.0)
    facts.train_seconds = 590.0
    told = timing(facts, 605.0, 590.0, Pace(), Lengths())
    assert (told.phase, told.guessed) == ("final_validation", True)


def test_silence_since_long_before_the_end_is_no_validation() -> None:
    told = timing(training_since(0.0), 5000.0, 100.0, Pace(), Lengths())
    assert (told.phase, told.working) == ("stalled", "training")


def test_pace_of_a_run_that_starts_anew() -> None:
    pace = Pace()
    for at, clock in ((0.0, 0.0), (10.0, 5.0), (20.0, 10.0)):
        pace.observe(at, clock)
    assert pace.value == 2.0
    pace.observe(30.0, 1.0)
    assert pace.value == 1.0


def test_curves_stay_bounded_and_whole() -> None:
    curve = Curve()
    for step in range(1, 50_001):
        curve.add(Point(step, step * 0.1, 2.0))
    steps = [p.step for p in curve]
    assert len(steps) <= 4096 and steps[-1] == 50_000 and steps == sorted(steps)
    curve.add(Point(30_000, 3000.0, 2.0))  # rolled back to a checkpoint
    steps = [p.step for p in curve]
    assert steps[-1] == 30_000 and steps == sorted(set(steps))


def test_phase_seconds_add_up() -> None:
    assert phase_seconds(done(Facts(), warmup=1, initial_validation=2, warmup2=0, training=5))["training"] == 5.0


def test_a_run_that_goes_on_to_its_floor_is_training() -> None:
    """Ten seconds are over after 20 steps; 40 are wanted, a second each."""
    facts = Facts(steps=1000, max_seconds=10.0, min_steps=40, phase="training")
    for step in range(1, 21):
        facts.step, facts.train_seconds = step, float(step)
        facts.curve.add(Point(step, float(step), 1.0, 1.0, 1.0, 1.0, ()))
    told = timing(facts, 1000.0, 1000.0, Pace(), Lengths())
    assert (told.phase, told.share, told.guessed) == ("training", 0.5, False)
    assert told.phase_eta == pytest.approx(20.0)
    facts.min_steps = 0
    assert timing(facts, 1000.0, 1000.0, Pace(), Lengths()).phase == "final_validation"
