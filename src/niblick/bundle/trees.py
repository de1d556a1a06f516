"""Questions to trees alone: what they read and assign, whether they do anything; and values written as code."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from niblick.bundle.program import (
    COMPREHENSIONS,
    children,
    tree,
)

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
PURE_METHODS = {
    "get",
    "items",
    "keys",
    "values",
    "tolist",
    "prod",
    "pairwise",
    "numel",
    "stat",
    "state_dict",
    "modules",
    "parameters",
}
"""Methods, and functions of modules, of which that is so too."""


def code_of(function: ast.AST) -> list[ast.stmt]:
    """The body of a function without docstring and pass."""
    body = function.body if isinstance(function.body, list) else [ast.Expr(function.body)]  # type: ignore[attr-defined]
    text = [n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    return [n for n in body if n not in text and not isinstance(n, ast.Pass)]


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


def is_same(target: ast.expr, value: ast.expr) -> bool:
    """Whether a statement that assigns the one to the other changes nothing."""
    return type(target) is type(value) and ast.unparse(target) == ast.unparse(value)


def is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool) or (isinstance(value, str | int | float) and len(repr(value)) < 40)


def is_pure(node: ast.AST | None) -> bool:
    """Whether evaluating an expression does nothing but give a value (reading attributes counts as that)."""
    if node is None:
        return True
    if isinstance(node, ast.Lambda):
        return True
    if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in PURE):
        return False
    if isinstance(node, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
        return False
    return all(is_pure(part) for part in children(node))


def targets_of(node: ast.stmt) -> set[str] | None:
    """The locals that a statement assigns, if it does nothing else."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    names: set[str] = set()
    for target in targets:
        for part in [target] if isinstance(target, ast.Name) else getattr(target, "elts", [None]):
            if not isinstance(part, ast.Name):
                return None
            names.add(part.id)
    return names or None


def reads(function: ast.AST) -> set[str]:
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


def parameters(function: ast.AST) -> set[str]:
    arguments = function.args  # type: ignore[attr-defined]
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {a.arg for a in every if a}


def lists(nodes: list[ast.AST]) -> list[list[ast.stmt]]:
    found = []
    for part in nodes:
        if not isinstance(part, ast.stmt | ast.ExceptHandler | ast.match_case) or isinstance(part, ast.ClassDef):
            continue
        for name in ("body", "orelse", "finalbody"):
            value = getattr(part, name, None)
            if isinstance(value, list) and value:
                found.append(value)
    return found


def is_empty_dict(node: ast.expr) -> bool:
    return isinstance(node, ast.Dict) and not node.keys


def copied(node: ast.expr) -> ast.expr:
    """A copy of an expression, in which names mean what they mean in it."""

    def copy(value: Any) -> Any:
        if isinstance(value, list):
            return [copy(item) for item in value]
        if not isinstance(value, ast.AST):
            return value
        new = type(value)(**{name: copy(getattr(value, name, None)) for name in value._fields})
        if getattr(value, "_meaning", None) is not None:
            new._meaning = value._meaning  # type: ignore[attr-defined]
        return ast.copy_location(new, value) if hasattr(value, "lineno") else new

    found: ast.expr = copy(node)
    return found


def is_chain(node: ast.AST) -> bool:
    """Whether an expression is a constant, a name, or an attribute of such."""
    return isinstance(node, ast.Name | ast.Constant) or (isinstance(node, ast.Attribute) and is_chain(node.value))


def sides(node: ast.expr) -> list[ast.expr]:
    """What is put together by |."""
    joins = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)
    return sides(node.left) + sides(node.right) if joins else [node]  # type: ignore[attr-defined]


class Replace(ast.NodeTransformer):
    """Puts expressions where names are read."""

    def __init__(self, new: dict[str, ast.expr]) -> None:
        self.new = new

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return copied(self.new[node.id]) if node.id in self.new and isinstance(node.ctx, ast.Load) else node
