"""Every real log gives the numbers that stand in it, whatever comes before, between and after its lines."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from figures import COUNTS, LOGS, SCORES
from hypothesis import given, settings
from hypothesis import strategies as st
from preamble import PLAIN, RULED

from niblick.monitor.log_lines import LogReader
from niblick.monitor.timing import phase_seconds
from niblick.monitor.watcher import Watcher


def read(text: str) -> LogReader:
    reader = LogReader()
    for line in text.splitlines():
        reader.feed(line)
    return reader


def snapshot(path: Path) -> dict[str, Any]:
    watcher = Watcher(logs=[path])
    watcher.poll()
    [view] = watcher.views.values()
    return view.snapshot()


def expected(found: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: found[key] for key in LOGS[name]}


def test_every_log_is_expected(shared: Path) -> None:
    assert sorted(p.name for p in (shared / "data" / "logs").glob("*.txt")) == sorted(LOGS)


@pytest.mark.parametrize("name", LOGS)
def test_numbers(shared: Path, name: str) -> None:
    path = shared / "data" / "logs" / name
    assert expected(snapshot(path), name) == LOGS[name]
    facts = read(path.read_text()).facts
    assert [(s.kind, s.bpb, s.seconds) for s in facts.scores] == SCORES[name]
    assert (len(facts.curve), len(facts.checks), facts.max_seconds) == COUNTS[name]
    assert phase_seconds(facts)["training"] == LOGS[name]["train_time_ms"] / 1000


@pytest.mark.parametrize("preamble", [PLAIN, RULED], ids=["plain", "ruled"])
@pytest.mark.parametrize("name", LOGS)
def test_numbers_after_the_whole_script(shared: Path, tmp_path: Path, name: str, preamble: str) -> None:
    path = tmp_path / name
    path.write_text(preamble + (shared / "data" / "logs" / name).read_text())
    assert expected(snapshot(path), name) == LOGS[name]
    facts = read(path.read_text()).facts
    assert [(s.kind, s.bpb, s.seconds) for s in facts.scores] == SCORES[name]
    assert (len(facts.curve), len(facts.checks), facts.max_seconds) == COUNTS[name]


def test_the_script_alone_says_nothing() -> None:
    facts = read(PLAIN).facts
    assert (facts.phase, facts.step, facts.seed, facts.parameters, facts.scores) == ("starting", None, None, None, [])


def test_a_part_under_its_own_name_is_no_size_of_the_whole() -> None:
    facts = read("Serialized model int8+zlib: 1200 bytes\nPacked tables: 300 bytes\n").facts
    assert (facts.bytes.artifact_bytes, facts.bytes.total_bytes) == (1200, None)


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_other_writers(shared: Path, tmp_path: Path, name: str, ending: str) -> None:
    """Windows line ends, colours, ranks and times before the lines, noise between them."""
    noise = random.Random(name)
    lines = []
    for line in (shared / "data" / "logs" / name).read_text().splitlines():
        prefix = "[rank0]: " if ending == "\r\n" and not line.startswith((" ", "[")) else ""
        lines.append(f"{prefix}\x1b[32m{line}\x1b[0m")
        if noise.random() < 0.2:
            lines.append(
                noise.choice(["", "val_bpb:", "step:", "step:x/y train_loss:", "é" * 300, "{}", "0/0", "=====", "\t"])
            )
    path = tmp_path / name
    path.write_bytes(ending.join([*lines, ""]).encode())
    assert expected(snapshot(path), name) == LOGS[name]


@pytest.mark.parametrize("name", LOGS)
def test_no_beginning_is_fatal_or_wrong(shared: Path, name: str) -> None:
    """Whatever has been written so far, the reader knows it and nothing else."""
    reader, seen = LogReader(), ""
    for line in (shared / "data" / "logs" / name).read_text().splitlines():
        reader.feed(line)
        seen += line + "\n"
        facts = reader.facts
        if facts.step is not None:
            assert f"{facts.step}/" in seen
        for number in (facts.bytes.artifact_bytes, facts.bytes.total_bytes, facts.parameters):
            assert number is None or str(number) in seen


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text() | st.from_regex(r"step:\d{1,30}/\d{0,9} (train|val)_loss:[\d.naif-]{0,12} val_bpb:\S*"), max_size=8
    )
)
def test_no_line_is_fatal(lines: list[str]) -> None:
    reader = LogReader()
    for line in lines:
        reader.feed(line, 1.0)
    reader.facts.history("any")


def test_a_traceback_is_a_failure_and_going_on_is_none() -> None:
    start = "model_params:10\nstep:1/100 train_loss:2.0 train_time:10ms step_avg:10.00ms\n"
    broken = 'Traceback (most recent call last):\n  File "x.py", line 1\ntorch.OutOfMemoryError: CUDA out of memory.\n'
    facts = read(start + broken).facts
    assert (facts.phase, facts.message) == ("failed", "torch.OutOfMemoryError: CUDA out of memory.")
    facts = read(start + broken + "step:2/100 train_loss:2.0 train_time:20ms step_avg:10.00ms\n").facts
    assert (facts.phase, facts.message) == ("training", "")
    assert read(start + "Killed\n").facts.phase == "failed"
    assert read(start + "ValueError: said by someone's own print\n").facts.phase == "training"
    assert read(start + "Traceback (most recent call last):\nKeyboardInterrupt\n").facts.phase == "stopped"


def test_a_signal_is_a_stop() -> None:
    facts = read("step:3/9 train_loss:2.0 train_time:30ms\nstopping_early: SIGINT train_time:40ms step:4/9\n").facts
    assert (facts.phase, facts.message, facts.step) == ("stopped", "stopped by SIGINT", 4)


def test_another_run_in_the_same_file_starts_anew(shared: Path) -> None:
    names = list(LOGS)
    first, second = ((shared / "data" / "logs" / n).read_text() for n in names[1:3])
    facts = read(first + second).facts
    assert [(s.kind, s.bpb, s.seconds) for s in facts.scores] == SCORES[names[2]]
    assert len(facts.curve) == COUNTS[names[2]][0]


def test_units_and_other_spellings() -> None:
    facts = read(
        "500/20000 train_loss: 2.4001 train_time: 1.5m tok/s: 6789000\n500/20000 val_loss: 2.3 val_bpb: 1.2\n"
    ).facts
    assert (facts.step, facts.train_loss, facts.val_bpb, facts.train_seconds) == (500, 2.4001, 1.2, 90.0)
    assert facts.tokens_per_second == 6_789_000
    assert read("Hyperparameters:\n  seed: 42\n  iterations: 77\n\nseed_is: 3\n").facts.seed == 42


def test_losses_that_are_no_numbers_are_told() -> None:
    facts = read("step:5/9 train_loss:nan train_time:50ms\n").facts
    assert math.isnan(facts.train_loss or 0.0)
    assert [n.text for n in facts.notes] == ["the loss is nan"]
    assert facts.train_bpb is None
