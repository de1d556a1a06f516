"""Who calls whom, as far as that can be told."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from niblick.bundle.binding import (
    Arguments,
    bind,
    fits,
    is_plain_function,
    is_static,
)
from niblick.bundle.facts import Facts, Instance, Seen, Value
from niblick.bundle.program import FUNCTIONS, Context, Definition, Function, Program


class Calls:
    """All calls of live code with the functions of the program that they can be of.

    `seen` is what a look at all live code found, `before` what was known before the program was simplified last.
    """

    def __init__(self, program: Program, facts: Facts, seen: Seen, before: Mapping[Any, Value] | None = None) -> None:
        self.program, self.facts, self.seen = program, facts, seen
        self._memo: dict[Any, Value] = {}
        self._running: set[Any] = set()
        self._bound: dict[tuple[ast.Call, ast.AST], Arguments | None] = {}
        self._before = dict(before or {})
        self._callable: dict[Any, list[Function]] = {}
        self.sites: dict[ast.AST, list[tuple[ast.Call, Context, bool]]] = {}
        self.targets: dict[ast.Call, list[ast.AST]] = {}
        self._find_sites()

    def _find_sites(self) -> None:
        """Who calls whom. Objects that are called could be of any class with `forward` or `__call__`."""
        methods: dict[str, list[tuple[Definition, Function]]] = {}
        for cls in self.seen.classes:
            for name, method in cls.methods().items():
                methods.setdefault(name, []).append((cls, method))
        fields = {field.target.id for cls in self.seen.classes for field in cls.fields()}  # type: ignore[union-attr]
        held = fields | set(self.seen.stores)  # attributes in which the program keeps something
        for call, context in self.seen.calls:
            found: list[tuple[ast.AST, bool]] = []
            target = self.program.meaning(call.func, context)
            if isinstance(target, Definition) and isinstance(target.node, FUNCTIONS):
                found = [(target.node, False)]
            elif isinstance(target, Definition) and isinstance(target.node, ast.ClassDef):
                own = [c.methods()["__init__"] for c in self.program.ancestors(target) if "__init__" in c.methods()]
                found = [(own[0], True)] if own else []
            elif (made := self._of_known_class(call, context)) is not None:
                found = made
            elif isinstance(call.func, ast.Attribute):
                named = self._methods(call.func, context, methods)
                found = [(m, not is_static(m)) for m in named if fits(call, m)]
                free = self.program.meaning(call.func.value, context) is None
                if not found and free and call.func.attr in held:
                    wild = self._called(call, context, methods)  # what an attribute holds may be called
                    found = [(m, True) for m in wild]
            elif target is None and not (isinstance(call.func, ast.Name) and is_plain_function(call.func, context)):
                found = [(m, True) for m in self._called(call, context, methods)]
            self.targets[call] = [f for f, _ in found]
            for function, skip in found:
                self.sites.setdefault(function, []).append((call, context, skip))

    def _of_known_class(self, call: ast.Call, context: Context) -> list[tuple[ast.AST, bool]] | None:
        """Methods of the class that the object is known to be of, from before; None if it is not known."""
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        owner = call.func.value if isinstance(call.func, ast.Attribute) else call.func
        for node, names in ((owner, [method]), (call.func, ["forward", "__call__"])):
            value = self._before.get((node, context.functions))
            cls = value.cls if isinstance(value, Instance) else None
            if cls is None or names == [""]:
                continue
            below = [c for c in self.seen.classes if c is not cls and cls in self.program.ancestors(c)]
            family = [cls, *below]
            found = {}
            for member in family:
                for ancestor in self.program.ancestors(member):
                    name = next((n for n in names if n in ancestor.methods()), None)
                    if name:
                        found[ancestor.methods()[name]] = not is_static(ancestor.methods()[name])
                        break
            if found:
                return list(found.items())
        return None

    def _methods(
        self, func: ast.Attribute, context: Context, methods: dict[str, list[tuple[Definition, Function]]]
    ) -> list[Function]:
        named = methods.get(func.attr, [])
        if isinstance(func.value, ast.Call) and ast.unparse(func.value.func) == "super" and context.cls:
            above = self.program.ancestors(context.cls)[1:]
            return [c.methods()[func.attr] for c in above if func.attr in c.methods()][:1]
        return [m for _, m in named]

    def _called(
        self, call: ast.Call, context: Context, methods: dict[str, list[tuple[Definition, Function]]]
    ) -> list[Function]:
        most = len(call.args) + len(call.keywords)
        shape = (
            most,
            len(call.args),
            frozenset(k.arg for k in call.keywords),
            any(isinstance(a, ast.Starred) for a in call.args),
        )
        if shape not in self._callable:
            found = [m for name in ("forward", "__call__") for _, m in methods.get(name, [])]
            self._callable[shape] = [
                m for m in found if len(m.args.args) > most - len(m.args.kwonlyargs) and bind(call, m, True)
            ]
        return self._callable[shape]
