"""A sweep file from a command line: keys with several values become its grid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from pprint import pformat

from niblick.errors import ConfigError
from niblick.files import write_bytes
from niblick.sweeps.sweep import Sweep, grid

FILE = """{summary!r}

from niblick import Sweep, grid

sweep = Sweep(
    base={base!r},
    sets={sets},
    axes=[grid({axes})],
    seeds={seeds},
)
"""


def write_sweep(path: Path, base: str, settings: Sequence[str], seeds: int) -> Sweep:
    """Write a sweep file of `key=value` for all runs and `key=a,b` for the grid; return the sweep.

    A comma inside quotes or brackets separates nothing. Raises ConfigError for a file that is there, for settings that
    do not fit, and if no key has several values; nothing is written then.
    """
    if path.suffix != ".py":
        raise ConfigError(f"{path} is no name of a sweep file: let it end in .py")
    if path.exists():
        raise ConfigError(f"{path} exists: `niblick sweep run {path}` runs it, another name makes another")
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} must be at least 1")
    axes: dict[str, list[object]] = {}
    sets: list[str] = []
    for entry in settings:
        key, equals, value = entry.partition("=")
        values = split(value)
        if not equals or not key or "" in values[:-1] or (len(values) > 1 and not values[-1]):
            raise ConfigError(f"{entry!r} sets nothing: write key=value, or key=a,b for several")
        if len(values) > 1 and key in axes:
            raise ConfigError(f"{key} is given twice: write its values side by side, as in {key}=a,b")
        if len(values) > 1:
            axes[key] = [_value(each) for each in values]
        else:
            sets.append(entry)
    if not axes:
        raise ConfigError("no key has several values: write one as key=a,b, such as model.width=64,96")
    numbers = [1337 + i for i in range(seeds)]
    sweep = Sweep(base, [grid(axes)], path.stem, sets, numbers)
    sweep.members()
    summary = f"{' × '.join(axes)}, on {base}"
    shown = {"sets": pformat(sets, width=100), "axes": pformat(axes, width=100, sort_dicts=False), "seeds": numbers}
    write_bytes(path, FILE.format(summary=summary, base=base, **shown).encode())
    return sweep


def split(text: str) -> list[str]:
    """Split values at commas, but not inside quotes, brackets or braces."""
    parts, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == '"'
        depth += 0 if quoted else (character in "[{") - (character in "]}")
        if character == "," and not quoted and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
