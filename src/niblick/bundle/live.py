"""What of a program is reached from its roots: definitions, methods of classes, names from outside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from niblick.bundle.binding import alternatives
from niblick.bundle.facts import FOREIGN, Facts, Instance, Known, Seen
from niblick.bundle.program import (
    FUNCTIONS,
    Context,
    Definition,
    Function,
    Module,
    Outside,
    Program,
    tree,
    walk,
    walked,
)

VIRTUAL = {"forward", "backward"}
"""Methods that torch calls."""


class Live:
    """What is reached: definitions, and the methods of classes; and what was seen on the way."""

    def __init__(
        self,
        program: Program,
        facts: Facts,
        roots: list[Definition],
        scripts: list[Module],
        known: dict[Any, Any] | None = None,
    ) -> None:
        self.program, self.facts, self.scripts, self._known = program, facts, scripts, known or {}
        self.definitions: dict[Definition, None] = {}
        self.methods: set[ast.AST] = set()
        self.outside: dict[Module, set[str]] = {}
        self.attributes: set[str] = set()
        self.seen = Seen()
        self.words: set[str] = set()
        self.handed_on: set[Definition] = set()
        self.asked_about: set[object] = set()
        self._keys: set[ast.AST] = set()
        self._uncalled: set[tuple[Definition | None, str]] = set()
        self._anywhere: set[str] = set()
        self._on_objects: dict[Definition, set[str]] = {}
        self._asked: dict[tuple[Definition, str], None] = {}
        self._of_classes: dict[Definition, set[str]] = {}
        self._todo: list[tuple[ast.AST, Context]] = [
            (effect, Context(module)) for module in scripts for effect in module.effects
        ]
        for root in roots:
            self._reach(root)
        while self._todo or self._more_methods():
            node, context = self._todo.pop()
            self._look(node, context)
        for cls in self.seen.classes:
            family = [None, *self.family(cls)]
            uncalled = [m for name, m in cls.methods().items() if any((c, name) in self._uncalled for c in family)]
            self.seen.passed_on |= set(uncalled)

    def _reach(self, definition: Definition) -> None:
        if definition in self.definitions:
            return
        self.definitions[definition] = None
        node, context = definition.node, Context(definition.module)
        if not isinstance(node, ast.ClassDef):
            self._todo.append((node, context))
            return
        self.seen.classes.add(definition)
        for base in node.bases:  # deriving from a class makes no object of it
            target = self.program.meaning(base, context)
            if isinstance(target, Definition):
                self._reach(target)
            else:
                self._todo.append((base, context))
        self._todo += [(part, context) for part in (*node.keywords, *node.decorator_list)]
        inside = Context(definition.module, definition)
        self._todo += [(part, inside) for part in node.body if not isinstance(part, FUNCTIONS)]

    def _more_methods(self) -> bool:
        below: dict[Definition, list[Definition]] = {}
        for cls in self.seen.classes:
            for base in self.program.ancestors(cls):
                below.setdefault(base, []).append(cls)
        for base, attribute in self._asked:
            for cls in (*self.program.ancestors(base), *below.get(base, ())):
                self._on_objects.setdefault(cls, set()).add(attribute)
        for cls in self.seen.classes:
            bases = cls.node.bases  # type: ignore[attr-defined]
            optimizer = any(ast.unparse(base).endswith("Optimizer") for base in bases)
            for name, method in cls.methods().items():
                if method in self.methods or self._left_out(cls, name) or is_abstract(method):
                    continue
                special = name.startswith("__") and name.endswith("__") and name != "__reduce__"
                if name in VIRTUAL and any(ast.unparse(base).endswith("Function") for base in bases):
                    self.seen.passed_on.add(method)  # torch calls it
                elif _by_class(method) and name not in self._of_classes.get(cls, set()):
                    continue
                wanted = name in self._anywhere or name in self._on_objects.get(cls, ())
                if special or wanted or name in VIRTUAL or (optimizer and name == "step"):
                    self.methods.add(method)
                    self._todo.append((method, Context(cls.module, cls)))
        return bool(self._todo)

    def _left_out(self, cls: Definition, name: str) -> bool:
        return any(p in self.facts.left_out for p in (f"{cls.module.name}.{cls.name}.{name}", f"*.{name}"))

    def _look(self, node: ast.AST, context: Context) -> None:
        called: set[ast.AST] = set()
        weak: set[ast.AST] = set()
        looked_up: set[ast.AST] = set()
        parts = walked(node, context) if isinstance(node, FUNCTIONS) else walk(node, context)
        for part, where in parts:
            if isinstance(part, ast.Name | ast.Attribute):
                if part not in weak:
                    self._name(part, where, part in called)
                    meant = self.program.meaning(part, where)
                    if isinstance(meant, Definition) and isinstance(part.ctx, ast.Load) and part not in looked_up:
                        self.handed_on.add(meant)
                else:
                    self.asked_about.add(self.program.meaning(part, where))
            elif isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Load):
                looked_up.add(part.value)
            elif isinstance(part, ast.Constant) and isinstance(part.value, str) and part not in self._keys:
                self.words.add(part.value)
            elif isinstance(part, ast.Dict):
                self._keys |= {key for key in part.keys if key is not None}
                self._keys |= {v for k, v in zip(part.keys, part.values, strict=True) if _is_constant(k, "event")}
            elif isinstance(part, ast.Call):
                self.seen.calls.append((part, where))
                called.add(part.func)
                called |= {k.value for k in part.keywords if k.arg == "default_factory"}
                if getattr(part.func, "id", "") == "fields":
                    called |= set(part.args)  # nothing is made of a class whose fields are listed
                weak |= set(_weak(part))
                if isinstance(part.func, ast.Name) and part.func.id in ("getattr", "hasattr"):
                    named = {str(a.value) for a in part.args if isinstance(a, ast.Constant)}
                    self.attributes |= named
                    self._anywhere |= named
            elif isinstance(part, ast.Compare):
                weak |= set(_weak_comparison(part))
            elif isinstance(part, ast.Assign):
                for target in part.targets:
                    self._store(target, part.value, where)
            elif isinstance(part, ast.AnnAssign | ast.AugAssign):
                self._store(part.target, part.value if isinstance(part, ast.AnnAssign) else None, where)
            elif isinstance(part, ast.For | ast.withitem):
                self._store(part.target if isinstance(part, ast.For) else part.optional_vars, None, where)

    def _name(self, part: ast.Name | ast.Attribute, context: Context, called: bool) -> None:
        target = self.program.meaning(part, context)
        if isinstance(target, Definition):
            self._reach(target)
            if isinstance(target.node, FUNCTIONS) and not called:
                self.seen.passed_on.add(target.node)
            if isinstance(target.node, ast.ClassDef) and not called:
                self.seen.classes_passed_on.add(target)
                makers = [c.methods()["__init__"] for c in self.program.ancestors(target) if "__init__" in c.methods()]
                self.seen.passed_on |= set(makers[:1])
        elif isinstance(target, Outside):
            self.outside.setdefault(context.module, set()).add(target.bound)
        elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Load):
            self.attributes.add(part.attr)
            self._note(part, context)
            owner = self.program.meaning(part.value, context) if isinstance(part.value, ast.Name) else None
            if isinstance(part.value, ast.Name) and part.value.id in ("cls", "self"):
                owner = context.cls
            if isinstance(owner, Definition) and isinstance(owner.node, ast.ClassDef):
                for cls in self.program.ancestors(owner):
                    self._of_classes.setdefault(cls, set()).add(part.attr)
            if not called and not self._reads_property(part, context):
                self._uncalled |= {(cls, part.attr) for cls in self._classes(part.value, context)}

    def _reads_property(self, part: ast.Attribute, context: Context) -> bool:
        """Whether the object is known to be of classes which have a property of that name."""
        classes = self._classes(part.value, context)
        methods = [c.methods().get(part.attr) for cls in classes if cls for c in self.program.ancestors(cls)]
        found = [m for m in methods if m is not None]
        return None not in classes and bool(found) and all(is_property(m) for m in found)

    def _classes(self, node: ast.expr, context: Context) -> set[Definition | None]:
        """The classes that an object is known to be of; None is one that is not of the program, or not known."""
        value = self._known.get((node, context.functions))
        if value == FOREIGN or self._is_library(node, context):
            return set()
        if isinstance(value, Instance):
            return {value.cls}
        if not (isinstance(value, Known) and value.values and all(is_dataclass(v) for v in value.values)):
            return {None}
        keys = {(type(v).__module__, type(v).__qualname__) for v in value.values}
        files = self.program.files
        return {self.program.module(m).definitions.get(name) if m in files else None for m, name in keys}

    def _is_library(self, node: ast.expr, context: Context) -> bool:
        """Whether it is a module from outside, or something in one."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and isinstance(self.program.meaning(node, context), Outside)

    def _note(self, part: ast.Attribute, context: Context) -> None:
        """Remember of which classes a method is asked for: of all, where the object could be anything."""
        for cls in self._classes(part.value, context):
            if cls is None:
                self._anywhere.add(part.attr)
            else:
                self._asked[cls, part.attr] = None

    def family(self, cls: Definition) -> list[Definition]:
        """A class, those it derives from, and those that derive from it."""
        below = [c for c in self.seen.classes if c is not cls and cls in self.program.ancestors(c)]
        return [*self.program.ancestors(cls), *below]

    def reads(self, cls: Definition, name: str) -> bool:
        """Whether an attribute of objects of a class may be read somewhere."""
        return name in self._anywhere or name in self._on_objects.get(cls, ())

    def unread(self, target: ast.AST, context: Context) -> bool:
        """Whether it is an attribute of a local object that nothing reads."""
        if not (isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)):
            return False
        classes = {context.cls} if target.value.id == "self" and context.cls else self._classes(target.value, context)
        known = {cls for cls in classes if cls is not None}
        if not known or len(known) < len(classes):
            return target.attr not in self.attributes
        return not any(self.reads(cls, target.attr) for cls in known)

    def stored(self, cls: Definition, name: str) -> bool:
        """Whether an attribute of objects of a class may be set somewhere, but for fields when they are made."""
        for target, _, context in self.seen.stores.get(name, ()):
            own = isinstance(target, ast.Name) and target.id == "self" and context.cls is not None
            if not own or context.cls in self.family(cls):
                return True
        return False

    def _store(self, target: ast.AST | None, value: ast.expr | None, context: Context) -> None:
        if isinstance(target, ast.Attribute):
            self.seen.stores.setdefault(target.attr, []).append((target.value, value, context))
        elif isinstance(target, ast.Tuple | ast.List):
            pairs = zip(target.elts, value.elts, strict=False) if isinstance(value, ast.Tuple) else None
            for one, inner in pairs or ((item, None) for item in target.elts):
                self._store(one, inner, context)
        elif isinstance(target, ast.Starred):
            self._store(target.value, None, context)

    def functions(self) -> Iterator[tuple[Function, Context]]:
        """All functions and methods that are alive."""
        for definition in self.definitions:
            context = Context(definition.module)
            if isinstance(definition.node, FUNCTIONS):
                yield definition.node, context
            elif isinstance(definition.node, ast.ClassDef):
                for method in definition.methods().values():
                    if method in self.methods:
                        yield method, Context(definition.module, definition)


def is_property(method: ast.AST) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list)  # type: ignore[attr-defined]


def is_abstract(method: ast.AST) -> bool:
    """Whether a method only says that derived classes must have it."""
    named = any(ast.unparse(d).endswith("abstractmethod") for d in method.decorator_list)  # type: ignore[attr-defined]
    body = [n for n in method.body if not isinstance(n, ast.Pass)]  # type: ignore[attr-defined]
    return named and all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in body)


def _is_constant(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value == value


def _by_class(method: ast.AST) -> bool:
    """Whether a method is called on its class, not on an object of it."""
    return any(isinstance(d, ast.Name) and d.id in ("classmethod", "staticmethod") for d in method.decorator_list)  # type: ignore[attr-defined]


def _weak(call: ast.Call) -> Iterator[ast.AST]:
    """Classes that are only asked about: that makes no object of them."""
    if isinstance(call.func, ast.Name) and call.func.id in ("isinstance", "issubclass") and len(call.args) == 2:
        for node in alternatives(call.args[1]):
            yield from tree(node)


def _weak_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    left = node.left
    if isinstance(left, ast.Call) and isinstance(left.func, ast.Name) and left.func.id == "type":
        for other in node.comparators:
            yield from tree(other)
