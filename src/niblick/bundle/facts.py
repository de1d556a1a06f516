"""What a config settles, what was seen of a program, and the values that its expressions can have."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from niblick.bundle.program import Context, Definition

MOST = 12
"""Values that are told apart; what can be more is anything."""

Key = tuple[str, str]
"""Module and name."""


@dataclass(frozen=True)
class Known:
    """One of a few values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Instance:
    """An object of a class of the program."""

    cls: Definition


@dataclass(frozen=True)
class Items:
    """A tuple, and what each of its items can be."""

    items: tuple[Value, ...]


@dataclass(frozen=True)
class Foreign:
    """An object of a class that is not of the program."""


FOREIGN = Foreign()

Value = Known | Instance | Items | Foreign | None
"""None: anything."""


@dataclass(frozen=True)
class Facts:
    """What a config settles."""

    configs: Mapping[Key, tuple[Any, ...]] = field(default_factory=dict)
    """All objects of config dataclasses that there will be, by class; derived classes are listed at their bases too."""
    open_fields: frozenset[tuple[Key, str]] = frozenset()
    """Fields that may be set to something else when the script runs."""
    registries: Mapping[Key, frozenset[str]] = field(default_factory=dict)
    """Dictionaries of which only some keys will be asked for."""
    computed: frozenset[Key] = frozenset()
    """Functions without side effects, which may be called on known values to see what they give."""
    covered: frozenset[str] = frozenset()
    """Functions (`module.function` or `module.Class.method`) that make config objects which are all in `configs`."""
    left_out: frozenset[str] = frozenset()
    """Methods (`module.Class.method`, any module or class as *) that are never called."""
    checks: frozenset[Key] = frozenset()
    """Functions that only look whether something is right: calls of them alone in a line are left out."""
    kept: frozenset[Key] = frozenset()
    """Classes of errors that are raised wherever they stand."""
    told: frozenset[str] = frozenset()
    """What functions are called that are told of events: dictionaries, of which others read keys by name."""
    trusted: frozenset[str] = frozenset()
    """Modules whose checks of what they are given, with errors of niblick's own, are left out."""


def joined(values: list[Value]) -> Value:
    """What can be any of these."""
    if not values or any(value is None for value in values):
        return None
    if all(isinstance(value, Known) for value in values):
        found: list[Any] = []
        for value in itertools.chain.from_iterable(v.values for v in values):  # type: ignore[union-attr]
            if not any(same(value, other) for other in found):
                found.append(value)
        return Known(tuple(found)) if len(found) <= MOST else None
    if all(isinstance(value, Items) and len(value.items) == len(values[0].items) for value in values):  # type: ignore[union-attr]
        return Items(tuple(joined(list(column)) for column in zip(*(v.items for v in values), strict=True)))  # type: ignore[union-attr]
    return values[0] if all(value == values[0] for value in values) else None


def fixed(value: Value) -> Value:
    """The value, unless it can be changed in place: then what it once was says nothing."""
    if isinstance(value, Known) and any(isinstance(v, list | dict | set) for v in value.values):
        return None
    return value


def same(a: Any, b: Any) -> bool:
    try:
        return a is b or (type(a) is type(b) and bool(a == b))
    except Exception:  # values of users' classes may refuse
        return False


@dataclass
class Seen:
    """What one look at all live code found."""

    calls: list[tuple[ast.Call, Context]] = field(default_factory=list)
    stores: dict[str, list[tuple[ast.expr, ast.expr | None, Context]]] = field(default_factory=dict)
    """Assignments to attributes by name: the object, the value (None: some other way), where."""
    classes: set[Definition] = field(default_factory=set)
    passed_on: set[ast.AST] = field(default_factory=set)
    """Functions that are named without being called: who calls them is unknown."""
    classes_passed_on: set[Definition] = field(default_factory=set)
    """Classes of which that is so."""
