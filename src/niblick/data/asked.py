"""What a dataset was asked for, as its manifest keeps it: the same again finds it there, anything else is refused."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from niblick.data.dataset import Dataset
from niblick.data.documents import Reading
from niblick.data.embedded import EMBEDDED
from niblick.data.hub import PREFIX
from niblick.data.shards import file_hash
from niblick.data.text_folders import shown
from niblick.errors import DataError
from niblick.facts.reading import read
from niblick.facts.record import Record
from niblick.files import read_json


@dataclass(frozen=True, kw_only=True)
class Asked(Record):
    """The arguments that what comes out depends on."""

    source: str
    """What Python brings, or the name of a file or folder, not where it lay."""
    contents: str = ""
    """SHA-256 of the source's files and of the tokenizer's, or the version of Python."""
    revision: str = ""
    """The commit of a dataset on the hub."""
    tokenizer: str
    normalization: str
    val_docs: int | None
    val_share: float | None
    max_docs: int | None
    shard_tokens: int
    reading: Mapping[str, object]
    """What `Reading.record` says, but for the largest window, which changes no text."""


def asked(source: str, tokenizer: str, reading: Reading, **options: Any) -> Asked:
    """The arguments of `prepare`, without what the source holds; the `options` are called as there."""
    return Asked(
        source=source if source.startswith(PREFIX) else shown(Path(source).name),
        tokenizer=shown(Path(tokenizer).name),
        reading={name: value for name, value in reading.record().items() if name != "max_window"},
        **options,
    )


def with_contents(wanted: Asked, source: str | None, tokenizer: str) -> Asked:
    """The same with what source and tokenizer hold now; without a `source`, the revision says what it holds."""
    found = hashlib.sha256()
    if source in EMBEDDED:
        found.update(platform.python_version().encode())
    for root in map(Path, [tokenizer] if source is None else [source, tokenizer]):
        paths = sorted(root.rglob("*")) if root.is_dir() else [root]
        for path in (path for path in paths if path.is_file()):
            inside = path.relative_to(root)
            if not any(part.startswith(".") for part in inside.parts):  # hidden files are no text
                found.update(os.fsencode(inside) + f" {file_hash(path)}\n".encode())
    return replace(wanted, contents=found.hexdigest())


def already_there(out: Path, wanted: Asked, source: str | None, tokenizer: str) -> dict[str, Any] | None:
    """The manifest of a whole dataset in `out` that was asked for in the same way; None if there is none.

    Raises DataError if it was asked for otherwise, and says what differs.
    """
    path = out / "manifest.json"
    manifest = read_json(path) if path.is_file() else None
    facts = manifest.get("niblick") if isinstance(manifest, dict) else None
    if not isinstance(facts, dict) or "asked" not in facts:
        return None
    before, now = read(Asked, facts["asked"], str(path)), with_contents(wanted, source, tokenizer)
    names = [item.name for item in fields(Asked) if item.name != "extra"]
    other = [name for name in names if getattr(before, name) != getattr(now, name)]
    if other:
        words = ", ".join(
            f"{name} was {getattr(before, name)!r} and is {getattr(now, name)!r}"
            if name != "contents"
            else "the text is not the same any more"
            for name in other
        )
        if "revision" in other:
            words += f"; hf:REPO@{before.revision} names the one of before"
        raise DataError(f"{out} holds data that were prepared otherwise ({words}): remove it, or give another --out")
    Dataset.open(out)
    return manifest
