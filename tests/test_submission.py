"""Submissions: the script trains as niblick does, bit for bit, and the folder verifies in a fresh environment."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from niblick import auditing, challenge, pipeline, script
from niblick.artifact.container import read_artifact
from niblick.audit.functions import Effort
from niblick.audit.logs import audit_log
from niblick.bundle import submission as rules
from niblick.bundle.smallest import smallest
from niblick.bundle.submission import make_script
from niblick.config import RunConfig, override
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.lab import rerunning
from niblick.lab.submission import submit
from niblick.presets import get_preset
from niblick.runs import Run
from niblick.train.checkpoint import read_tensors

PRESETS = ("hnet-small", "quickstart", "hnet-byte260", "tinyhnet", "soft-chunker-sp1024")
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
    if config.tokenizer == "sp1024":
        own.append("model.vocab_size=300")
    return override(config, own)


@pytest.fixture(scope="session")
def trained(words: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Run, list[Any]]]:
    """A toy run of each preset, with all its events."""
    runs, found = tmp_path_factory.mktemp("submitted"), {}
    for name in PRESETS:
        events: list[dict[str, Any]] = []
        result = pipeline.run(toy(name, words), runs, events.append)
        found[name] = (Run(Path(result["run"])), events)
    return found


@pytest.fixture(scope="session")
def fresh(trained: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One fresh environment with the requirements of all four submissions."""
    folder = tmp_path_factory.mktemp("fresh")
    from niblick.lab.submission import requirements

    needed = {line for name in PRESETS for line in requirements(script_of(trained[name][0])).split()}
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in sorted(needed)))
    yield rerunning.environment(folder, folder / "environment")


def script_of(run: Run) -> str:
    return make_script(run.config()).text


def loaded(text: str, path: Path, name: str) -> ModuleType:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_twenty_steps_of_the_script_are_those_of_niblick(name: str, trained: dict[str, Any], tmp_path: Path) -> None:
    run, events = trained[name]
    config = run.config()
    made = loaded(script_of(run), tmp_path / "train_gpt.py", f"script_{name.replace('-', '_')}")
    given = made.configured(made.CONFIG, {"DATA_PATH": config.data.path}, 1)
    told: list[dict[str, Any]] = []
    model, _ = made.fit(given, made.open_shards(given, ""), told.append, made.Ranks())
    losses, again = ([e["loss"] for e in found if e["event"] == "step"] for found in (events, told))
    assert len(again) == 20
    torch.testing.assert_close(torch.tensor(again), torch.tensor(losses), rtol=0, atol=1e-5)
    weights, _ = read_tensors(run.weights)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, weights[key], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_two_ranks_train_the_same(trained: dict[str, Any], tmp_path: Path) -> None:
    run, events = trained["hnet-small"]
    (tmp_path / "train_gpt.py").write_text(script_of(run))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train_gpt.py"]
    environment = {"DATA_PATH": run.config().data.path, "PATH": "", "OMP_NUM_THREADS": "1", "RUN_ID": "two"}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    log = (tmp_path / "logs" / "two.txt").read_text()
    last = [e["loss"] for e in events if e["event"] == "step"][-1]
    assert f"step:20/20 train_loss:{last:.4f}" in log
    mine, theirs = read_artifact(run.artifact(run.artifact_names()[0])), read_artifact(tmp_path / "final_model.nib")
    for key, tensor in mine.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[key], tensor, rtol=0, atol=1e-5)
    assert "fail" not in [check.status for check in audit_log(log)]


@pytest.mark.slow
def test_the_smallest_form_trains_and_scores(trained: dict[str, Any], tmp_path: Path) -> None:
    run, events = trained["tinyhnet"]
    (tmp_path / "train_gpt.py").write_text(smallest(script_of(run)))
    environment = {"DATA_PATH": run.config().data.path, "PATH": "", "OMP_NUM_THREADS": "1"}
    said = []
    for options in ([], ["--eval"]):
        command = [sys.executable, "train_gpt.py", *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        said.append(done.stdout)
    losses = [e["loss"] for e in events if e["event"] == "step"]
    assert f"step:20/20 train_loss:{losses[-1]:.4f}" in said[0]
    exact = [line for line in said[0].splitlines() if "_exact " in line]
    assert len(exact) == 1 and exact[0] in said[1] and "step:" not in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_the_folder_verifies_in_a_fresh_environment(
    name: str, trained: dict[str, Any], fresh: Path, tmp_path: Path
) -> None:
    run, _ = trained[name]
    data = run.config().data.path
    with pytest.raises(ConfigError, match=r"is not audited: `niblick audit"):
        submit([run], tmp_path / "mine")
    auditing.audit(str(run.path), run.path.parent, options=auditing.Options(FEW))
    facts = submit([run], tmp_path / "mine", pack=name == "tinyhnet")
    assert not facts["reasons"]
    assert abs(facts["bytes_code"] / run.result()["code_bytes"] - 1) < 0.05 or name == "tinyhnet"  # type: ignore[index]
    checks = auditing.audit(str(tmp_path / "mine"), run.path.parent, data, auditing.Options(FEW, python=fresh))[
        "checks"
    ]
    bad = [c for c in checks if c["status"] == "fail" and not c["name"].startswith("train_seed")]
    assert not bad
    assert {"rerun", "causality", "artifact"} <= {c["name"] for c in checks if c["status"] == "pass"}


@pytest.fixture
def copied(trained: dict[str, Any], tmp_path: Path) -> tuple[Run, Run]:
    """Copies of two runs of unlike configs, not audited."""
    runs = []
    for name in ("hnet-small", "hnet-byte260"):
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
    assert not facts["record"] and facts["verdict"]["better"] == "the record"
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
    monkeypatch.setattr(challenge, "CAP_BYTES", 50_000)
    monkeypatch.setattr(challenge, "TRAIN_SECONDS", 1e-3)
    with pytest.raises(
        ConfigError, match=r"bytes with its code, over the cap of 50,000.*trained for .* s, over 0.001 s"
    ):
        submit([run], tmp_path / "bad")


@pytest.mark.slow
def test_bytes_of_the_published_study() -> None:
    made = make_script(get_preset("hnet-byte260"))
    assert made.total < 80_000  # of readable code, as was aimed at
    assert len(smallest(made.text)) < 24_000
    allowed = {"torch", "numpy"}
    for node in ast.walk(ast.parse(made.text)):
        names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.partition(".")[0] in allowed | sys.stdlib_module_names


def test_what_is_said_of_the_program_is_there() -> None:
    config = get_preset("hnet-byte260")
    named = {*rules.CHECKS, *rules.COMPUTED, *rules.registries(config, [], [])}
    named |= {tuple(key.rsplit(".", 1)) for key in rules.COVERED if key.count(".") > 1}
    for full in rules.LEFT_OUT:
        if not full.startswith("*."):
            named.add(tuple(full.rsplit(".", 1)))
    for owner, name in named:
        module, _, cls = owner.rpartition(".")
        found = importlib.import_module(module if cls[:1].isupper() else owner)
        assert hasattr(getattr(found, cls) if cls[:1].isupper() else found, name), (owner, name)


def test_tokens_that_make_no_whole_rows_are_refused() -> None:
    config = get_preset("hnet-byte260")
    assert script.configured(config, {}, 8).train.passes(8) == 1
    with pytest.raises(ConfigError, match="TRAIN_BATCH_TOKENS=0 must be a multiple"):
        script.configured(config, {"TRAIN_BATCH_TOKENS": "0"}, 1)
    with pytest.raises(ConfigError, match="TRAIN_BATCH_TOKENS=524288 must be a multiple of 1024 × 3 ranks"):
        script.configured(config, {}, 3)


def test_what_a_script_cannot_be(words: dict[str, str]) -> None:
    config = get_preset("hnet-small")
    guided = replace(config, train=replace(config.train, init_from="bpe:FILE.model"))
    with pytest.raises(ConfigError, match="reads a file besides data and code"):
        make_script(guided)
