"""What an earlier process found of a script, kept on disk: it follows from the sources, so it is found once.

A file's name is the SHA-256 of all that its contents depend on: what was asked, the sources of niblick and their place,
the version of Python and those of the packages that niblick requires. A file is the SHA-256 of the rest of it, then
JSON under zlib. One that cannot be read or written is done without, and so is all of it in a process that is older than
a source: its code may not be what the sources say. They lie in `$XDG_CACHE_HOME/niblick/scripts`, by default under
`~/.cache`, and may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
import zlib
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from niblick.bundle.pieces import modules_of
from niblick.errors import NiblickError
from niblick.files import write_bytes

STARTED = time.time()
"""Of this process, near enough: a source that is younger may not be the code that runs."""
PACKAGE = Path(__file__).parents[1]
MOST_FILES = 128
"""Files of two hundred kB each. The oldest go first."""


def recall(asked: Any, find: Callable[[], Any]) -> Any:
    """Return what `find` returned when it was asked the same before, else what it returns now; all of it JSON."""
    path = _place(asked)
    if path is None:
        return find()
    with contextlib.suppress(OSError, ValueError, zlib.error):
        data = path.read_bytes()
        if hashlib.sha256(data[32:]).digest() == data[:32]:
            return json.loads(zlib.decompress(data[32:]))
    found = find()
    with contextlib.suppress(OSError, NiblickError):
        if _unchanged():
            _keep(path, found)
    return found


def _keep(path: Path, found: Any) -> None:
    packed = zlib.compress(json.dumps(found).encode(), 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, hashlib.sha256(packed).digest() + packed)
    files = sorted(path.parent.glob("*.parts"), key=lambda file: file.stat().st_mtime)
    for file in files[:-MOST_FILES]:
        file.unlink()


def _place(asked: Any) -> Path | None:
    """Where the answer lies; nowhere, if what it depends on is not known, or there is no home."""
    try:
        if not _unchanged():
            return None
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        digest = hashlib.sha256(_sources() + json.dumps(asked).encode()).hexdigest()
    except (OSError, RuntimeError, metadata.PackageNotFoundError):
        return None
    return root / "niblick" / "scripts" / f"{digest}.parts"


def _unchanged() -> bool:
    """Whether all sources are older than this process."""
    files = [path.stat() for path in modules_of(PACKAGE).values()]
    return all(max(file.st_mtime, file.st_ctime) < STARTED for file in files)


@cache
def _sources() -> bytes:
    """The digest of niblick's sources, and of the versions of what they stand on."""
    names = {re.split(r"[^\w.-]", line)[0] for line in metadata.requires("niblick") or () if "extra ==" not in line}
    versions = {name: metadata.version(name) for name in sorted(names)}
    found = hashlib.sha256(json.dumps([sys.version, str(PACKAGE), versions]).encode())
    for name, path in modules_of(PACKAGE).items():
        found.update(f"\0{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.digest()
