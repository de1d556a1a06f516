"""What expressions can be, as far as a config settles it: a few known values, an object of a class, or anything.

Sound, not clever: every place that could give a name another value is looked at, whatever the order in which they run.
A parameter is what all calls give it; an attribute what all assignments to it give; a field of a config dataclass what
the configs at hand have there.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

from niblick.bundle.program import FUNCTIONS, Context, Definition, Function, Program, bound, children, tree

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


Value = Known | Instance | Items | None
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
    trusted: frozenset[str] = frozenset()
    """Modules whose checks of what they are given, with errors of niblick's own, are left out."""


def joined(values: list[Value]) -> Value:
    """What can be any of these."""
    if not values or any(value is None for value in values):
        return None
    if all(isinstance(value, Known) for value in values):
        found: list[Any] = []
        for value in itertools.chain.from_iterable(v.values for v in values):  # type: ignore[union-attr]
            if not any(_same(value, other) for other in found):
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


def _same(a: Any, b: Any) -> bool:
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


class Values:
    """Evaluates expressions of a program under facts.

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

    # Calls

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
                found = [(m, not _static(m)) for m in named if _fits(call, m)]
                free = self.program.meaning(call.func.value, context) is None
                if not found and free and call.func.attr in held:
                    wild = self._called(call, context, methods)  # what an attribute holds may be called
                    found = [(m, True) for m in wild]
            elif target is None and not (isinstance(call.func, ast.Name) and _is_plain_function(call.func, context)):
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
                        found[ancestor.methods()[name]] = not _static(ancestor.methods()[name])
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

    def parameter(self, function: Function, context: Context, name: str) -> Value:
        """What a parameter can be: what its annotation says of configs, else what all calls give it."""
        return self._once(("parameter", function, name), lambda: self._parameter(function, context, name))

    def _parameter(self, function: Function, context: Context, name: str) -> Value:
        arguments = function.args
        own = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        node = next((a for a in own if a.arg == name), None)
        if node is None or isinstance(function, ast.Lambda) or len(context.functions) > 1:
            return self.annotated(node.annotation, context) if node else None
        if arguments.args and name == arguments.args[0].arg and context.cls and not _static(function):
            return self.object(context.cls)
        given = self._given(function, context, name)
        return self.annotated(node.annotation, context) if given is None else given

    def _given(self, function: Function, context: Context, name: str) -> Value:
        sites = self.sites.get(function, [])
        if function in self.seen.passed_on or not sites:
            return None
        values: list[Value] = []
        for call, where, skip in sites:
            if (call, function) not in self._bound:
                self._bound[call, function] = bind(call, function, skip)
            pairs = self._bound[call, function]
            if pairs is None:
                return None
            value = self.value(pairs[name], where if name in pairs.given else Context(context.module))
            if value is None:
                return None
            values.append(value)
        return joined(values)

    def annotated(self, annotation: ast.expr | None, context: Context) -> Value:
        """What an annotation says: the configs of that class, or an object of a class of the program."""
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            annotation = ast.parse(annotation.value, mode="eval").body
        if isinstance(annotation, ast.BinOp):
            sides = [self.annotated(side, context) for side in (annotation.left, annotation.right)]
            # There are no objects of a class that is never made.
            sides = [s for s in sides if not (isinstance(s, Instance) and not self._alive(s.cls))] or sides
            return joined(sides) if all(isinstance(side, Known) for side in sides) or len(sides) == 1 else None
        if isinstance(annotation, ast.Constant) and annotation.value is None:
            return Known((None,))
        if isinstance(annotation, ast.Name | ast.Attribute):
            target = self.program.meaning(annotation, Context(context.module))
            if isinstance(target, Definition) and isinstance(target.node, ast.ClassDef):
                return self.object(target)
        return None

    def _alive(self, cls: Definition) -> bool:
        return any(cls in self.program.ancestors(c) for c in self.seen.classes)

    def object(self, cls: Definition) -> Value:
        """An object of a class: one of the configs, if those are known."""
        if any(ast.unparse(base).endswith("Protocol") for base in cls.node.bases):  # type: ignore[attr-defined]
            return None  # whatever has such methods
        known = self.facts.configs.get(cls.key)
        return Known(known) if known is not None else Instance(cls)

    # Expressions

    def truth(self, node: ast.expr, context: Context) -> bool | None:
        """Whether a condition holds; None where that is open."""
        if isinstance(node, ast.BoolOp):
            stops = isinstance(node.op, ast.Or)
            for operand in node.values:
                if self.truth(operand, context) is stops:
                    return stops
                if any(isinstance(part, ast.Call | ast.NamedExpr) for part in tree(operand)):
                    break  # it may do something
        value = self.value(node, context)
        if isinstance(value, Known):
            try:
                found = {bool(v) for v in value.values}
            except Exception:  # values of users' classes may refuse
                return None
            return found.pop() if len(found) == 1 else None
        if isinstance(value, Instance):
            plain = not any(
                m in c.methods() for c in self.program.ancestors(value.cls) for m in ("__len__", "__bool__")
            )
            return True if plain and not _is_tuple(value.cls) else None
        return None

    def value(self, node: ast.expr, context: Context) -> Value:
        """What an expression can be."""
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            return None
        return self._once((node, context.functions), lambda: method(node, context))

    def _once(self, key: Any, compute: Callable[[], Value]) -> Value:
        if key in self._memo:
            return self._memo[key]
        if key in self._running:  # it hangs on itself: what was known of it before holds still
            return self._before.get(key)
        self._running.add(key)
        try:
            found = compute()
        finally:
            self._running.discard(key)
        if found is None:
            found = self._before.get(key)
        self._memo[key] = found
        return found

    @property
    def known(self) -> dict[Any, Value]:
        """All that was found out: where the program is only simplified, it stays true."""
        return {key: value for key, value in self._memo.items() if value is not None}

    def _constant(self, node: ast.Constant, context: Context) -> Value:
        return Known((node.value,))

    def _tuple(self, node: ast.Tuple | ast.List, context: Context) -> Value:
        items = [self.value(item, context) for item in node.elts]
        if not all(isinstance(item, Known) and len(item.values) == 1 for item in items):
            starred = any(isinstance(item, ast.Starred) for item in node.elts)
            return Items(tuple(items)) if isinstance(node, ast.Tuple) and not starred else None
        kind = tuple if isinstance(node, ast.Tuple) else list
        return Known((kind(item.values[0] for item in items),))  # type: ignore[union-attr]

    _list = _tuple

    def _lambda(self, node: ast.Lambda, context: Context) -> Value:
        return Known((node,))  # nothing but itself

    def _dict(self, node: ast.Dict, context: Context) -> Value:
        return Known(({},)) if not node.keys else None

    def _ifexp(self, node: ast.IfExp, context: Context) -> Value:
        truth = self.truth(node.test, context)
        sides = [node.body] if truth else [node.orelse] if truth is False else [node.body, node.orelse]
        return joined([self.value(side, context) for side in sides])

    def _boolop(self, node: ast.BoolOp, context: Context) -> Value:
        stops = isinstance(node.op, ast.Or)  # the truth that ends it
        possible: list[Value] = []
        for operand in node.values[:-1]:
            truth = self.truth(operand, context)
            if truth is stops:
                return joined([*possible, self.value(operand, context)])
            if truth is None:
                possible.append(self._filtered(operand, context, stops))
        return joined([*possible, self.value(node.values[-1], context)])

    def _filtered(self, operand: ast.expr, context: Context, truth: bool) -> Value:
        value = self.value(operand, context)
        return Known(tuple(v for v in value.values if bool(v) is truth)) if isinstance(value, Known) else None

    def _unaryop(self, node: ast.UnaryOp, context: Context) -> Value:
        if isinstance(node.op, ast.Not):
            truth = self.truth(node.operand, context)
            return None if truth is None else Known((not truth,))
        return self._apply(lambda v: -v if isinstance(node.op, ast.USub) else +v, [self.value(node.operand, context)])

    def _compare(self, node: ast.Compare, context: Context) -> Value:
        if len(node.ops) != 1:
            return None
        if isinstance(node.left, ast.Call) and isinstance(node.left.func, ast.Name) and node.left.func.id == "type":
            cls = self.program.meaning(node.comparators[0], context)
            absent = isinstance(cls, Definition) and isinstance(cls.node, ast.ClassDef) and cls not in self.seen.classes
            return Known((isinstance(node.ops[0], ast.IsNot | ast.NotEq),)) if absent else None
        left, right, op = self.value(node.left, context), self.value(node.comparators[0], context), node.ops[0]
        nothing = (Known((None,)),)
        if isinstance(op, ast.Is | ast.IsNot) and (isinstance(left, Instance) or isinstance(right, Instance)):
            return Known((isinstance(op, ast.IsNot),)) if left in nothing or right in nothing else None
        operation = _COMPARISONS.get(type(op))
        return self._apply(operation, [left, right]) if operation else None

    def _apply(self, function: Callable[..., Any], arguments: list[Value]) -> Value:
        """What a function gives on all combinations of known arguments."""
        if not all(isinstance(a, Known) for a in arguments):
            return None
        combinations = list(itertools.islice(itertools.product(*(a.values for a in arguments)), 64 + 1))  # type: ignore[union-attr]
        if len(combinations) > 64:
            return None
        try:
            return joined([Known((function(*one),)) for one in combinations])
        except Exception:  # whatever it raises, it would raise when the script runs
            return None

    def _name(self, node: ast.Name, context: Context) -> Value:
        for depth in reversed(range(len(context.functions))):
            if node.id in bound(context.functions[depth]):
                return self._of_local(node.id, Context(context.module, context.cls, context.functions[: depth + 1]))
        target = self.program.find(context.module, node.id)
        if isinstance(target, Definition) and isinstance(target.node, ast.Assign | ast.AnnAssign):
            if target.key in self.facts.registries or not target.node.value:
                return None
            simple = isinstance(target.node, ast.AnnAssign) or isinstance(target.node.targets[0], ast.Name)
            return self.value(target.node.value, Context(target.module)) if simple else None
        return None

    def _of_local(self, name: str, context: Context) -> Value:
        function: Any = context.functions[-1]
        return self._once(("local", function, name), lambda: self._local(function, context, name))

    def _local(self, function: Function, context: Context, name: str) -> Value:
        """What a local can be: the parameter, and whatever is assigned to it anywhere."""
        found: list[Value] = []
        arguments = function.args
        if name in [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]:
            found.append(fixed(self.parameter(function, context, name)))
        elif name in [a.arg for a in (arguments.vararg, arguments.kwarg) if a]:
            return None
        for value, way in bindings(function).get(name, []):
            if value is None:
                return None
            if isinstance(value, ast.Tuple) and way.index is not None and not way.element:
                value, way = value.elts[way.index], Way()
            on_itself = isinstance(value, ast.Call) and bool(value.args) and _is_name(value.args[0], name)
            if on_itself and _is_replace(self.program.meaning(value.func, context)):  # type: ignore[attr-defined]
                continue  # what it sets is looked at where fields are
            if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or) and _is_name(value.values[0], name):
                if found and found[0] is not None and self._certain(found[0]):
                    continue  # x = x or other, and x always holds
                value = ast.BoolOp(ast.Or(), value.values[1:]) if len(value.values) > 2 else value.values[1]
            whole = self.elements(value, context) if way.element else self.value(value, context)
            found.append(fixed(item(whole, way.index)))
        return joined(found)

    def _certain(self, value: Value) -> bool:
        """Whether a value always holds in a condition."""
        return isinstance(value, Known) and all(is_dataclass(v) or v is True for v in value.values)

    def elements(self, node: ast.expr, context: Context) -> Value:
        """What the elements of an iterable can be."""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords and node.args:
            inner = [self.elements(a, context) for a in node.args]
            if node.func.id in ("reversed", "sorted", "list", "tuple", "iter"):
                return inner[0]
            if node.func.id == "zip":
                return Items(tuple(inner))
            if node.func.id == "enumerate":
                return Items((None, inner[0]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip" and node.args:
            return Items(tuple(self.elements(a, context) for a in node.args))
        if isinstance(node, ast.Call):
            method = self._method_of(node, context)
            if method is not None and isinstance(method[1].returns, ast.Subscript):
                inside = method[1].returns.slice
                inside = inside.elts[0] if isinstance(inside, ast.Tuple) else inside
                if ast.unparse(method[1].returns.value) in ("Iterator", "Iterable", "list", "tuple"):
                    return self.annotated(inside, Context(method[0].module))
        value = self.value(node, context)
        if isinstance(value, Known):
            try:
                every = list(itertools.chain.from_iterable(value.values))
                return joined([Known((v,)) for v in every]) if every else Known(())
            except TypeError:
                return None
        return None

    def _attribute(self, node: ast.Attribute, context: Context) -> Value:
        target = self.program.meaning(node, context)
        if isinstance(target, Definition) and isinstance(target.node, ast.Assign | ast.AnnAssign) and target.node.value:
            return self.value(target.node.value, Context(target.module))
        owner = self.program.meaning(node.value, context)
        if isinstance(owner, Definition) and isinstance(owner.node, ast.ClassDef):
            return self.attribute(Instance(owner), node.attr)
        return self.attribute(self.value(node.value, context), node.attr)

    def attribute(self, value: Value, name: str) -> Value:
        """What an attribute of such an object can be."""
        if isinstance(value, Known):
            return joined([self._of_config(v, name) for v in value.values])
        if isinstance(value, Instance):
            return self._once(("attribute", value.cls, name), lambda: fixed(self._of_object(value.cls, name)))
        return None

    def _of_config(self, value: Any, name: str) -> Value:
        if not is_dataclass(value) or isinstance(value, type):
            return None
        key = (type(value).__module__, type(value).__qualname__)
        keys = {(cls.__module__, cls.__qualname__) for cls in type(value).__mro__}
        names = {f.name for f in fields(value)}
        if name in names:
            if any((k, name) in self.facts.open_fields for k in keys):
                return None
            return joined([Known((getattr(value, name),)), *self._other_values(key, name)])
        descriptor = getattr(type(value), name, None)
        if not isinstance(descriptor, property) or self._touches_open(key, name):
            return None
        try:
            return Known((getattr(value, name),))
        except Exception:  # it would raise when the script runs
            return None

    def _touches_open(self, key: Key, name: str) -> bool:
        """Whether a property of a config reads a field that is open."""
        if key[0] not in self.program.files:
            return True
        cls = self.program.module(key[0]).definitions.get(key[1])
        for ancestor in self.program.ancestors(cls) if cls else []:
            method = ancestor.methods().get(name)
            if method is not None:
                read = {n.attr for n in tree(method) if isinstance(n, ast.Attribute)}
                return any(field in read for _, field in self.facts.open_fields) or bool(
                    read & {n for _, n in self._replaced()}
                )
        return True

    def _other_values(self, key: Key, name: str) -> list[Value]:
        """Values of a field in configs that live code makes itself."""
        return [
            None if value is None else self.value(value, context)
            for own, field_name, value, context in self._made()
            if field_name in (name, "*") and own in (key, None) and not _passes_on(value, name, key, context)
        ]

    def _replaced(self) -> set[tuple[Key | None, str]]:
        return {(own, name) for own, name, value, context in self._made()}

    @functools.cache  # noqa: B019 (lives as long as one look at the program)
    def _made(self) -> list[tuple[Key | None, str, ast.expr | None, Context]]:
        """(class or any, field, value, where) for each field of a config that live code sets."""
        found: list[tuple[Key | None, str, ast.expr | None, Context]] = []
        for call, context in self.seen.calls:
            if _qualified(context) in self.facts.covered:
                continue
            target = self.program.meaning(call.func, context)
            if isinstance(target, Definition) and target.key in self.facts.configs:
                found += _constructed(target, call, context)
            elif _is_replace(target):
                on_self = bool(call.args) and _is_name(call.args[0], "self") and context.cls is not None
                own = context.cls.key if on_self and context.cls else None
                found += [(own, k.arg or "*", k.value if k.arg else None, context) for k in call.keywords]
        return found

    def _of_object(self, cls: Definition, name: str) -> Value:
        family = self._family(cls)
        found: list[Value] = []
        for member in family:
            if name in member.methods():
                return self._of_property(cls, member, name)
            for node in member.node.body:  # type: ignore[attr-defined]
                if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
                    found.append(self.value(node.value, Context(member.module)))
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                    if member.is_dataclass or _is_tuple(member):
                        given = self._given_field(member, name)
                        return self.annotated(node.annotation, Context(member.module)) if given is None else given
                    if node.value is not None:
                        found.append(self.value(node.value, Context(member.module)))
        for target, value, context in self.seen.stores.get(name, []):
            own = isinstance(target, ast.Name) and target.id == "self" and context.cls is not None
            if own and context.cls not in family:
                continue
            if not own or value is None:
                return None
            found.append(self.value(value, context))
        return joined(found)

    def _given_field(self, cls: Definition, name: str) -> Value:
        """What all calls of its class give a field, its default included."""
        makers, changes = self._of_classes()
        family = [c for c in self.seen.classes if cls in self.program.ancestors(c)]
        if name in self.seen.stores or changes & {name, None} or self.seen.classes_passed_on & set(family):
            return None
        found: list[Value] = []
        for member in family:
            own = {f.target.id: f.value for c in reversed(self.program.ancestors(member)) for f in c.fields()}  # type: ignore[union-attr]
            for call, context in makers.get(member, ()):
                if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
                    return None
                given = dict(zip(own, call.args, strict=False)) | {str(k.arg): k.value for k in call.keywords}
                node = given.get(name, own[name])
                value = self.value(node, context if name in given else Context(member.module)) if node else None
                if value is None:
                    return None
                found.append(value)
        return fixed(joined(found))

    @functools.cache  # noqa: B019 (lives as long as one look at the program)
    def _of_classes(self) -> tuple[dict[Definition, list[tuple[ast.Call, Context]]], set[str | None]]:
        """All calls of each class, and which fields some live code changes in a copy; None: any."""
        makers: dict[Definition, list[tuple[ast.Call, Context]]] = {}
        changes: set[str | None] = set()
        for call, context in self.seen.calls:
            target = self.program.meaning(call.func, context)
            if isinstance(target, Definition) and isinstance(target.node, ast.ClassDef):
                makers.setdefault(target, []).append((call, context))
            copied = _is_replace(target) or (isinstance(call.func, ast.Attribute) and call.func.attr == "_replace")
            if copied and _qualified(context) not in self.facts.covered:
                changes |= {k.arg for k in call.keywords}
        return makers, changes

    def _family(self, cls: Definition) -> list[Definition]:
        """A class, those it derives from, and those that derive from any of them."""
        above = list(self.program.ancestors(cls))
        below = [c for c in self.seen.classes if c not in above and cls in self.program.ancestors(c)]
        return above + below

    def _of_property(self, cls: Definition, member: Definition, name: str) -> Value:
        method = member.methods()[name]
        if not any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list):
            return None
        body = [node for node in method.body if not isinstance(node, ast.Expr)]
        if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
            return self.annotated(method.returns, Context(member.module))
        return self.value(body[0].value, Context(member.module, cls, (method,)))

    def _subscript(self, node: ast.Subscript, context: Context) -> Value:
        index = None if isinstance(node.slice, ast.Slice) else self.value(node.slice, context)
        if index is None and not isinstance(node.slice, ast.Slice | ast.Tuple):
            whole = self.value(node.value, context)
            if isinstance(whole, Known) and all(isinstance(v, tuple) for v in whole.values):
                return self.elements(node.value, context) or None
        return self._apply(lambda v, i: v[i], [self.value(node.value, context), index])

    def _call(self, node: ast.Call, context: Context) -> Value:
        target = self.program.meaning(node.func, context)
        if target is None and isinstance(node.func, ast.Name):
            return self._builtin(node.func.id, node, context)
        if isinstance(target, Definition) and isinstance(target.node, ast.ClassDef):
            return self.object(target)
        if _is_replace(target) and node.args:
            return self.value(node.args[0], context)
        function, inner = None, Context(context.module)
        if isinstance(target, Definition) and isinstance(target.node, ast.FunctionDef):
            function, inner = target.node, Context(target.module)
        elif (found := self._method_of(node, context)) is not None:
            member, method = found
            inner = Context(member.module, member)
            below = [c for c in self.seen.classes if c is not member and member in self.program.ancestors(c)]
            single = not any(method.name in c.methods() for c in below)
            returned = self._returned(method, inner) if single else None
            return returned or self.annotated(method.returns, Context(member.module))
        if function is None:
            return None
        assert isinstance(target, Definition)
        if target.key in self.facts.computed:
            positional = [self.value(a, context) for a in node.args]
            if not node.keywords and positional:
                called = getattr(importlib.import_module(target.key[0]), target.key[1])
                return self._apply(called, positional)
        return self._returned(function, inner) or self.annotated(function.returns, inner)

    def _method_of(self, node: ast.Call, context: Context) -> tuple[Definition, ast.FunctionDef] | None:
        """The method that a call on an object of a known class is of, as that class has it."""
        if not isinstance(node.func, ast.Attribute):
            return None
        cls = self.class_of(self.value(node.func.value, context))
        for member in self.program.ancestors(cls) if cls else []:
            method = member.methods().get(node.func.attr)
            if isinstance(method, ast.FunctionDef):
                return member, method
        return None

    def class_of(self, value: Value) -> Definition | None:
        """The class of the program that an object is of, if that is known."""
        if isinstance(value, Known) and value.values:
            keys = {(type(v).__module__, type(v).__qualname__) for v in value.values}
            key = keys.pop() if len(keys) == 1 else ("", "")
            return self.program.module(key[0]).definitions.get(key[1]) if key[0] in self.program.files else None
        return value.cls if isinstance(value, Instance) else None

    def _returned(self, function: ast.FunctionDef, context: Context) -> Value:
        """What a function can return, whatever it is given."""
        nodes = list(_own_nodes(function))
        if any(isinstance(n, ast.Yield | ast.YieldFrom) for n in nodes) or function.decorator_list or not function.body:
            return None
        inside = context.inside(function)
        found = [self.value(n.value, inside) if n.value else Known((None,)) for n in nodes if isinstance(n, ast.Return)]
        if not isinstance(function.body[-1], ast.Return | ast.Raise):
            found.append(Known((None,)))
        return fixed(joined(found))

    def _builtin(self, name: str, node: ast.Call, context: Context) -> Value:
        if name in ("isinstance", "issubclass") and len(node.args) == 2:
            return self._isinstance(node, context)
        if name in ("bool", "len", "any", "all", "tuple") and len(node.args) == 1 and not node.keywords:
            known: dict[str, Callable[[Any], Any]] = {"bool": bool, "len": len, "any": any, "all": all, "tuple": tuple}
            function = known[name]
            return self._apply(function, [self.value(node.args[0], context)])
        return None

    def _isinstance(self, node: ast.Call, context: Context) -> Value:
        """False where no object of those classes is ever made, or the object is known to be of another."""
        classes = [self.program.meaning(c, context) for c in alternatives(node.args[1])]
        own = [c for c in classes if isinstance(c, Definition)]
        if len(own) < len(classes):
            return None
        alive = {c for c in self.seen.classes if any(o in self.program.ancestors(c) for o in own)}
        return None if alive else Known((False,))


def item(value: Value, index: int | None) -> Value:
    """What item number `index` of a value can be; None: the value itself."""
    if index is None:
        return value
    if isinstance(value, Items):
        return value.items[index] if index < len(value.items) else None
    if isinstance(value, Known) and all(isinstance(v, tuple) and index < len(v) for v in value.values):
        return joined([Known((v[index],)) for v in value.values])
    return None


def _fits(call: ast.Call, method: Function) -> bool:
    """Whether a call can be one of a method: it gives what that needs, and nothing that it does not know."""
    starred = any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
    if starred or method.args.vararg or method.args.kwarg:
        return True
    return bind(call, method, not _static(method)) is not None


class Arguments(dict[str, ast.expr]):
    """What a call gives each parameter, defaults included; `given` are those that stand in the call."""

    given: frozenset[str] = frozenset()


def bind(call: ast.Call, function: ast.AST, skip: bool) -> Arguments | None:
    """Match a call's arguments with a function's parameters, the first one skipped; None if that cannot be told."""
    arguments: ast.arguments = function.args  # type: ignore[attr-defined]
    positional = [*arguments.posonlyargs, *arguments.args][1 if skip else 0 :]
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return None
    if arguments.vararg or arguments.kwarg or len(call.args) > len(positional):
        return None
    pairs = Arguments({p.arg: a for p, a in zip(positional, call.args, strict=False)})
    names = {p.arg for p in (*positional, *arguments.kwonlyargs)}
    for keyword in call.keywords:
        if keyword.arg not in names or keyword.arg in pairs:
            return None
        pairs[str(keyword.arg)] = keyword.value
    pairs.given = frozenset(pairs)
    every = [*arguments.posonlyargs, *arguments.args]
    defaults = dict(
        zip([p.arg for p in every[len(every) - len(arguments.defaults) :]], arguments.defaults, strict=True)
    )
    defaults |= {p.arg: d for p, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d}
    for name in names - pairs.keys():
        if name not in defaults:
            return None
        pairs[name] = defaults[name]
    return pairs


@dataclass(frozen=True)
class Way:
    """How a local comes of what is assigned: as one of its elements, as an item of it."""

    element: bool = False
    index: int | None = None


def bindings(function: ast.AST) -> dict[str, list[tuple[ast.expr | None, Way]]]:
    """What is assigned to each local of a function, and how; a value of None is anything. Kept until `forget`."""
    known: dict[str, list[tuple[ast.expr | None, Way]]] | None = getattr(function, "_bindings", None)
    if known is None:
        known = function._bindings = _bindings(function)  # type: ignore[attr-defined]
    return known


def _bindings(function: ast.AST) -> dict[str, list[tuple[ast.expr | None, Way]]]:
    found: dict[str, list[tuple[ast.expr | None, Way]]] = {}

    def note(target: ast.AST, value: ast.expr | None, way: Way = Way()) -> None:
        if isinstance(target, ast.Name):
            found.setdefault(target.id, []).append((value, way))
            return
        flat = isinstance(target, ast.Tuple) and all(isinstance(t, ast.Name) for t in target.elts)
        if flat and isinstance(value, ast.Tuple) and not way.element and len(target.elts) == len(value.elts):  # type: ignore[attr-defined]
            for one, inner in zip(target.elts, value.elts, strict=True):  # type: ignore[attr-defined]
                note(one, inner)
        elif flat and value is not None and way.index is None:
            for number, one in enumerate(target.elts):  # type: ignore[attr-defined]
                note(one, value, Way(way.element, number))
        else:
            for name in tree(target):
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                    found.setdefault(name.id, []).append((None, Way()))

    body = function.body  # type: ignore[attr-defined]
    todo: list[ast.AST] = list(body) if isinstance(body, list) else [body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Assign):
            for target in node.targets:
                note(target, node.value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                note(node.target, node.value)
        elif isinstance(node, ast.NamedExpr):
            note(node.target, node.value)
        elif isinstance(node, ast.AugAssign):
            note(node.target, None)
        elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
            note(node.target, node.iter, Way(True))
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            note(node.optional_vars, None)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            found.setdefault(node.name, []).append((None, Way()))
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.setdefault(node.rest, []).append((None, Way()))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for item in node.names:
                found.setdefault((item.asname or item.name).partition(".")[0], []).append((None, Way()))
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            if not isinstance(node, ast.Lambda):
                found.setdefault(node.name, []).append((None, Way()))
            # What is said to be the enclosing function's there can be assigned there.
            for inner in tree(node):
                if isinstance(inner, ast.Nonlocal | ast.Global):
                    for name in inner.names:
                        found.setdefault(name, []).append((None, Way()))
            continue
        todo.extend(children(node))
    return found


def alternatives(node: ast.expr) -> list[ast.expr]:
    """The classes that the second argument of isinstance names."""
    if isinstance(node, ast.BinOp):
        return alternatives(node.left) + alternatives(node.right)
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _constructed(
    cls: Definition, call: ast.Call, context: Context
) -> Iterator[tuple[Key | None, str, ast.expr | None, Context]]:
    """What a constructor call sets the fields of a config to, defaults included."""
    real = getattr(importlib.import_module(cls.key[0]), cls.key[1])
    names = [f.name for f in fields(real)]
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        yield cls.key, "*", None, context
        return
    given = dict(zip(names, call.args, strict=False)) | {str(k.arg): k.value for k in call.keywords}
    for field_ in fields(real):
        if field_.name in given:
            yield cls.key, field_.name, given[field_.name], context
        elif field_.default is not MISSING and isinstance(field_.default, str | int | float | bool | None):
            yield cls.key, field_.name, ast.Constant(field_.default), context
        elif field_.default == ():
            yield cls.key, field_.name, ast.Tuple([], ast.Load()), context
        elif field_.default_factory is not MISSING:
            yield cls.key, field_.name, ast.Constant(field_.default_factory()), context
        else:
            yield cls.key, field_.name, None, context


def _passes_on(value: ast.expr | None, name: str, key: Key, context: Context) -> bool:
    """Whether a field is set to what the same field of an object of the same class is."""
    own = isinstance(value, ast.Attribute) and value.attr == name and _is_name(value.value, "self")
    return own and context.cls is not None and context.cls.key == key


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_replace(target: Any) -> bool:
    return getattr(target, "module", None) == "dataclasses" and getattr(target, "name", None) == "replace"


def _qualified(context: Context) -> str:
    names = [getattr(f, "name", "") for f in context.functions]
    return ".".join([context.module.name, *([context.cls.name] if context.cls else []), *names[:1]])


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, but not of functions in it."""
    todo = list(function.body)  # type: ignore[attr-defined]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            todo.extend(children(node))


def _static(function: ast.AST) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in getattr(function, "decorator_list", []))


def _is_tuple(cls: Definition) -> bool:
    return any(ast.unparse(base).endswith("NamedTuple") for base in cls.node.bases)  # type: ignore[attr-defined]


def _is_plain_function(name: ast.Name, context: Context) -> bool:
    """Whether a name is that of a builtin, or of a function defined inside one of those around it."""
    if any(name.id in _inner(function) for function in context.functions):
        return True
    return hasattr(builtins, name.id) and not any(name.id in bound(function) for function in context.functions)


def _inner(function: ast.AST) -> frozenset[str]:
    """Names of functions that are defined inside a function."""
    known = getattr(function, "_inner", None)
    if known is None:
        nodes = [] if isinstance(function, ast.Lambda) else tree(function)[1:]
        known = frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef))
        function._inner = known  # type: ignore[attr-defined]
    return known


_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
    ast.Is: lambda a, b: a is b,
    ast.IsNot: lambda a, b: a is not b,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}
