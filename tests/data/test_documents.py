"""Documents come out of every form of file as they went in, and everything wrong is named with file and line."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard

from niblick.data import blocks, compressed
from niblick.data.blocks import Document
from niblick.data.documents import Reading, count_documents, read_blocks, read_documents
from niblick.data.prepare import prepare
from niblick.data.text_forms import source_name
from niblick.errors import ConfigError, DataError

WriteJsonl = Callable[[Path, Iterable[str]], Path]

TEXTS = ["The first.\n\nIt has two paragraphs.", "", "naïve 日本語 🙂 \x00 \u2028", "  spaces \t and\r\nreturns  "]


def pack(path: Path, data: bytes) -> Path:
    """Write `data` to `path`, compressed as its name says."""
    if path.suffix == ".zst":
        data = zstandard.compress(data[: len(data) // 2]) + zstandard.compress(data[len(data) // 2 :])
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.jsonl.gz", "docs.jsonl.zst"])
def test_jsonl(tmp_path: Path, name: str, write_jsonl: WriteJsonl) -> None:
    plain = write_jsonl(tmp_path / "plain.jsonl", TEXTS).read_bytes()
    path = pack(tmp_path / name, b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n\n"))
    assert list(read_documents(str(path))) == [Document(text, "docs") for text in TEXTS]
    assert count_documents(str(path), 100) == len(TEXTS)
    assert count_documents(str(path), 2) == 2


def test_blocks_cut_at_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_jsonl: WriteJsonl) -> None:
    """Blocks of any size give the same documents and the right line numbers."""
    texts = [f"{i} " * (i % 37) for i in range(300)]
    path = write_jsonl(tmp_path / "docs.jsonl", texts)
    for size in (1, 7, 64, 1000, 1 << 20):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
        found = list(read_blocks(str(path)))
        assert b"".join(block.data for block in found) == path.read_bytes()
        assert [d.text for block in found for d in block.read().kept] == texts
    path.write_text(path.read_text() + "{broken\n")
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    with pytest.raises(DataError, match="line 301"):
        list(read_documents(str(path)))


def test_sources(tmp_path: Path) -> None:
    """What `source` is groups scores alone: numbers are written out, and what is no value is the file's name."""
    path = tmp_path / "docs.jsonl"
    values = ['"news"', "null", '""', "3", "1.5", "true", '{"a": 1}', '["a"]', "1" * 5000, "1e400", "NaN"]
    path.write_text("".join(f'{{"text": "a", "source": {value}}}\n' for value in values) + '{"text": "c"}')
    expected = ["news", "docs", "docs", "3", "1.5", "true", *["docs"] * 6]
    assert [d.source for d in read_documents(str(path))] == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a"', "line 2: not a JSON object"),
        (b'["text"]', "line 2: found a JSON list"),
        (b'{"body": "a", "id": 1}', "line 2: found the keys 'body', 'id', but no `text`; name another key"),
        (
            b'{"text": null}',
            "line 2: `text` is null; name another key or column by --text-key, or leave such",
        ),
        (b'{"text": 7}', "line 2: `text` is a number, where"),
        (b'{"text": ["a"]}', "line 2: `text` is a JSON list, where"),
        (b'{"text": true}', "line 2: `text` is a boolean, where"),
        (b'{"text": "a\xff"}', "line 2: byte 12 is not UTF-8"),
        (rb'{"text": "ab\ud800c"}', r"line 2: character 3 is the lone surrogate \\ud800"),
        (rb'{"text": "a", "source": "\uDC00"}', r"line 2: .*lone surrogate \\udc00"),
        (b'{"text": "a", "tree": ' + b"[" * 5000 + b"]" * 5000 + b"}", "line 2: .*nested more than 64 levels deep"),
    ],
)
def test_bad_lines(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(DataError, match=message) as caught:
        list(read_documents(str(path)))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_of_thousands_of_digits(tmp_path: Path) -> None:
    """In a field that nobody asked for; Python's int refuses them."""
    path = tmp_path / "docs.jsonl"
    path.write_text('{"text": "fine", "big": ' + "7" * 5000 + ', "deep": [{"n": -' + "7" * 5000 + "}]}")
    assert [d.text for d in read_documents(str(path))] == ["fine"]


def test_the_key_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_text('{"content": "a", "meta": {"story": "b"}, "meta.x": "c", "text": "no"}\n')
    for key, text in {"content": "a", "meta.story": "b", "meta.x": "c"}.items():
        assert [d.text for d in read_documents(str(path), Reading(key))] == [text]
    with pytest.raises(DataError, match=r"no `meta\.none`; name another key or column by --text-key"):
        list(read_documents(str(path), Reading("meta.none")))
    with pytest.raises(ConfigError, match="text key is empty"):
        Reading("")


@pytest.mark.parametrize("text", ['[{"text": "a"}, {"text": "b"}]', '\n[\n  {\n    "text": "a"\n  }\n]\n'])
def test_one_array_is_no_lines(tmp_path: Path, text: str) -> None:
    """Nor is it counted as one document before it is looked at."""
    path = tmp_path / "docs.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"line 1: found a JSON list; each line must be an object .*jq -c '\.\[\]'"):
        prepare(str(path), "byte260", tmp_path / "out")


def test_separators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file of many stories, as TinyStories is; where pieces are cut does not matter."""
    path = tmp_path / "stories.txt"
    path.write_text("\nOne.\n<|end|>\nTwo\n\nparts <|end\n<|end|>\n\n<|end|>Three", newline="")
    assert [d.text for d in read_documents(str(path))] == [path.read_text()]
    for size in (1, 2, 7, 100):
        monkeypatch.setattr(compressed, "PIECE", size)
        found = [d.text for d in read_documents(str(path), Reading(separator="<|end|>"))]
        assert found == ["One.", "Two\n\nparts <|end", "Three"]
    path.write_bytes(b"fine\n<|end|>\nnot \xff<|end|>")
    with pytest.raises(DataError, match="the document that ends in line 3: byte 5 is not UTF-8"):
        list(read_documents(str(path), Reading(separator="<|end|>")))


def test_surrogate_pairs_are_characters(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    path.write_bytes(rb'{"text": "\ud83d\ude42 \\ud800"}')
    assert [d.text for d in read_documents(str(path))] == ["🙂 \\ud800"]


@pytest.mark.parametrize("name", ["docs.jsonl.gz", "docs.jsonl.zst"])
def test_cut_off_compression(tmp_path: Path, name: str, write_jsonl: WriteJsonl) -> None:
    path = pack(tmp_path / name, write_jsonl(tmp_path / "plain.jsonl", ["word " * 1000] * 50).read_bytes())
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="damaged"):
        list(read_documents(str(path)))
    path.write_bytes(b"neither of the two")
    with pytest.raises(DataError, match=rf"not compressed as {path.suffix}: it begins with b'neit'"):
        list(read_documents(str(path)))


def test_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("\ufeffOne\r\ntwo".encode())
    assert list(read_documents(str(path))) == [Document("\ufeffOne\r\ntwo", "book")]
    path.write_bytes(b"latin \xe9")
    with pytest.raises(DataError, match=r"book\.txt: byte 7 is not UTF-8"):
        list(read_documents(str(path)))


def test_directory_in_sorted_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a.txt", ".git/hidden.txt", "a/b/c.rst", "picture.png", ".hidden.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    found = [(d.text, d.source) for d in read_documents(str(tmp_path))]
    assert found == [(name, name) for name in ("a.txt", "a/b/c.rst", "a/z.md", "b.txt")]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="reading Parquet is an extra of niblick")
    from pyarrow import parquet

    path = tmp_path / "docs.parquet"
    parquet.write_table(pyarrow.table({"id": [1, 2, 3, 4], "text": TEXTS, "source": ["a", None, "b", "b"]}), path)
    assert [(d.text, d.source) for d in read_documents(str(path))] == list(
        zip(TEXTS, ["a", "docs", "b", "b"], strict=True)
    )
    assert count_documents(str(path), 100) == 4
    parquet.write_table(pyarrow.table({"body": ["a"], "text": [1]}), path)
    with pytest.raises(
        DataError,
        match=r"holds int64, where text is expected, .* `text`; found the columns body, text \(int64\): name",
    ):
        list(read_documents(str(path)))
    parquet.write_table(pyarrow.table({"text": ["a", None]}), path)
    with pytest.raises(DataError, match="row 2"):
        list(read_documents(str(path)))
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="is no Parquet file: it begins with b'noth'"):
        list(read_documents(str(path)))
    path.write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(DataError, match="no readable Parquet file"):
        list(read_documents(str(path)))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "docs.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"pip install niblick\[parquet\]"):
        list(read_documents(str(tmp_path / "docs.parquet")))


def test_missing_and_empty_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no source 'pydoc' \(nearest: pydocs"):
        list(read_documents("pydoc"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no text files"):
        list(read_documents(str(tmp_path / "empty")))
    (tmp_path / "data.xyz").write_text("?")
    with pytest.raises(DataError, match="a form that niblick does not read"):
        list(read_documents(str(tmp_path / "data.xyz")))
    (tmp_path / "none.jsonl").write_text("\n \n")
    with pytest.raises(DataError, match="holds no documents"):
        list(read_documents(str(tmp_path / "none.jsonl")))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("CC-MAIN-0001.warc.wet.gz", "a web archive"),
        ("docs.tar.zst", "unpack it first"),
        ("weights.bin", "it is binary, and no text"),
        ("docs.parquet.gz", "decompress it first"),
        ("docs.jsonl.lz4", "compress it as .zst or .gz"),
        ("docs.xlsx", "JSON lines or Parquet first"),
        ("shard.00000.mds", "MosaicML's streaming"),
        ("docs.pkl", "not opened"),
        ("book.ipynb", "jupyter nbconvert --to markdown"),
        ("docs.sqlite3", "JSON lines or Parquet first"),
        ("docs.tfrecord", "JSON lines or Parquet first"),
    ],
)
def test_forms_of_others(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"?")
    with pytest.raises(DataError, match=rf"a form that niblick does not read \(.*{hint}.*\); give FILE\.jsonl"):
        list(read_documents(str(tmp_path / name)))
    with pytest.raises(DataError, match=rf"holds no text files: .* \(.*{hint}"):
        list(read_documents(str(tmp_path)))


def test_files_whose_names_say_nothing(tmp_path: Path) -> None:
    """What they begin with says what to call them: pandas' own example writes df.parquet.gzip."""
    head = b"PAR1\x15\x04 and so on"
    for name, data, said in (
        ("a.jl", b'{"text": "a"}\n', r"if it is JSON lines, give it the suffix \.jsonl"),
        ("a.log", b"text\n", r"if it is text, call it a\.log\.txt"),
        ("a.rec", b"a\0b", "it is binary, and no text"),
        ("a.parquet.gzip", head, r"it begins as Parquet does: give it the suffix \.parquet"),
        ("a.backup", b"SQLite format 3\0", "it begins as SQLite does: write its texts as JSON lines or Parquet first"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"does not read \({said}\); give"):
            list(read_documents(str(tmp_path / name)))


JSON_FORMS = {
    "pretty": '{\n "text": "a"\n}\n{\n "text": "b"\n}\n',
    "one after another": '{"text": "a"}{"text": "b"}',
    "carriage returns": '{"text": "a"}\r{"text": "b"}\r',
    "commas": '{"text": "a"},\n{"text": "b"},\n',
    "strings": '"a"\n"b"\n',
    "a list inside": '{"data": [{"text": "a"}, {"text": "b"}], "n": 2}',
}


@pytest.mark.parametrize("form", JSON_FORMS)
def test_json_of_other_forms_is_told_what_makes_lines_of_it(tmp_path: Path, form: str) -> None:
    path = tmp_path / "docs.json"
    path.write_text(JSON_FORMS[form], newline="")
    with pytest.raises(
        DataError, match=r"line 1: .*`cat .*docs\.json \| (jq -c|sed) .* > .*docs-lines\.jsonl`"
    ) as refused:
        list(read_documents(str(path)))
    if not shutil.which("jq"):
        pytest.skip("without jq the command cannot be tried")
    subprocess.run(["sh", "-c", re.findall("`(cat .*?)`", str(refused.value))[0]], check=True)
    assert [d.text for d in read_documents(str(tmp_path / "docs-lines.jsonl"))] == ["a", "b"]


def test_web_pages_in_place_of_files(tmp_path: Path) -> None:
    page = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>"
    for name in ("docs.jsonl", "docs.json", *(("docs.parquet",) if importlib.util.find_spec("pyarrow") else ())):
        (tmp_path / name).write_bytes(page)
        with pytest.raises(DataError, match="a web page stands there in place of the file: fetch it again"):
            list(read_documents(str(tmp_path / name)))


def test_a_table_by_columns(tmp_path: Path) -> None:
    (tmp_path / "docs.json").write_text('{"text": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}')
    with pytest.raises(
        DataError, match=r"`text` is the column of a whole table, .* `to_json\(PATH, orient=\"records\""
    ):
        list(read_documents(str(tmp_path / "docs.json")))


def test_messages_are_short_whatever_the_names(tmp_path: Path) -> None:
    """A first line that is a text already, and a key that is one."""
    (tmp_path / "docs.csv").write_text("word " * 10_000 + ",0\n")
    (tmp_path / "docs.jsonl").write_text(json.dumps({"word " * 10_000: 0}) + "\n")
    for name in ("docs.csv", "docs.jsonl"):
        with pytest.raises(DataError, match=r"found the .* …") as refused:
            list(read_documents(str(tmp_path / name)))
        assert len(str(refused.value)) < 500


def test_dumps_without_a_second_suffix(tmp_path: Path) -> None:
    """As dumps of forums are called; enwik8 and its like have none at all."""
    for name in ("RC_2021-01.zst", "part.v2.zst"):
        (tmp_path / name).write_bytes(zstandard.compress(b'{"body": "a"}\n{"body": "b"}'))
    found = list(read_documents(str(tmp_path / "RC_2021-01.zst"), Reading("body")))
    assert found == [Document("a", "RC_2021-01"), Document("b", "RC_2021-01")]
    assert len(list(read_documents(str(tmp_path / "part.v2.zst"), Reading("body")))) == 2
    assert len(list(read_documents(str(tmp_path), Reading("body")))) == 2
    (tmp_path / "enwik8").write_text("<page>one</page>\n<page>two</page>\n")
    assert [d.text for d in read_documents(str(tmp_path / "enwik8"), Reading(separator="</page>"))] == [
        "<page>one",
        "<page>two",
    ]


def test_too_long_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_jsonl: WriteJsonl) -> None:
    monkeypatch.setattr(blocks, "MAX_DOCUMENT_BYTES", 1 << 20)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 16)
    write_jsonl(tmp_path / "docs.jsonl", ["short", "long" * (1 << 19)])
    (tmp_path / "docs.txt").write_text("long" * (1 << 19))
    for name in ("docs.jsonl", "docs.txt"):
        with pytest.raises(DataError, match="longer than 1 MiB"):
            list(read_documents(str(tmp_path / name)))


def test_source_name() -> None:
    names = {
        "a/docs_selected.jsonl.zst": "docs_selected",
        "My Texts/": "My_Texts",
        "x.parquet": "x",
        "pydocs": "pydocs",
    }
    assert {source: source_name(source) for source in names} == names


def test_real_documents(webmix: Path) -> None:
    """The streaming reader gives what a plain loop over the lines gives."""
    with open(webmix, encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    assert list(read_documents(str(webmix))) == [Document(r["text"], r["source"]) for r in records]
