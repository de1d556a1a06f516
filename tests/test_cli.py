"""The command line: one sentence and exit code 2 for every mistake, one JSON object with --json, help at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from niblick import cli
from niblick.data.prepare import prepare

# A model of a few thousand weights that trains in a second.
TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1"),
    *("train.seq_len=32", "train.batch_tokens=256", "train.micro_batch_tokens=256", "train.device=cpu"),
    *("schedule.steps=4", "schedule.max_seconds=null", "score.seq_len=64"),
]


class Niblick:
    """Runs a command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["niblick", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = self.capsys.readouterr()
        return code, out, err

    def json(self, *arguments: object) -> Any:
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def refused(self, *arguments: object) -> str:
        """The sentence on stderr of a command that exits with 2 and prints nothing on stdout."""
        code, out, err = self(*arguments)
        assert (code, out) == (2, ""), err
        assert err.startswith("niblick: ")
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) == 1
        return err


@pytest.fixture
def niblick(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Niblick:
    return Niblick(capsys, monkeypatch)


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
    command = [sys.executable, "-m", "niblick", "train", "quickstart", "--data", data, "--runs", runs, *TOY]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    return runs / "quickstart-1"


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
    assert niblick.json("data", "check", tmp_path / "out")["splits"]["train"]["documents"] == 28
    code, out, _ = niblick("data", "check", tmp_path / "out")
    assert code == 0
    assert "splits.val.text_hash" in out


def test_a_finished_run(niblick: Niblick, run: Path, data: Path) -> None:
    """Every file of the design is there, and the parts agree with each other."""
    expected = {"config.json", "source.tar.zst", "env.json", "events.jsonl", "train.log", "model.safetensors"}
    assert expected | {"result.json"} <= {p.name for p in run.iterdir()}
    assert not list(run.rglob("*.tmp"))
    result = json.loads((run / "result.json").read_text())
    [score] = map(json.loads, (run / "artifacts" / "int8+zlib" / "scores.jsonl").read_text().splitlines())
    assert result["bpb"] == score["bpb"]
    assert result["artifact_bytes"] == (run / "artifacts" / "int8+zlib" / "artifact.nib").stat().st_size
    assert result["total_bytes"] == result["artifact_bytes"] + result["code_bytes"]
    log = (run / "train.log").read_text().splitlines()
    assert f"model_params:{niblick.json('show', 'quickstart', *TOY)['parameters']}" in log
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
    path = run / "artifacts" / "int8+zlib" / "artifact.nib"
    alone = niblick.json("eval", path, "--data", data)
    assert alone["bpb"] == pytest.approx(first["bpb"], abs=1e-6)
    assert len((run / "artifacts" / "int8+zlib" / "scores.jsonl").read_text().splitlines()) >= 2


def test_show_a_run_and_an_artifact(niblick: Niblick, run: Path) -> None:
    shown = niblick.json("show", run)
    assert shown["result"]["artifact"] == "int8+zlib"
    artifact = niblick.json("show", f"{run}:int8+zlib")
    assert artifact == shown["artifacts"]["int8+zlib"]
    schemes = {t["name"]: t["scheme"] for t in artifact["tensors"]}
    assert schemes["embed.weight"] == "fp16"
    assert schemes["body.main.blocks.0.attn.q_gain"] == "fp32"
    assert artifact["bytes"]["header"] + artifact["bytes"]["payload"] < artifact["bytes"]["total"]
    code, out, _ = niblick("show", run)
    assert code == 0
    assert "embed.weight" in out
    assert "body.main.blocks.0.attn.q.weight" in out
    assert niblick("show", "latest", "--runs", run.parent)[0] == 0


def test_recipe_file(niblick: Niblick, data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.py"
    recipe.write_text(
        "from dataclasses import replace\nfrom niblick.presets import get_preset\n"
        "def recipe():\n    return replace(get_preset('quickstart'), preset='mine', seed=7)\n"
    )
    result = niblick.json("train", recipe, "--data", data, "--runs", tmp_path / "runs", *TOY)
    run = tmp_path / "runs" / "mine-1"
    assert result["run"] == str(run)
    assert (run / "recipe.py").read_text() == recipe.read_text()
    plain = niblick.json("train", "quickstart", "--data", data, "--runs", tmp_path / "runs", *TOY)
    assert result["code_bytes"] > plain["code_bytes"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "hnet-byte"], ["unknown preset 'hnet-byte'", "nearest: hnet-byte260"]),
        (["train", "quickstart", "model.widht=3"], ["model.widht", "model.width"]),
        (["train", "quickstart", "model.heads=7", "--data", "DATA"], ["heads=7 do not divide width=128"]),
        (["train", "quickstart"], ["no data is named", "niblick data prepare"]),
        (["train", "quickstart", "--data", "NOWHERE"], ["NOWHERE", "niblick data prepare"]),
        (["train", "quickstart", "--data", "EMPTY"], ["EMPTY", "niblick data prepare"]),
        (["train", "quickstart", "--data", "DATA", "model.vocab_size=1024"], ["byte260", "vocab_size=1024"]),
        (["train", "quickstart", "--data", "DATA", "train.device=abacus"], ["abacus"]),
        (["train", "quickstart", "--data", "DATA", "export.scheme=int9"], ["int9", "int8"]),
        (["train", "quickstart", "--data", "DATA", "export.codec=zip"], ["zip", "zlib"]),
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
    message = niblick.refused(*arguments)
    for word in words:
        assert word in message
    assert {p.name for p in tmp_path.iterdir()} == {"EMPTY", "DATA"}, "nothing is left half-written"


def test_shards_that_are_damaged_or_foreign(niblick: Niblick, data: Path, tmp_path: Path) -> None:
    import shutil

    def copy(name: str) -> tuple[Path, Path]:
        folder = tmp_path / name
        shutil.copytree(data, folder)
        return folder, next(folder.glob("datasets/*/fineweb_train_000000.bin"))

    folder, shard = copy("truncated")
    shard.write_bytes(shard.read_bytes()[:-3])
    for command in (["train", "quickstart", "--data", folder, "--runs", tmp_path / "r"], ["data", "check", folder]):
        assert "fineweb_train_000000.bin" in niblick.refused(*command)
    folder, shard = copy("foreign")
    shard.write_bytes(b"\0" * 4096)
    assert "fineweb_train_000000.bin" in niblick.refused(
        "train", "quickstart", "--data", folder, "--runs", tmp_path / "r"
    )
    folder, shard = copy("outside")
    content = bytearray(shard.read_bytes())
    content[1024:] = b"\xff\x03" * ((len(content) - 1024) // 2)  # token 1023
    shard.write_bytes(content)
    message = niblick.refused("train", "quickstart", "--data", folder, "--runs", tmp_path / "r2", *TOY)
    assert "1023" in message
    assert "260" in message
    assert "fineweb_train_000000.bin" in niblick.refused("data", "check", folder)
    assert not (tmp_path / "r").exists()


def test_damaged_artifacts(niblick: Niblick, run: Path, data: Path, tmp_path: Path) -> None:
    whole = (run / "artifacts" / "int8+zlib" / "artifact.nib").read_bytes()
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


def test_a_run_that_is_finished_cannot_be_resumed(niblick: Niblick, run: Path) -> None:
    assert "finished already" in niblick.refused("train", "--resume", run)


def test_help_is_quick_and_everywhere(niblick: Niblick) -> None:
    commands = [[], ["data"], *[[c] for c in ("presets", "show", "train", "eval", "quickstart")]]
    for command in [*commands, ["data", "prepare"], ["data", "check"]]:
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
@pytest.mark.parametrize(("name", "expected"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_leave_a_run_to_go_on_with(
    niblick: Niblick, data: Path, tmp_path: Path, name: str, expected: int
) -> None:
    """A real process, a real signal: the step is finished, a checkpoint written, and resuming ends the run."""
    import signal

    runs = tmp_path / "runs"
    steps = ["schedule.steps=100000", "train.log_every=1"]
    command = [sys.executable, "-m", "niblick", "train", "quickstart", "--data", data, "--runs", runs, *TOY, *steps]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    events = runs / "quickstart-1" / "events.jsonl"
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
    run = runs / "quickstart-1"
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
