"""`niblick compare` and `niblick eval --breakdown` on real runs, of a few weights each."""

from __future__ import annotations

import json
import math
import pydoc_data.topics
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Niblick
from scipy import stats

from niblick.compare.groups import compare
from niblick.config.run_config import override
from niblick.data.prepare import prepare
from niblick.errors import ConfigError, DataError
from niblick.recipes.presets import get_preset
from niblick.reports import tables
from niblick.run import packing, prepared, scoring
from niblick.run.directory import Run, create_run
from niblick.run.loading import build_model
from niblick.score.costs import COST
from niblick.train.checkpoint import save_tensors

NAME = "int8+zlib"
TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1"),
    *("score.seq_len=64", "score.batch_tokens=4096", "train.dtype=float32"),
    "export.scheme=int8",
]


def make_run(folder: Path, data: Path, seed: int, *overrides: str) -> Run:
    """A run with an artifact and its score: packed and scored for real, but of random weights."""
    config = replace(override(get_preset("hnet-small"), [*TOY, f"data.path={data}", *overrides]), seed=seed)
    run = create_run(folder, config)
    draw = torch.Generator().manual_seed(seed)
    weights = build_model(config.model, seed).state_dict()
    # Some weights start at zero, and would make all models alike.
    save_tensors(run.weights, {name: w + 0.2 * torch.randn(w.shape, generator=draw) for name, w in weights.items()}, {})
    packing.export(run, config, prepared.open_data(config), lambda event: None)
    scoring.score_artifact(run.artifact(config.export.name), str(data), run=run)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    """Help texts of this Python, as bytes, as lossless subwords, as lossy ones; and other documents."""
    texts = [text[:1500] for text in pydoc_data.topics.topics.values()][:30]
    (folder / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    source = str(folder / "docs.jsonl")
    prepare(source, "byte260", folder / "bytes", val_docs=9)
    prepare(source, "sp:320", folder / "subwords", val_docs=9)
    prepare(source, "sp:320", folder / "lossy", val_docs=9, normalization="nmt_nfkc")
    prepare(source, "byte260", folder / "other", val_docs=5)
    return folder


@pytest.fixture(scope="module")
def runs(data: Path) -> Path:
    """Three seeds of a byte model (1–3) and of a wider one (4–6), a subword model (7), a lossy one (8)."""
    runs = data / "runs"
    for seed in (1, 2, 3):
        make_run(runs, data / "bytes", seed)
    for seed in (1, 2, 3):
        make_run(runs, data / "bytes", seed, "model.mlp_mult=3.0")
    make_run(runs, data / "subwords", 1, "model.vocab_size=320", "tokenizer=sp:320")
    make_run(runs, data / "lossy", 1, "model.vocab_size=320", "tokenizer=sp:320")
    return runs


def last_score(runs: Path, number: int) -> dict[str, Any]:
    path = runs / f"hnet-small-{number}" / "artifacts" / NAME / "scores.jsonl"
    return json.loads(path.read_text().splitlines()[-1])


def costs(runs: Path, number: int) -> np.ndarray:
    folder = runs / f"hnet-small-{number}" / "artifacts" / NAME
    return np.load(folder / last_score(runs, number)["document_costs"])


def names(*numbers: int) -> list[str]:
    return [f"hnet-small-{n}" for n in numbers]


def test_every_score_keeps_what_its_documents_cost(runs: Path) -> None:
    """They add up to the score, bytes and tokens as well; a second score has a file of its own."""
    for number in (1, 7):
        record, kept = last_score(runs, number), costs(runs, number)
        assert kept.dtype == COST
        assert len(kept) == record["documents"] == 9
        assert kept["nats"].sum() / math.log(2) == pytest.approx(record["bits"], rel=1e-12)
        assert int(kept["bytes"].sum()) == record["bytes"]
        assert int(kept["tokens"].sum()) == record["tokens"] + 1


def test_groups_and_statistics(runs: Path) -> None:
    facts = compare(names(1, 4, 2, 5, 3, 6), runs)
    assert [[Path(r).name for r in g.runs] for g in facts.groups] == [
        [f"hnet-small-{n}:{NAME}" for n in (1, 2, 3)],
        [f"hnet-small-{n}:{NAME}" for n in (4, 5, 6)],
    ]
    [found] = facts.comparisons
    loss = [[last_score(runs, n)["loss"] for n in group] for group in ((1, 2, 3), (4, 5, 6))]
    theirs = stats.ttest_ind(loss[1], loss[0], equal_var=False)
    assert (found.seeds.t, found.seeds.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert facts.groups[0].loss.deviation == pytest.approx(np.std(loss[0], ddof=1))
    assert found.difference.unit == "nats per token"
    assert found.difference.value == pytest.approx(np.mean(loss[1]) - np.mean(loss[0]))
    assert found.config == {"model.mlp_mult": (2.0, 3.0)}
    assert found.metrics["artifact_bytes"][0] < found.metrics["artifact_bytes"][1]
    documents = found.documents
    mean = [np.mean([costs(runs, n)["nats"] for n in g], axis=0) for g in ((1, 2, 3), (4, 5, 6))]
    size = costs(runs, 1)["bytes"].sum()
    assert documents.difference == pytest.approx((mean[1] - mean[0]).sum() / math.log(2) / size)
    assert documents.low <= documents.difference <= documents.high
    tokens = last_score(runs, 1)["tokens"]
    assert documents.margin == pytest.approx(0.005 / math.log(2) * tokens / size)
    assert "9 documents are few" in documents.note


def test_bytes_against_subwords(runs: Path) -> None:
    """The same text in other tokens: BPB is compared, and the margin is 0.003 of it."""
    [found] = compare(names(1, 7), runs).comparisons
    assert found.same_tokens is False
    assert found.difference.unit == "BPB"
    expected = last_score(runs, 7)["bpb"] - last_score(runs, 1)["bpb"]
    assert found.difference.value == pytest.approx(expected)
    assert found.documents.difference == pytest.approx(expected)
    assert found.documents.margin == found.verdict.margin == 0.003
    assert found.verdict.wins is None
    assert "--seeds" in found.verdict.reason
    assert found.config["tokenizer"] == ("byte260", "sp:320")


def test_a_lossy_tokenizer_pays_for_what_it_loses(runs: Path) -> None:
    """Per byte of the original text, with the bits of the patch spread evenly over it."""
    record = last_score(runs, 8)
    assert record["lossless"] is False
    [found] = compare(names(1, 8), runs).comparisons
    assert found.documents.repair_bpb == pytest.approx(record["repair_bits"] / record["original_bytes"])
    expected = record["bpb_repaired"] - last_score(runs, 1)["bpb"]
    assert found.difference.value == pytest.approx(expected)
    assert found.documents.difference == pytest.approx(expected)


def test_two_seeds_of_one_config(runs: Path) -> None:
    facts = compare(names(1, 2), runs)
    [found] = facts.comparisons
    assert found.config == {"seed": (1, 2)}
    assert found.documents.documents == 9
    assert any("seeds alone" in note for note in facts.notes)
    assert compare(names(1, 2, 3), runs).comparisons == ()


def test_the_newest_score_of_the_official_scorer(runs: Path, data: Path, tmp_path: Path) -> None:
    """Scores by another scorer stand beside it; they are compared when asked for, and differences are said."""
    shutil.copytree(runs, tmp_path / "runs")
    for number in (1, 4):
        run = Run(tmp_path / "runs" / f"hnet-small-{number}")
        overrides = ["score.scorer=sliding", "score.stride=16"]
        scoring.score_artifact(run.artifact(NAME), str(data / "bytes"), run=run, overrides=overrides)
    before = compare(names(1, 4), runs).comparisons[0].difference
    assert compare(names(1, 4), tmp_path / "runs").comparisons[0].difference == before
    facts = compare(names(1, 4), tmp_path / "runs", "sliding")
    assert facts.groups[0].scorer.extra["stride"] == 16
    assert facts.comparisons[0].difference != before
    assert facts.notes == ()
    with pytest.raises(ConfigError, match="never scored by 'sliding' \\(there: contiguous\\)"):
        compare(names(1, 2), tmp_path / "runs", "sliding")


def test_scored_differently_is_said(runs: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "hnet-small-1", tmp_path / "runs" / "hnet-small-1")
    make_run(tmp_path / "runs", data / "bytes", 1, "score.seq_len=32")
    facts = compare(names(1, 2), tmp_path / "runs")
    assert facts.notes == ("scored differently in seq_len: A 64, B 32",)


def test_bad_input(runs: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    folder = tmp_path / "runs"
    with pytest.raises(ConfigError, match="at least two"):
        compare(names(1), folder)
    with pytest.raises(ConfigError, match="named twice"):
        compare(names(1, 1), folder)
    with pytest.raises(ConfigError, match=r"no run 'hnet-smal-1'.*nearest: hnet-small-1"):
        compare(["hnet-small-1", "hnet-smal-1"], folder)
    other = make_run(folder, data / "other", 1)
    hashes = [last_score(folder, n)["text_hash"] for n in (1, 9)]
    assert hashes[0] != hashes[1]
    with pytest.raises(ConfigError) as refused:
        compare(["hnet-small-1", other.name], folder)
    assert all(h in str(refused.value) for h in hashes)
    kept = folder / "hnet-small-2" / "artifacts" / NAME
    next(kept.glob("documents-*.npy")).write_bytes(b"something else")
    with pytest.raises(DataError, match="document costs"):
        compare(names(1, 2), folder)
    (kept / "scores.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"hnet-small-2 has no score yet: `niblick eval hnet-small-2`"):
        compare(names(1, 2), folder)


def test_scores_without_hashes_or_document_costs(runs: Path, tmp_path: Path) -> None:
    """As of shards that nobody hashed or indexed: taken as the same text only if tokens and bytes agree."""
    shutil.copytree(runs, tmp_path / "runs")
    unknown = ("text_hash", "stream_hash", "document_costs", "lossless", "bpb_repaired")
    for number in (1, 4, 7):
        path = tmp_path / "runs" / f"hnet-small-{number}" / "artifacts" / NAME / "scores.jsonl"
        path.write_text(json.dumps(last_score(runs, number) | dict.fromkeys(unknown)) + "\n")
    facts = compare(names(1, 4), tmp_path / "runs")
    assert any("no hash of the text" in note for note in facts.notes)
    assert "kept no costs" in facts.comparisons[0].documents.unavailable
    with pytest.raises(ConfigError, match=r"nothing says that .* the same text"):
        compare(names(1, 7), tmp_path / "runs")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def test_the_compare_command(niblick: Niblick, runs: Path) -> None:
    code, out, _ = niblick("compare", *names(1, 2, 3, 4, 5, 6), "--runs", runs)
    assert code == 0
    for words in ("A → B", "Welch's test", "paired bootstrap, 9 documents", "be a record over", "model.mlp_mult"):
        assert words in out
    code, out, err = niblick("compare", *names(1, 4, 7), "--runs", runs, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert [(c["first"], c["second"]) for c in facts["comparisons"]] == [("A", "B"), ("A", "C")]
    code, out, err = niblick("compare", "hnet-small-1", "--runs", runs)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["wide-s1337", "wide-s1338"], "wide-s{1337,1338}"),
        (["a-9", "a-10"], "a-{9,10}"),
        (["wide-s1"], "wide-s1"),
        (["bytes-1", "words-1"], "bytes-1, words-1"),
    ],
)
def test_names_of_a_group(ids: list[str], said: str) -> None:
    assert tables._short(ids) == said


def test_the_breakdown_of_a_run(niblick: Niblick, runs: Path, tmp_path: Path) -> None:
    """Tables, JSON and pictures; every way of taking the score apart adds up to it."""
    shutil.copytree(runs, tmp_path / "runs")
    code, out, _ = niblick("eval", "hnet-small-1", "--runs", tmp_path / "runs", "--breakdown")
    assert code == 0
    for words in ("tokens of context", "at chunk boundaries", "kind of byte", "documents, dearest first"):
        assert words in out
    folder = tmp_path / "runs" / "hnet-small-1" / "artifacts" / NAME / "breakdown"
    facts = json.loads((folder / "breakdown.json").read_text())
    record = last_score(tmp_path / "runs", 1)
    assert facts["total"]["bits"] == pytest.approx(record["bits"], rel=1e-12)
    assert (facts["total"]["bytes"], facts["total"]["tokens"]) == (record["bytes"], record["tokens"])
    ways = ("context", "boundary", "chunk", "class", "source", "document")
    for way in ways:
        for key in ("bits", "bytes", "tokens"):
            assert sum(part[key] for part in facts[way]) == pytest.approx(facts["total"][key], rel=1e-12), way
    rates = [part["bpb"] for part in facts["document"]]
    assert rates == sorted(rates, reverse=True)
    for name in ("context", "chunk", "class", "source", "document"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / f"{name}.svg").read_text()


def test_breakdowns_of_other_scorers_and_models(niblick: Niblick, runs: Path, data: Path, tmp_path: Path) -> None:
    """Sliding windows, subwords; a dense model has no chunks and says so."""
    out = tmp_path / "out"
    shutil.copytree(runs / "hnet-small-7", tmp_path / "subwords" / "hnet-small-7")
    arguments = ["--runs", tmp_path / "subwords", "--breakdown", "--out", out, "--json"]
    code, text, _ = niblick("eval", "hnet-small-7", "score.scorer=sliding", "score.stride=16", *arguments)
    assert code == 0
    facts = json.loads(text)
    assert sum(p["bits"] for p in facts["breakdown"]["chunk"]) == pytest.approx(facts["bits"], rel=1e-12)
    assert facts["breakdown"]["context"][-1]["name"] == "45–64"
    make_run(tmp_path / "runs", data / "bytes", 1, "model.levels=[]")
    code, text, _ = niblick("eval", "hnet-small-1", *arguments[2:], "--runs", tmp_path / "runs")
    assert code == 0
    found = json.loads(text)["breakdown"]
    assert found["chunk"] == found["boundary"] == []
    assert any("cuts no chunks" in sentence for sentence in found["unavailable"])


def test_bad_input_of_breakdowns(niblick: Niblick, runs: Path, data: Path, tmp_path: Path) -> None:
    artifact = shutil.copy(runs / "hnet-small-1" / "artifacts" / NAME / "artifact.nib", tmp_path / "alone.nib")
    (tmp_path / "file").write_text("")
    for arguments, words in (
        ([artifact, "--data", data / "bytes", "--breakdown"], "belongs to no run"),
        ([artifact, "--data", data / "bytes", "--breakdown", "--out", tmp_path / "file"], "is a file"),
        ([artifact, "--data", data / "bytes", "--out", tmp_path / "new"], "--breakdown"),
    ):
        code, out, err = niblick("eval", *arguments)
        assert (code, out) == (2, "")
        assert words in err
        assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()
