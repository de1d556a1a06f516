"""Preparation: the published stream, the same bytes however it is spread, all or nothing on the disk."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Niblick
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from niblick.challenge import rules
from niblick.data import blocks, encode, writing
from niblick.data.check import check
from niblick.data.dataset import Dataset
from niblick.data.documents import Reading
from niblick.data.embedded import paragraphs
from niblick.data.index import OTHER_SOURCE
from niblick.data.prepare import convert, prepare
from niblick.errors import DataError

WriteJsonl = Callable[[Path, Iterable[str]], Path]

TEXTS = st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=30), min_size=2, max_size=20)


def files(directory: Path) -> dict[str, str]:
    """Every file below `directory` with its hash."""
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def stream(texts: list[str]) -> list[int]:
    """The tokens of `texts`, the slow way."""
    return [token for text in texts for token in (1, *(byte + 4 for byte in text.encode()))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(texts=TEXTS, shard_tokens=st.integers(1, 200), data=st.data())
def test_stream_does_not_depend_on_shards(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    shard_tokens: int,
    data: st.DataObject,
    write_jsonl: WriteJsonl,
) -> None:
    path = tmp_path_factory.mktemp("data")
    val_docs = data.draw(st.integers(0, len(texts)))
    source = write_jsonl(path / "docs.jsonl", texts)
    parts = (texts[:val_docs], texts[val_docs:])
    if any(part and not any(part) for part in parts):
        with pytest.raises(DataError, match=r"are all empty, so it holds no byte; leave .* out"):
            prepare(str(source), "byte260", path / "out", val_docs=val_docs, shard_tokens=shard_tokens)
        assert not (path / "out").exists()
        return
    prepare(str(source), "byte260", path / "out", val_docs=val_docs, shard_tokens=shard_tokens)
    dataset = Dataset.open(path / "out")
    for split, part in zip((dataset.val, dataset.train), parts, strict=True):
        assert split.slice(0, split.tokens).tolist() == stream(part)
        assert split.index is not None
        digests = [hashlib.sha256(text.encode()).digest() for text in part]
        assert [bytes(row) for row in split.index["sha256"]] == digests
        assert split.text_hash == hashlib.sha256(b"".join(digests)).hexdigest()
        assert split.stream_hash == hashlib.sha256(np.array(stream(part), "<u2").tobytes()).hexdigest()
        assert split.index["bytes"].tolist() == [len(text.encode()) for text in part]
    report = check(path / "out")
    assert report["splits"]["train"]["documents"] == len(texts) - val_docs


@pytest.mark.slow
def test_same_bytes_with_any_number_of_workers(webmix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_PATIENCE", 0.01)
    found = []
    for workers in (1, 2, 3):
        out = tmp_path / str(workers)
        prepare(str(webmix), "byte260", out, val_docs=220, shard_tokens=3_000_000, workers=workers)
        found.append(files(out))
    assert found[0] == found[1] == found[2]


def test_real_documents(webmix: Path, webmix_bytes: Dataset, webmix_figures: dict[str, Any]) -> None:
    """Every document lies where the index says, and is what was in the file."""
    with open(webmix, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    sources = webmix_bytes.manifest["niblick"]["sources"]
    for split, part in ((webmix_bytes.val, records[:220]), (webmix_bytes.train, records[220:])):
        assert split.index is not None
        assert len(split.index) == len(part)
        for row, record in zip(split.index, part, strict=True):
            tokens = split.slice(int(row["offset"]), int(row["tokens"]))
            assert tokens[0] == 1
            assert webmix_bytes.tokenizer.decode(tokens) == record["text"].encode()
            assert sources[row["source"]] == record["source"]
    assert len(webmix_bytes.val.shards) == 2
    assert webmix_bytes.manifest["niblick"]["splits"]["val"]["bytes"] == webmix_figures["utf8_bytes"]
    assert check(webmix_bytes.directory)["splits"]["val"]["stream_hash"] == webmix_figures["byte260"]["token_sha256"]


def test_manifest_has_the_challenges_form(webmix_bytes: Dataset, shared: Path) -> None:
    theirs = json.loads((shared / "data" / "challenge" / "manifest.json").read_text())
    ours, path = webmix_bytes.manifest, webmix_bytes.directory
    assert path.name == "docs_selected_byte260"
    assert set(theirs["datasets"][0]) - set(ours["datasets"][0]) <= {"recommended_bigram_vocab_size"}
    assert theirs["datasets"][0]["stats"].keys() == ours["datasets"][0]["stats"].keys()
    stats = ours["datasets"][0]["stats"]
    assert (stats["docs_val"], stats["docs_train"], stats["docs_total"]) == (220, 3808, 4028)
    assert stats["files_total"] == len(list(path.glob("*.bin")))
    assert len(list(path.parent.parent.glob(ours["datasets"][0]["train_glob"]))) == stats["files_train"]


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (39, 1), (40, 2), (400, 20)])
def test_default_validation_split(tmp_path: Path, count: int, held_out: int, write_jsonl: WriteJsonl) -> None:
    source = write_jsonl(tmp_path / "docs.jsonl", map(str, range(count)))
    manifest = prepare(str(source), "byte260", tmp_path / "out")
    assert manifest["num_val_docs"] == held_out


def test_default_validation_split_stops_at_the_challenges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_jsonl: WriteJsonl
) -> None:
    monkeypatch.setattr(rules, "VALIDATION_DOCUMENTS", 3)
    source = write_jsonl(tmp_path / "docs.jsonl", map(str, range(400)))
    assert prepare(str(source), "byte260", tmp_path / "out")["num_val_docs"] == 3
    assert prepare(str(source), "byte260", tmp_path / "few", max_docs=40)["num_docs"] == 40


def test_embedded_text(tmp_path: Path) -> None:
    manifest = prepare("pydocs", "byte260", tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.directory.name == "pydocs_byte260"
    assert manifest["niblick"]["python_version"] == sys.version.split()[0]
    assert 180_000 < manifest["niblick"]["splits"]["val"]["bytes"] < 400_000
    assert manifest["niblick"]["splits"]["train"]["bytes"] > 1_200_000

    def texts(split: Any) -> str:
        whole = split.slice(0, split.tokens)
        return "\n\n".join(dataset.tokenizer.decode(part).decode() for part in np.split(whole, split.index["offset"]))

    assert not paragraphs(texts(dataset.val)) & paragraphs(texts(dataset.train))


def test_many_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "OTHER_SOURCE", 2)
    source = tmp_path / "docs.jsonl"
    source.write_text("".join(json.dumps({"text": "t", "source": name}) + "\n" for name in "abcadb"))
    manifest = prepare(str(source), "byte260", tmp_path / "out", val_docs=0)
    index = Dataset.open(tmp_path / "out").train.index
    assert manifest["niblick"]["sources"] == ["a", "b"]
    assert index is not None
    assert index["source"].tolist() == [0, 1, 2, 0, 2, 1]
    assert np.iinfo(index["source"].dtype).max == OTHER_SOURCE


def test_progress(tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    source = write_jsonl(tmp_path / "docs.jsonl", ["abc"] * 10)
    told: list[tuple[int, int]] = []
    prepare(str(source), "byte260", tmp_path / "out", progress=lambda *counts: told.append(counts))
    assert told[-1] == (10, 30)


def test_bad_requests(tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    one = str(write_jsonl(tmp_path / "one.jsonl", ["alone"]))
    two = str(write_jsonl(tmp_path / "two.jsonl", ["one", "two"]))
    (tmp_path / "none.jsonl").write_text("")
    cases: list[tuple[str, dict[str, Any], str]] = [
        (one, {}, "holds one document"),
        (str(tmp_path / "none.jsonl"), {}, "holds no documents"),
        (str(tmp_path / "gone.jsonl"), {}, "there is no source"),
        (two, {"val_docs": 3}, "holds 2 documents, fewer than the 3"),
        (two, {"val_docs": -1}, "--val-docs is -1; it must be at least 0"),
        (two, {"max_docs": 0}, "--max-docs is 0"),
        (two, {"shard_tokens": 0}, "--shard-tokens is 0"),
        (two, {"tokenizer": "byte26"}, "nearest: byte260"),
    ]
    for source, options, message in cases:
        arguments: dict[str, Any] = {"tokenizer": "byte260", "out": tmp_path / "out", **options}
        with pytest.raises(DataError, match=message):
            prepare(source, **arguments)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["none.jsonl", "one.jsonl", "two.jsonl"]
    assert prepare(one, "byte260", tmp_path / "out", val_docs=1)["num_docs"] == 1


def test_used_directories_are_left_alone(tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    source = str(write_jsonl(tmp_path / "docs.jsonl", ["one", "two"]))
    out = tmp_path / "new" / "out"
    out.mkdir(parents=True)
    prepare(source, "byte260", out)
    before = files(out)
    there = prepare(source, "byte260", out)
    assert there == json.loads((out / "manifest.json").read_text()) and files(out) == before, "asked for again"
    assert prepare(source, "byte260", out, reading=Reading(max_window=1 << 27)) == there, "a window changes no text"
    for options, words in (
        ({"val_docs": 1}, "val_docs was None and is 1"),
        ({"max_docs": 2}, "max_docs was None"),
        ({"reading": Reading(skip_empty=True)}, r"reading was \{\} and is \{'skip_empty': True\}"),
        ({"reading": Reading("body")}, r"reading was \{\} and is \{'text_key': 'body'\}"),
    ):
        with pytest.raises(DataError, match=f"prepared otherwise .*{words}.*give another --out"):
            prepare(source, "byte260", out, **options)
    with pytest.raises(DataError, match="tokenizer was 'byte260' and is 'byte256'"):
        prepare(source, "byte256", out)
    write_jsonl(tmp_path / "docs.jsonl", ["one", "TWO"])
    with pytest.raises(DataError, match="the text is not the same any more"):
        prepare(source, "byte260", out)
    write_jsonl(tmp_path / "docs.jsonl", ["one", "two"])
    with pytest.raises(DataError, match="already holds a finished dataset"):
        convert(out, "byte256", out)
    assert files(out) == before
    with pytest.raises(DataError, match="not an empty directory"):
        prepare(source, "byte260", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not an empty directory"):
        prepare(source, "byte260", tmp_path / "file")
    with pytest.raises(DataError, match="cannot write the dataset"):
        prepare(source, "byte260", tmp_path / "file" / "out")


def test_the_command_line_asks_as_python_does(tmp_path: Path, write_jsonl: WriteJsonl, niblick: Niblick) -> None:
    source = write_jsonl(tmp_path / "docs.jsonl", ["one", "two"])
    manifest = prepare(str(source), "byte260", tmp_path / "out")
    command = ("data", "prepare", "--source", source, "--out", tmp_path / "out")
    assert niblick.json(*command) == manifest
    code, out, err = niblick(*command)
    assert code == 0 and "is there already, prepared in the same way: nothing was done" in err
    assert "is ready: niblick train" in out
    assert "max_docs was None and is 1" in niblick.refused(*command, "--max-docs", 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_failure_leaves_nothing(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch, write_jsonl: WriteJsonl
) -> None:
    """A broken line in the last of many blocks, found here or in a worker: nothing stays, and the error names it."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(encode, "_PATIENCE", 0.0)
    source = write_jsonl(tmp_path / "docs.jsonl", ["word " * 200] * 200)
    with open(source, "a") as file:
        file.write("{broken\n")
    with pytest.raises(DataError, match=r"docs\.jsonl, line 201"):
        prepare(str(source), "byte260", tmp_path / "out", workers=workers, shard_tokens=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["docs.jsonl"]


def test_interruption_leaves_nothing(tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    source = write_jsonl(tmp_path / "docs.jsonl", ["one", "two"])
    with pytest.raises(KeyboardInterrupt):
        prepare(str(source), "byte260", tmp_path / "out", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["docs.jsonl"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """300 MB of documents in three processes that together take less than that."""
    source = tmp_path / "docs.jsonl"
    line = json.dumps({"text": "some words, and then again. " * 300}) + "\n"
    with open(source, "w") as file:
        for _ in range(36):
            file.write(line * 1000)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import re, resource, sys
            from niblick.data.prepare import prepare
            if __name__ == "__main__":
                prepare(sys.argv[1], "byte260", sys.argv[2], workers=2)
                # Not getrusage, which on Linux remembers what stood here before exec.
                own = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
                print(own // 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
            """
        )
    )
    found = subprocess.check_output([sys.executable, script, source, tmp_path / "out"], text=True)
    parent, largest_child = map(int, found.split())
    assert parent + 2 * largest_child < 400, f"{parent} MiB and {largest_child} MiB in each worker"
