"""What expressions can be, as far as a config settles it: a few known values, an object of a class, or anything.

Sound, not clever: every place that could give a name another value is looked at, whatever the order in which they run.
A parameter is what all calls give it; an attribute what all assignments to it give; a field of a config dataclass what
the configs at hand have there.
"""

from __future__ import annotations

import ast
import functools
import importlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from niblick.bundle.binding import (
    Way,
    alternatives,
    bind,
    bindings,
    is_name,
    is_replace,
    is_static,
    is_tuple,
    item,
    own_nodes,
    qualified,
)
from niblick.bundle.calls import Calls
from niblick.bundle.facts import FOREIGN, Foreign, Instance, Items, Key, Known, Value, fixed, joined
from niblick.bundle.program import Context, Definition, Function, Outside, bound, tree


class Values(Calls):
    """Evaluates expressions of a program under facts.

    `seen` is what a look at all live code found, `before` what was known before the program was simplified last.
    """

    def parameter(self, function: Function, context: Context, name: str) -> Value:
        """What a parameter can be: what its annotation says of configs, else what all calls give it."""
        return self._once(("parameter", function, name), lambda: self._parameter(function, context, name))

    def _parameter(self, function: Function, context: Context, name: str) -> Value:
        arguments = function.args
        own = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        node = next((a for a in own if a.arg == name), None)
        if node is None or isinstance(function, ast.Lambda) or len(context.functions) > 1:
            return self.annotated(node.annotation, context) if node else None
        if arguments.args and name == arguments.args[0].arg and context.cls and not is_static(function):
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
            return True if plain and not is_tuple(value.cls) else None
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
        if isinstance(op, ast.Is | ast.IsNot) and any(isinstance(v, Instance | Foreign) for v in (left, right)):
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
        target = self.program.meaning(node, context)
        for depth in reversed(range(len(context.functions) if target is None else 0)):
            if node.id in bound(context.functions[depth]):
                return self._of_local(node.id, Context(context.module, context.cls, context.functions[: depth + 1]))
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
            on_itself = isinstance(value, ast.Call) and bool(value.args) and is_name(value.args[0], name)
            if on_itself and is_replace(self.program.meaning(value.func, context)):  # type: ignore[attr-defined]
                continue  # what it sets is looked at where fields are
            if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or) and is_name(value.values[0], name):
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
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("fields", "dataclasses.fields"):
            return FOREIGN
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
            if qualified(context) in self.facts.covered:
                continue
            target = self.program.meaning(call.func, context)
            if isinstance(target, Definition) and target.key in self.facts.configs:
                found += _constructed(target, call, context)
            elif is_replace(target):
                on_self = bool(call.args) and is_name(call.args[0], "self") and context.cls is not None
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
                    if member.is_dataclass or is_tuple(member):
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
            copied = is_replace(target) or (isinstance(call.func, ast.Attribute) and call.func.attr == "_replace")
            if copied and qualified(context) not in self.facts.covered:
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
            return self._new_config(target, node, context) or self.object(target)
        if (target is None or isinstance(target, Outside)) and self._makes_foreign(node.func, context):
            return FOREIGN
        if is_replace(target) and node.args:
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

    def _makes_foreign(self, func: ast.expr, context: Context) -> bool:
        """Whether it is a class of a library: by custom those alone have capital letters."""
        root = func
        while isinstance(root, ast.Attribute):
            root = root.value
        name = (
            func.attr if isinstance(func, ast.Attribute) else getattr(self.program.meaning(func, context), "name", None)
        )
        return isinstance(self.program.meaning(root, context), Outside) and bool(name) and str(name)[0].isupper()

    def _new_config(self, cls: Definition, node: ast.Call, context: Context) -> Value:
        """The config object that a call makes, where all that it is given is known."""
        settled = cls.key in self.facts.configs and not any(key == cls.key for key, _ in self.facts.open_fields)
        if (
            not settled
            or any(isinstance(a, ast.Starred) for a in node.args)
            or any(k.arg is None for k in node.keywords)
        ):
            return None
        values = [self.value(a, context) for a in (*node.args, *(k.value for k in node.keywords))]
        count, names = len(node.args), [str(k.arg) for k in node.keywords]
        real = getattr(importlib.import_module(cls.key[0]), cls.key[1])
        return self._apply(lambda *v: real(*v[:count], **dict(zip(names, v[count:], strict=True))), values)

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
        nodes = list(own_nodes(function))
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
    own = isinstance(value, ast.Attribute) and value.attr == name and is_name(value.value, "self")
    return own and context.cls is not None and context.cls.key == key


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
