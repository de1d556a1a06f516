"""Exceptions that niblick raises on purpose. Each message is one clear sentence: found, expected, what to do."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable, Iterable, Mapping
from itertools import islice

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a process to end; the exit code is then 128 and the signal's number."""


class NiblickError(Exception):
    """Base of all. The command line prints the message to stderr and exits with `exit_code`."""

    exit_code = 2


class ConfigError(NiblickError):
    """A preset, key or value that does not exist or does not fit."""


class DataError(NiblickError):
    """Text, tokenizer, shard or index that is missing, damaged or does not fit."""


class ArtifactError(NiblickError):
    """An artifact, weight file or checkpoint that cannot be read or written safely."""


class StorageError(ArtifactError):
    """A file that cannot be written: the disk is full, say."""


class TrainingError(NiblickError):
    """Training that had to stop: the loss is not finite, or the run is in no state to go on."""

    exit_code = 1


def with_article(noun: str) -> str:
    """Return "a list", "an int", for messages."""
    return f"{'an' if noun[:1] in 'aeiouAEIO' else 'a'} {noun}"


def kind_of(value: object) -> str:
    """Return what a value is, with its article, None as it is: for messages."""
    return "None" if value is None else with_article(type(value).__name__)


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return " (nearest: a, b)" for the known names most like `name`, or all of them when few: for messages."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f" (nearest: {', '.join(close)})"
    return f" (known: {', '.join(names)})" if len(names) <= 12 else ""


def listed(names: Iterable[object], show: Callable[[object], str] = repr) -> str:
    """Return the first eight names for a message, long ones shortened: they may be whole texts."""
    shown = [show(name) for name in islice(names, 8)]
    return ", ".join(name if len(name) <= 48 else f"{name[:44]} …" for name in shown)


def nearest_key(key: str, known: Iterable[str], count: int = 3) -> str:
    """Return the same for dotted keys: first those with the same last word in any section, then the most alike."""
    keys = list(dict.fromkeys(known))
    leaf = key.rpartition(".")[2]
    same = [other for other in keys if other.rpartition(".")[2] == leaf]
    parts = [other for other in keys if leaf in other.rpartition(".")[2].split("_")]
    by_leaf: dict[str, list[str]] = {}
    for other in keys:
        by_leaf.setdefault(other.rpartition(".")[2], []).append(other)
    close = [
        *difflib.get_close_matches(key, same, n=count, cutoff=0.0),
        *difflib.get_close_matches(key, keys, n=count, cutoff=0.6),
        *difflib.get_close_matches(key, parts, n=count, cutoff=0.0),
        *(other for word in difflib.get_close_matches(leaf, by_leaf, n=count, cutoff=0.7) for other in by_leaf[word]),
    ]
    found = list(dict.fromkeys(close))[:count]
    return f" (nearest: {', '.join(found)})" if found else ": `niblick show PRESET` lists all keys"


def expect_free(what: str, known: Mapping[str, object], name: str, value: object, raised: type[NiblickError]) -> None:
    """Raise `raised` if `name` stands for something else than `value` in `known`.

    Code outside niblick may define again what it defined: a notebook's cell runs twice, a process reads two recipes.
    """
    old, home = known.get(name, value), getattr(value, "__module__", "")
    again = home == getattr(old, "__module__", None) and home.partition(".")[0] not in ("niblick", "functools")
    if not again and old is not value and old != value:
        raise raised(f"{what} {name!r} is taken: choose another name (taken: {', '.join(sorted(known))})")
