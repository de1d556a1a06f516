"""Audits of whole things: runs and artifacts, functions, folders; what they open, and what they exit with."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch

from niblick import cli
from niblick.artifact.container import read_artifact, write_artifact
from niblick.audit import auditor as auditing
from niblick.audit import claims
from niblick.audit.auditor import Options
from niblick.audit.checks import Check
from niblick.audit.fresh import Fresh
from niblick.audit.function_checks import Effort
from niblick.audit.model_checks import cannot_step, steps_agree
from niblick.challenge import rules
from niblick.data.dataset import Dataset, Split
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.run import artifacts, scoring
from niblick.run.directory import Run
from niblick.run.loading import load_artifact
from niblick.score import coded_file, coding
from niblick.score.score_config import ScoreConfig, SidecarConfig, TTTConfig

TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1"),
    *("train.seq_len=32", "train.batch_tokens=256", "train.micro_batch_tokens=256", "train.device=cpu"),
    *("train.dtype=float32", "schedule.steps=4", "schedule.max_seconds=null", "score.seq_len=64"),
]
QUICK = Options(Effort(tokens=1 << 12))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pydocs"
    prepare("pydocs", "byte260", folder, max_docs=12, val_docs=3)
    return folder


def train(target: str, data: Path, runs: Path, *overrides: str) -> Path:
    done = forked.run(["-m", "niblick", "train", target, "--data", data, "--runs", runs, *overrides])
    assert not done.returncode, done.stderr
    return next(runs.glob("*-1"))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("hnet-small", data, tmp_path_factory.mktemp("runs"), *TOY)


def niblick(*arguments: object) -> int:
    """Run a command line in this process; returns its exit code."""
    before, sys.argv = sys.argv, ["niblick", *map(str, arguments)]
    try:
        cli.main()
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before


def statuses(found: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in found["checks"]}


@pytest.mark.slow
def test_an_honest_run_passes_and_is_proved(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert niblick("audit", run, "--prove", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    names = ("causality", "normalization", "independence", "bytes", "score-first", "scored windows", "split hygiene")
    more = ("artifact", "reproduction", "recorded scores", "result", "data", "proof")
    assert statuses(found) == dict.fromkeys((*names, *more), "pass"), found
    [written] = run.glob("artifacts/*/audit.json")
    assert json.loads(written.read_text()) == found


@pytest.mark.slow
def test_records_that_say_something_else_fail(run: Path, data: Path, tmp_path: Path) -> None:
    """Fewer targets, more bytes, a better score: what was written by hand into scores.jsonl."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path, owner = artifacts.find_artifact(str(copy), tmp_path)
    record = json.loads((path.parent / "scores.jsonl").read_text().splitlines()[0])
    lies = {"tokens": record["tokens"] - 5, "bytes": int(record["bytes"] * 1.17), "bpb": record["bpb"] - 0.01}
    (path.parent / "scores.jsonl").write_text(json.dumps(record | lies) + "\n")
    found = {c.name: c.status for c in auditing.artifact_checks(path, owner, str(data), QUICK, lambda _: None)}
    assert [name for name, status in found.items() if status == "fail"] == [
        *("bytes", "score-first", "reproduction", "recorded scores", "result")
    ]


Change = Callable[[dict[str, Any]], dict[str, Any]]


def opened(run: Path, data: Path, place: Path) -> auditing.Audited:
    """A copy of a run beside its text, as the audit opens it."""
    shutil.copytree(run, place)
    path, owner = artifacts.find_artifact(str(place), place.parent)
    return auditing.open_audited(path, owner, str(data), QUICK, lambda _: None)


def scores(audited: auditing.Audited, *changes: Change) -> Check:
    """What is said of scores.jsonl when the official line is followed by changed copies of it."""
    file = audited.path.parent / "scores.jsonl"
    line = json.loads(file.read_text().splitlines()[0])
    file.write_text("".join(json.dumps(record) + "\n" for record in [line, *(change(line) for change in changes)]))
    return claims.scores_agree(audited.path, audited.dataset.val, audited.config, audited.dtype, line["bpb"])


def scaled(record: dict[str, Any], by: float) -> dict[str, Any]:
    return record | {key: record[key] * by for key in ("bpb", "loss", "bits")}


def test_every_recorded_score_is_compared(run: Path, data: Path, tmp_path: Path) -> None:
    audited = opened(run, data, tmp_path / "run")
    foreign = {"text_hash": "f" * 64, "stream_hash": "f" * 64}
    assert scores(audited).status == "pass"
    kept = scores(audited, lambda r: r, lambda r: scaled(r, 1.3) | foreign)
    assert kept.status == "pass" and "1 of other texts or scorers" in kept.detail
    for change, word in (
        (lambda r: r | {"bpb": r["bpb"] - 0.01}, "line 2: it says bpb"),
        (lambda r: r | {"tokens": r["tokens"] - 1}, "line 2: it says loss"),
        (lambda r: scaled(r, 0.99), "line 2 says"),
        (lambda r: {"bpb": 1.0}, "no record of a score"),
    ):
        check = scores(audited, change)
        assert check.status == "fail" and word in check.detail
    apart = scores(audited, lambda r: scaled(r, 2) | foreign, lambda r: scaled(r, 1.9) | foreign)
    assert apart.status == "fail" and "lines 2 and 3" in apart.detail


def test_the_newest_score_of_the_text_is_the_audited_one(run: Path, data: Path, tmp_path: Path) -> None:
    audited = opened(run, data, tmp_path / "run")
    scores(audited, lambda r: r | {"seconds": 7.5}, lambda r: r | {"stream_hash": "f" * 64})
    newest = claims.last_score(audited.path, audited.dataset.val, audited.config)
    assert newest is not None and newest.seconds == 7.5


def test_a_result_that_says_something_else_fails(run: Path, data: Path, tmp_path: Path) -> None:
    audited = opened(run, data, tmp_path / "run")
    file = tmp_path / "run" / "result.json"
    result = json.loads(file.read_text())
    assert claims.result_agrees(audited.path, audited.run).status == "pass"
    for change in ({"bpb": result["bpb"] - 0.1}, {"artifact_bytes": 5}, {"text_hash": "f" * 64}):
        file.write_text(json.dumps(result | change))
        assert claims.result_agrees(audited.path, audited.run).status == "fail", change
    file.write_text(json.dumps(result | {"artifact": "another"}))
    assert claims.result_agrees(audited.path, audited.run).status == "not applicable"
    file.write_text(json.dumps(result))
    (tmp_path / "run" / "config.json").write_text((tmp_path / "run" / "config.json").read_text() + " ")
    assert "config.json" in claims.result_agrees(audited.path, audited.run).detail


def test_hashes_are_made_again_and_training_on_validation_text_fails(run: Path, data: Path, tmp_path: Path) -> None:
    audited = opened(run, data, tmp_path / "run")
    whole, artifact = audited.whole, audited.artifact
    assert claims.data_agrees(artifact, whole).status == "pass"
    for split in (replace(whole.val, stream_hash="0" * 64), replace(whole.val, text_hash="0" * 64)):
        assert "manifest" in claims.data_agrees(artifact, replace(whole, val=split)).detail
    same = replace(whole, train=whole.val)
    for data_, config, word in (
        (same, artifact.config, "the training split is the validation text"),
        (whole, artifact.config | {"train_text_hash": whole.val.text_hash}, "trained on the validation text"),
        (whole, artifact.config | {"train_text_hash": "0" * 64}, "was trained on a text of hash 0000"),
    ):
        check = claims.data_agrees(replace(artifact, config=config), data_)
        assert check.status == "fail" and word in check.detail


def test_a_slice_is_audited_as_what_it_is(run: Path, data: Path, tmp_path: Path) -> None:
    """An artifact that is scored on its first documents: those are held against the record, not the whole text."""
    path, owner = opened(run, data, tmp_path / "run").path, Run(tmp_path / "run")
    artifact = read_artifact(path)
    sliced = artifact.config | {"score": artifact.config["score"] | {"documents": 1}}
    write_artifact(path, sliced, artifact.encoded, "zlib")
    (path.parent / "scores.jsonl").unlink()
    scoring.score_artifact(path, str(data), run=owner)
    audited = auditing.open_audited(path, owner, str(data), QUICK, lambda _: None)
    assert audited.record is not None and audited.record.slice == "first 1 documents"
    assert audited.dataset.val.tokens < audited.whole.val.tokens
    assert scores(audited).detail.startswith("1 scores of this text")
    assert scores(audited, lambda r: scaled(r, 0.9)).status == "fail"


def test_an_artifact_whose_code_was_not_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "artifact.nib"
    path.write_bytes(bytes(1000))
    fresh = Fresh(1.0)
    check = auditing.artifact_check(path, None, None, fresh)
    assert check.status == "pass" and "code not weighed" in check.detail
    assert (check.facts["code_bytes"], check.facts["total_bytes"]) == (None, None)
    monkeypatch.setattr(rules, "CAP_BYTES", 999)
    check = auditing.artifact_check(path, None, None, fresh)
    assert check.status == "fail" and "1,000 bytes without the code are over the cap" in check.detail


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        ScoreConfig(seq_len=32, ttt=TTTConfig("sgd", lr=0.05)),
        ScoreConfig(seq_len=32, sidecar=SidecarConfig("ngram", order=3)),
        ScoreConfig(seq_len=32, scorer="sliding", stride=8),
    ],
)
def test_scorers_that_learn_and_overlap_are_honest(config: ScoreConfig, run: Path, data: Path) -> None:
    model, _ = load_artifact(next(run.glob("artifacts/*/artifact.nib")))
    checks = auditing.scorer_checks(model, Dataset.open(data), config, None)
    assert {check.status for check in checks} == {"pass"}, checks
    proof = auditing.prove(model, Dataset.open(data), config, 1)
    assert proof.status == "not applicable" and "not provable" in proof.detail


@pytest.mark.parametrize("lacks", ["step", "new_state", "both"])
def test_models_that_cannot_step_are_not_provable(lacks: str, run: Path, data: Path, tmp_path: Path) -> None:
    """A block that trains and scores and nothing else: neither a failure nor an error."""
    model = opened(run, data, tmp_path / "run").model
    lm = copy.deepcopy(model)
    for block in lm.body.main.blocks:
        for face in ("step", "new_state") if lacks == "both" else (lacks,):
            setattr(block, face, None)
    assert cannot_step(lm) and not cannot_step(model)
    proof = auditing.prove(lm, Dataset.open(data), ScoreConfig(seq_len=32), 1)
    assert proof.status == "not applicable" and "not provable" in proof.detail
    assert steps_agree(lm, torch.zeros(1, 8, dtype=torch.long)).status == "not applicable"


@pytest.mark.slow
def test_a_proof_counts_what_opens_its_lanes(run: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lanes cost more than the proof allows: what a better model would pay for lanes of the usual length."""
    monkeypatch.setattr(coding, "LANE", 32)
    model, _ = load_artifact(next(run.glob("artifacts/*/artifact.nib")))
    proof = auditing.prove(model, Dataset.open(data), ScoreConfig(seq_len=32), 2)
    facts = proof.facts
    assert proof.status == "pass" and abs(facts["off"]) < auditing.PROOF
    assert facts["opening_bits"] > auditing.PROOF * facts["score_bits"]
    more = facts["payload_bits"] - facts["score_bits"] - facts["opening_bits"]
    assert abs(more) < auditing.PROOF * facts["score_bits"]


def test_the_proof_of_a_few_bytes_is_no_lie(run: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole words that end a block are many percent of a short text; a payload that is longer still is not."""
    model, _ = load_artifact(next(run.glob("artifacts/*/artifact.nib")))
    dataset, config = Dataset.open(data), ScoreConfig(seq_len=32)
    few = replace(dataset, val=Split("val", [], [np.array(dataset.val.slice(0, 8), np.uint16)]))
    proof = auditing.prove(model, few, config, 1)
    assert proof.status == "pass" and proof.facts["off"] > auditing.PROOF, proof
    usual = auditing.encode

    def padded(*arguments: Any, **named: Any) -> Any:
        return (block._replace(data=block.data + b"\0" * 9) for block in usual(*arguments, **named))

    monkeypatch.setattr(auditing, "encode", padded)
    monkeypatch.setattr(auditing, "decode", lambda *arguments, **named: np.array(few.val.slice(0, 8), np.uint16))
    assert auditing.prove(model, few, config, 1).status == "fail"


def test_functions(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """By module and by file; exit 1 for one that looks ahead, 2 for one that is none."""
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "T = torch.randn(260, 260, generator=torch.Generator().manual_seed(0))\n"
        "def honest(ids):\n    return T[ids].log_softmax(-1)\n"
        "def ahead(ids):\n    return (T[ids] + T[ids.roll(-1, 1)]).log_softmax(-1)\n"
        "def shape(ids):\n    return T[ids][:, 0]\n"
        "def broken(ids):\n    raise KeyError('x')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    assert niblick("audit", "mine:honest", "--data", data) == 0
    assert niblick("audit", "mine.py:ahead", "--data", data, "--json") == 1
    out = capsys.readouterr().out
    found = json.loads(out[out.index("{") :])
    assert statuses(found)["causality"] == "fail" and found["honest"] is False
    for name, word in (("shape", "expected log-probabilities"), ("broken", "KeyError"), ("number", "no function")):
        assert niblick("audit", f"mine:{name}", "--data", data) == 2
        assert word in capsys.readouterr().err
    assert niblick("audit", "mine:honest") == 2
    assert "--data" in capsys.readouterr().err


def test_logs_scripts_and_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train_gpt.py").write_text("val_tokens = load('fineweb_val_0.bin')\nf(val_tokens).backward()\n")
    (tmp_path / "train.log").write_text(
        "Code size: 7 bytes\nSerialized model x: 5 bytes\nTotal submission size x: 12 bytes\n"
    )
    assert niblick("audit", tmp_path / "train.log") == 0
    assert niblick("audit", tmp_path / "train_gpt.py") == 0
    assert "look at score-first;" in capsys.readouterr().out
    assert niblick("audit", tmp_path / "train_gpt.py", "--strict") == 1
    capsys.readouterr()
    assert niblick("audit", tmp_path, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    found = statuses(said)
    assert said["outcome"] == "look" and said["honest"] is True
    assert {check["name"]: check["strength"] for check in said["checks"]}["train.log: artifact"] == "stated"
    assert found["train_gpt.py: score-first"] == "look" and found["train.log: artifact"] == "pass"
    assert found["rerun"] == "not applicable"
    (tmp_path / "empty.log").write_text("hello\n")
    capsys.readouterr()
    assert niblick("audit", tmp_path / "empty.log", "--json") == 2
    said = json.loads(capsys.readouterr().out)
    assert (said["outcome"], said["honest"]) == ("nothing read", False)


def test_bad_targets_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for target in (empty, "no-such-run", tmp_path / "no.nib", "no_such_module:f"):
        assert niblick("audit", target, "--runs", tmp_path) == 2
        err = capsys.readouterr().err
        assert err.startswith("niblick: ") and len(err.strip().splitlines()) == 1
    with pytest.raises(ConfigError, match="holds no script"):
        auditing.audit_folder(empty, tmp_path, "", QUICK, lambda _: None)


@pytest.mark.slow
def test_compress_and_decompress(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coded_file, "_stored", lambda data: (bytes(1 << 20), "raw"))  # so short a text needs no model
    text, stream, back = tmp_path / "text", tmp_path / "text.nbt", tmp_path / "back"
    text.write_bytes("Grüße, world.\n".encode() * 8 + b"\xff\0")
    assert niblick("compress", text, "-o", stream, "--model", run, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["original"] == text.stat().st_size and facts["total"] == stream.stat().st_size
    assert niblick("decompress", stream, "-o", back, "--model", run) == 0
    assert back.read_bytes() == text.read_bytes()
    back.unlink()
    capsys.readouterr()
    other = tmp_path / "other.nib"
    artifact = read_artifact(next(run.glob("artifacts/*/artifact.nib")))
    write_artifact(other, artifact.config | {"note": 1}, artifact.encoded, "zlib")
    for arguments, word in (
        (("compress", tmp_path, "-o", back, "--model", run), "is a directory"),
        (("compress", tmp_path / "none", "-o", back, "--model", run), "No such file"),
        (("decompress", text, "-o", back, "--model", run), "no stream of `niblick compress`"),
        (("decompress", stream, "-o", back, "--model", other), "written with the model hnet-small-1:"),
    ):
        assert niblick(*arguments) == 2
        assert word in capsys.readouterr().err
        assert not back.exists()
