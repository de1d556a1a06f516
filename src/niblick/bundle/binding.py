"""What calls give parameters, what is assigned to locals, and other questions to single trees."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from niblick.bundle.facts import Items, Known, Value, joined
from niblick.bundle.program import FUNCTIONS, Context, Definition, Function, bound, cached, children, tree


def item(value: Value, index: int | None) -> Value:
    """What item number `index` of a value can be; None: the value itself."""
    if index is None:
        return value
    if isinstance(value, Items):
        return value.items[index] if index < len(value.items) else None
    if isinstance(value, Known) and all(isinstance(v, tuple) and index < len(v) for v in value.values):
        return joined([Known((v[index],)) for v in value.values])
    return None


def fits(call: ast.Call, method: Function) -> bool:
    """Whether a call can be one of a method: it gives what that needs, and nothing that it does not know."""
    starred = any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
    if starred or method.args.vararg or method.args.kwarg:
        return True
    return bind(call, method, not is_static(method)) is not None


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
    return cached(function, _bindings)


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


def is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def is_replace(target: Any) -> bool:
    return getattr(target, "module", None) == "dataclasses" and getattr(target, "name", None) == "replace"


def qualified(context: Context) -> str:
    names = [getattr(f, "name", "") for f in context.functions]
    return ".".join([context.module.name, *([context.cls.name] if context.cls else []), *names[:1]])


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, but not of functions in it."""
    todo = list(function.body)  # type: ignore[attr-defined]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            todo.extend(children(node))


def is_static(function: ast.AST) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in getattr(function, "decorator_list", []))


def is_tuple(cls: Definition) -> bool:
    return any(ast.unparse(base).endswith("NamedTuple") for base in cls.node.bases)  # type: ignore[attr-defined]


def is_plain_function(name: ast.Name, context: Context) -> bool:
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
