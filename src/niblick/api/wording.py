"""The edge of the Python face: arguments that fit, and sentences of errors in the words of Python.

Everything that `import niblick as nb` offers goes through `at_edge`: functions in `niblick/__init__.py`, methods and
properties of the classes that stand here by `edged`. Sentences of errors are written for the command line, where most
are read; here commands become calls, and flags become arguments.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

from niblick.arguments import checked
from niblick.errors import NiblickError, StorageError
from niblick.files import storage_trouble

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")

CALLS = {
    "data prepare": ("prepare", ("source", "out"), "SOURCE, DIR"),
    "audit": ("audit", (), "RUN"),
    "compare": ("compare", (), "A, B"),
    "compress": ("compress", (), "TEXT, RUN"),
    "export": ("export", (), "RUN"),
    "fit": ("fit", (), "RUN"),
    "presets": ("presets", (), ""),
    "push": ("push", (), "RUN, DIR"),
    "rm": ("remove", (), "RUN"),
    "runs": ("runs", (), ""),
}
"""Commands that have a call of their own: its name, the flags that are its first arguments, and what it takes."""


def python_call(command: str) -> str:
    """The call that does what a command does; a command that has none stays, to be typed in a terminal."""
    words = command.removeprefix("niblick ")
    if words.startswith("sweep resume"):
        return "calling `nb.sweep` again"
    if words == "train":
        return "`nb.train(PRESET, data=DIR)`"
    if resumed := re.fullmatch(r"train --resume (.+)", words):
        return f"`nb.resume({_value(resumed[1])})`"
    if shown := re.fullmatch(r"show(?: (.+))?", words):
        call = "show" if shown[1] in (None, "PRESET") else "open_run"
        return f"`nb.{call}({_value(shown[1] or 'PRESET')})`"
    verb = next((verb for verb in CALLS if re.match(rf"{verb}\b", words)), None)
    if verb is None:
        return f"`{command}`"
    name, first, usual = CALLS[verb]
    given = _arguments(shlex.split(words.removeprefix(verb)), first)
    return f"`nb.{name}({given or usual})`"


def _arguments(words: list[str], first: tuple[str, ...]) -> str:
    """Words of a command as arguments of a call; those called `first` come first, without their names."""
    plain, named = [], {}
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            named[word[2:].replace("-", "_")] = _value(words.pop(0)) if words and words[0][:2] != "--" else "True"
        elif "=" in word:
            key, _, value = word.partition("=")
            named[key.replace(".", "__")] = _value(value)
        else:
            plain.append(_value(word))
    plain = [*(named.pop(name) for name in first if name in named), *plain]
    return ", ".join([*plain, *(f"{name}={value}" for name, value in named.items())])


def _value(word: str) -> str:
    """A word of a command as Python has it: numbers, and names in capitals that stand for something, as they are."""
    return word if re.fullmatch(r"[A-Z]+|\d[\d_]*(\.\d+)?", word) else repr(word)


def in_python(sentence: str) -> str:
    """Return a sentence with calls in place of commands, and arguments in place of flags."""
    sentence = re.sub(r"(?<=with: )(niblick train --resume \S+)", r"`\1`", sentence)
    sentence = re.sub(r"`(niblick [^`]+)`", lambda found: python_call(found[1]), sentence)
    quoted = re.split(r"(`[^`]*`)", sentence)
    for i in range(0, len(quoted), 2):
        quoted[i] = re.sub(
            r"(?<![\w-])--([a-z][a-z-]*[a-z])(?: ([A-Z]+\b|\d[\d.]*\b|'[^']*'|is\b))?", _argument, quoted[i]
        )
    return "".join(quoted)


def _argument(found: re.Match[str]) -> str:
    name = found[1].replace("-", "_")
    return f"{name} is" if found[2] == "is" else f"{name}={found[2] or ''}"


def at_edge(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function check its arguments, as `checked`, and say in the words of Python what it raises.

    A file that cannot be read or written is an error of niblick's, too.
    """
    careful = checked(function)

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return careful(*arguments, **options)
        except NiblickError as error:
            error.args = (in_python(str(error)), *error.args[1:])
            raise
        except OSError as error:
            raise StorageError(in_python(storage_trouble(error))) from error

    return call


def edged(cls: type[C]) -> type[C]:
    """Put the public methods and properties of a class, and its construction, at the edge."""
    for name, member in list(vars(cls).items()):
        if name.startswith("_") and name != "__init__":
            continue
        edge: Any = None
        if isinstance(member, FunctionType):
            edge = at_edge(member)
        elif isinstance(member, property) and member.fget:
            edge = property(at_edge(member.fget), doc=member.__doc__)
        if edge is not None:
            setattr(cls, name, edge)
    return cls
