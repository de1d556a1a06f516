"""The one reader and the one writer of facts.

    read(ScoreRecord, data)     plain data → facts; keys that the class does not know go to `extra`
    plain(record)               facts → plain data, `extra` among the rest

Checking of types is pydantic's, which is imported when something is read: what only writes does without.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from niblick.errors import DataError
from niblick.facts.record import Record
from niblick.files import append_line, json_lines, parse_json, read_json, write_json

T = TypeVar("T", bound=Record)
R = TypeVar("R")

SCHEMA = 1
"""Version of the files of a run. A reader keeps what it does not know; the number rises when a key changes meaning."""


def plain(record: Record) -> dict[str, object]:
    """Return facts as plain data, as a file holds them."""
    found: dict[str, object] = {}
    defaults = _defaults(type(record))
    for name in _names(type(record)):
        value = getattr(record, name)
        if name not in record.SELDOM or value != defaults[name]:
            found[name] = _plain(value)
    return found | dict(record.extra)


def says_nothing(value: object) -> bool:
    """Whether a value is None, false, or empty; 0 is none of these."""
    return value is None or value is False or (isinstance(value, str | tuple | list | Mapping) and not value)


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, tuple | list) else value


def merged(cls: Callable[..., T], *parts: Record, **more: object) -> T:
    """Return a record of this class with the fields of all `parts`, later ones first, and with `more`."""
    values: dict[str, object] = {}
    extra: dict[str, object] = {}
    for part in parts:
        values |= {name: getattr(part, name) for name in _names(type(part))}
        extra |= part.extra
    return cls(**values | {"extra": extra} | more)


def read(cls: type[T], data: object, name: str = "") -> T:
    """Read plain data as facts of this class. Raises DataError, naming `name`, where the data does not fit."""
    return typed(cls, _sorted(cls, data), name)


def typed(cls: type[R], data: object, name: str = "") -> R:
    """Read plain data as this type, such as a dataclass; keys that it does not know are left out. Raises DataError."""
    from pydantic import ValidationError

    try:
        return _adapter(cls).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key, where = ".".join(map(str, first["loc"])), f"{name}: " if name else ""
        raise DataError(
            f"{where}{key or 'the data'} does not fit a {getattr(cls, '__name__', cls)} ({first['msg'].lower()}): "
            "this is no file of niblick's, or it was changed"
        ) from error


def read_file(cls: type[T], path: Path) -> T:
    """Read a JSON file as facts of this class. Raises DataError if it is missing, broken, or does not fit."""
    return read(cls, read_json(path), str(path))


def write_file(path: Path, record: Record) -> None:
    """Write facts as a JSON file, with the version of its schema, atomically."""
    write_json(path, {"schema": SCHEMA} | plain(record))


def read_lines(cls: type[T], path: Path) -> list[T]:
    """Read a file of one JSON object a line; a last line that is not whole is left out, and none is there without."""
    return [read(cls, data, str(path)) for data in read_objects(path)]


def read_objects(path: Path) -> list[Any]:
    """Read a file of one JSON a line, none if there is no file. A last line that is not whole is left out.

    Raises DataError for anything else that cannot be read.
    """
    if not path.exists():
        return []
    found = []
    try:
        for number, line in enumerate(json_lines(path), 1):
            try:
                found.append(parse_json(line))
            except ValueError as error:
                if line.endswith("\n"):
                    raise DataError(f"{path}, line {number} cannot be read as JSON: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return found


def append_record(path: Path, record: Record) -> None:
    """Append facts as a line, with the version of its schema."""
    append_line(path, json.dumps({"schema": SCHEMA} | plain(record)))


def _cached(make: Callable[[type], R]) -> Callable[[type], R]:
    return cache(make)


@_cached
def _names(cls: type) -> tuple[str, ...]:
    """The fields of a class without `extra`."""
    return tuple(item.name for item in fields(cls) if item.name != "extra")


@_cached
def _defaults(cls: type) -> dict[str, object]:
    """What fields are where nothing is given; those that must be given are missing."""
    return {
        item.name: item.default if item.default_factory is MISSING else item.default_factory() for item in fields(cls)
    }


@_cached
def _known(cls: type) -> frozenset[str]:
    return frozenset(_names(cls))


@_cached
def _adapter(cls: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


@_cached
def _inner(cls: type) -> dict[str, type[Record]]:
    """The fields that are records themselves."""
    found = {}
    for name, hint in get_type_hints(cls).items():
        for part in (hint, *get_args(hint)):
            if isinstance(part, type) and is_dataclass(part) and issubclass(part, Record):
                found[name] = part
    return found


def _sorted(cls: type[Record], data: object) -> object:
    """Data with the keys that the class does not know put under `extra`, at every level."""
    if not isinstance(data, Mapping):
        return data
    names, inner = _known(cls), _inner(cls)
    known = {key: value for key, value in data.items() if key in names}
    extra = {key: value for key, value in data.items() if key not in names} if len(known) < len(data) else {}
    for name, part in inner.items():
        if name in known:
            known[name] = _sorted(part, known[name])
    return known | {"extra": extra}
