"""What the names of files say: which are read as documents, which are forms of others, and which of a folder are text.

A folder is read by rank: where it holds data files, only these are its text; else its prose; else its source code.
What describes a folder (a README, a licence, plain `.json`) is no text of it, and neither is what ranks lower. Whoever
wants others names them (`--files '*.py'`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from niblick.data.columns import TABLES
from niblick.data.compressed import COMPRESSIONS
from niblick.errors import DataError


def _and_compressed(*suffixes: str) -> tuple[str, ...]:
    return tuple(suffix + packed for suffix in suffixes for packed in ("", *COMPRESSIONS))


LINES = _and_compressed(".jsonl", ".ndjson", ".json")
SHEETS = _and_compressed(".csv", ".tsv")
PROSE = _and_compressed(".txt", ".text", ".md", ".rst", ".tex", ".html")
CODE = _and_compressed(".py", ".c", ".h", ".cpp", ".js", ".ts", ".rs", ".go")
TEXTS = (*PROSE, *CODE)
FORMS = (
    "FILE.jsonl, FILE.ndjson, FILE.json, FILE.csv, FILE.tsv or FILE.txt (also .zst, .gz, .xz, .bz2), FILE.parquet, "
    "FILE.arrow, FILE.feather, a directory of these, pydocs, pysource or challenge:docs"
)
_UNREAD = {
    (".warc", ".wet", ".wat"): "it is a web archive: take the text out of it first",
    (".tar", ".zip", ".tgz", ".7z", ".rar"): "unpack it first",
    (".mds",): "it holds samples of MosaicML's streaming: write their texts as JSON lines first",
    (".pkl", ".pickle", ".pt", ".pth"): "pickles of strangers are not opened",
    (".safetensors", ".gguf", ".nib"): "it holds weights, and no text",
    (".lz4", ".br", ".lzma", ".lz", ".z", ".sz", ".snappy"): "decompress it first, or compress it as .zst or .gz",
    (".orc", ".avro", ".xlsx", ".xls", ".db", ".sqlite", ".h5"): "write its texts as JSON lines or Parquet first",
    (".pdf", ".epub", ".docx", ".xml"): "take the text out of it first",
    (".npz", ".idx", ".npy", ".bin"): "it is binary, and no text",
}
"""What to do about forms of others."""
SHARDS = (".bin", ".npy", ".idx")
"""Suffixes of token shards, which are named by their folder."""
_DESCRIBING = re.compile(
    r"readme.*|(?:licen[cs]e|copying|notice|citation|change(?:s|log)|contributing|code_of_conduct|authors|security|"
    r"dataset_?card)\b.*|(?:requirements|constraints)[\w.-]*\.txt|robots\.txt",
    re.I,
)
"""Names of files that describe a folder."""
_SPLIT = re.compile(r"(train|training|valid|validation|val|dev|test)(?:[-_.]|$)", re.I)
_SPLITS = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation"}
_NAMES_MOST = 20


@dataclass(frozen=True)
class Found:
    """What a folder holds: the files that are its text, sorted by their path inside it, and the names of the others."""

    files: list[tuple[Path, str]]
    left_out: list[str]

    def record(self) -> dict[str, Any]:
        """What the manifest keeps of the others: how many there are, and the names of the first."""
        return {"left_out": {"files": len(self.left_out), "names": self.left_out[:_NAMES_MOST]}}


def readable(name: str) -> bool:
    """Whether the name says that a file holds documents; `RC_2021-01.zst`, as dumps are called, is JSON lines."""
    bare = name.lower().endswith(COMPRESSIONS) and name.count(".") == 1
    return bare or name.lower().endswith((*LINES, *SHEETS, *TEXTS, *TABLES))


def taken_for_lines(name: str) -> bool:
    """Whether a compressed file that the user named is read as JSON lines: nothing says that it is something else."""
    low = name.lower()
    return low.endswith(COMPRESSIONS) and not hint(name) and not low.endswith((*TEXTS, *SHEETS))


def hint(name: str) -> str:
    """What to do about a file in a form of others; "" if there is nothing to say."""
    low = name.lower()
    if low.endswith(COMPRESSIONS) and low[: low.rfind(".")].endswith(TABLES):
        return "tables compress their columns themselves: decompress it first"
    parts = {f".{part}" for part in low.split(".")[1:]}
    return next((said for suffixes, said in _UNREAD.items() if parts & {*suffixes}), "")


def text_files(directory: Path, patterns: tuple[str, ...] = ()) -> Found:
    """The files below `directory` that are its text: by rank, or those that match one of `patterns`.

    A pattern is matched against a file's name, and against its path inside the folder. Hidden files (.git, .venv) and
    leftovers of the datasets library's cache are neither read nor counted. Raises DataError where a pattern names a
    file that is not read, and where data files are called after several splits.
    """
    everything = _below(directory)
    if patterns:
        chosen = [name for name in everything if any(_matches(name, pattern) for pattern in patterns)]
        for pattern in patterns:
            if not any(_matches(name, pattern) for name in everything):
                there = ", ".join(everything[:4]) or "nothing"
                raise DataError(f"no file in {directory} is called like {pattern!r} (--files); there: {there}")
        wrong = next((name for name in chosen if not (readable(name) or _taken(name))), None)
        if wrong is not None:
            said = f" ({hint(wrong)})" if hint(wrong) else ""
            raise DataError(f"{directory / wrong} has a form that niblick does not read{said}; give {FORMS}")
    else:
        chosen = _highest(everything)
        _refuse_several_splits(directory, chosen)
    kept = set(chosen)
    return Found([(directory / name, name) for name in chosen], [name for name in everything if name not in kept])


def _taken(name: str) -> bool:
    return taken_for_lines(Path(name).name)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(Path(name).name, pattern)


def _below(directory: Path) -> list[str]:
    found = []
    for root, folders, names in os.walk(directory):
        folders[:] = [folder for folder in folders if not folder.startswith((".", "__pycache__"))]
        for name in names:
            cached = name.startswith("cache-") and "state.json" in names  # of the datasets library, no part of it
            if not (name.startswith(".") or cached):
                found.append(Path(root, name).relative_to(directory).as_posix())
    return sorted(found)


def _highest(everything: list[str]) -> list[str]:
    ranks: list[list[str]] = [[], [], []]
    for name in everything:
        base = Path(name).name.lower()
        if not readable(base) or base.endswith(".json") or _DESCRIBING.fullmatch(base):
            continue
        ranks[1 if base.endswith(PROSE) else 2 if base.endswith(CODE) else 0].append(name)
    return next(filter(None, ranks), [])


def _refuse_several_splits(directory: Path, chosen: list[str]) -> None:
    named: dict[str, str] = {}
    for name in chosen:
        if name.lower().endswith(TEXTS):
            continue
        for part in (Path(name).name, *Path(name).parts[:-1]):
            if split := _SPLIT.match(part):
                word = split[1].lower()
                named.setdefault(_SPLITS.get(word, word), part)
                break
    if len(named) > 1:
        raise DataError(
            f"{directory} holds several splits of one dataset ({', '.join(sorted(named))}), and reading all would mix "
            f"them; name the files of one, as in --files '{split_pattern(directory, chosen)}'"
        )


def split_pattern(directory: Path, chosen: list[str]) -> str:
    """A pattern for the files of one split, the training split if there is one."""
    first = min(chosen, key=lambda name: not re.search(r"(?:^|/)train", name, re.I))
    part = next(part for part in (Path(first).name, *Path(first).parts[:-1]) if _SPLIT.match(part))
    word = _SPLIT.match(part)
    assert word is not None
    return f"{word[1]}*" if part == Path(first).name else f"*{part}/*"
