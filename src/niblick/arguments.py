"""Arguments of functions that people call from Python: held against their annotations before anything is done.

`checked` makes a function so. What an annotation cannot say alone stands beside it: `Annotated[…, Check(problem)]`.
Pydantic does the checking; it is imported with the first call.
"""

from __future__ import annotations

import functools
import inspect
import os
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from niblick.errors import ConfigError, with_article

P = ParamSpec("P")
R = TypeVar("R")

LONGEST_NAME, LONGEST_PATH = 255, 4096
"""Bytes of a name in a folder, and of a whole path, that file systems take."""


@dataclass(frozen=True)
class Check:
    """In an annotation: what is the matter with a value, in words, empty where nothing is."""

    problem: Callable[[object], str]

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: object) -> object:
            if problem := self.problem(value):
                raise PydanticCustomError("argument", "{problem}", {"problem": problem})
            return value

        return core_schema.no_info_plain_validator_function(check)


def _no_path(value: object) -> str:
    """Why a value is no path; empty where it is one, whether anything lies there or not."""
    if not isinstance(value, str | os.PathLike) or not isinstance(path := os.fspath(value), str):
        return "give a path or a name: str, or os.PathLike"
    if "\0" in path:
        return "it holds a NUL, which no path may"
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        return "it holds characters that no path may"
    if len(encoded) > LONGEST_PATH or any(len(name) > LONGEST_NAME for name in encoded.split(b"/")):
        return f"it is too long: names may have {LONGEST_NAME} bytes, and whole paths {LONGEST_PATH:,}"
    return ""


def _no_folder(value: object) -> str:
    """The same, and for what is a file."""
    return _no_path(value) or ("it is a file: give a folder" if os.path.isfile(value) else "")  # type: ignore[arg-type]


def _no_new_folder(value: object) -> str:
    """The same, and for no name at all."""
    return _no_folder(value) or ("" if os.fspath(value) else "it is empty: give a folder")  # type: ignore[call-overload]


def _no_text(value: object) -> str:
    if not isinstance(value, str | bytes):
        return "give str, or bytes, as Path(…).read_bytes()"
    return _no_utf8(value) if isinstance(value, str) else ""


def _no_utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"character {error.start + 1} is {text[error.start]!r}, which UTF-8 cannot hold: take it out"
    return ""


def _no_source(value: object) -> str:
    if isinstance(value, str | os.PathLike):
        return _no_path(value)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping):
        return ""
    arrow = hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__")
    return "" if arrow else "give a path, strings, mappings, or a table with a text column"


def _below(least: int) -> Callable[[object], str]:
    """What tells that a value is no whole number of at least `least`."""
    return lambda value: "" if type(value) is int and value >= least else f"give a whole number, at least {least}"


PathLike = Annotated[str | os.PathLike[str], Check(_no_path)]
"""A path, or the name of something: `os.fspath` takes it."""
Folder = Annotated[str | os.PathLike[str], Check(_no_folder)]
"""A path that is no file; there may be nothing there yet."""
NewFolder = Annotated[str | os.PathLike[str], Check(_no_new_folder)]
"""A folder that is made where it is not there."""
Text = Annotated[str | bytes, Check(_no_text)]
"""Text, or its bytes."""
Source = Annotated[str | os.PathLike[str] | Iterable[object], Check(_no_source)]
"""Where text comes from: a path, a name, or rows."""
Number = Annotated[int, Check(_below(0))]
Count = Annotated[int, Check(_below(1))]


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function raise ConfigError, in one sentence, for an argument that its annotation does not allow.

    Scalars of numpy and torch count as the numbers that they are. Names and number of arguments are Python's to check.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            bound = signature.bind(*arguments, **options)
        except TypeError:
            return function(*arguments, **options)  # whose own words name it
        adapters = _adapters(function)
        for name, value in bound.arguments.items():
            if name not in adapters:
                continue
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(_fitting(name, each, adapters[name], several=True) for each in value)
            elif kind is not inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = _fitting(name, value, adapters[name])
        return function(*bound.args, **bound.kwargs)

    return call


def plain_number(value: object) -> object:
    """The number that a scalar of numpy or torch is; everything else as it is."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def check_fields(instance: object) -> None:
    """The same for the fields of a dataclass, to be called in its `__post_init__`."""
    owner: Callable[..., object] = type(instance)
    for name, adapter in _adapters(owner).items():
        _fitting(name, getattr(instance, name), adapter)


@functools.cache
def _adapters(owner: Callable[..., object]) -> dict[str, Any]:
    """What checks the values of each name that has an annotation."""
    from pydantic import ConfigDict, TypeAdapter

    words = {name: said for name, said in owner.__annotations__.items() if name != "return"}
    hints = get_type_hints(SimpleNamespace(__annotations__=words), vars(sys.modules[owner.__module__]), None, True)
    config = ConfigDict(strict=True, arbitrary_types_allowed=True)
    return {name: TypeAdapter(_instances(hint), config=config) for name, hint in hints.items()}


def _instances(hint: Any) -> Any:
    """An annotation whose dataclasses mean their instances, as they are: what is in them was checked before.

    Protocols say nothing that could be looked up before they are used.
    """
    if getattr(hint, "_is_protocol", False):
        return Any
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return Union[tuple(_instances(each) for each in get_args(hint))]  # noqa: UP007 (made of what is found)
    if not isinstance(hint, type) or not is_dataclass(hint):
        return hint
    return Annotated[Any, Check(lambda value: "" if isinstance(value, hint) else f"give {with_article(hint.__name__)}")]


def _fitting(name: str, value: object, adapter: Any, several: bool = False) -> Any:
    """The value of an argument, as a plain number where it is a scalar. Raises ConfigError if it does not fit."""
    from pydantic import ValidationError

    value = tuple(value) if isinstance(value, range) else plain_number(value)
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        inside = "".join(f"[{step!r}]" for step in found[0]["loc"] if _is_inside(step, value))
        said = dict.fromkeys(_wanted(each) for each in found)
        wanted = [each for each in said if not each.startswith("give ")] or list(said)
        one_by_one = several and isinstance(value, list | tuple | set)
        advice = f"give each as an argument of its own, as *{name}" if one_by_one else _joined(wanted)
        shown = reprlib.repr(found[0]["input"] if inside else value)
        raise ConfigError(f"{name}{inside}={' '.join(shown.split())} does not fit: {advice}") from None
    return value


def _joined(wanted: list[str]) -> str:
    return ", or ".join([wanted[0], *(each.removeprefix("give ") for each in wanted[1:])])


def _is_inside(step: object, value: object) -> bool:
    """Whether a step of a place is one into the value itself: others name alternatives of the annotation."""
    return isinstance(step, int) or (isinstance(value, Mapping) and step in value)


_KINDS = {
    "int": "give a whole number",
    "float": "give a number",
    "bool": "give True or False",
    "string": "give a str",
    "bytes": "give bytes",
    "mapping": "give a mapping, as {key: value}",
    "dict": "give a mapping, as {key: value}",
    "sequence": "give a list",
    "callable": "give a function",
}


def _wanted(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors asks for."""
    kind, about = str(error["type"]), error.get("ctx", {})
    if kind == "argument":
        return str(about["problem"])
    if kind == "is_instance_of":
        return "give a list" if about["class"] == "Sequence" else f"give {with_article(about['class'])}"
    known = _KINDS.get(kind.partition("_")[0])
    return known or str(error["msg"]).replace("Input should be", "give")
