"""Logs: real ones imply the challenge's byte count, doctored copies of them do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from niblick.audit.checks import Check
from niblick.audit.log_checks import VALIDATION_BYTES, audit_log
from niblick.challenge import rules
from niblick.facts.event_lines import read_event

LOG = """\
val_loader:shards pattern=./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin tokens:62021632
train_batch_tokens:524288 train_seq_len:1024 iterations:20000 warmup_steps:20 max_wallclock_seconds:600.000
step:0/20000 val_loss:6.9206 val_bpb:4.0987 train_time:0ms step_avg:0.03ms
step:1000/20000 train_loss:2.5964 train_time:110185ms step_avg:110.19ms
step:5463/20000 val_loss:2.3062 val_bpb:1.3659 train_time:600080ms step_avg:109.84ms
stopping_early: wallclock_cap train_time:600080ms step:5463/20000
Code size: 58562 bytes
Serialized model int8+zlib: 15939775 bytes (payload:17959200 raw_torch:18002541 payload_ratio:3.65x)
Total submission size int8+zlib: 15998337 bytes
final_int8_zlib_roundtrip val_loss:2.3190 val_bpb:1.3734 eval_time:3221ms
final_int8_zlib_roundtrip_exact val_loss:2.31900849 val_bpb:1.37344745
"""
DOCTORED = {
    "another score": ("val_bpb:1.37344745", "val_bpb:1.27344745", "bytes"),
    "both scores": ("val_bpb:1.3734", "val_bpb:1.2734", "bytes"),
    "a lower loss": ("val_loss:2.31900849", "val_loss:2.21900849", "bytes"),
    "an early score": ("val_bpb:1.3659", "val_bpb:1.3559", "bytes"),
    "fewer tokens": ("tokens:62021632", "tokens:60021632", "bytes"),
    "a rounded score": (
        "roundtrip val_loss:2.3190 val_bpb:1.3734 ", "roundtrip val_loss:2.3250 val_bpb:1.3770 ", "scores"),
    "a smaller model": ("int8+zlib: 15939775", "int8+zlib: 14939775", "artifact"),
    "less code": ("Code size: 58562", "Code size: 8562", "artifact"),
    "faster steps": ("step_avg:109.84ms", "step_avg:99.84ms", "steps and times"),
    "an earlier end": ("step:5463/20000 val_loss", "step:463/20000 val_loss", "steps and times"),
    "another stop": ("600080ms step:5463/20000\nCode", "590080ms step:5463/20000\nCode", "steps and times"),
}  # fmt: skip


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_an_honest_log_passes() -> None:
    assert {check.status for check in audit_log(LOG)} == {"pass"}


@pytest.mark.parametrize("what", DOCTORED)
def test_doctored_copies_fail(what: str) -> None:
    before, after, name = DOCTORED[what]
    assert LOG.count(before) >= 1
    check = by_name(audit_log(LOG.replace(before, after)))[name]
    assert check.status == "fail" and re.search(r"line \d+", check.detail)


def test_over_the_cap_and_over_the_time() -> None:
    heavy = LOG.replace("15939775", "15999775").replace("15998337", "16058337")
    assert by_name(audit_log(heavy))["artifact"].status == "fail"
    long = LOG.replace("600080ms", "700080ms").replace("step_avg:109.84ms", "step_avg:128.15ms")
    assert "over the limit" in by_name(audit_log(long))["steps and times"].detail


def test_nothing_to_check_is_not_applicable() -> None:
    assert {check.status for check in audit_log("")} == {"not applicable"}
    assert {check.status for check in audit_log("val_loss: nan\n\0\xff step:x/y")} == {"not applicable"}


def test_our_own_lines_are_read() -> None:
    """What `rules.log_lines` writes is what the parser reads."""
    event = {"event": "validation", "step": 10, "steps": 10, "loss": 2.0, "bpb": 1.5, "train_seconds": 2.0}
    score = {"event": "score", "name": "int8+zlib", "loss": 2.0, "bpb": 1.5, "seconds": 1.0}
    sizes = {"event": "export", "name": "x", "artifact_bytes": 5, "code_bytes": 7, "total_bytes": 12}
    lines = [line for e in (event, sizes, score) for line in rules.log_lines(read_event(e))]
    checks = by_name(audit_log("\n".join(["val_tokens: 100", *lines]), true_bytes=192))
    assert checks["bytes"].facts["implied_bytes"] == 192
    assert checks["scores"].status == checks["artifact"].status == checks["steps and times"].status == "pass"
    unweighed = sizes | {"code_bytes": None, "total_bytes": None}
    assert rules.log_lines(read_event(unweighed)) == ["Serialized model x: 5 bytes"]
    assert by_name(audit_log("\n".join(rules.log_lines(read_event(unweighed)))))["artifact"].status == "not applicable"


def test_published_logs(shared: Path) -> None:
    """All imply the split's byte count within 0.01%, but one: another split, of 155.77 million bytes."""
    for path in sorted((shared / "data" / "logs").glob("*.txt")):
        checks = by_name(audit_log(path.read_text()))
        check = checks.pop("bytes")
        assert "fail" not in {c.status for c in checks.values()}, path.name
        if path.name == "NaiveBaseline__train.txt":
            assert check.status == "fail" and "another validation split" in check.detail
            assert round(check.facts["implied_bytes"] / 1e6, 2) == 155.77 and check.facts["tokens"] == 63_779_840
        else:
            assert check.status == "pass"
            assert abs(check.facts["implied_bytes"] / VALIDATION_BYTES - 1) < 1e-4


def test_doctored_copies_of_published_logs(shared: Path) -> None:
    """The last score of each log made 0.01 better, in whatever form that log prints it."""
    for path in sorted((shared / "data" / "logs").glob("*.txt")):
        text = path.read_text()
        last = list(re.finditer(r"val_bpb:(\d\.\d{8})", text))[-1]
        better = f"{float(last[1]) - 0.01:.8f}"
        assert by_name(audit_log(text.replace(last[1], better)))["bytes"].status == "fail", path.name


def test_averages_over_timed_steps_alone() -> None:
    """Some scripts start the clock after ten steps, and divide by the rest; one of both, all through a log."""
    lines = [
        "step:0/1395 val_loss:10.8258 train_time:0ms step_avg:nanms",
        "step:125/1395 val_loss:4.3664 train_time:11500ms step_avg:100.00ms",
        "step:250/1395 val_loss:4.0000 train_time:24000ms step_avg:100.00ms",
    ]
    [found] = [check for check in audit_log("\n".join(lines)) if check.name == "steps and times"]
    assert found.status == "pass"
    lines[2] = "step:250/1395 val_loss:4.0000 train_time:25000ms step_avg:100.00ms"  # the other way to divide
    [found] = [check for check in audit_log("\n".join(lines)) if check.name == "steps and times"]
    assert found.status == "fail" and "line 2: 11,500 ms over 125 steps are 92.00 ms each" in found.detail
