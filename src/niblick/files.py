"""Files that are whole or not there: JSON read within limits, written atomically, lines appended in one write.

Without torch, so that what only looks at runs answers at once.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import io
import json
import math
import os
import platform
import secrets
import stat
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from niblick.errors import ConfigError, DataError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_LOOK = 8192
"""Bytes at the beginning of a file that tell whether it is text."""


JSON_MOST = 16 << 20
"""Bytes of a JSON file at most: lists of empty lists take 24 times as much memory."""
JSON_DEPTH = 64
JSON_DIGITS = 20
"""Digits of an integer at most: those of 64 bits."""


def parse_json(
    text: str | bytes, *, lenient: bool = False, exact: bool = False, pairs: bool = True, most: int = JSON_MOST
) -> Any:
    """Read JSON, whoever wrote it: every JSON that niblick reads comes through here, but for the header of an artifact.

    Raises ValueError for what is no JSON; for more than `most` bytes, JSON_DEPTH levels or JSON_DIGITS digits of an
    integer; for numbers that are not finite; and, where `pairs` matter, for half a surrogate pair. Where `lenient`,
    such numbers are None. Where `exact`, which is lenient, numbers with a point are Decimals.
    """
    if len(text) > most:
        raise ValueError(f"it has {len(text):,} bytes, and at most {most:,} are read")
    if isinstance(text, bytes | bytearray):
        text = text.decode(json.detect_encoding(text))
    try:
        data = (_EXACT if exact else _LENIENT if lenient else _STRICT).decode(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError(_DEEP) from None
    if text.count("[") + text.count("{") > JSON_DEPTH:
        _check_depth(data)
    if pairs and "\\u" in text:  # the only way for half a pair to come in
        _check_pairs(data)
    return data


_DEEP = f"it is nested more than {JSON_DEPTH} levels deep"


def _integer(digits: str) -> int:
    if len(digits) > JSON_DIGITS:
        raise ValueError(f"it holds a number of {len(digits):,} digits, and at most {JSON_DIGITS} are read")
    return int(digits)


def _real(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"it holds the number {text[:24]}, which is too large")
    return value


def _refuse(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no JSON number")


_STRICT = json.JSONDecoder(parse_int=_integer, parse_float=_real, parse_constant=_refuse)
_LENIENT = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) <= JSON_DIGITS else None,
    parse_float=lambda text: None if math.isinf(value := float(text)) else value,
    parse_constant=lambda name: None,
)
_EXACT = json.JSONDecoder(parse_int=_LENIENT.parse_int, parse_float=Decimal, parse_constant=_LENIENT.parse_constant)


def _check_depth(data: Any) -> None:
    level = [data]
    for _ in range(JSON_DEPTH):
        values = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [inner for inside in values for inner in inside if isinstance(inner, dict | list)]
        if not level:
            return
    raise ValueError(_DEEP)


def _check_pairs(data: Any) -> None:
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        raise ValueError(f"it holds the lone surrogate \\u{code:04x}, which UTF-8 cannot hold") from None


def regular(path: Path | str) -> io.BufferedReader:
    """Open a regular file. Raises OSError, also for a pipe, say, for which one would wait for ever."""
    opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return open(opened, "rb")


def read_small(path: Path | str, most: int = JSON_MOST) -> bytes:
    """Read a regular file of at most `most` bytes. Raises OSError, or ValueError if it has more."""
    with regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return data


def why(error: Exception) -> str:
    """Why a file cannot be read, without its name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def read_json(path: Path, *, lenient: bool = False) -> Any:
    """Read a JSON file within the limits of `parse_json`. Raises DataError if it is missing or broken."""
    try:
        return parse_json(read_small(path), lenient=lenient)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error


def json_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file of one JSON a line, each of at most JSON_MOST bytes. Raises OSError or ValueError."""
    with regular(path) as file:
        while line := file.readline(JSON_MOST + 1):
            if len(line) > JSON_MOST:
                raise ValueError(f"it has a line of more than {JSON_MOST:,} bytes")
            yield line.decode()


def read_text(path: Path) -> str:
    """Read a text file in whatever encoding it was written: UTF-8 or UTF-16, with or without a mark at its beginning.

    Raises DataError if it cannot be read, or if it is no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return decoded(data)
    except UnicodeError as error:
        raise DataError(f"{path} is no text ({error}): give a file that people can read") from None


def decoded(data: bytes) -> str:
    """Decode the bytes of a text file. Raises UnicodeError if they are no text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data[:4] and len(data) > 3:
        return data.decode("utf-16-le" if data[1] == 0 else "utf-16-be")
    if b"\0" in data[:_LOOK]:
        raise UnicodeError("it holds NUL bytes")
    return data.decode("utf-8-sig", errors="replace")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically."""
    write_bytes(path, json_bytes(data))


def json_bytes(data: Any) -> bytes:
    """JSON as `write_json` writes it."""
    return (json.dumps(data, indent=2) + "\n").encode()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: temporary file, fsync, rename."""
    write_together({path: data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together, each atomically, and none of them before there is room for all."""
    temporaries = {path: temporary_for(path) for path in contents}
    try:
        for path, data in contents.items():
            with named(path), open(temporaries[path], "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in temporaries.items():
            with named(path):
                os.replace(temporary, path)
    finally:
        for temporary in temporaries.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Inside, an OSError is one of this file: those of writing name none, or a temporary file that nobody knows."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


_TROUBLE = {
    errno.ENOSPC: "the disk is full: make room, and call it again",
    errno.EDQUOT: "the disk quota is used up: make room, and call it again",
    errno.EFBIG: "the file would be larger than is allowed here: raise that limit, or write elsewhere",
    errno.EROFS: "it lies on a file system that is read-only: choose a folder that can be written",
    errno.EACCES: "you may not: change its permissions, or choose another folder",
    errno.EPERM: "you may not: change its permissions, or choose another folder",
    errno.ENOENT: "it is not there, or was moved or removed meanwhile: look where it is, and call it again",
    errno.ENOTDIR: "a part of that path is a file: name another folder",
    errno.EIO: "the disk failed: look at it before anything else",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
}
"""What to do about what a disk can do to any verb."""


def storage_trouble(error: OSError) -> str:
    """Return a sentence on a file that could not be read or written; what was there before is as it was."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = f"{' → '.join(names)} cannot be read or written" if names else "a file cannot be written"
    return f"{where}: {_TROUBLE.get(error.errno or 0, error.strerror or str(error))}"


def temporary_for(path: Path) -> Path:
    """A name beside `path` that nobody else uses, for what is renamed when it is whole; a kill may leave it."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def locked(path: Path, what: str, wait: float = 0.0) -> Iterator[None]:
    """Be the only process that holds the lock file `path`. A lock of a process that died counts for nothing.

    `what` is locked, in words. Raises ConfigError, and says who has it, if another process holds it for longer than
    `wait` seconds.
    """
    import filelock

    lock = filelock.FileLock(path, timeout=wait)
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = path.read_text(encoding="utf-8", errors="replace")[:200].strip() if path.is_file() else ""
        raise ConfigError(
            f"{what} is being written by {holder or 'another process'}: wait until that has ended, or stop it"
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        with named(path):
            path.write_text(f"process {os.getpid()} on {platform.node()}, since {since}\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is held: who waits for it notices, and asks for a new one
        lock.release()


def append_line(path: Path, line: str) -> None:
    """Append one line in one write, or nothing; what a kill left of a line before it is cut off.

    A last line that is whole JSON is kept, though nothing ends it.
    """
    data = (line + "\n").encode()
    with named(path), open(path, "ab+", buffering=0) as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed: others look at the end and write there, too
        if end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                last = file.read().rfind(b"\n") + 1
                file.seek(last)
                if _is_json(file.read()):  # whole, as an editor leaves it
                    data = b"\n" + data
                else:
                    end = last
                    file.truncate(end)
        try:
            written = file.write(data)
            while written < len(data):
                written += file.write(data[written:])  # raises, and says why
        except OSError:
            file.truncate(end)
            raise


def _is_json(data: bytes) -> bool:
    try:
        parse_json(data, lenient=True)
    except ValueError:
        return False
    return True


def imported_beside(recipe: Path) -> dict[str, Path]:
    """The modules and packages in a recipe's own folder that it imports, they themselves included: files by name."""
    found: dict[str, Path] = {}
    seen: set[str] = set()
    todo = [recipe]
    while todo:
        try:
            tree = ast.parse(todo.pop().read_text(encoding="utf-8-sig"))
        except (OSError, ValueError, SyntaxError):
            continue  # whoever runs it will be told
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                names += [str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)]
            for name in sorted({name.partition(".")[0] for name in names} - seen - {"niblick"}):
                seen.add(name)
                file, folder = recipe.parent / f"{name}.py", recipe.parent / name
                inside = sorted(folder.rglob("*.py")) if folder.is_dir() else []
                for path in inside or ([file] if file.is_file() and file != recipe else []):
                    found[path.relative_to(recipe.parent).as_posix()] = path
                    todo.append(path)
    return found


def copy_recipe(recipe: Path, folder: Path) -> None:
    """Write a recipe, as recipe.py, and the modules beside it that it imports into a folder."""
    for name, path in {"recipe.py": recipe, **imported_beside(recipe)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / name, path.read_bytes())
