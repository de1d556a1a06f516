"""What a config leaves of a program: dead branches, unused parameters and everything that is never reached fall away.

Step by step until nothing changes: find what is alive from the roots, then simplify that. Both only ever take away, so
each step is right whatever comes after it. Trees are changed in place.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from niblick.bundle.program import (
    COMPREHENSIONS,
    FUNCTIONS,
    Context,
    Definition,
    Function,
    Module,
    Outside,
    Program,
    bound,
    children,
    forget,
    inner_fields,
    tree,
    walk,
    walked,
)
from niblick.bundle.values import Facts, Instance, Known, Seen, Values, alternatives, bind, bindings

ROUNDS = 40
VIRTUAL = {"forward", "backward"}
"""Methods that torch calls."""
PURE = {
    "len",
    "isinstance",
    "bool",
    "int",
    "float",
    "str",
    "max",
    "min",
    "range",
    "tuple",
    "list",
    "dict",
    "sum",
    "map",
}
PURE |= {"zip", "enumerate", "sorted", "reversed", "any", "all", "set", "frozenset", "type"}
"""Builtins that do nothing but give a value."""
PURE_METHODS = {"get", "items", "keys", "values", "tolist", "prod", "pairwise", "numel"}
"""Methods, and functions of modules, of which that is so too."""


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
        self.program, self.facts, self._known = program, facts, known or {}
        self.definitions: dict[Definition, None] = {}
        self.methods: set[ast.AST] = set()
        self.outside: dict[Module, set[str]] = {}
        self.attributes: set[str] = set()
        self.seen = Seen()
        self._uncalled: set[str] = set()
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
            self.seen.passed_on |= {m for name, m in cls.methods().items() if name in self._uncalled}

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
                if method in self.methods or self._left_out(cls, name):
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
        parts = walked(node, context) if isinstance(node, FUNCTIONS) else walk(node, context)
        for part, where in parts:
            if isinstance(part, ast.Name | ast.Attribute):
                if part not in weak:
                    self._name(part, where, part in called)
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
                self._uncalled.add(part.attr)

    def _reads_property(self, part: ast.Attribute, context: Context) -> bool:
        """Whether the object is known to be of classes which have a property of that name."""
        classes = self._classes(part.value, context)
        methods = [c.methods().get(part.attr) for cls in classes if cls for c in self.program.ancestors(cls)]
        found = [m for m in methods if m is not None]
        return None not in classes and bool(found) and all(_is_property(m) for m in found)

    def _classes(self, node: ast.expr, context: Context) -> set[Definition | None]:
        """The classes that an object is known to be of; None is one that is not of the program, or not known."""
        value = self._known.get((node, context.functions))
        if isinstance(value, Instance):
            return {value.cls}
        if not (isinstance(value, Known) and value.values and all(is_dataclass(v) for v in value.values)):
            return {None}
        keys = {(type(v).__module__, type(v).__qualname__) for v in value.values}
        files = self.program.files
        return {self.program.module(m).definitions.get(name) if m in files else None for m, name in keys}

    def _note(self, part: ast.Attribute, context: Context) -> None:
        """Remember of which classes a method is asked for: of all, where the object could be anything."""
        for cls in self._classes(part.value, context):
            if cls is None:
                self._anywhere.add(part.attr)
            else:
                self._asked[cls, part.attr] = None

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


def _is_property(method: ast.AST) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list)  # type: ignore[attr-defined]


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


def specialize(program: Program, facts: Facts, roots: list[Definition], scripts: list[Module]) -> Live:
    """Simplify a program in place under facts. Returns what is alive in the end.

    `roots` are where it starts, `scripts` modules whose statements at the top are all run.
    """
    known: dict[Any, Any] = {}
    idle = 0
    for _ in range(ROUNDS):
        live = Live(program, facts, roots, scripts, known)
        _check_only(live)
        changed = _prune_registries(live) | _drop_fields(live)
        folder = _Folder(program, facts, live, known)
        changed |= folder.fold_all()
        changed |= _drop_parameters(live, folder.values)
        known = folder.values.known
        idle = 0 if changed else idle + 1
        if idle == 2:  # what hangs on itself takes a round more to be known
            break
    return live


def _check_only(live: Live) -> None:
    """Take the checks out of config dataclasses: what is baked into a script was checked when it was made."""
    for cls in live.seen.classes:
        method = cls.methods().get("__post_init__")
        frozen = cls.is_dataclass and "frozen=True" in ast.unparse(cls.node.decorator_list[0])  # type: ignore[attr-defined]
        if method is not None and frozen and cls.key in live.facts.configs and "__setattr__" not in ast.unparse(method):
            cls.node.body.remove(method)  # type: ignore[attr-defined]


def _prune_registries(live: Live) -> bool:
    changed = False
    for definition in live.definitions:
        keys = live.facts.registries.get(definition.key)
        value = getattr(definition.node, "value", None)
        if keys is None or not isinstance(value, ast.Dict):
            continue
        pairs = list(zip(value.keys, value.values, strict=True))
        kept = [(k, v) for k, v in pairs if not isinstance(k, ast.Constant) or k.value in keys]
        changed |= len(kept) < len(pairs)
        value.keys, value.values = [k for k, _ in kept], [v for _, v in kept]
    return changed


class _Folder:
    """Simplifies all live code once."""

    def __init__(self, program: Program, facts: Facts, live: Live, known: dict[Any, Any]) -> None:
        self.program, self.live = program, live
        self.values = Values(program, facts, live.seen, known)
        self.changed = False

    def fold_all(self) -> bool:
        """Simplify; returns whether anything changed."""
        changed = False
        for function, context in self.live.functions():
            inside, self.changed = context.inside(function), False
            function.body = self.block(function.body, inside) or [ast.Pass()]
            if isinstance(function.body[-1], ast.Return) and function.body[-1].value is None:
                function.body = function.body[:-1] or [ast.Pass()]
                self.changed = True
            if self.changed:
                forget(function)
            self._drop_locals(function, context)
            if self.changed:
                forget(function)
                changed = True
        for call, context in self.live.seen.calls:  # what is called is asked for when calls are looked at again
            if self.program.meaning(call.func, context) is None:
                self.values.value(call.func, context)
        return changed

    # Statements

    def block(self, body: list[ast.stmt], context: Context) -> list[ast.stmt]:
        """Simplify a list of statements."""
        kept: list[ast.stmt] = []
        for node in body:
            new = self.statement(node, context)
            if new != [node]:
                self.changed = True
            kept += new
            if kept and isinstance(kept[-1], ast.Return | ast.Raise | ast.Continue | ast.Break):
                self.changed |= node is not body[-1] or (len(new) > 1 and new[-1] is not kept[-1])
                break
        return [n for n in kept if not isinstance(n, ast.Pass)]

    def statement(self, node: ast.stmt, context: Context) -> list[ast.stmt]:
        """Simplify a statement: what stands in its place."""
        if isinstance(node, ast.Assert):
            return []
        if isinstance(node, ast.AnnAssign):  # of a local: what it is says its value
            plain = ast.Assign([node.target], node.value) if node.value else None
            return self.statement(ast.copy_location(plain, node), context) if plain else []
        if context.module.name in self.live.facts.trusted:
            if isinstance(node, ast.If) and self._only_raises(node.body, context):
                return self.block(node.orelse, context)
            tried = isinstance(node, ast.Try) and not node.finalbody
            if tried and all(self._only_raises(handler.body, context) for handler in node.handlers):  # type: ignore[attr-defined]
                return self.block(node.body + node.orelse, context)  # type: ignore[attr-defined]
        if isinstance(node, FUNCTIONS):
            node.body = self.block(node.body, context.inside(node)) or [ast.Pass()]
            return [node]
        for name, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                setattr(node, name, self.expression(value, context, test=name == "test"))
            elif isinstance(value, list) and value and isinstance(value[0], ast.expr):
                setattr(node, name, [self.expression(v, context) for v in value])
            elif isinstance(value, list) and value and isinstance(value[0], ast.stmt) and not isinstance(node, ast.If):
                setattr(node, name, self.block(value, context) or ([ast.Pass()] if name == "body" else []))
            elif isinstance(value, list):
                for part in value:
                    self.part(part, context)
        if isinstance(node, ast.If):
            return self._if(node, context)
        if isinstance(node, ast.With):
            return self._with(node, context)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and self._does_nothing(node.value, context):
            return []
        if isinstance(node, ast.Assign):
            return self._attributes(node, context)
        if isinstance(node, ast.AugAssign) and self._unread(node.target) and self.harmless(node.value, context):
            return []
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr) and _is_empty_dict(node.value):
            return []
        if isinstance(node, ast.For) and self.values.elements(node.iter, context) == Known(()):
            return []
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and not isinstance(node.value.value, str)
        ):
            return []
        return [node]

    def _only_raises(self, body: list[ast.stmt], context: Context) -> bool:
        """Whether statements do nothing but raise one of niblick's own errors, having put its message together."""
        if not body or any(_targets(part) is None for part in body[:-1]):
            return False
        last = body[-1]
        node = last.exc if isinstance(last, ast.Raise) else getattr(last, "value", None)
        if not isinstance(node, ast.Call) or not isinstance(last, ast.Raise | ast.Expr):
            return False
        target = self.program.meaning(node.func, context)
        if isinstance(last, ast.Raise):
            return isinstance(target, Definition) and target.module.name == "niblick.errors"
        if not (isinstance(target, Definition) and isinstance(target.node, ast.FunctionDef)):
            return False
        return self._only_raises(_code(target.node), Context(target.module, None, (target.node,)))

    def _does_nothing(self, call: ast.Call, context: Context) -> bool:
        """Whether a call is of a function that is empty by now."""
        functions = self.values.targets.get(call, [])
        target = self.program.meaning(call.func, context)
        known = isinstance(target, Definition) or isinstance(call.func, ast.Attribute)
        facts = self.live.facts
        if isinstance(target, Definition) and target.key in facts.checks:
            return True
        if isinstance(call.func, ast.Attribute) and f"*.{call.func.attr}" in facts.left_out:
            return True
        empty = bool(functions) and known and not any(_code(f) for f in functions)
        return empty and all(self.harmless(part, context) for part in (*call.args, *call.keywords))

    def _attributes(self, node: ast.Assign, context: Context) -> list[ast.stmt]:
        """Take out what is kept in attributes that nothing reads."""
        if len(node.targets) > 1 and all(self._unread(t) for t in node.targets) and self.harmless(node.value, context):
            return []
        if len(node.targets) != 1 or context.cls is None:
            return [node]
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            pairs = list(zip(target.elts, value.elts, strict=True))
        kept = [(t, v) for t, v in pairs if not (self._unread(t) and self.harmless(v, context))]
        if len(kept) == len(pairs):
            return [node]
        self.changed = True
        if len(kept) > 1:
            node.targets = [ast.Tuple([t for t, _ in kept], ast.Store())]
            node.value = ast.Tuple([v for _, v in kept], ast.Load())
        elif kept:
            node.targets, node.value = [kept[0][0]], kept[0][1]
        return [node] if kept else []

    def _unread(self, target: ast.expr) -> bool:
        own = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)
        return own and target.attr not in self.live.attributes  # type: ignore[attr-defined]

    def part(self, part: Any, context: Context) -> None:
        """Simplify what is neither statement nor expression: with items, handlers, cases, keywords."""
        if not isinstance(part, ast.AST):
            return
        for name, value in ast.iter_fields(part):
            if isinstance(value, ast.expr):
                setattr(part, name, self.expression(value, context))
            elif isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                setattr(part, name, self.block(value, context) or [ast.Pass()])
            elif isinstance(value, list):
                for inner in value:
                    self.part(inner, context)

    def _if(self, node: ast.If, context: Context) -> list[ast.stmt]:
        truth = self.values.truth(node.test, context)
        if truth is not None:
            return self.block(node.body if truth else node.orelse, context)
        node.body = self.block(node.body, context)
        node.orelse = self.block(node.orelse, context)
        if not node.body and not node.orelse:
            return [] if is_pure(node.test) else [ast.Expr(node.test)]
        if not node.body:
            node.test, node.body, node.orelse = ast.UnaryOp(ast.Not(), node.test), node.orelse, []
        return [node]

    def _empty_context(self, node: ast.expr, context: Context) -> bool:
        """Whether a context manager does nothing."""
        if ast.unparse(node) == "contextlib.nullcontext()":
            return True
        target = self.program.meaning(node.func, context) if isinstance(node, ast.Call) else None
        if not (isinstance(target, Definition) and isinstance(target.node, ast.FunctionDef)):
            return False
        return [ast.unparse(line) for line in _code(target.node)] == ["(yield)"] and not node.args  # type: ignore[attr-defined]

    def _with(self, node: ast.With, context: Context) -> list[ast.stmt]:
        kept = [
            item
            for item in node.items
            if item.optional_vars is not None or not self._empty_context(item.context_expr, context)
        ]
        if len(kept) < len(node.items):
            self.changed = True
            if not kept:
                return node.body
            node.items = kept
        return [node]

    def harmless(self, node: ast.AST | None, context: Context, depth: int = 4) -> bool:
        """Whether evaluating an expression does nothing but give a value; functions of the program are looked into."""
        if node is None:
            return True
        for part, where in walk(node, context):
            if isinstance(part, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
                return False
            if isinstance(part, ast.Call) and not (isinstance(part.func, ast.Name) and part.func.id in PURE):
                target = self.program.meaning(part.func, where)
                if isinstance(part.func, ast.Attribute) and part.func.attr in PURE_METHODS:
                    continue
                if not (depth and isinstance(target, Definition) and isinstance(target.node, ast.FunctionDef)):
                    return False
                inner = Context(target.module, None, (target.node,))
                for statement in target.node.body:
                    value = getattr(statement, "value", None)
                    fine = _targets(statement) is not None or isinstance(statement, ast.Return | ast.Expr | ast.Pass)
                    if not (fine and self.harmless(value, inner, depth - 1)):
                        return False
        return True

    def _drop_locals(self, function: Function, context: Context) -> None:
        """Take out assignments to locals, and functions, that nothing reads."""
        nodes = [node for node, _ in walked(function, context)]
        context = context.inside(function)
        read = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}
        read |= {name for n in nodes if isinstance(n, ast.Nonlocal | ast.Global) for name in n.names}
        added = [n for n in nodes if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)]
        read |= {n.target.id for n in added if not self.harmless(n.value, context)}  # type: ignore[union-attr]
        assigned = bindings(function) if added else {}
        for target in (n.target.id for n in added):  # type: ignore[union-attr]
            plain = [isinstance(value, ast.Constant) or value is None for value, _ in assigned.get(target, [])]
            if not all(plain) or plain.count(True) < 2 or target in _parameters(function):
                read.add(target)  # what it is added to may be known elsewhere
        for block in _lists(nodes):
            for node in list(block):
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple) and len(node.targets) == 1:
                    self._drop_items(node, node.value, read, context)
                target = _targets(node)
                unread = (
                    target is not None and not (target & read) and self.harmless(getattr(node, "value", None), context)
                )
                if isinstance(node, ast.FunctionDef) and node.name not in read and not node.decorator_list:
                    unread = True
                if isinstance(node, ast.For) and not node.orelse and all(isinstance(n, ast.Pass) for n in node.body):
                    names = {n.id for n in tree(node.target) if isinstance(n, ast.Name)}
                    unread = not (names & _reads(function)) and self.harmless(node.iter, context)
                if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and node.target.id not in read:
                    unread = True
                if unread:
                    block.remove(node)
                    self.changed = True
            if not block:
                block.append(ast.Pass())

    def _drop_items(self, node: ast.Assign, value: ast.Tuple, read: set[str], context: Context) -> None:
        """Take single locals that nothing reads out of an assignment to several."""
        target = node.targets[0]
        if not isinstance(target, ast.Tuple) or len(target.elts) != len(value.elts):
            return
        pairs = [
            (t, v)
            for t, v in zip(target.elts, value.elts, strict=True)
            if not (isinstance(t, ast.Name) and t.id not in read and self.harmless(v, context))
        ]
        if 0 < len(pairs) < len(value.elts) and not any(isinstance(t, ast.Starred) for t in target.elts):
            self.changed = True
            several = len(pairs) > 1
            node.targets = [ast.Tuple([t for t, _ in pairs], ast.Store()) if several else pairs[0][0]]
            node.value = ast.Tuple([v for _, v in pairs], ast.Load()) if several else pairs[0][1]

    # Expressions

    def expression(self, node: ast.expr, context: Context, test: bool = False) -> ast.expr:
        """Simplify an expression; `test`: only whether it holds matters."""
        if isinstance(node, ast.Name | ast.Constant):
            return node
        if isinstance(node, ast.Lambda):
            node.body = self.expression(node.body, context.inside(node))
            return node
        if isinstance(node, ast.BoolOp):
            return self._boolop(node, context, test)
        inner_test = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        for name in inner_fields(type(node)):
            value = getattr(node, name)
            if isinstance(value, ast.expr):
                new = self.expression(value, context, inner_test or name == "test")
                setattr(node, name, new)
            elif isinstance(value, list):
                items = []
                for item in value:
                    if isinstance(item, ast.expr):
                        item = self.expression(item, context)
                    elif isinstance(item, ast.comprehension):
                        self._comprehension(item, context)
                    elif isinstance(item, ast.AST):
                        self.part(item, context)
                    items.append(item)
                setattr(node, name, items)
        if isinstance(node, ast.GeneratorExp | ast.ListComp):
            empty = self.values.elements(node.generators[0].iter, context) == Known(())
            if empty:
                self.changed = True
                return ast.List([], ast.Load()) if isinstance(node, ast.ListComp) else ast.Tuple([], ast.Load())
        if isinstance(node, ast.IfExp):
            truth = self.values.truth(node.test, context)
            if truth is not None:
                self.changed = True
                return node.body if truth else node.orelse
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            for side, other in ((node.left, node.right), (node.right, node.left)):
                if _is_empty_dict(side):
                    self.changed = True
                    return other
        if isinstance(node, ast.Call):
            self._isinstance(node, context)
            return self._nothing(node, context) or self._computed(node, context)
        return node

    def _nothing(self, node: ast.Call, context: Context) -> ast.expr | None:
        """None, for a call of a function that only returns it by now."""
        target = self.program.meaning(node.func, context)
        if not (isinstance(target, Definition) and isinstance(target.node, ast.FunctionDef)):
            return None
        if [ast.unparse(line) for line in _code(target.node)] != ["return None"] or target.node.decorator_list:
            return None
        self.changed = True
        return ast.copy_location(ast.Constant(None), node)

    def _computed(self, node: ast.Call, context: Context) -> ast.expr:
        """What a call that can be made now gives, if that can be written down."""
        target = self.program.meaning(node.func, context)
        if not isinstance(target, Definition) or target.key not in self.live.facts.computed:
            return node
        value = self.values.value(node, context)
        if isinstance(value, Known) and len(value.values) == 1:
            text = literal(value.values[0])
            written = ast.parse(text, mode="eval").body if text else None
            names = [n.id for n in ast.walk(written) if isinstance(n, ast.Name)] if written else []
            if written and all(isinstance(self.program.find(context.module, name), Definition) for name in names):
                self.changed = True
                return written
        return node

    def _comprehension(self, node: ast.comprehension, context: Context) -> None:
        node.iter = self.expression(node.iter, context)
        node.ifs = [self.expression(test, context, test=True) for test in node.ifs]
        kept = [test for test in node.ifs if self.values.truth(test, context) is not True]
        self.changed |= len(kept) < len(node.ifs)
        node.ifs = kept

    def _boolop(self, node: ast.BoolOp, context: Context, test: bool) -> ast.expr:
        stops = isinstance(node.op, ast.Or)
        kept: list[ast.expr] = []
        for number, operand in enumerate(node.values):
            last = number == len(node.values) - 1
            operand = self.expression(operand, context, test)
            truth = self.values.truth(operand, context)
            if truth is stops:
                kept.append(operand)
                break
            if truth is None or (last and not (test and kept)):
                kept.append(operand)
        if len(kept) < len(node.values):
            self.changed = True
        node.values = kept
        return kept[0] if len(kept) == 1 else node

    def _isinstance(self, node: ast.Call, context: Context) -> None:
        """Classes of which there is no object are not asked about."""
        if not (isinstance(node.func, ast.Name) and node.func.id == "isinstance" and len(node.args) == 2):
            return
        known = alternatives(node.args[1])
        kept = []
        for item in known:
            target = self.program.meaning(item, context)
            if not isinstance(target, Definition) or any(
                target in self.program.ancestors(c) for c in self.live.seen.classes
            ):
                kept.append(item)
        if kept and len(kept) < len(known):
            self.changed = True
            node.args[1] = kept[0] if len(kept) == 1 else ast.Tuple(kept, ast.Load())


def _code(function: ast.AST) -> list[ast.stmt]:
    """The body of a function without docstring and pass."""
    body = function.body if isinstance(function.body, list) else [ast.Expr(function.body)]  # type: ignore[attr-defined]
    text = [n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    return [n for n in body if n not in text and not isinstance(n, ast.Pass)]


def _drop_fields(live: Live) -> bool:
    """Take out fields of dataclasses that nothing reads."""
    program, changed = live.program, False
    replaced = {
        keyword.arg
        for call, context in live.seen.calls
        if getattr(program.meaning(call.func, context), "name", "") == "replace"
        for keyword in call.keywords
    }
    sites: dict[Definition, list[tuple[ast.Call, Context]]] = {}
    for call, context in live.seen.calls:
        target = program.meaning(call.func, context)
        if isinstance(target, Definition):
            for cls in program.ancestors(target) if isinstance(target.node, ast.ClassDef) else []:
                sites.setdefault(cls, []).append((call, context))
    for cls in live.seen.classes:
        if not cls.is_dataclass or cls in live.seen.classes_passed_on:
            continue
        own = [c for c in live.seen.classes if cls in program.ancestors(c)]
        if len(own) > 1 and any(call.args for call, _ in sites.get(cls, [])):
            continue  # where derived classes are made, places of arguments mean others
        for field in cls.fields():
            name = field.target.id  # type: ignore[union-attr]
            if name in live.attributes or name in live.seen.stores or name in replaced:
                continue
            if _drop_field(live, cls, field, sites.get(cls, [])):
                changed = True
    return changed


def _drop_field(live: Live, cls: Definition, field: ast.AnnAssign, sites: list[tuple[ast.Call, Context]]) -> bool:
    ancestors = live.program.ancestors(cls)
    names = [f.target.id for c in reversed(ancestors) for f in c.fields()]  # type: ignore[union-attr]
    name, found = field.target.id, []  # type: ignore[union-attr]
    if any((c.key, name) in live.facts.open_fields for c in ancestors):
        return False
    for call, where in sites:
        if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
            if cls.key in live.facts.configs:
                continue  # made by name of what fields there are
            return False
        at = names.index(name)
        given: list[ast.AST] = [*(k for k in call.keywords if k.arg == name), *call.args[at : at + 1]]
        if given and (cls.key in live.facts.configs or not all(is_pure(g) for g in given)):
            return False
        found.append((call, where, given))
    for call, where, given in found:
        for outer in where.functions[:1]:
            forget(outer)
        call.args = [a for a in call.args if a not in given]
        call.keywords = [k for k in call.keywords if k not in given]
    cls.node.body.remove(field)  # type: ignore[attr-defined]
    if not cls.node.body:  # type: ignore[attr-defined]
        cls.node.body.append(ast.Pass())  # type: ignore[attr-defined]
    return True


def _drop_parameters(live: Live, values: Values) -> bool:
    """Take out parameters that nothing reads, or that every call gives the same plain value."""
    changed = False
    for function, context in live.functions():
        sites = values.sites.get(function, [])
        special = function.name.startswith("__") and function.name != "__init__"
        if function in live.seen.passed_on or not sites or special:
            continue
        if function.decorator_list and any("property" in ast.unparse(d) for d in function.decorator_list):
            continue
        method = context.cls is not None and bool(sites) and sites[0][2]
        # Where a call may be of another function too, only what it does not give can go.
        certain = function.name not in VIRTUAL and all(len(values.targets[call]) == 1 for call, _, _ in sites)
        own = [*(function.args.args[1 if method else 0 :] if certain else []), *function.args.kwonlyargs]
        for parameter in own:
            if _drop_parameter(function, parameter, context, sites, values):
                changed = True
                values._bound.clear()
                break  # what calls give by position has moved
    return changed


def _drop_parameter(function: Function, parameter: ast.arg, context: Context, sites: list[Any], values: Values) -> bool:
    name = parameter.arg
    uses = [(n, c) for n, c in walked(function, context) if isinstance(n, ast.Name) and n.id == name]
    used = [c for _, c in uses if function in c.functions]
    if any(not isinstance(n.ctx, ast.Load) for n, _ in uses):
        return False
    value = values.parameter(function, context, name) if used else None
    if used and not (isinstance(value, Known) and len(value.values) == 1 and _is_plain(value.values[0])):
        return False
    if any(name in bound(f) for c in used for f in c.functions if f is not function):
        return False
    bindings_ = [(call, where, bind(call, function, skip)) for call, where, skip in sites]
    for call, _, pairs in bindings_:
        if pairs is None or (name in pairs.given and (len(values.targets[call]) > 1 or not is_pure(pairs[name]))):
            return False
    for call, where, pairs in bindings_:
        assert pairs is not None
        if name in pairs.given:
            call.args = [a for a in call.args if a is not pairs[name]]
            call.keywords = [k for k in call.keywords if k.arg != name]
            for outer in where.functions[:1]:
                forget(outer)
    _remove_parameter(function.args, parameter)
    if used and isinstance(value, Known):
        _Replace(name, value.values[0]).visit(function)
    function._bound = None  # type: ignore[union-attr]
    forget(function)
    return True


def _remove_parameter(arguments: ast.arguments, parameter: ast.arg) -> None:
    if parameter in arguments.kwonlyargs:
        at = arguments.kwonlyargs.index(parameter)
        del arguments.kwonlyargs[at], arguments.kw_defaults[at]
        return
    at = arguments.args.index(parameter)
    from_end = at - len(arguments.args)
    if -from_end <= len(arguments.defaults):
        del arguments.defaults[from_end]
    del arguments.args[at]


class _Replace(ast.NodeTransformer):
    """Puts a plain value where a name was read."""

    def __init__(self, name: str, value: Any) -> None:
        self.name, self.new = name, value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(self.new), node) if node.id == self.name else node


def literal(value: Any, name: Callable[[type], str] = lambda cls: cls.__name__) -> str | None:
    """A value as code: plain ones, tuples, and dataclasses with their fields that are not at their defaults."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, tuple):
        items = [literal(item, name) for item in value]
        return None if None in items else f"({', '.join(map(str, items))}{',' * (len(items) == 1)})"
    if not is_dataclass(value) or isinstance(value, type):
        return None
    given = []
    for field in fields(value):
        own = getattr(value, field.name)
        usual = field.default_factory() if field.default_factory is not MISSING else field.default
        if usual is MISSING or own != usual or type(own) is not type(usual):
            text = literal(own, name)
            if text is None:
                return None
            given.append(f"{field.name}={text}")
    return f"{name(type(value))}({', '.join(given)})"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool) or (isinstance(value, str | int) and len(repr(value)) < 20)


def is_pure(node: ast.AST | None) -> bool:
    """Whether evaluating an expression does nothing but give a value (reading attributes counts as that)."""
    if node is None:
        return True
    for part in tree(node):
        if isinstance(part, ast.Call) and not (isinstance(part.func, ast.Name) and part.func.id in PURE):
            return False
        if isinstance(part, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
            return False
    return True


def _targets(node: ast.stmt) -> set[str] | None:
    """The locals that a statement assigns, if it does nothing else."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names: set[str] = set()
    for target in targets:
        for part in [target] if isinstance(target, ast.Name) else getattr(target, "elts", [None]):
            if not isinstance(part, ast.Name):
                return None
            names.add(part.id)
    return names or None


def _reads(function: ast.AST) -> set[str]:
    """Names that a function reads, but for those that comprehensions in it bind themselves."""
    found: set[str] = set()
    todo: list[tuple[ast.AST, frozenset[str]]] = [(function, frozenset())]
    while todo:
        node, hidden = todo.pop()
        if isinstance(node, COMPREHENSIONS):
            first = node.generators[0]
            todo.append((first.iter, hidden))
            targets = [n.id for g in node.generators for n in tree(g.target) if isinstance(n, ast.Name)]
            inner = hidden | frozenset(targets)
            parts = [part for part in children(node) if part is not first]
            todo += [(part, inner) for part in (*parts, *first.ifs)]
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in hidden:
            found.add(node.id)
        todo += [(part, hidden) for part in children(node)]
    return found


def _parameters(function: ast.AST) -> set[str]:
    arguments = function.args  # type: ignore[attr-defined]
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {a.arg for a in every if a}


def _lists(nodes: list[ast.AST]) -> list[list[ast.stmt]]:
    found = []
    for part in nodes:
        if not isinstance(part, ast.stmt | ast.ExceptHandler | ast.match_case) or isinstance(part, ast.ClassDef):
            continue
        for name in ("body", "orelse", "finalbody"):
            value = getattr(part, name, None)
            if isinstance(value, list) and value:
                found.append(value)
    return found


def _is_empty_dict(node: ast.expr) -> bool:
    return isinstance(node, ast.Dict) and not node.keys
