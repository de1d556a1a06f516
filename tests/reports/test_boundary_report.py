"""`niblick boundaries` on a run of a few steps: facts, pictures, and what is refused."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import forked
import pytest

from niblick.config.run_config import override
from niblick.console import RunConsole
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.facts.reading import plain
from niblick.recipes.presets import get_preset
from niblick.reports.boundary_report import Wanted, open_subject, study, write_pictures
from niblick.reports.boundary_tables import print_study
from niblick.run import pipeline

TOY = [
    *("model.width=16", "model.heads=2", "model.main.layout=T1", "train.seq_len=32", "train.batch_tokens=256"),
    *("train.micro_batch_tokens=256", "train.dtype=float32", "schedule.steps=6", "schedule.max_seconds=null"),
    *("score.seq_len=64", "train.checkpoint_every=2", "train.checkpoints_kept=0"),
]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a run over bytes, and one over subwords of the same text."""
    place = tmp_path_factory.mktemp("boundaries")
    words = "The quick brown fox jumps over the lazy dog.\nNatural language — größer, 自然 — has made progress. "
    lines = [json.dumps({"text": words * 12, "source": f"source{i % 2}"}) for i in range(6)]
    (place / "docs.jsonl").write_text("\n".join(lines) + "\n")
    for name, tokenizer in (("bytes", "byte260"), ("words", "sp:300")):
        prepare(str(place / "docs.jsonl"), tokenizer, place / name, val_docs=2)
        vocab = 260 if name == "bytes" else 300
        config = override(
            get_preset("hnet-small"),
            [*TOY, f"preset={name}", f"data.path={place / name}", f"model.vocab_size={vocab}"],
        )
        with RunConsole() as console:
            pipeline.run(config, place / "runs", console)
    return place


def test_study(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subject = open_subject("bytes-1", folder / "runs")
    other = open_subject("words-1", folder / "runs")
    model = next((folder / "words" / "tokenizers").glob("*.model"))
    facts = study(subject, Wanted(8, 0, True, True, True, True, (model,)), other)
    json.dumps(plain(facts))
    assert [p.step for p in facts.training.points] == [0, 2, 4, 6]
    assert facts.training.points[-1].f1_with_final == 1
    before = facts.before.levels[0]
    assert facts.training.points[0].boundaries_per_window == before.boundaries_per_window
    assert facts.against.same_tokens is False and facts.against.windows == facts.windows
    assert f"tokens of {model.stem}" in facts.levels[0].references
    assert {s.name for s in facts.levels[0].sources} == {"source0", "source1"}
    pictures = write_pictures(subject, facts, folder / "out")
    assert sorted(p.name for p in (folder / "out").iterdir()) == pictures
    assert {"chunks.html", "sentence.svg", "sentence_before.svg", "training.png", "lengths.svg"} <= set(pictures)
    for name in pictures:
        if name.endswith(".svg"):
            ET.parse(folder / "out" / name)
    print_study(facts, lambda columns, rows: print(columns, rows))
    shown = capsys.readouterr().out
    assert "before  [" in shown and "after   [" in shown and "flips a window" in shown


def test_packed_and_float(folder: Path) -> None:
    facts = study(open_subject("words-1", folder / "runs"), Wanted(4, stability=True))
    found = facts.stability.float_against_packed
    assert found.windows == 4 and found.share < 0.5
    assert not {"before", "training"} & set(plain(facts))


def niblick(folder: Path, *arguments: str) -> forked.Ended:
    return forked.run(["-m", "niblick", "boundaries", *arguments, "--runs", folder / "runs"])


def test_command_line(folder: Path) -> None:
    (folder / "odd.txt").write_bytes(b"ok \xff\x1b[0m \xe6\x97")
    done = niblick(folder, "bytes-1", "--file", str(folder / "odd.txt"), "--out", str(folder / "cut"), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["chunks"]
    assert [found[0]["start"], found[-1]["end"]] == [0, 11]
    assert "\\xff" in "".join(c["text"] for c in found)
    assert "\\xff" in (folder / "cut" / "chunks.html").read_text()
    done = niblick(folder, "bytes-1", "--windows", "3", "--json")
    assert json.loads(done.stdout)["windows"] == 3
    for arguments, message in (
        (["bytes-1", "--text", ""], "the text is empty"),
        (["words-1", "--file", str(folder / "odd.txt")], "byte 3 of the text is no UTF-8"),
        (["bytes-1", "--window", "1000000"], "a window of 1,000,000 tokens is longer than the data"),
        (["bytes-1", "--window", "1"], "--window=1 leaves a router nothing to decide"),
    ):
        done = niblick(folder, *arguments)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1 and not done.stdout


def test_artifact_without_its_run(folder: Path) -> None:
    path = next((folder / "runs" / "bytes-1").glob("artifacts/*/artifact.nib"))
    (folder / "alone.nib").write_bytes(path.read_bytes())
    subject = open_subject(str(folder / "alone.nib"), folder / "runs", str(folder / "bytes"))
    assert study(subject, Wanted(2)).windows == 2
    with pytest.raises(ConfigError, match="belongs to no run, so the seed it began from is unknown"):
        study(subject, Wanted(2, before=True))
    with pytest.raises(ConfigError, match="names no text that is still there: pass --data DIR"):
        study(open_subject(str(folder / "alone.nib"), folder / "runs"), Wanted(2))


def test_dense_model(folder: Path) -> None:
    from niblick.artifact.container import write_artifact
    from niblick.config.run_config import to_dict
    from niblick.data.tokenizers import ByteTokenizer
    from niblick.pack.quantize import pack
    from niblick.run.loading import build_model

    config = override(get_preset("hnet-small"), [*TOY, "model.levels=[]"])
    header = {
        "model": to_dict(config.model),
        "tokenizer": ByteTokenizer().spec(),
        "score": {"seq_len": 64, "dtype": "float32"},
    }
    weights = dict(build_model(config.model, 0).state_dict())
    write_artifact(folder / "dense.nib", header, pack(weights), "zlib")
    done = niblick(folder, str(folder / "dense.nib"), "--text", "x")
    assert done.returncode == 2 and "dense: it has no router" in done.stderr
