"""The command line: one sentence and exit code 2 for every mistake, one JSON object with --json, help at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import forked
import pytest
import torch
from command import Niblick

from niblick.artifact.container import read_artifact, write_artifact
from niblick.config.run_config import RunConfig
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.facts.scores import ScoreRecord
from niblick.run import exports, packing, pipeline, prepared, scoring
from niblick.run.directory import Run
from niblick.train.precision import pick_dtype

# A model of a few thousand weights that trains in a second.
TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1"),
    *("train.seq_len=32", "train.batch_tokens=256", "train.micro_batch_tokens=256", "train.device=cpu"),
    *("schedule.steps=4", "schedule.max_seconds=null", "score.seq_len=64"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of real text: documents of this Python."""
    folder = tmp_path_factory.mktemp("data") / "pydocs"
    prepare("pydocs", "byte260", folder, max_docs=24, val_docs=4)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished toy run."""
    runs = tmp_path_factory.mktemp("runs")
    done = forked.run(["-m", "niblick", "train", "hnet-small", "--data", data, "--runs", runs, *TOY])
    assert done.returncode == 0, done.stderr
    return runs / "hnet-small-1"


def test_presets(niblick: Niblick) -> None:
    rows = {row["name"]: row for row in niblick.json("presets")["presets"]}
    assert rows["hnet-byte260"]["parameters"] == 17_455_176
    assert "hnet-byte260" in niblick("presets")[1]


def test_show_a_preset(niblick: Niblick) -> None:
    shown = niblick.json("show", "hnet-byte260")
    assert shown["parameters"] == 17_455_176
    assert shown["config"]["model"]["levels"][0]["target_length"] == 9
    assert niblick.json("show", "hnet-byte260", "model.width=128")["parameters"] < 2_000_000
    assert "17,455,176" in niblick("show", "hnet-byte260")[1]


def test_prepare_and_check(niblick: Niblick, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("One document.\n" * 50)
    (tmp_path / "more.jsonl").write_text("".join(json.dumps({"text": f"Line {i}."}) + "\n" for i in range(30)))
    manifest = niblick.json("data", "prepare", "--source", tmp_path, "--out", tmp_path / "out", "--val-docs", 3)
    assert manifest["niblick"]["splits"]["val"]["documents"] == 3
    assert niblick.json("data", "check", tmp_path / "out")["splits"]["train"]["documents"] == 27
    assert manifest["niblick"]["left_out"] == {"files": 1, "names": ["text.txt"]}
    code, out, _ = niblick("data", "check", tmp_path / "out")
    assert code == 0
    assert "splits.val.text_hash" in out


def test_a_finished_run(niblick: Niblick, run: Path, data: Path) -> None:
    """Every file of the design is there, and the parts agree with each other."""
    expected = {"config.json", "source.tar.zst", "env.json", "events.jsonl", "train.log", "model.safetensors"}
    assert expected | {"result.json"} <= {p.name for p in run.iterdir()}
    assert not list(run.rglob("*.tmp"))
    result = json.loads((run / "result.json").read_text())
    [score] = map(json.loads, (run / "artifacts" / "int8-published+zlib" / "scores.jsonl").read_text().splitlines())
    assert result["bpb"] == score["bpb"]
    assert result["artifact_bytes"] == (run / "artifacts" / "int8-published+zlib" / "artifact.nib").stat().st_size
    assert result["total_bytes"] == result["artifact_bytes"] + result["code_bytes"]
    log = (run / "train.log").read_text().splitlines()
    assert f"model_params:{niblick.json('show', 'hnet-small', *TOY)['parameters']}" in log
    assert any(line.startswith("step:4/4 train_loss:") for line in log)
    assert f"final_int8_zlib_roundtrip_exact val_loss:{score['loss']:.8f} val_bpb:{score['bpb']:.8f}" in log


def test_eval_again_in_a_fresh_process(niblick: Niblick, run: Path, data: Path) -> None:
    first = json.loads((run / "result.json").read_text())
    command = [sys.executable, "-m", "niblick", "eval", str(run), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    again = json.loads(done.stdout)
    assert again["bpb"] == pytest.approx(first["bpb"], abs=1e-6)
    keys = {"bpb", "loss", "tokens", "bytes", "artifact_bytes", "code_bytes", "total_bytes", "text_hash", "legality"}
    assert keys <= again.keys()
    legal = again["legality"]
    assert legal["under_cap"] is True
    assert any("8×H100" in reason for reason in legal["reasons"])
    path = run / "artifacts" / "int8-published+zlib" / "artifact.nib"
    alone = niblick.json("eval", path, "--data", data)
    assert alone["bpb"] == pytest.approx(first["bpb"], abs=1e-6)
    assert len((run / "artifacts" / "int8-published+zlib" / "scores.jsonl").read_text().splitlines()) >= 2


def test_eval_with_another_scorer(niblick: Niblick, run: Path, data: Path) -> None:
    """`score.key=value` chooses the scorer; the record says all of it, and that the score came first."""
    plain = niblick.json("eval", run)
    assert plain["scorer"]["scorer"] == "contiguous"
    assert plain["scorer"]["seq_len"] == 64
    assert plain["ttt_log"] == []
    sliding = niblick.json("eval", run, "score.scorer=sliding", "score.stride=32", "score.capacity=packed")
    wanted = {"scorer": "sliding", "stride": 32, "capacity": "packed", "device": "cpu"}
    wanted["dtype"] = pick_dtype("auto", torch.device("cpu"))  # what the run chose on this machine
    assert wanted.items() <= sliding["scorer"].items()
    assert sliding["tokens"] == plain["tokens"]
    assert sliding["bpb"] != plain["bpb"]
    assert 0 <= sliding["knife_edges"] < sliding["decisions"]
    assert sliding["legality"]["eval_seconds"] > sliding["seconds"], "reading the artifact counts too"
    mixed = niblick.json("eval", run, "score.sidecar.name=ngram", "score.sidecar.order=5")
    assert mixed["scorer"]["sidecar"]["order"] == 5
    assert mixed["tokens"] == plain["tokens"]
    assert mixed["bpb"] < plain["bpb"]
    learned = niblick.json(
        *("eval", run, "score.scorer=document", "score.ttt.optimizer=sgd", "score.ttt.lr=0.05"),
        *("score.ttt.chunk_tokens=4096", "score.ttt.reset=document", "score.ttt.epochs=1"),
    )
    assert learned["legality"]["score_first"] is True
    assert learned["bpb"] < plain["bpb"]
    assert learned["ttt_log"][0][0] == 1
    for first, end, scored_at, trained_at in learned["ttt_log"]:
        assert end > first
        assert trained_at is None or trained_at >= scored_at
    lines = (run / "artifacts" / "int8-published+zlib" / "scores.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["scorer"] == learned["scorer"]
    assert json.loads((run / "result.json").read_text())["scorer"]["scorer"] == "contiguous"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["score.scorer=sliding", "score.stride=65"], "score.stride=65 must be between 1 and the window"),
        (["score.scorer=sliding", "score.stride=1", "score.seq_len=100000000"], "less than one window"),
        (["score.stride=8"], "set score.scorer=sliding"),
        (["score.max_seconds=1e-6"], "too little to score once"),
        (["score.ttt.weights=nothing.*", "score.ttt.optimizer=sgd"], "names no weight"),
        (["score.sidecar.name=ngrams"], "unknown score.sidecar.name='ngrams' (nearest: ngram"),
        (["score.sidecar.order=65"], "score.sidecar.order=65 must be between 0 and 64 tokens"),
        (["score.sride=8"], "nearest: score.stride"),
        (["stride=8"], "only score.… may be set here (nearest: score.stride"),
        (["model.width=8"], "is settled in the artifact"),
        (["sliding"], "is no override"),
    ],
)
def test_eval_mistakes(niblick: Niblick, run: Path, overrides: list[str], words: str) -> None:
    scores = run / "artifacts" / "int8-published+zlib" / "scores.jsonl"
    before = scores.read_bytes()
    assert words in niblick.refused("eval", run, *overrides)
    assert scores.read_bytes() == before


def dealt_anew(data: Path, folder: Path, **source: str) -> Path:
    """A copy of a dataset in which the files and figures of each split are those of another one, as its makers would
    have prepared it."""
    shutil.copytree(data, folder)
    manifest = json.loads((data / "manifest.json").read_text())
    (here,) = manifest["datasets"]
    for split, taken in source.items():
        for path in (data / here["path"]).glob(f"fineweb_{taken}[._]*"):
            shutil.copy(path, folder / here["path"] / path.name.replace(taken, split, 1))
        text = json.dumps(json.loads((data / "manifest.json").read_text())["niblick"]["splits"][taken])
        manifest["niblick"]["splits"][split] = json.loads(text.replace(f"fineweb_{taken}", f"fineweb_{split}"))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_learning_from_training_text_is_refused(niblick: Niblick, run: Path, data: Path, tmp_path: Path) -> None:
    """By the hash that the artifact keeps of its training text, and by that of the dataset's own training split."""
    learn = "score.ttt.optimizer=sgd"
    swapped = dealt_anew(data, tmp_path / "swapped", train="val", val="train")
    assert "is the model's training text" in niblick.refused("eval", run, learn, "--data", swapped)
    niblick.json("eval", run, "--data", swapped)
    other = dealt_anew(data, tmp_path / "other", train="val")
    assert "is the model's training text" in niblick.refused("eval", run, learn, "--data", other)
    niblick.json("eval", run, learn, "--data", data)


def test_old_artifacts_name_two_settings_of_their_scorer(
    niblick: Niblick, run: Path, data: Path, tmp_path: Path
) -> None:
    """They name two settings of their scorer, from when there was but one: they score as they did."""
    artifact = read_artifact(run / "artifacts" / "int8-published+zlib" / "artifact.nib")
    old = {key: artifact.config["score"][key] for key in ("seq_len", "batch_tokens", "dtype")}
    header = {key: artifact.config[key] for key in ("model", "tokenizer")} | {"score": old}
    write_artifact(tmp_path / "old.nib", header, artifact.encoded, artifact.codec)
    first, second = (niblick.json("eval", path, "--data", data) for path in (run, tmp_path / "old.nib"))
    assert second["bpb"] == pytest.approx(first["bpb"], abs=1e-6)


def test_show_a_run_and_an_artifact(niblick: Niblick, run: Path) -> None:
    shown = niblick.json("show", run)
    assert shown["result"]["artifact"] == "int8-published+zlib"
    artifact = niblick.json("show", f"{run}:int8-published+zlib")
    assert artifact == shown["artifacts"]["int8-published+zlib"]
    schemes = {t["name"]: t["scheme"] for t in artifact["tensors"]}
    assert schemes["embed.weight"] == "fp16"
    assert schemes["body.main.blocks.0.attn.q_gain"] == "fp32"
    assert artifact["bytes"]["header"] + artifact["bytes"]["payload"] < artifact["bytes"]["total"]
    for target in (("show", run, "--all"), ("show", f"{run}:int8-published+zlib")):
        code, out, _ = niblick(*target)
        assert code == 0
        assert "embed.weight" in out
        assert "body.main.blocks.0.attn.q.weight" in out
    code, out, _ = niblick("show", run)
    lines = out.splitlines()
    assert code == 0 and len(lines) < 50
    assert lines[0] == f"run       {run}: done" and lines[3].startswith("bpb ")
    keys = {line.split()[0] for line in lines if "." in line.split(" ")[0]}
    assert {"model.width", "schedule.steps"} <= keys and not {"optim.matrix_lr", "model.qk_norm"} & keys
    assert niblick("show", "latest", "--runs", run.parent)[0] == 0


def test_generate(niblick: Niblick, run: Path) -> None:
    code, out, err = niblick("generate", run, "--prompt", "A prompt", "--max-bytes", 20, "--temperature", 3)
    assert (code, err) == (0, "")
    assert out.startswith("A prompt") and len(out.rstrip("\n").encode()) <= 28
    assert "100 tokens long" in niblick.refused("generate", run, "--prompt", "x" * 100)  # and it prints no prompt
    assert "UTF-8" in niblick.refused("generate", run, "--prompt", "a\udcff")
    two = ("generate", run, "--prompt", "A", "--prompt", "B", "--max-bytes", 5, "--seed", 4)
    texts = niblick.json(*two)
    assert [text["prompt"] for text in texts] == ["A", "B"]
    code, out, err = niblick(*two)
    a, b = (each["prompt"] + each["text"] for each in texts)
    assert (code, out, err) == (0, f"--- 1 of 2, seed 4\n{a}\n--- 2 of 2, seed 5\n{b}\n", "")


def test_recipe_file(niblick: Niblick, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from dataclasses import replace\nimport torch\nfrom niblick.recipes.presets import get_preset\n"
        "torch.set_float32_matmul_precision('highest')  # what a recipe does besides is code of the run\n"
        "def recipe():\n    return replace(get_preset('hnet-small'), preset='mine', seed=7)\n"
    )
    result = niblick.json("train", recipe, "--data", data, "--runs", tmp_path / "runs", *TOY)
    run = tmp_path / "runs" / "mine-1"
    assert result["run"] == str(run)
    assert (run / "recipe.py").read_text() == recipe.read_text()
    plain = niblick.json("train", "hnet-small", "--data", data, "--runs", tmp_path / "runs", *TOY)
    assert result["code_bytes"] > plain["code_bytes"]


def test_a_run_never_depends_on_its_script(niblick: Niblick, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from niblick.recipes.presets import get_preset\ndef late():\n    import no_such_package\nLATE = late\n"
        "def recipe():\n    return get_preset('hnet-small')\n"
    )
    runs = tmp_path / "runs"
    result = niblick.json("train", recipe, "--data", data, "--runs", runs, *TOY)
    assert result["code_bytes"] is result["total_bytes"] is None
    assert "mine.py:3 imports no_such_package" in result["code_not_weighed"].replace("recipe.py", "mine.py")
    assert "code not weighed" in result["legality"]["reasons"]
    events = [json.loads(line) for line in (runs / "hnet-small-1" / "events.jsonl").read_text().splitlines()]
    assert [e["kind"] for e in events if e["event"] == "warning"] == ["code"]
    code, out, _ = niblick("eval", "latest", "--runs", runs)
    assert code == 0 and "code not weighed (" in out
    for verb in (
        ["runs"],
        ["leaderboard"],
        ["show", "latest"],
        ["report", "latest"],
        ["export", "latest", "codec=zstd"],
    ):
        code, out, err = niblick(*verb, "--runs", runs)
        assert code == 0, err
    code, _, err = niblick("submit", "latest", "--runs", runs, "--out", tmp_path / "folder")
    assert code == 2 and "no_such_package" in err and not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "hnet-byte"], ["unknown preset 'hnet-byte'", "nearest: hnet-byte260"]),
        (["train", "hnet-small", "train.steps=3"], ["'train.steps' (nearest: schedule.steps"]),
        (["show", "qzwx"], ["no preset, run or artifact 'qzwx': `niblick presets` and `niblick runs`"]),
        (["train", "hnet-small", "model.widht=3"], ["model.widht", "model.width"]),
        (["train", "hnet-small", "model.heads=7", "--data", "DATA"], ["heads=7 do not divide width=128"]),
        (["train", "hnet-small"], ["no data is named", "niblick data prepare"]),
        (["train", "hnet-small", "--data", "NOWHERE"], ["NOWHERE", "niblick data prepare"]),
        (["train", "hnet-small", "--data", "EMPTY"], ["EMPTY", "niblick data prepare"]),
        (["train", "hnet-small", "--data", "DATA", "model.vocab_size=1024"], ["byte260", "vocab_size=1024"]),
        (["train", "hnet-small", "--data", "DATA", "train.device=abacus"], ["abacus"]),
        (["train", "hnet-small", "--data", "DATA", "export.scheme=int9"], ["int9", "int8"]),
        (["train", "hnet-small", "--data", "DATA", "export.codec=zip"], ["zip", "zlib"]),
        (["train", "--resume", "nothing"], ["there is no run 'nothing'"]),
        (["train"], ["name a preset"]),
        (["train", "missing.py"], ["there is no recipe file missing.py"]),
        (["eval", "nothing"], ["there is no run 'nothing'"]),
        (["eval", "missing.nib"], ["there is no artifact missing.nib"]),
        (["show", "hnet-byte"], ["there is no preset, run or artifact 'hnet-byte'", "hnet-byte260"]),
        (["data", "prepare", "--source", "missing.jsonl", "--out", "OUT"], ["missing.jsonl"]),
        (["data", "prepare", "--source", "pydocs", "--tokenizer", "byte26", "--out", "OUT"], ["byte26", "byte260"]),
        (["data", "prepare", "--source", "pydocs", "--out", "DATA"], ["DATA"]),
        (["data", "check", "EMPTY"], ["EMPTY"]),
        (["data", "convert", "EMPTY", "--out", "OUT"], ["EMPTY", "fineweb_train"]),
        (["data", "convert", "DATA", "--tokenizer", "bite260", "--out", "OUT"], ["bite260", "nearest: byte260"]),
        (["data", "prepare", "--source", "pydocs", "--tokenizer", "NOMODEL", "--out", "OUT"], ["no SentencePiece"]),
        (
            ["data", "prepare", "--source", "DATA.jsonl", "--tokenizer", "sp:60000", "--out", "OUT"],
            ["too small", "most"],
        ),
        (["data", "prepare", "--source", "pydocs", "--tokenizer", "sp:12", "--out", "OUT"], ["sp:12 is out of range"]),
        (
            [
                "data",
                "prepare",
                "--source",
                "pydocs",
                "--normalization",
                "nfc",
                "--tokenizer",
                "sp:400",
                "--out",
                "OUT",
            ],
            ["unknown normalization 'nfc'", "identity"],
        ),
        (
            ["data", "prepare", "--source", "pydocs", "--normalization", "nmt_nfkc", "--out", "OUT"],
            ["not trained here"],
        ),
        (["train", "hnet-small", "--data", "DATA", "--seeds", "0"], ["--seeds 0"]),
        (["train", "hnet-small", "--env", "ITERATION=3"], ["ITERATION", "nearest: ITERATIONS"]),
        (["train", "hnet-small", "--env", "PRUNE_PCT=0.9"], ["PRUNE_PCT cannot be set here", "set export.prune=0.03"]),
        (["import", "challenge", "missing.pt", "--preset", "hnet-small"], ["missing.pt cannot be read"]),
        (["import", "challenge", "NOMODEL", "--preset", "hnet-small"], ["NOMODEL", "torch.save"]),
        (["import", "challenge", "NOMODEL", "--preset", "hnet-smal"], ["unknown preset 'hnet-smal'", "hnet-small"]),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_mistakes(
    niblick: Niblick,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "DATA").symlink_to(data)
    (tmp_path / "DATA.jsonl").write_text('{"text": "A short text."}\n' * 30)
    (tmp_path / "NOMODEL").write_bytes(b"nothing of the kind")
    (tmp_path / "NOMODEL.model").write_bytes(b"nothing of the kind")
    before = {p.name for p in tmp_path.iterdir()}
    message = niblick.refused(
        *[a + ".model" if a == "NOMODEL" and "--tokenizer" in arguments else a for a in arguments]
    )
    for word in words:
        assert word in message
    assert {p.name for p in tmp_path.iterdir()} == before, "nothing is left half-written"


def test_shards_that_are_damaged_or_foreign(niblick: Niblick, data: Path, tmp_path: Path) -> None:
    import shutil

    def copy(name: str) -> tuple[Path, Path]:
        folder = tmp_path / name
        shutil.copytree(data, folder)
        return folder, next(folder.glob("datasets/*/fineweb_train_000000.bin"))

    folder, shard = copy("truncated")
    shard.write_bytes(shard.read_bytes()[:-3])
    for command in (["train", "hnet-small", "--data", folder, "--runs", tmp_path / "r"], ["data", "check", folder]):
        assert "fineweb_train_000000.bin" in niblick.refused(*command)
    folder, shard = copy("foreign")
    shard.write_bytes(b"\0" * 4096)
    assert "fineweb_train_000000.bin" in niblick.refused(
        "train", "hnet-small", "--data", folder, "--runs", tmp_path / "r"
    )
    folder, shard = copy("outside")
    content = bytearray(shard.read_bytes())
    content[1024:] = b"\xff\x03" * ((len(content) - 1024) // 2)  # token 1023
    shard.write_bytes(content)
    message = niblick.refused("train", "hnet-small", "--data", folder, "--runs", tmp_path / "r2", *TOY)
    assert "fineweb_train_000000.bin is not what the manifest says" in message
    (folder / "manifest.json").unlink()  # which has its digest: only the tokens tell now
    message = niblick.refused("train", "hnet-small", "--data", folder, "--runs", tmp_path / "r3", *TOY)
    assert "1023" in message
    assert "260" in message
    folder, shard = copy("changed")
    shard.write_bytes(content)
    assert "fineweb_train_000000.bin" in niblick.refused("data", "check", folder)
    assert not (tmp_path / "r").exists()


def test_damaged_artifacts(niblick: Niblick, run: Path, data: Path, tmp_path: Path) -> None:
    whole = (run / "artifacts" / "int8-published+zlib" / "artifact.nib").read_bytes()
    for name, content in (
        ("cut", whole[: len(whole) // 2]),
        ("flipped", whole[:900] + bytes([whole[900] ^ 1]) + whole[901:]),
        ("empty", b""),
        ("foreign", b"PK\3\4" + bytes(500)),
    ):
        path = tmp_path / f"{name}.nib"
        path.write_bytes(content)
        for command in (["eval", path, "--data", data], ["show", path]):
            niblick.refused(*command)


TEXTS = [f"Document {i} says\nthis  and that, {i * i} times.\n\nThen it ends.\n" for i in range(80)]
SP = ["model.vocab_size=320", *TOY]


@pytest.fixture(scope="module")
def subwords(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same text as subwords that give it back, and as subwords made the challenge's way, which do not."""
    folder = tmp_path_factory.mktemp("subwords")
    source = folder / "docs.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    for name, normalization in (("lossless", "identity"), ("lossy", "nmt_nfkc")):
        prepare(str(source), "sp:320", folder / name, val_docs=10, normalization=normalization)
    return {name: folder / name for name in ("lossless", "lossy", "docs.jsonl")}


def test_subwords_from_text_to_score(niblick: Niblick, subwords: dict[str, Path], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    result = niblick.json("train", "hnet-small", "--data", subwords["lossless"], "--runs", runs, *SP)
    assert result["lossless"] is True
    assert result["bpb_repaired"] == result["bpb"]
    assert result["lost"] == {"documents": 0, "bytes": 0, "decoded_bytes": 0}
    assert (result["documents"], result["original_bytes"]) == (10, sum(len(t) for t in TEXTS[:10]))
    assert result["bytes"] == result["original_bytes"]
    assert result["unavailable"] == []
    assert niblick.json("eval", "latest", "--runs", runs)["bpb"] == pytest.approx(result["bpb"], abs=1e-6)
    assert "lossy" not in niblick("eval", "latest", "--runs", runs)[1]
    said = niblick.json("generate", "latest", "--runs", runs, "--prompt", "Document", "--max-bytes", 20)
    assert said["text"]
    artifact = next(runs.glob("*/artifacts/*/artifact.nib"))
    artifact = artifact.rename(tmp_path / "alone.nib")
    assert "needs its model file" in niblick.refused("generate", artifact, "--max-bytes", 20)
    assert niblick("generate", artifact, "--max-bytes", 9, "--data", subwords["lossless"])[0] == 0
    artifact.rename(next(runs.glob("*/artifacts/*")) / "artifact.nib")
    # Another model file with the same name and size of vocabulary is another tokenizer.
    message = niblick.refused("eval", "latest", "--runs", runs, "--data", subwords["lossy"])
    assert "model_sha256" in message
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    [model] = (subwords["lossless"] / "tokenizers").iterdir()
    (renamed / "mine.model").write_bytes(model.read_bytes())
    source, out = subwords["docs.jsonl"], tmp_path / "again"
    niblick.json("data", "prepare", "--source", source, "--out", out, "--tokenizer", renamed / "mine.model")
    assert niblick.json("eval", "latest", "--runs", runs, "--data", out)["lossless"] is True


def test_what_a_lossy_tokenizer_leaves_out(niblick: Niblick, subwords: dict[str, Path], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    result = niblick.json("train", "hnet-small", "--data", subwords["lossy"], "--runs", runs, *SP)
    assert result["lossless"] is False
    assert result["lost"]["documents"] == 10
    assert result["lost"]["bytes"] == result["original_bytes"] > result["lost"]["decoded_bytes"]
    repaired = (result["bits"] + result["repair_bits"]) / result["original_bytes"]
    assert result["bpb_repaired"] == pytest.approx(repaired)
    out = niblick("eval", "latest", "--runs", runs)[1]
    assert "lossy     10 of 10 documents do not come back" in out
    assert f"repaired  {repaired:.4f} BPB" in out


def test_shards_without_index(niblick: Niblick, subwords: dict[str, Path], tmp_path: Path) -> None:
    """The challenge's own form: scored as ever, and what nobody recorded is null and said."""
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(subwords["lossless"], folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["niblick"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for path in folder.glob("datasets/*/*.npy"):
        path.unlink()
    result = niblick.json("train", "hnet-small", "--data", folder, "--runs", tmp_path / "runs", *SP)
    for key in ("lossless", "lost", "documents", "original_bytes", "repair_bits", "bpb_repaired", "text_hash"):
        assert result[key] is None, key
    out = niblick("eval", "latest", "--runs", tmp_path / "runs")[1]
    assert "no document index: no text hash" in out
    assert "bpb_repaired are unknown" in out
    assert len(niblick.json("data", "check", folder)["unavailable"]) == 4
    # Converting them finds documents by their BOS.
    converted = niblick.json("data", "convert", folder, "--out", tmp_path / "bytes")
    assert converted["niblick"]["splits"]["val"]["documents"] == 10
    assert "text hash" in niblick("data", "convert", folder, "--tokenizer", "sp:320", "--out", tmp_path / "sp")[1]
    shards = next(folder.glob("datasets/*"))
    shutil.copytree(shards, tmp_path / "shards")
    assert "--given" in niblick.refused("data", "convert", tmp_path / "shards", "--out", tmp_path / "no")
    [model] = (folder / "tokenizers").iterdir()
    given = ["--given", model, "--out", tmp_path / "named"]
    assert niblick.json("data", "convert", tmp_path / "shards", *given)["num_docs"] == 80


def test_challenge_data(
    niblick: Niblick, subwords: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards from a folder that stands for the hub, and one that stops half-way."""
    import shutil

    from niblick.data import download

    hub = tmp_path / "hub"
    shutil.copytree(subwords["lossy"], hub)
    manifest = json.loads((hub / "manifest.json").read_text())
    del manifest["niblick"]
    old, new = hub / manifest["datasets"][0]["path"], hub / "datasets" / "fineweb10B_sp320"
    old.rename(new)
    entry = manifest["datasets"][0] | {"name": new.name, "path": f"datasets/{new.name}"}
    entry |= {"val_glob": f"datasets/{new.name}/fineweb_val_*.bin"}
    (hub / "manifest.json").write_text(json.dumps(manifest | {"datasets": [entry]}))
    monkeypatch.setattr(download, "HubFiles", lambda: download.LocalFiles(hub))
    command = ["data", "prepare", "--source", "challenge:sp320", "--train-shards", 1, "--out"]
    code, out, err = niblick(*command, tmp_path / "out")
    assert code == 0, err
    assert "without document index" in out
    assert "model.vocab_size=320" in out
    assert "0 to 1" in niblick.refused(*command[:-2], 7, "--out", tmp_path / "more")
    assert "nearest: sp320" in niblick.refused(*command[:3], "challenge:sp32", "--out", tmp_path / "x")

    class Stopping(download.LocalFiles):
        def read(self, name: str, start: int) -> Any:
            if name.endswith(".bin"):
                raise OSError("connection reset")
            return super().read(name, start)

    monkeypatch.setattr(download, "HubFiles", lambda: Stopping(hub))
    monkeypatch.setattr(download, "_WAIT_SECONDS", 0.0)
    message = niblick.refused(*command, tmp_path / "half")
    assert "connection reset" in message
    assert "run the same command again to go on" in message
    assert not (tmp_path / "half").exists()


def test_progress_of_prepare_and_convert(
    niblick: Niblick, subwords: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("niblick.console.PLAIN_SECONDS", 0.0)
    _, _, err = niblick("data", "prepare", "--source", subwords["docs.jsonl"], "--out", tmp_path / "out")
    assert "80 documents, 4." in err
    _, _, err = niblick("data", "convert", subwords["lossless"], "--out", tmp_path / "bytes")
    assert "80 documents, 4." in err


def test_environment_names(niblick: Niblick, data: Path, tmp_path: Path) -> None:
    env = "ITERATIONS=3 SEED=7 TRAIN_BATCH_TOKENS=128 TRAIN_SEQ_LEN=32 MAX_WALLCLOCK_SECONDS=0"
    shown = niblick.json("show", "hnet-byte260", "--env", "NUM_LAYERS=12 OUTER_LAYERS=3", "model.width=128")
    assert shown["config"]["model"]["main"]["layout"] == "T6"
    assert shown["config"]["model"]["width"] == 128
    toy = [t for t in TOY if not t.startswith(("schedule.", "train.batch", "train.micro"))]
    niblick.json("train", "hnet-small", "--data", data, "--runs", tmp_path, "--env", env, *toy)
    log = (tmp_path / "hnet-small-1" / "train.log").read_text().splitlines()
    assert "seed:7" in log
    assert "outer_layers:1 main_layers:1" in log
    assert any(
        line.startswith("train_batch_tokens:128 train_seq_len:32 iterations:3") and line.endswith("seconds:0.000")
        for line in log
    )


def test_seeds(niblick: Niblick, data: Path, tmp_path: Path) -> None:
    result = niblick.json("train", "hnet-small", "--data", data, "--runs", tmp_path, "--seeds", 2, "data.seed=5", *TOY)
    first, second = (run["bpb"] for run in result["runs"])
    assert first != second
    assert result["bpb_mean"] == pytest.approx((first + second) / 2)
    assert result["bpb_deviation"] == pytest.approx(abs(first - second) / 2**0.5)
    starts = []
    for number in (1, 2):
        events = (tmp_path / f"hnet-small-{number}" / "events.jsonl").read_text().splitlines()
        starts.append(next(e for e in map(json.loads, events) if e["event"] == "start"))
    assert [(s["seed"], s["data_seed"]) for s in starts] == [(1337, 5), (1338, 5)]
    code, out, _ = niblick("train", "hnet-small", "--data", data, "--runs", tmp_path, "--seeds", 2, *TOY)
    assert code == 0
    assert "BPB over 2 runs" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ConfigError("the recipe opens data.bin, which no folder has"),
            "the recipe opens data.bin, which no folder has",
        ),
        (RuntimeError("a bug"), "RuntimeError: a bug"),
    ],
)
def test_a_score_does_not_depend_on_the_script(
    error: Exception,
    reason: str,
    niblick: Niblick,
    run: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the script's maker raises, every verb ends with its score and says that the code was not weighed."""

    def make_script(config: RunConfig, recipe: Path | None = None) -> NoReturn:
        raise error

    def score(run: Run, name: str) -> ScoreRecord:
        return scoring.score_artifact(run.artifact(name), prepared.config_of(run).data.path, run=run)

    monkeypatch.setattr(packing, "make_script", make_script)
    for module in (pipeline, exports):
        monkeypatch.setattr(module, "official_score", score)  # in this process
    runs = tmp_path / "runs"
    code, out, err = niblick("train", "hnet-small", "--data", data, "--runs", runs, *TOY)
    assert code == 0 and "code not weighed" in out
    assert err.count(f"warning: code not weighed: {reason}") == 1
    made = runs / "hnet-small-1"
    result = json.loads((made / "result.json").read_text())
    again = niblick.json("eval", made)
    packed = niblick.json("export", made, "scheme=int6")
    for record in (result, again, packed):
        assert record["bpb"] > 0 and record["artifact_bytes"] > 0
        assert record["code_bytes"] is record["total_bytes"] is record["legality"]["under_cap"] is None
        assert "code not weighed" in record["legality"]["reasons"]
    log = (made / "train.log").read_text()
    assert "Serialized model int8-published+zlib: " in log
    assert "Code size" not in log and "Total submission size" not in log
    for command in (["eval", made], ["export", made, "scheme=int5"], ["show", made], ["runs"], ["leaderboard"]):
        code, out, err = niblick(*command, *(["--runs", runs] if len(command) == 1 else []))
        assert code == 0 and "code not weighed" in out, (command, err)
    torch.save(published_state(run), tmp_path / "final_model.pt")
    imported = niblick.json(
        *("import", "challenge", tmp_path / "final_model.pt", "--preset", "hnet-small", "--runs", runs, *SHAPE)
    )
    assert imported["artifact_bytes"] > 0
    assert imported["code_bytes"] is imported["total_bytes"] is None


SHAPE = ["model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "score.seq_len=64"]


def published_state(run: Path) -> dict[str, Any]:
    from niblick.artifact.foreign.names import to_published
    from niblick.train.checkpoint import read_tensors

    return dict(to_published(read_tensors(run / "model.safetensors")[0]))


def test_import(niblick: Niblick, run: Path, data: Path, tmp_path: Path) -> None:
    """A run's weights as a published script saves them become a run that scores the same."""
    path, runs = tmp_path / "final_model.pt", tmp_path / "runs"
    torch.save(published_state(run), path)
    here = f"train.dtype={pick_dtype('auto', torch.device('cpu'))}"  # unless told, as the published scripts: bfloat16
    result = niblick.json("import", "challenge", path, "--preset", "hnet-small", "--runs", runs, *SHAPE, here)
    imported = Path(result["run"])
    assert result["imported"]["bytes"] == path.stat().st_size
    assert (imported / "artifacts" / "int8-published+zlib" / "artifact.nib").is_file()
    score = niblick.json("eval", imported, "--data", data)
    assert score["bpb"] == pytest.approx(json.loads((run / "result.json").read_text())["bpb"], abs=1e-6)
    assert "training time unknown" in score["legality"]["reasons"]
    assert niblick.json("show", imported)["result"]["artifact"] == "int8-published+zlib"
    assert niblick("show", imported)[0] == 0
    assert "pass --data DIR" in niblick.refused("eval", imported)
    assert "finished already" in niblick.refused("train", "--resume", imported)


def test_import_of_int8(niblick: Niblick, run: Path, data: Path, tmp_path: Path) -> None:
    import io
    import zlib

    import numpy as np
    import torch

    from niblick.artifact.container import read_artifact
    from niblick.pack.published import quantize_int8

    form: dict[str, Any] = {key: {} for key in ("quantized", "scales", "dtypes", "passthrough", "qmeta")}
    for name, tensor in published_state(run).items():
        if tensor.ndim == 2 and min(tensor.shape) > 2:
            form["quantized"][name], form["scales"][name] = quantize_int8(tensor)
            form["dtypes"][name] = "float32"
        else:
            form["passthrough"][name] = tensor
    buffer = io.BytesIO()
    torch.save(form, buffer)
    path = tmp_path / "final_model.int8.ptz"
    path.write_bytes(zlib.compress(buffer.getvalue(), 9))
    command = ["import", "challenge", path, "--preset", "hnet-small", "--runs", tmp_path / "runs"]
    result = niblick.json(*command, "--data", data, *SHAPE)
    assert result["artifact"] == "imported"
    artifact = read_artifact(Path(result["run"]) / "artifacts" / "imported" / "artifact.nib")
    codes = artifact.encoded["body.main.blocks.0.mlp.up.weight"].parts["codes"]
    assert np.array_equal(codes, form["quantized"]["main_stage.blocks.0.mlp.fc.weight"].numpy())
    assert artifact.config["tokenizer"]["name"] == "byte260"
    assert niblick.json("eval", result["run"])["lossless"] is True
    # Another shape, and nothing of it written.
    before = sorted(p.name for p in (tmp_path / "runs").iterdir())
    message = niblick.refused(*command, *SHAPE, "model.width=32")
    assert "tensor tok_emb.weight has shape (260, 16), the model expects (260, 32)" in message
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == before


def test_import_runs_no_code(niblick: Niblick, tmp_path: Path) -> None:
    import os

    import torch

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"tok_emb.weight": Hostile()}, tmp_path / "final_model.pt")
    message = niblick.refused(
        "import", "challenge", tmp_path / "final_model.pt", "--preset", "hnet-small", "--runs", tmp_path / "runs"
    )
    assert "code of strangers is not run" in message
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_finished_cannot_be_resumed(niblick: Niblick, run: Path) -> None:
    assert "finished already" in niblick.refused("train", "--resume", run)


def test_help_is_quick_and_everywhere(niblick: Niblick) -> None:
    commands = [[], ["data"], ["import"], *[[c] for c in ("presets", "show", "train", "eval", "quickstart")]]
    for command in [*commands, ["data", "prepare"], ["data", "convert"], ["data", "check"], ["import", "challenge"]]:
        code, out, _ = niblick(*command, "--help")
        assert code == 0
        assert "niblick" in out
        assert "Example" in out or not command
    # Not a timed test: nothing heavy may be loaded on the way to --help.
    code = (
        "import sys; from niblick import cli; sys.argv = ['niblick', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'matplotlib', 'zstandard'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_leave_a_run_to_go_on_with(
    niblick: Niblick, data: Path, tmp_path: Path, name: str, expected: int
) -> None:
    """A real process, a real signal: the step is finished, a checkpoint written, and resuming ends the run."""
    import signal

    runs = tmp_path / "runs"
    steps = ["schedule.steps=100000", "train.log_every=1"]
    command = [sys.executable, "-m", "niblick", "train", "hnet-small", "--data", data, "--runs", runs, *TOY, *steps]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    events = runs / "hnet-small-1" / "events.jsonl"
    deadline = time.monotonic() + 120
    while not (events.is_file() and '"step": 20,' in events.read_text()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == expected, err
    assert out == ""
    assert f"stopped by {name} after step" in err
    run = runs / "hnet-small-1"
    assert f"niblick train --resume {run}" in err
    [checkpoint] = (run / "checkpoints").iterdir()
    step = int(checkpoint.stem.split("_")[1])
    assert not (run / "result.json").exists()
    # The rest of the story at a sane length: the config is the run's own, so it is edited there.
    config = json.loads((run / "config.json").read_text())
    config["schedule"]["steps"] = step + 3
    (run / "config.json").write_text(json.dumps(config))
    result = niblick.json("train", "--resume", run)
    assert result["step"] == step + 3
    assert niblick.json("show", run)["result"]["bpb"] == result["bpb"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs terminals")
def test_a_terminal_that_goes_away_ends_a_run_in_order(data: Path, tmp_path: Path) -> None:
    """As when a connection drops: the kernel sends SIGHUP, and what is printed from then on is an error."""
    import fcntl
    import termios

    runs, (ours, theirs) = tmp_path / "runs", os.openpty()
    command = [sys.executable, "-m", "niblick", "train", "hnet-small", "--data", data, "--runs", runs, *TOY]
    command += ["schedule.steps=100000", "train.log_every=1"]
    process = subprocess.Popen(
        [*map(str, command)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    threading.Thread(target=lambda: [None for _ in iter(lambda: read_on(ours), b"")], daemon=True).start()
    events = runs / "hnet-small-1" / "events.jsonl"
    deadline = time.monotonic() + 120
    while not (events.is_file() and '"step": 20,' in events.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.close(ours)
    assert process.wait(60) == 129
    last = [json.loads(line) for line in events.read_text().splitlines()][-1]
    assert (last["event"], last["reason"]) == ("stop", "SIGHUP")
    assert len([*(runs / "hnet-small-1" / "checkpoints").iterdir()]) == 1


def read_on(number: int) -> bytes:
    try:
        return os.read(number, 4096)
    except OSError:
        return b""


# Trains as the command line does; the process that scores interrupts the whole group once it has begun.
INTERRUPTED = """
import os, subprocess, sys
from niblick.cli import main

os.setsid()
real = subprocess.run
scores = [sys.executable, "-m", "niblick", "eval"]
ours = lambda command: [sys.executable, "-c", SCORER, *command[3:]] if command[:4] == scores else command
subprocess.run = lambda command, **options: real(ours(command), **options)
sys.argv[0] = "niblick"
main()
"""
SCORER = """
import os, signal, sys
from niblick.cli import main
from niblick.run import scoring

scoring.score_model = lambda *arguments, **named: os.killpg(0, signal.SIGINT)
sys.argv[0] = "niblick"
main()
"""


@pytest.mark.slow
def test_an_interrupt_while_scoring_loses_nothing(niblick: Niblick, data: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole process group: the weights are there, and resuming packs and scores them."""
    run, program = tmp_path / "runs" / "hnet-small-1", f"SCORER = {SCORER!r}\n{INTERRUPTED}"
    done = forked.run(["-c", program, "train", "hnet-small", "--data", data, "--runs", run.parent, *TOY])
    assert done.returncode == 130, done.stderr
    assert (run / "artifacts" / "int8-published+zlib" / "artifact.nib").is_file()
    assert f"niblick train --resume {run}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (run / "result.json").exists()
    before = (run / "model.safetensors").read_bytes()
    result = niblick.json("train", "--resume", run)
    assert (run / "model.safetensors").read_bytes() == before
    assert result["step"] == 4


@pytest.mark.parametrize(("words", "offered"), [("niblick tr", "train"), ("niblick train --see", "--seeds")])
def test_verbs_and_options_are_completed(words: str, offered: str) -> None:
    """As a shell asks by Tab, once the completion is installed."""
    asked = {"_NIBLICK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = "import sys; sys.argv = ['niblick']; from niblick.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert offered in done.stdout.split()
