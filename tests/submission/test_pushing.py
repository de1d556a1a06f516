"""Runs handed on: a folder, or a model on a stand-in for the hub, which is loaded again by every tool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command import Niblick
from fakehub import Repo, hub_at
from tiny import TINY

import niblick as package
from niblick.data.dataset import Dataset
from niblick.data.hub import fetched_model
from niblick.data.prepare import prepare
from niblick.data.shards import file_hash
from niblick.errors import DataError

pytest.importorskip("huggingface_hub", reason="huggingface_hub comes with niblick[hub]")
TEXT = "the quick brown fox"


@pytest.fixture
def run(niblick: Niblick, toy_data: Path, tmp_path: Path, score_here: None, one_script: None) -> Path:
    trained = niblick.json("train", "hnet-small", *TINY, "--data", toy_data, "--runs", tmp_path / "runs")
    return Path(trained["run"])


def test_a_folder(run: Path, niblick: Niblick, toy_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    pushed = niblick.json("push", run, out)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {"README.md", "artifact.nib", "config.json", "model.safetensors", "score.json"}
    assert pushed["files"] == {name: (out / name).stat().st_size for name in sorted(files)}
    assert all(str(tmp_path) not in (out / name).read_text(errors="ignore") for name in files - {"README.md"})
    card, score = (out / "README.md").read_text(), json.loads((out / "score.json").read_text())
    assert card.startswith("---\nlibrary_name: niblick\n") and f"{score['bpb']:.4f}, of the artifact file" in card
    assert "## Chunks" in card and "This artifact was not audited" in card
    own = package.load(next(run.glob("artifacts/*/artifact.nib")))
    assert package.load(out).bits_per_byte(TEXT) == own.bits_per_byte(TEXT)
    assert package.load(f"hf:{out}").generate("the ") == own.generate("the ")
    shown = niblick.json("show", out)
    assert shown["bytes"]["total"] == (out / "artifact.nib").stat().st_size
    assert niblick.json("generate", out, "--prompt", "the ")["text"] == own.generate("the ")
    assert "is there already: name a new folder" in niblick.refused("push", run, out)


def test_audits_of_this_artifact_alone(run: Path, niblick: Niblick, tmp_path: Path) -> None:
    audit = next(run.glob("artifacts/*/artifact.nib")).with_name("audit.json")
    check = {"name": "bytes", "status": "pass", "detail": "every token covers its bytes"}
    audit.write_text(json.dumps({"checks": [check], "outcome": "pass", "artifact_sha256": "0" * 64}))
    niblick.json("push", run, tmp_path / "other")
    assert not (tmp_path / "other" / "audit.json").exists()
    digest = file_hash(audit.with_name("artifact.nib"))
    audit.write_text(json.dumps({"checks": [check], "outcome": "pass", "artifact_sha256": digest, "data": "/a/b/web"}))
    niblick.json("push", run, tmp_path / "own")
    assert json.loads((tmp_path / "own" / "audit.json").read_text())["data"] == "web"
    assert "- bytes: pass. every token covers its bytes" in (tmp_path / "own" / "README.md").read_text()


def test_what_is_not_pushed(run: Path, niblick: Niblick, tmp_path: Path) -> None:
    assert "is no name to push to" in niblick.refused("push", run, "hf:me/tiny@main")
    assert "is no address on the hub" in niblick.refused("push", run, "hf:me tiny")
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert "was changed after it finished" in niblick.refused("push", run, tmp_path / "model")
    (run / "result.json").unlink()
    assert "is not finished" in niblick.refused("push", run, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_is_not_loaded(niblick: Niblick, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target, sentence in (
        (f"hf:{tmp_path / 'empty'}", "has no artifact.nib; `niblick push RUN DIR` writes one"),
        ("hf:me/tiny:config", "names a config, a split or a column, which a model does not have"),
    ):
        assert sentence in niblick.refused("generate", target)
        with pytest.raises(DataError):
            package.load(target)


def test_a_subword_tokenizer_goes_along(
    niblick: Niblick, tmp_path: Path, score_here: None, one_script: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the tokenizers library, whose tokens cut characters: what is generated is UTF-8 all the same."""
    pytest.importorskip("tokenizers", reason="tokenizers comes with niblick[hub]")
    sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
    from test_json_tokenizers import trained

    (tmp_path / "tiny.json").write_bytes(trained())
    texts = [f"Document {number}: été – the quick brown fox jumps " * 4 for number in range(12)]
    prepare(texts, str(tmp_path / "tiny.json"), tmp_path / "data", val_docs=3, workers=1)
    size = Dataset.open(tmp_path / "data").tokenizer.vocab_size
    runs = ["--data", tmp_path / "data", "--runs", tmp_path / "runs"]
    niblick.json("train", "hnet-small", *TINY, f"model.vocab_size={size}", *runs)
    niblick.json("push", "latest", tmp_path / "model", "--runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "data")
    loaded = package.load(tmp_path / "model")
    for seed in range(4):
        assert "\ufffd" not in loaded.generate("été ", max_bytes=80, temperature=20.0, seed=seed)
    assert loaded.bits_per_byte("été") > 0
    shutil.rmtree(tmp_path / "model" / "tokenizers")
    with pytest.raises(DataError, match="needs its model file"):
        package.load(tmp_path / "model")


ASK = """
import contextlib, io, json, sys
import niblick
from niblick.cli import main
from niblick.errors import DataError
said = []
for verb, *arguments in json.loads(sys.argv[1]):
    try:
        if verb == "load":
            said.append(niblick.load(arguments[0]).generate("the "))
        elif verb == "to":
            said.append(niblick.push(*arguments))
        else:
            sys.argv = ["niblick", verb, *arguments, "--json"]
            with contextlib.redirect_stdout(io.StringIO()) as out:
                main()
    except DataError as error:
        said.append(str(error))
    except SystemExit:
        said.append(json.loads(out.getvalue()))
print(json.dumps(said))
"""


@pytest.mark.slow
def test_a_hub(run: Path, tmp_path: Path) -> None:
    """Pushed, loaded at a commit, loaded again without network; refused where it is not as long as the hub says."""

    def ask(address: str, *calls: tuple[str, ...]) -> list[Any]:
        home = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_none"}
        command = [sys.executable, "-c", ASK, json.dumps(calls)]
        environment = {**os.environ, **home}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found: list[Any] = json.loads(done.stdout)
        return found

    own = package.load(next(run.glob("artifacts/*/artifact.nib"))).generate("the ")
    with hub_at() as (hub, address):
        hub.repos["models/me/other"] = Repo()
        hub.repos["models/me/other"].commit({"pytorch_model.bin": b"a pickle"})
        calls = [("push", str(run), "hf:me/tiny"), ("load", "hf:me/tiny"), ("load", "hf:me/other")]
        pushed, loaded, other, theirs = ask(address, *calls, ("to", str(run), "hf:them/tiny"))
        assert "the hub does not let you at them/tiny: log in by `hf auth login`" in theirs
        commit = pushed["revision"]
        there = hub.repos["models/me/tiny"].commits[commit]
        assert there["artifact.nib"] == next(run.glob("artifacts/*/artifact.nib")).read_bytes()
        assert not [name for name in there if name.endswith((".pt", ".bin", ".pkl"))]
        assert b'niblick.load("hf:me/tiny")' in there["README.md"]
        assert loaded == own
        assert "`nb.push(RUN, DIR)` did not write it, and nothing else is read" in other
        fetched = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
        assert fetched == {"artifact.nib"}
        hub.short = True
        hub.repos["models/me/cut"] = Repo()
        hub.repos["models/me/cut"].commit(there)
        (cut,) = ask(address, ("load", "hf:me/cut"))
        assert "artifact.nib of me/cut arrived with" in cut
    again, away = ask(address, ("load", f"hf:me/tiny@{commit}"), ("load", "hf:me/tiny"))
    assert again == own
    assert "the hub cannot be reached for me/tiny" in away


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install niblick\[hub\]"):
        fetched_model("hf:me/tiny", "artifact.nib", 100)
