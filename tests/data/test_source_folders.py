"""A folder is read by what it is: data, prose or source code; what only describes it is left out, and that is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from niblick.cli import app
from niblick.data.documents import Reading, read_documents
from niblick.data.prepare import prepare
from niblick.errors import DataError

LINE = '{"text": "a line"}\n'


def folder(path: Path, *names: str) -> Path:
    """A folder whose files hold their own names, as a line or as they are."""
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"text": name}) + "\n" if ".json" in name else name)
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
    ],
)
def test_splits_are_not_mixed(tmp_path: Path, names: list[str]) -> None:
    """And the pattern that the sentence gives reads the training split alone."""
    source = folder(tmp_path, *names)
    with pytest.raises(DataError, match="holds several splits of one dataset") as caught:
        list(read_documents(str(source)))
    pattern = str(caught.value).rsplit("--files ", 1)[1].strip("'")
    assert [d.text for d in read_documents(str(source), Reading(files=(pattern,)))] == [
        n for n in names if "train" in n
    ]


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
