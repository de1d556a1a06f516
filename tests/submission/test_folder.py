"""Submissions: the script trains as niblick does, bit for bit, and the folder verifies in a fresh environment."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from told import noted

from niblick.artifact.container import read_artifact
from niblick.audit import auditor as auditing
from niblick.audit.function_checks import Effort
from niblick.audit.log_checks import audit_log
from niblick.bundle import Script, make_script, parts
from niblick.bundle.pieces import modules_of, read_module
from niblick.challenge import rules
from niblick.config.run_config import RunConfig, override
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.recipes.presets import PRESETS, get_preset
from niblick.run import pipeline
from niblick.run.directory import Run
from niblick.submission import rerun as rerunning
from niblick.submission.folder import submit
from niblick.submission.program import configured

NAMES = ("niblick-byte", "quickstart", "hnet-byte260", "tinyhnet", "soft-chunker-sp1024")
TOY = (
    "schedule.steps=20",
    "schedule.max_seconds=null",
    "train.seq_len=64",
    "train.batch_tokens=512",
    "train.micro_batch_tokens=256",
    "train.warmup_steps=1",
    "train.val_every=10",
    "train.log_every=1",
    "train.dtype=float32",
    "score.seq_len=64",
    "score.batch_tokens=2048",
    "model.width=32",
    "model.heads=2",
    "model.kv_heads=1",
)

FEW = Effort(tokens=1 << 12)


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same little text as bytes and as subwords."""
    folder = tmp_path_factory.mktemp("words")
    texts = [f"Document {i}: " + "the quick brown fox jumps over the lazy dog, " * (8 + i % 5) for i in range(40)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare(str(folder / "text.jsonl"), "byte260", folder / "bytes", val_docs=4)
    prepare(str(folder / "text.jsonl"), "sp:300", folder / "subwords", val_docs=4)
    return {"byte260": str(folder / "bytes"), "sp1024": str(folder / "subwords")}


def toy(name: str, words: dict[str, str]) -> RunConfig:
    config = get_preset(name)
    own = [*TOY, f"data.path={words[config.tokenizer]}"]
    own += [f"model.ngrams.{i}.rows=512" for i in range(len(config.model.ngrams))]
    if config.tokenizer == "sp1024":
        own.append("model.vocab_size=300")
    return override(config, own)


@pytest.fixture(scope="session")
def trained(words: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, list[Any]]]:
    """A toy run of each preset, with all its events."""
    runs, found = tmp_path_factory.mktemp("submitted"), {}
    for name in NAMES:
        events: list[dict[str, Any]] = []
        result = pipeline.run(toy(name, words), runs, noted(events))
        found[name] = (Run(Path(result.run)), events)
    return found


@pytest.fixture(scope="session")
def fresh(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[rerunning.Handling]:
    """One fresh environment with the requirements of all four submissions."""
    folder = tmp_path_factory.mktemp("fresh")
    from niblick.submission.folder import requirements

    needed = {line for name in NAMES for line in requirements(script_of(trained[name][0])).split()}
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in sorted(needed)))
    held = rerunning.handling(trust=True)
    assert held is not None
    yield replace(held, environment=rerunning.environment(folder, folder / "packages", held))


def script_of(run: Run) -> Script:
    return make_script(run.config())


def ran(text: str, folder: Path, data: str, *command: str) -> str:
    """What a script prints as a program of its own, with nothing of this environment."""
    folder.mkdir(exist_ok=True)
    (folder / "train_gpt.py").write_text(text)
    (folder / "niblick.py").write_text("raise ImportError('the script of a submission asks for niblick')\n")
    environment = {"DATA_PATH": data, "PATH": "", "OMP_NUM_THREADS": "1", "RUN_ID": "one"}
    done = forked.run(["train_gpt.py", *command], folder, environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_both_forms_train_as_niblick_does(name: str, trained: dict[str, Any], tmp_path: Path) -> None:
    run, events = trained[name]
    made, data = script_of(run), run.config().data.path
    said = [ran(text, tmp_path / form, data) for form, text in (("packed", made.packed), ("readable", made.readable))]
    for event in events:
        if event["event"] == "step":
            assert f"step:{event['step']}/20 train_loss:{event['loss']:.4f} " in said[0]
    exact = [[line.split(" val_loss:")[1] for line in text.splitlines() if "_exact " in line] for text in said]
    assert exact[0] == exact[1] and len(exact[0]) == 1
    assert float(exact[0][0].partition("val_bpb:")[2]) == pytest.approx(run.result().bpb, abs=1e-5)  # type: ignore[union-attr]
    mine = read_artifact(run.artifact(run.artifact_names()[0]))
    theirs = [read_artifact(tmp_path / form / "final_model.nib") for form in ("packed", "readable")]
    assert theirs[0].config == theirs[1].config
    assert theirs[0].config == mine.config  # the whole config that scoring needs
    for key, tensor in mine.state_dict().items():
        for other in theirs:
            torch.testing.assert_close(other.state_dict()[key], tensor, rtol=0, atol=1e-5)
    again = ran(made.packed, tmp_path / "packed", data, "--eval")
    assert exact[0][0] in again and "step:" not in again


@pytest.mark.slow
def test_two_ranks_train_the_same(trained: dict[str, Any], tmp_path: Path) -> None:
    run, events = trained["niblick-byte"]
    (tmp_path / "train_gpt.py").write_text(script_of(run).packed)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train_gpt.py"]
    environment = {"DATA_PATH": run.config().data.path, "PATH": "", "OMP_NUM_THREADS": "1", "RUN_ID": "two"}
    done = forked.run(command, tmp_path, environment)
    assert done.returncode == 0, done.stderr[-2000:]
    log = (tmp_path / "logs" / "two.txt").read_text()
    last = [e["loss"] for e in events if e["event"] == "step"][-1]
    assert f"step:20/20 train_loss:{last:.4f}" in log
    mine, theirs = read_artifact(run.artifact(run.artifact_names()[0])), read_artifact(tmp_path / "final_model.nib")
    for key, tensor in mine.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[key], tensor, rtol=0, atol=1e-5)
    assert "fail" not in [check.status for check in audit_log(log)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_folder_verifies_in_a_fresh_environment(
    name: str, trained: dict[str, Any], fresh: rerunning.Handling, tmp_path: Path
) -> None:
    run, _ = trained[name]
    data = run.config().data.path
    with pytest.raises(ConfigError, match=r"is not audited: `niblick audit"):
        submit([run], tmp_path / "mine")
    auditing.audit(str(run.path), run.path.parent, options=auditing.Options(FEW))
    facts = submit([run], tmp_path / "mine")
    assert not facts.reasons
    assert facts.bytes_code == (tmp_path / "mine" / "train_gpt.py").stat().st_size
    assert abs(facts.bytes_code / run.result().code_bytes - 1) < 0.01  # type: ignore[union-attr]
    found = auditing.audit(str(tmp_path / "mine"), run.path.parent, data, auditing.Options(FEW, handling=fresh))
    assert not [name for name in found.named("fail") if not name.startswith("train_seed")]
    assert {"rerun", "causality", "artifact"} <= set(found.named("pass"))


@pytest.fixture
def copied(trained: dict[str, Any], tmp_path: Path) -> tuple[Run, Run]:
    """Copies of two runs of unlike configs, not audited."""
    runs = []
    for name in ("quickstart", "hnet-byte260"):
        run, _ = trained[name]
        ignored = shutil.ignore_patterns("audit.json", "audit*")
        runs.append(Run(shutil.copytree(run.path, tmp_path / "runs" / run.path.name, ignore=ignored)))
    return runs[0], runs[1]


@pytest.mark.slow
def test_what_speaks_against_a_submission(copied: tuple[Run, Run], tmp_path: Path) -> None:
    run, other = copied
    with pytest.raises(ConfigError) as said:
        submit([run, other], tmp_path / "bad", claim="challenge")
    for words_ in (
        "not audited",
        "another config",
        "run on no track, and challenge is claimed",
        "not on 8×H100",
        "the same seed",
    ):
        assert words_ in str(said.value)
    assert not (tmp_path / "bad").exists()
    facts = submit([run, other], tmp_path / "bad", claim="challenge", force=True, against=[1.2, 1.21, 1.22])
    assert not facts.record and facts.verdict.better == "the record"
    text = (tmp_path / "bad" / "README.md").read_text()
    assert "**Non-record.**" in text and "not audited" in text and "±" in text
    with pytest.raises(ConfigError, match="there already"):
        submit([run], tmp_path / "bad")
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((run.path / "config.json").read_text())
    with pytest.raises(ConfigError, match="is not finished: go on with"):
        submit([Run(unfinished)], tmp_path / "none", force=True)


@pytest.mark.slow
def test_runs_that_are_too_large_or_too_slow(
    copied: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = copied
    monkeypatch.setattr(rules, "CAP_BYTES", 50_000)
    monkeypatch.setattr(rules, "TRAIN_SECONDS", 1e-3)
    with pytest.raises(
        ConfigError, match=r"bytes with its code, over the cap of 50,000.*trained for .* s, over 0.001 s"
    ):
        submit([run], tmp_path / "bad")


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_bytes_of_all_presets(name: str) -> None:
    made = make_script(get_preset(name))
    assert made.total == len(made.packed.encode()) < (59_000 if name == "hnet-byte260" else 70_000)
    assert set(made.requires) <= {"torch", "numpy", "sentencepiece", "constriction", "zstandard", "brotli"}
    ast.parse(made.readable)


def test_what_is_said_to_be_left_out_is_there() -> None:
    """Each name of the tables in `parts` is a name of its module; none is left over from a rename."""
    config = get_preset("hnet-byte260")
    files = modules_of(Path(parts.__file__).parents[1])
    for (module, name), _ in parts.registries(config).items():
        assert name in {n for piece in read_module(module, files[module]).pieces for n in piece.names}, (module, name)
    for module, names in parts.left_out(config).items():
        pieces = read_module(module, files[module]).pieces
        there = {n for piece in pieces for p in (piece, *piece.methods) for n in p.names}
        there |= {f"{owner}.{n}" for piece in pieces for owner in piece.names for m in piece.methods for n in m.names}
        assert names - there <= set(parts.STEPS.split()), (module, names - there)
    models = [f"niblick.{part.split()[0]}" for part in parts.NEVER[1:]]
    classes = [piece for module in models for piece in read_module(module, files[module]).pieces]
    steps = {n for piece in classes for method in piece.methods for n in method.names}
    assert set(parts.STEPS.split()) <= steps


def test_no_name_of_the_environment_reaches_a_config_that_is_not_checked_again() -> None:
    """Their checks are not in scripts, so nothing may change them there."""
    settled = {("score", "ttt"), ("score", "sidecar"), ("export",), ("train", "penalties"), ("model", "ngrams")}
    classes = [name for names in parts.SETTLED.values() for name in names.split()]
    assert len(classes) == len(settled) + 1  # ExportConfig has ResidualConfig inside
    for name, entry in rules.ENVIRONMENT.items():
        for key in (*entry.keys, *entry.also):
            path = tuple(key.split("."))
            assert not any(path[: len(config)] == config for config in settled), (name, key)


def test_what_is_left_out_says_so(trained: dict[str, Any], tmp_path: Path) -> None:
    run, _ = trained["quickstart"]
    (tmp_path / "train_gpt.py").write_text(script_of(run).packed)
    environment = {"DATA_PATH": run.config().data.path, "PATH": "", "EMA_DECAY": "0.9", "OMP_NUM_THREADS": "1"}
    done = forked.run(["train_gpt.py"], tmp_path, environment)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("its config does not use it; make another script")


def test_the_environment_is_read_as_everywhere() -> None:
    config = get_preset("hnet-byte260")
    given = configured(config, {"NUM_LAYERS": "5", "OUTER_LAYERS": "1", "TRAIN_SEQ_LEN": "512", "RUN_ID": "x"})
    assert (given.model.main.layout, given.score.seq_len, given.train.seq_len) == ("T3", 512, 512)
    with pytest.raises(ConfigError, match=r"train.batch_tokens=0 must be a multiple"):
        configured(config, {"TRAIN_BATCH_TOKENS": "0"}).train.fitting(1)
    with pytest.raises(ConfigError, match="PRUNE_PCT cannot be set here"):
        configured(config, {"PRUNE_PCT": "3"})


def test_micro_batches_shrink_until_the_ranks_share_a_step() -> None:
    train = get_preset("hnet-byte260").train
    assert train.fitting(8).passes(8) == 1
    assert train.fitting(1) == train
    with pytest.raises(ConfigError, match=r"train.batch_tokens=524288 must be a multiple of 3 × train.seq_len=1024"):
        train.fitting(3)


def test_what_a_script_cannot_be(words: dict[str, str]) -> None:
    config = get_preset("hnet-small")
    guided = replace(config, train=replace(config.train, init_from="bpe:FILE.model"))
    with pytest.raises(ConfigError, match="reads a file besides data and code"):
        make_script(guided)
