"""The forms of logs that scripts of other people print: what the audit says of each, and what `watch` reads in it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niblick.audit.checks import Audit, Check
from niblick.audit.file_checks import audit_file
from niblick.audit.log_checks import VALIDATION_BYTES, VALIDATION_TOKENS, audit_log
from niblick.challenge.log_reader import read_runs
from niblick.monitor.log_lines import LogReader
from niblick.monitor.run_facts import Facts

DATASET = "fineweb10B_sp1024"
WHOLE = VALIDATION_TOKENS[DATASET]
TOKENS = WHOLE // 1024 * 1024


def bpb(loss: float, tokens: int = TOKENS, whole: int = WHOLE) -> str:
    """The score that a loss implies, where `tokens` of the `whole` split are scored."""
    return f"{loss / math.log(2) * tokens / (VALIDATION_BYTES * tokens / whole):.8f}"


def log(
    steps: int = 900,
    each: float = 650.0,
    last: float = 2.2,
    final: float = 2.21,
    tokens: int = TOKENS,
    limit: float = 600.0,
    window: int = 1024,
    whole: int = WHOLE,
    dataset: str = DATASET,
) -> list[str]:
    """An honest log, made up: three checks on the way, code and model that add up, a rounded and an exact score."""

    def said(loss: float) -> str:
        return f"val_loss:{loss:.4f} val_bpb:{float(bpb(loss, tokens, whole)):.4f}"

    return [
        f"train_loader:dataset:{dataset} train_shards:9",
        f"val_loader:shards pattern=./data/datasets/{dataset}/fineweb_val_*.bin tokens:{tokens}",
        "model_params:4200000",
        f"train_batch_tokens:65536 train_seq_len:{window} iterations:{steps} max_wallclock_seconds:{limit:.3f}",
        "seed:7",
        *(
            f"step:{k}/{steps} train_loss:{3 - k / steps / 2:.4f} train_time:{k * each:.0f}ms step_avg:{each:.2f}ms"
            for k in range(steps // 3, steps, steps // 3)
        ),
        f"step:{steps}/{steps} {said(last)} train_time:{steps * each:.0f}ms step_avg:{each:.2f}ms",
        "Code size: 41000 bytes",
        "Serialized model int8+zlib: 9000123 bytes",
        "Total submission size int8+zlib: 9041123 bytes",
        f"final_int8_zlib_roundtrip {said(final)} eval_time:2100ms",
        f"final_int8_zlib_roundtrip_exact val_loss:{final:.8f} val_bpb:{bpb(final, tokens, whole)}",
    ]


def audited(lines: list[str]) -> dict[str, Check]:
    return {check.name: check for check in audit_log("\n".join(lines))}


def outcome(checks: dict[str, Check]) -> str:
    return Audit("log", "log", tuple(checks.values())).outcome


def watched(lines: list[str]) -> Facts:
    reader = LogReader()
    for line in lines:
        reader.feed(line + "\n")
    return reader.facts


def sliding(loss: float, between: str = "", after: str = "") -> str:
    return f"final_sliding_window{between} val_loss:{loss:.8f} val_bpb:{bpb(loss)}{after}"


def test_an_honest_log_passes() -> None:
    checks, facts = audited(log()), watched(log())
    assert outcome(checks) == "pass" and {"bytes", "scores", "artifact", "steps and times", "track"} <= set(checks)
    assert facts.final and (f"{facts.final.bpb:.8f}", facts.bytes.total_bytes, facts.step) == (bpb(2.21), 9041123, 900)


@pytest.mark.parametrize(
    ("between", "after"),
    [
        ("", " eval_time:71000ms"),
        (" stride:64", " eval_time:71000ms"),
        ("", " (stride=64, T=0.9) eval_time:71000ms"),
        (" windows:2048 stride=32", " stride:32 eval:71000ms"),
    ],
)
def test_words_between_a_score_and_its_numbers(between: str, after: str) -> None:
    lines = [*log(), sliding(2.15, between, after)]
    checks, facts = audited(lines), watched(lines)
    assert outcome(checks) == "pass"
    assert facts.final and (facts.final.kind, f"{facts.final.bpb:.8f}") == ("sliding", bpb(2.15))
    assert facts.final.seconds == 71.0
    assert audited([*log(), sliding(2.15, between, after).replace(bpb(2.15), bpb(2.05))])["bytes"].status == "fail"


@pytest.mark.parametrize(
    "prefix",
    ["1776100000.125 ", "2026-04-29 11:02:03,123 - INFO - ", "[rank3]:", "INFO:root:", "2026-04-29T11:02:03Z ", "0: "],
)
@pytest.mark.parametrize("ending", ["", "\x1b[0m\r"])
def test_clocks_ranks_and_levels_before_a_line(prefix: str, ending: str) -> None:
    lines = [f"{prefix}{line}{ending}" for line in log()]
    assert outcome(audited(lines)) == "pass" and set(audited(lines)) == set(audited(log()))
    facts = watched(lines)
    assert facts.final and (f"{facts.final.bpb:.8f}", facts.bytes.total_bytes, facts.seed) == (bpb(2.21), 9041123, 7)


@pytest.mark.parametrize(
    ("sizes", "total"),
    [
        (["artifact:9.00MB ternary:71(14B) code:41000", "budget:9041000/16000000 (9.04/16.00MB) FITS"], 9041000),
        (["artifact:9.00MB code:41000 total:9043000/16000000 (FITS)"], 9043000),
        (["Total submission size all: 9.04 MB", "packed: 9.00 MB model + 0.04 MB code"], 9040000),
    ],
)
def test_sizes_as_budgets_and_in_megabytes(sizes: list[str], total: int) -> None:
    lines = [line for line in log() if "size" not in line and "Serialized" not in line]
    lines[-2:-2] = sizes
    check = audited(lines)["artifact"]
    assert (check.status, watched(lines).bytes.total_bytes) == ("pass", total)
    heavier = [
        line.replace("9041000/", "9141000/").replace("9043000/", "9143000/").replace("9.04 MB", "9.14 MB")
        for line in lines
    ]
    assert audited(heavier)["artifact"].status == "fail"


def test_steps_by_other_names() -> None:
    lines = [re.sub(r"train_loss:(\S+) train_time:(\d+)ms step_avg:(\S+)", r"loss:\1 t:\2ms avg:\3", x) for x in log()]
    assert outcome(audited(lines)) == "pass" and len(watched(lines).curve) == 2
    back = [line.replace("t:195000ms", "t:595000ms") for line in lines]
    assert audited(back)["steps and times"].status == "fail"


def test_several_runs_in_a_file() -> None:
    died = [*log()[:6], "Killed"]
    first, last = log(last=2.3, final=2.31), log(last=2.25, final=2.26)
    lines = [*died, *first, *last]
    checks = audited(lines)
    assert outcome(checks) == "pass"
    assert "three runs in one file; the last one is read" in checks["runs"].detail
    assert [run.first_line for run in read_runs("\n".join(lines))] == [1, len(died) + 1, len(died) + len(first) + 1]
    facts = watched(lines)
    assert facts.final and (f"{facts.final.bpb:.8f}", facts.phase) == (bpb(2.26), "done")


def test_a_head_that_is_printed_again_before_scoring_begins_no_run() -> None:
    lines = [*log(), *log()[:2], sliding(2.15)]
    assert "runs" not in audited(lines)
    facts = watched(lines)
    assert facts.final and facts.final.kind == "sliding" and facts.step == 900


@pytest.mark.parametrize(("limit", "each"), [(0.0, 9000.0), (14400.0, 15900.0)])
def test_beyond_the_record_track_is_no_dishonesty(limit: float, each: float) -> None:
    checks = audited(log(each=each, limit=limit))
    assert outcome(checks) == "pass" and "not the record track" in checks["track"].detail
    assert f"{each * 0.9:,.0f} s of training" in checks["track"].detail
    over = audited(log(each=each, limit=600.0))
    assert over["steps and times"].status == "fail"


def test_many_gpus_are_told() -> None:
    checks = audited([*log()[:3], "world_size:32 grad_accum_steps:1", *log()[3:]])
    assert outcome(checks) == "pass" and "32 GPUs" in checks["track"].detail


@pytest.mark.parametrize("window", [1024, 4096, 50_000])
def test_windows_that_leave_out_the_tail(window: int) -> None:
    tokens = WHOLE // window * window
    check = audited(log(tokens=tokens, window=window))["bytes"]
    assert check.status == "pass" and f"{WHOLE - tokens:,} tokens at the end are not scored" in check.detail
    unknown = log(tokens=tokens, window=window, dataset="fineweb10B_sp2048")
    assert audited(unknown)["bytes"].status == "pass"
    fewer = tokens - 3 * 50_000
    assert audited(log(tokens=fewer, window=window))["bytes"].status == "fail"


def test_another_text_has_other_bytes() -> None:
    check = audited(log(dataset="pydocs_byte260", tokens=4096))["bytes"]
    assert check.status == "not applicable" and "not the challenge's text" in check.detail


def test_a_later_worse_score_is_shown_and_not_taken() -> None:
    lines = [*log(), sliding(2.15), f"final_int8_ttt val_loss:2.9 val_bpb:{bpb(2.9)} eval_time:300000ms"]
    said = audited(lines)["scores"]
    assert said.status == "pass" and f"the run's score is {bpb(2.15)}" in said.detail and bpb(2.9) in said.detail
    facts = watched(lines)
    assert facts.final and f"{facts.final.bpb:.8f}" == bpb(2.15)


def test_an_artifact_that_was_added_later_has_bytes_and_scores_of_its_own() -> None:
    lines = [
        *log(),
        "Serialized model int6+range: 7000000 bytes",
        "Code size: 52000 bytes",
        "Total submission size int6+range: 7052000 bytes",
        f"final_int8_zlib_roundtrip val_loss:2.4 val_bpb:{bpb(2.4)}",
        f"final_int8_zlib_roundtrip_exact val_loss:2.40000000 val_bpb:{bpb(2.4)}",
    ]
    checks, facts = audited(lines), watched(lines)
    assert outcome(checks) == "pass" and "(2 artifacts)" in checks["artifact"].detail
    assert facts.final and (f"{facts.final.bpb:.8f}", facts.bytes.total_bytes) == (bpb(2.21), 9041123)
    wrong = [line.replace("7052000", "7062000") for line in lines]
    assert audited(wrong)["artifact"].status == "fail"


LOOKS = {
    "float and packed": [*log(final=2.1)],
    "training files": [log()[0] + " pattern=./data/datasets/x/fineweb_val_*.bin", *log()[1:]],
    "seeds": ["seed:1 val_bpb:1.31", "seed:2 val_bpb:1.29", *log()],
    "scoring time": [*log(), "ttt_pass:done eval_time:900000ms"],
    "tokens": log(tokens=TOKENS // 2, whole=WHOLE // 2),
    "first loss": [*log()[:5], f"step:0/900 val_loss:14.1000 val_bpb:{bpb(14.1)}", *log()[5:]],
    "runs that agree": [*log(), *log(final=2.205)],
}


@pytest.mark.parametrize("name", LOOKS)
def test_what_is_only_unlikely_is_to_be_looked_at(name: str) -> None:
    checks = audited(LOOKS[name])
    assert outcome(checks) == "look" and (checks[name].status, checks[name].strength) == ("look", "look")
    line = re.match(r"line (\d+): ", checks[name].detail)
    assert line and 1 <= int(line[1]) <= len(LOOKS[name])


def test_averaged_weights_may_be_better_than_the_last_validation() -> None:
    lines = log(final=2.195)
    assert outcome(audited(lines)) == "look"
    assert outcome(audited([*lines[:-5], "swa:applying average of 12 checkpoints", *lines[-5:]])) == "pass"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "train.log"
    path.write_bytes("\r\n".join(log()).encode(encoding))
    found = audit_file(str(path))
    assert found and found.outcome == "pass" and len(found.checks) == len(audited(log()))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text()
        | st.from_regex(r"step:\d{1,4}/\d{1,4} (train|val)_loss:[\d.,naif-]{0,12} val_bpb:\S*")
        | st.from_regex(r"(final|quant) val_loss:[\d.,naif-]{1,9} val_bpb:[\d.,naif-]{1,9}")
        | st.from_regex(r"(Code size|Serialized model x|Total submission size x): [\d,.]{1,9} (bytes|MB)")
        | st.sampled_from([*log(), "7" * 400, "step:" + "7" * 5000 + "/10 val_loss:2 val_bpb:1"]),
        max_size=12,
    )
)
def test_no_line_is_fatal(lines: list[str]) -> None:
    audit_log("\n".join(lines))
