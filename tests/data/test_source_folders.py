"""A folder is read by what it is: data, prose or source code; what only describes it is left out, and that is said."""

from __future__ import annotations

import gzip
import json
import os
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from niblick.cli import app
from niblick.data.documents import Reading, read_documents
from niblick.data.prepare import prepare
from niblick.data.text_folders import text_files
from niblick.errors import DataError

LINE = '{"text": "a line"}\n'


def folder(path: Path, *names: str) -> Path:
    """A folder whose files hold their own names, as a line or as they are."""
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = name
        if ".json" in name:
            text = json.dumps({"text": name}) + "\n"
        elif ".csv" in name:
            text = f"text\n{name}\n"
        file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("names", "read"),
    [
        (  # a clone of a dataset from a hub
            [
                "README.md",
                "LICENSE",
                "LICENSE.txt",
                "make.py",
                "get.sh",
                "dataset_infos.json",
                "data/b.jsonl",
                "a.jsonl",
            ],
            ["a.jsonl", "data/b.jsonl"],
        ),
        (["prepare.py", "readme.md", "input.txt", "train.bin", "val.bin", "meta.pkl"], ["input.txt"]),
        (["notes.txt", "more.md", "x.jsonl"], ["x.jsonl"]),
        (["index.rst", "deep/page.md", "conf.py", "requirements.txt", "CHANGELOG.rst"], ["deep/page.md", "index.rst"]),
        (["a.py", "b/c.rs", "README.md", "picture.png"], ["a.py", "b/c.rs"]),
    ],
)
def test_the_highest_rank_is_read(tmp_path: Path, names: list[str], read: list[str]) -> None:
    source = folder(tmp_path / "source", *names, ".gitattributes", ".git/config.txt", "__pycache__/a.py")
    assert [d.text for d in read_documents(str(source))] == read
    manifest = prepare(str(source), "byte260", tmp_path / "out", val_docs=0)
    left = sorted(set(names) - set(read))
    assert manifest["niblick"]["left_out"] == {"files": len(left), "names": left}
    said = CliRunner().invoke(app, ["data", "prepare", "--source", str(source), "--val-docs=0", f"--out={tmp_path}/o"])
    more = f" and {len(left) - 5} more" if len(left) > 5 else ""
    assert f"left out of the folder: {', '.join(left[:5])}{more}" in said.output
    assert "there is no validation split" in said.output


def test_others_are_read_when_they_are_named(tmp_path: Path) -> None:
    source = folder(tmp_path, "README.md", "a.py", "deep/b.py", "x.jsonl", "meta.json", "odd.pkl", "old.parquet.gz")
    for patterns, read in {
        ("*.py",): ["a.py", "deep/b.py"],
        ("README.md", "deep/*"): ["README.md", "deep/b.py"],
        ("*.json", "a.*"): ["a.py", "meta.json"],
    }.items():
        assert [d.text for d in read_documents(str(source), Reading(files=patterns))] == read
    with pytest.raises(DataError, match=r"odd\.pkl has a form that niblick does not read \(pickles of strangers"):
        list(read_documents(str(source), Reading(files=("*.pkl",))))
    with pytest.raises(
        DataError, match=r"no file in .* is called like '\*\.md5' \(--files\); there: README\.md, a\.py"
    ):
        list(read_documents(str(source), Reading(files=("*.py", "*.md5"))))


@pytest.mark.parametrize(
    "names",
    [
        ["train.jsonl", "valid.jsonl"],
        ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"],
        ["train/a.jsonl", "validation/a.jsonl"],
        [
            "web-train.00000-of-00002.json.gz",
            "web-train.00001-of-00002.json.gz",
            "web-validation.00000-of-00001.json.gz",
        ],
        ["films_eval.csv", "films_test.csv", "films_train.csv"],
        ["test0.csv", "train0.csv", "train1.csv"],
        ["train.txt", "valid.txt", "test.txt", "README.txt"],
        ["bank.train.txt", "bank.valid.txt"],
        ["Tales-train.txt", "Tales-valid.txt"],
        ["wiki.train.tokens", "wiki.test.tokens"],
        ["films/train/pos/0_9.txt", "films/test/pos/0_9.txt"],
        ["training.csv", "testing.csv", "train.bin"],
        ["a/train.jsonl", "b/a.train.jsonl", "b/dev_1.jsonl", "train.pkl"],
    ],
)
def test_splits_are_not_mixed(tmp_path: Path, names: list[str]) -> None:
    """And the pattern that the sentence gives reads the training split alone."""
    source = folder(tmp_path, *names)
    with pytest.raises(DataError, match="holds several splits of one dataset") as caught:
        list(read_documents(str(source)))
    (pattern,) = shlex.split(str(caught.value).rsplit("--files ", 1)[1])
    assert [d.text for d in read_documents(str(source), Reading(files=(pattern,)))] == [
        name for name in names if "train" in name and not name.endswith((".bin", ".pkl"))
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["docs/testing.md", "docs/training.md"],  # pages about them
        ["a test of courage.txt", "the last train.txt"],  # prose that is not called alike
        ["latest.jsonl", "pretrain.jsonl", "restrain.jsonl"],
        ["train-00000.jsonl", "train-00001.jsonl", "training_more.jsonl", "unlabeled.jsonl"],
        ["tests/test_a.py", "train.py"],
    ],
)
def test_words_that_name_no_splits(tmp_path: Path, names: list[str]) -> None:
    source = folder(tmp_path, *names)
    assert [d.text for d in read_documents(str(source))] == names


@pytest.mark.parametrize(
    ("names", "reads"),
    [
        (["a.txt", "a.txt.gz", "b.txt"], ["a.txt", "b.txt"]),
        (["part.csv", "part.jsonl", "other.csv"], ["other.csv", "part.csv"]),
        (["deep/part.jsonl.gz", "deep/part.jsonl"], ["deep/part.jsonl"]),
    ],
)
def test_one_text_in_two_forms(tmp_path: Path, names: list[str], reads: list[str]) -> None:
    """The pattern of the sentence reads one of them; patterns that name each by itself read both."""
    source = folder(tmp_path, *names)
    for patterns in (("*a*",), ()):
        with pytest.raises(DataError, match="which are one text twice by their names") as caught:
            list(read_documents(str(source), Reading(files=patterns)))
    (pattern,) = shlex.split(str(caught.value).rsplit("--files ", 1)[1])
    assert [d.text for d in read_documents(str(source), Reading(files=(pattern,)))] == reads
    assert sorted(d.text for d in read_documents(str(source), Reading(files=tuple(names)))) == sorted(names)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    source = folder(tmp_path / "source", "a.txt", "b.txt")
    os.mkfifo(source / "c.txt")
    (source / "data").symlink_to(folder(tmp_path / "elsewhere", "d.txt"))
    found = text_files(source)
    assert [name for _, name in found.files] == ["a.txt", "b.txt"]
    assert found.left_out == ["c.txt (no regular file)", "data/ (a link)"]
    with pytest.raises(DataError, match=r"no file in .* is called like 'c\.txt'"):
        text_files(source, ("c.txt",))


def test_files_of_an_unknown_kind_that_are_named(tmp_path: Path) -> None:
    """They are text, or no UTF-8."""
    source = folder(tmp_path, "A.java", "deep/B.java", "x.jsonl")
    assert [d.text for d in read_documents(str(source), Reading(files=("*.java",)))] == ["A.java", "deep/B.java"]
    (source / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"photo\.png: byte 1 is not UTF-8"):
        list(read_documents(str(source), Reading(files=("*.png",))))


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """They stand in the manifest and on the screen with those bytes escaped."""
    source = tmp_path / os.fsdecode(b"fold\xe9r")
    try:
        folder(source, "one.txt", "x.py")
        (source / os.fsdecode(b"caf\xe9.txt")).write_text("two")
        (source / os.fsdecode(b"\xff.py")).write_text("three")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    out = tmp_path / "out"
    words = ["data", "prepare", "--source", str(source), "--val-docs=1", f"--out={out}"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))["niblick"]
    assert manifest["source"] == r"fold\xe9r"
    assert manifest["left_out"]["names"] == [r"\xff.py", "x.py"]
    assert r"\xff.py" in done.output
    assert sorted(manifest["sources"]) == [r"caf\xe9.txt", "one.txt"]


def test_options_that_would_do_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(LINE)
    (tmp_path / "b.txt").write_text("one | two")
    for source, reading, said in (
        ("a.jsonl", Reading(separator="|"), "holds no text files, so --separator would do nothing"),
        ("b.txt", Reading("body"), "holds text files alone, so --text-key would do nothing"),
        ("b.txt", Reading(files=("*",)), "holds one file, so --files would do nothing"),
    ):
        with pytest.raises(DataError, match=said):
            prepare(str(tmp_path / source), "byte260", tmp_path / "out", reading=reading)
    for source in ("pydocs", "challenge:docs", "challenge:sp1024"):
        with pytest.raises(DataError, match=f"{source} is not read from files, so --text-key would do nothing"):
            prepare(source, None, tmp_path / "out", reading=Reading("body"))
    assert [d.text for d in read_documents(str(tmp_path / "b.txt"), Reading(separator=" | "))] == ["one", "two"]
    with pytest.raises(DataError, match=r"the separator '<end>' stands nowhere in .*b\.txt"):
        prepare(str(tmp_path / "b.txt"), "byte260", tmp_path / "out", reading=Reading(separator="<end>"))


@pytest.mark.parametrize("log", ["_delta_log/00000000000000000000.json", "metadata/v1.metadata.json"])
def test_tables_whose_log_says_which_files_count(tmp_path: Path, log: str) -> None:
    """As Delta and Iceberg are: what was deleted may still lie there."""
    (tmp_path / log).parent.mkdir()
    (tmp_path / log).write_text("{}")
    (tmp_path / "part-0.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="table, whose log says which of its files count"):
        list(read_documents(str(tmp_path)))


def test_what_macs_put_into_archives_is_no_text(tmp_path: Path) -> None:
    for name in ("book.txt", "__MACOSX/book.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [name for _, name in text_files(tmp_path).files] == ["book.txt"]


def test_plain_json_is_told_how_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "part-00000.json").write_text('{"text": "a"}\n')
    with pytest.raises(
        DataError, match=r"holds no text files: .*plain \.json is read where it is named: --files '\*\.json'"
    ):
        list(read_documents(str(tmp_path)))
    assert len(list(read_documents(str(tmp_path), Reading(files=("*.json",))))) == 1
