"""Sentences of errors in the words of Python, where they were written for the command line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from niblick.errors import NiblickError

P = ParamSpec("P")
R = TypeVar("R")

CALLS = {
    "niblick presets": "nb.presets()",
    "niblick runs": "nb.runs()",
    "niblick train": "nb.train(PRESET, data=DIR)",
    "niblick data prepare": "nb.prepare(SOURCE, DIR)",
    "niblick show PRESET": "nb.show(PRESET)",
    "niblick compare A B": "nb.compare(A, B)",
}
"""Commands in full that have a call of their own."""


def python_call(found: re.Match[str]) -> str:
    """The call that does what a quoted command does; a command that has none stays, to be typed in a terminal."""
    command = found[1]
    if (resumed := re.fullmatch(r"niblick train --resume (\S+)", command)) or (
        resumed := re.fullmatch(r"niblick sweep resume (\S+)", command)
    ):
        return f"`nb.resume({resumed[1]!r})`" if "train" in command else "calling `nb.sweep` again"
    if prepared := re.fullmatch(r"niblick data prepare --source (\S+) --tokenizer (\S+) --out (\S+)", command):
        return f"`nb.prepare({prepared[1]!r}, {prepared[3]!r}, tokenizer={prepared[2]!r})`"
    if removed := re.fullmatch(r"niblick rm (\S+)", command):
        return f"`nb.remove({removed[1]!r})`"
    if shown := re.fullmatch(r"niblick show (\S+)", command):
        return f"`nb.open_run({shown[1]!r})`" if command not in CALLS else f"`{CALLS[command]}`"
    return f"`{CALLS.get(command, command)}`"


def in_python(sentence: str) -> str:
    """Return a sentence with calls in place of commands, and arguments in place of flags."""
    sentence = re.sub(r"(?<=with: )(niblick train --resume \S+)", r"`\1`", sentence)
    sentence = re.sub(r"`(niblick [^`]+)`", python_call, sentence)
    quoted = re.split(r"(`[^`]*`)", sentence)
    for i in range(0, len(quoted), 2):
        quoted[i] = re.sub(r"(?<![\w-])--([a-z][a-z-]*[a-z])", _argument, quoted[i])
    return "".join(quoted)


def _argument(found: re.Match[str]) -> str:
    return found[1].replace("-", "_") + "="


def worded(function: Callable[P, R]) -> Callable[P, R]:
    """Make what a function raises say its sentence in the words of Python."""

    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        try:
            return function(*arguments, **options)
        except NiblickError as error:
            error.args = (in_python(str(error)), *error.args[1:])
            raise

    return call
