"""Which files of a folder are its text, and what keeps them from being read together.

A folder is read by rank: where it holds data files, only these are its text; else its prose; else its source code.
What describes a folder (a README, a licence, plain `.json`) is no text of it, and neither is what ranks lower. Whoever
wants others names them (`--files '*.py'`).

Files of several splits would be mixed, and a text that lies there in two forms would be read twice: both are refused.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import escape
from pathlib import Path
from typing import Any

from niblick.data.columns import TABLES
from niblick.data.compressed import COMPRESSIONS
from niblick.data.text_forms import CODE, FORMS, LINES, PAGES, PROSE, SHEETS, hint, readable
from niblick.errors import DataError

_DESCRIBING = re.compile(
    r"readme.*|(?:licen[cs]e|copying|notice|citation|change(?:s|log)|contributing|code_of_conduct|authors|security|"
    r"dataset_?card)\b.*|(?:requirements|constraints)[\w.-]*\.txt|robots\.txt",
    re.I,
)
"""Names of files that describe a folder."""
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("evaluation", "eval"), "evaluation"),
}
_SPLIT = re.compile(rf"(?<![^\W\d_])(?:{'|'.join(_SPLITS)})(?![^\W\d_])", re.I)
"""A word that names a split, with no letter beside it."""
_NAMES_MOST = 20


@dataclass(frozen=True)
class Found:
    """What a folder holds: the files that are its text, sorted by their path inside it, and the names of the others."""

    files: list[tuple[Path, str]]
    left_out: list[str]

    def record(self) -> dict[str, Any]:
        """What the manifest keeps of the others: how many there are, and the names of the first."""
        return {"left_out": {"files": len(self.left_out), "names": self.left_out[:_NAMES_MOST]}}


def shown(name: str) -> str:
    """A file's name as text: bytes of it that are not UTF-8 are escaped, as in `caf\\xe9.txt`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def text_files(directory: Path, patterns: tuple[str, ...] = ()) -> Found:
    """The files below `directory` that are its text: by rank, or those that match one of `patterns`.

    A pattern is matched against a file's name, and against its path inside the folder; what it names is read as text
    where nothing says what it is. Hidden files (.git, .venv) and leftovers of the datasets library's cache are neither
    read nor counted. Raises DataError where a pattern names a file that is not read, where files are called after
    several splits, and where two files are forms of one text.
    """
    everything, others = _below(directory)
    if patterns:
        chosen = [name for name in everything if any(_matches(name, pattern) for pattern in patterns)]
        for pattern in patterns:
            if not _matching(everything, pattern):
                there = ", ".join(map(shown, [*everything, *others][:4])) or "nothing"
                raise DataError(f"no file in {directory} is called like {pattern!r} (--files); there: {there}")
        wrong = next((name for name in chosen if hint(name) and not readable(name)), None)
        if wrong is not None:
            said = f" ({hint(wrong)})"
            raise DataError(f"{directory / wrong} has a form that niblick does not read{said}; give {FORMS}")
        for pattern in patterns:
            _refuse_twice(directory, everything, _matching(everything, pattern), pattern)
    else:
        chosen = _highest(everything)
        _refuse_several_splits(directory, everything, chosen)
        _refuse_twice(directory, everything, chosen, "*")
    kept = set(chosen)
    left = [name for name in everything if name not in kept]
    return Found([(directory / name, name) for name in chosen], sorted(map(shown, [*left, *others])))


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(Path(name).name, pattern)


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if _matches(name, pattern)]


def _below(directory: Path) -> tuple[list[str], list[str]]:
    """The files below `directory`, and what else is there: linked folders, pipes, sockets and the like."""
    found, others = [], []
    for root, folders, names in os.walk(directory):
        folders[:] = [folder for folder in folders if not folder.startswith((".", "__pycache__", "__MACOSX"))]
        inside = Path(root).relative_to(directory)
        others += [f"{(inside / folder).as_posix()}/ (a link)" for folder in folders if Path(root, folder).is_symlink()]
        for name in names:
            cached = name.startswith("cache-") and "state.json" in names  # of the datasets library, no part of it
            path = Path(root, name)
            if name.startswith(".") or cached:
                continue
            if path.exists() and not path.is_file():
                others.append(f"{(inside / name).as_posix()} (no regular file)")
            else:  # a link that leads nowhere too: reading it says so
                found.append((inside / name).as_posix())
    return sorted(found), sorted(others)


def _highest(everything: list[str]) -> list[str]:
    ranks: list[list[str]] = [[], [], []]
    for name in everything:
        base = Path(name).name.lower()
        if not readable(base) or base.endswith(".json") or _DESCRIBING.fullmatch(base):
            continue
        ranks[1 if base.endswith(PROSE) else 2 if base.endswith(CODE) else 0].append(name)
    return next(filter(None, ranks), [])


def _split(name: str) -> tuple[str, str]:
    """The split that a path is called after, by its file or the nearest folder, and the path without that word."""
    if name.lower().endswith((*PAGES, *CODE)):  # pages about testing, and tests
        return "", ""
    parts = Path(name).parts
    for number in reversed(range(len(parts))):
        if words := list(_SPLIT.finditer(parts[number])):
            last, part = words[-1], parts[number]
            rest = re.sub(r"\d+", "", part[: last.start()] + "\0" + part[last.end() :])
            return _SPLITS[last[0].lower()], "/".join([*parts[:number], rest])
    return "", ""


def _refuse_several_splits(directory: Path, everything: list[str], chosen: list[str]) -> None:
    """Raise DataError for data files of several splits, and for prose whose names differ in the split alone."""
    named: dict[str, set[str]] = {}
    for name in chosen:
        split, rest = _split(name)
        if split:
            named.setdefault(rest if name.lower().endswith(PROSE) else "", set()).add(split)
    several = next((splits for splits in named.values() if len(splits) > 1), None)
    if several:
        wanted = "train" if "train" in several else min(several)
        flags = _flags(everything, [name for name in chosen if _split(name)[0] == wanted])
        raise DataError(
            f"{directory} holds several splits of one dataset ({', '.join(sorted(several))}), and reading all would "
            f"mix them; name the files of one, as in {flags}"
        )


def _refuse_twice(directory: Path, everything: list[str], chosen: list[str], pattern: str) -> None:
    """Raise DataError where two of the chosen files are one text by their names: packed and not, or in two forms."""
    stems: dict[str, str] = {}
    for name in chosen:
        other = stems.setdefault(_stem(name), name)
        if other != name:
            suffix = escape(other[len(_stem(other)) :] or Path(other).suffix)
            one = (pattern.rstrip("*") + "*" if pattern.endswith("*") else "*") + suffix
            alone = _matching(everything, one)
            twice = len({*map(_stem, alone)}) < len(alone)
            flag = _flag(escape(other) if twice or not suffix else one)
            raise DataError(
                f"{directory} holds {shown(other)} and {shown(name)}, which are one text twice by their names; name "
                f"those that are to be read, as in {flag}"
            )


def _stem(name: str) -> str:
    """A path without its compression, and without the form where it is data: prose of one name may be two texts."""
    ends = [end for end in (*LINES, *SHEETS, *TABLES, *COMPRESSIONS) if name.lower().endswith(end)]
    return name[: len(name) - max(map(len, ends), default=0)]


def _flags(everything: list[str], wanted: list[str]) -> str:
    """The `--files` that chooses exactly `wanted` of a folder, by the word of their split; else the first of them."""
    first = wanted[0]
    parts = Path(first).parts
    candidates = []
    for number in reversed(range(len(parts))):
        if words := list(_SPLIT.finditer(parts[number])):
            word, end = words[-1][0], "" if number == len(parts) - 1 else "/*"
            suffix = "".join(Path(first).suffixes[-2:])
            before, folders = escape(parts[number][: words[-1].end()]), escape("/".join(parts[:number]))
            if end:
                candidates = [f"*{escape(parts[number])}/*", f"{escape('/'.join(parts[: number + 1]))}/*"]
            else:
                candidates = [f"{word}*", f"*{word}*", f"{before}*", f"*{word}*{suffix}", f"{folders}/{before}*"]
            break
    exact = (pattern for pattern in candidates if _matching(everything, pattern) == wanted)
    return _flag(next(exact, escape(first)))


def _flag(pattern: str) -> str:
    return f"--files {shlex.quote(pattern)}"
