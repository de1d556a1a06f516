"""Files that are whole or not there: JSON and bytes written atomically, lines appended in one write.

Without torch, so that what only looks at runs answers at once.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from niblick.errors import DataError


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically."""
    write_bytes(path, (json.dumps(data, indent=2) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: temporary file, fsync, rename."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Append one line in one write, or nothing; what a kill left of a line before it is cut off."""
    data = (line + "\n").encode()
    with open(path, "ab+", buffering=0) as file:
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                end = file.read().rfind(b"\n") + 1
                file.truncate(end)
        try:
            written = file.write(data)
            while written < len(data):
                written += file.write(data[written:])  # raises, and says why
        except OSError:
            file.truncate(end)
            raise
