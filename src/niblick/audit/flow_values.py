"""What is known of a value while a script is read: which text it comes from, and what has learned from that text.

A part of a text is told by the loops whose counters cut it out: `val[at : at + n]` in the first pass of a loop is
another part than in its second, and the same part when an outer loop comes round again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

_NESTED, _MOST_FIELDS = 3, 60
"""How deep attributes of attributes are looked into, and how many of them."""

Place = frozenset[tuple[object, int]]
"""(loop or cut, pass) of everything that an index depends on."""


@dataclass(frozen=True)
class Region:
    """A part of a text: of the validation text, or of the training text."""

    text: Literal["val", "train"]
    place: Place = frozenset()

    def overlaps(self, other: Region) -> bool:
        """Whether both may hold the same tokens: not if some loop was in other passes for them."""
        if self.text != other.text:
            return False
        mine, its = _passes(self.place), _passes(other.place)
        return not any(loop in its and passes.isdisjoint(its[loop]) for loop, passes in mine.items())


def _passes(place: Place) -> dict[object, set[int]]:
    found: dict[object, set[int]] = {}
    for loop, at in place:
        found.setdefault(loop, set()).add(at)
    return found


VAL, TRAIN = Region("val"), Region("train")


@dataclass(frozen=True)
class Learned:
    """A line that learned from a region, and how."""

    region: Region
    line: int
    how: str
    arms: frozenset[tuple[int, int]] = frozenset()
    """The branches of conditions it stands in: (which condition, which branch)."""

    def excludes(self, arms: Iterable[tuple[int, int]]) -> bool:
        """Whether what stands in these branches runs only where this did not: the other branch of a condition."""
        mine = dict(self.arms)
        return any(mine.get(fork, arm) != arm for fork, arm in arms)


@dataclass(frozen=True)
class Cost:
    """What some targets cost by something that may have learned: `after` is the line that had learned them before."""

    number: int
    region: Region
    line: int
    after: Learned | None = None


class Scope:
    """Names of a function, class or module, inside those of another."""

    def __init__(self, parent: Scope | None = None) -> None:
        self.parent, self.names = parent, dict[str, Value]()
        self.outer: dict[str, Scope] = {}
        """Names that `global` and `nonlocal` take from elsewhere."""

    def find(self, name: str) -> Value | None:
        """The value of a name, from here outwards."""
        scope: Scope | None = self.outer.get(name, self)
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def top(self) -> Scope:
        """The module's scope."""
        return self if self.parent is None else self.parent.top()


@dataclass(frozen=True, eq=False)
class Function:
    """A function or class of the script, where it was defined, and what a method is bound to."""

    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
    scope: Scope
    bound: Value | None = None

    @property
    def arguments(self) -> ast.arguments:
        """What a function takes; a class as such takes nothing."""
        return _NOTHING if isinstance(self.node, ast.ClassDef) else self.node.args


_NOTHING = ast.arguments([], [], None, [], [], None, [])


@dataclass(eq=False)
class Value:
    """One value while the script is read. Containers and models are changed in place, as they are in Python."""

    regions: set[Region] = field(default_factory=set)
    learned: set[Learned] = field(default_factory=set)
    costs: set[Cost] = field(default_factory=set)
    chosen: set[int] = field(default_factory=set)
    """Lines that chose this by what validation text costs."""
    trials: Place = frozenset()
    """Loops in which what was scored here was made anew."""
    place: Place = frozenset()
    makers: dict[int, Value] = field(default_factory=dict)
    """Models, weights, tables that had a part in it."""
    traits: set[str] = field(default_factory=set)
    newest: int | None = None
    """How far from the position in question the newest token in a key stands."""
    fields: dict[str, Value] = field(default_factory=dict)
    base: Value | None = None
    function: Function | None = None
    items: list[Value] | None = None
    scope: Scope | None = None
    """The names of a module of the script itself."""
    number: int | None = None
    rank: str = ""
    """For counters: "first" or "last"."""
    stop: str = ""
    """For counters: the number of passes, as it is written."""
    last: int | None = None
    """For counters: their last number, where that is known."""
    truth: bool | None = None

    @property
    def root(self) -> Value:
        """What an attribute belongs to in the end."""
        return self if self.base is None else self.base.root

    @property
    def is_state(self) -> bool:
        """Whether this may be a model, weights or a table: no text, no number, nothing with a name of its own."""
        return not (self.regions or self.function or self.scope or self.traits & {"const", "module", "text", "bool"})

    def val(self) -> list[Region]:
        """Its parts of validation text."""
        return [region for region in self.regions if region.text == "val"]

    def all_learned(self) -> set[Learned]:
        """What this, or what it is an attribute of, has learned."""
        return self.learned if self.base is None else self.learned | self.base.all_learned()

    def inner_learned(self) -> set[Learned]:
        """What this has learned, with all that is kept in its attributes: tables and memories of a model."""
        found, seen, level = set[Learned](), {id(self)}, [self]
        for _ in range(_NESTED):
            inner = [value for one in level for name, value in one.fields.items() if name != "<class>"]
            for one in level:
                found |= one.all_learned()
            level = [one for one in inner if id(one) not in seen and one.function is None][:_MOST_FIELDS]
            seen |= {id(one) for one in level}
        return found

    def take(self, other: Value) -> None:
        """Take in what another value is made of, in place."""
        self.regions |= other.regions
        self.learned |= other.all_learned()
        self.costs |= other.costs
        self.chosen |= other.chosen
        self.trials |= other.trials
        self.makers |= other.makers
        self.traits |= other.traits & KEPT
        if "<class>" in other.fields:
            self.fields = {**other.fields, **self.fields}
        if other.regions or other.costs:
            self.traits -= {"const", "text"}
            self.number = None


KEPT = {"target", "token", "dist", "onehot", "of target", "key", "matched"}
"""Traits that are handed on."""


def blend(values: Iterable[Value]) -> Value:
    """A new value made of others."""
    out = Value()
    values = list(values)
    for value in values:
        out.take(value)
        out.place |= value.place
    if values and all(value.traits & {"const"} for value in values):
        out.traits.add("const")
    return out


def const(number: int | None = None) -> Value:
    """A number, or another value that no text has a part in."""
    return Value(traits={"const"}, number=number)


def elements(value: Value, loop: object, at: int) -> Value:
    """What a loop over `value` gets in one of its passes."""
    mark = frozenset([(loop, at)])
    if value.items is not None and value.items:
        if at >= len(value.items):
            return value.items[-1]
        return value.items[at] if len(value.items) > 1 or not at else value.items[0]
    if value.is_state and not value.costs and not value.learned and "list" not in value.traits:
        return value if not value.place else _placed(value, mark)
    return _placed(value, mark)


def _placed(value: Value, mark: Place) -> Value:
    out = blend([value])
    out.place |= mark
    out.regions = {Region(region.text, region.place | mark) for region in value.regions}
    return out


def each(values: Iterable[Value]) -> Iterator[Value]:
    """All values, and those inside tuples and lists."""
    for value in values:
        yield value
        if value.items:
            yield from each(value.items)
