"""Functions of one expression that are called in one place are written there.

What an abstraction is for, one config seldom needs: what is left of it then is a name for a single call.
"""

from __future__ import annotations

import ast
from typing import Any

from niblick.bundle.binding import bind
from niblick.bundle.live import VIRTUAL, Live
from niblick.bundle.program import COMPREHENSIONS, Context, Definition, Function, Outside, bound, forget, tree
from niblick.bundle.trees import Replace, code_of, copied, is_chain
from niblick.bundle.values import Values

LONGEST = 100
"""Characters of an expression that is still written where its function was called."""
SHORT = 25
"""The same where it was called in several places."""


def inline(live: Live, values: Values, roots: list[Definition]) -> bool:
    """Write functions of one expression where their only call is, in place. Returns whether there were any."""
    changed: set[ast.AST] = set()
    for function, context in list(live.functions()):
        sites = values.sites.get(function, [])
        if not sites or function in live.seen.passed_on or function in changed or function.decorator_list:
            continue
        if any(c.module in live.scripts for c in (context, *(where for _, where, _ in sites))):
            continue
        if function.name in VIRTUAL or function.name.startswith("__") or any(function is r.node for r in roots):
            continue
        places = []
        for call, where, skip in sites:
            outer = where.functions[0] if where.functions else None
            alone = outer is not None and outer not in changed and outer is not function
            new = None
            if alone and _certain(live, values, call, where, function):
                new = _expression(live, values, function, context, call, where, skip, len(sites) > 1)
            if outer is None or new is None:
                break
            places.append((outer, _Place(call, new, statement=isinstance(code_of(function)[0], ast.Expr))))
        if len(places) < len(sites):
            continue
        for outer, place in places:
            place.visit(outer)
            forget(outer)
            changed |= {outer, function}
    return bool(changed)


def _certain(live: Live, values: Values, call: ast.Call, where: Context, function: Function) -> bool:
    """Whether a call can be of this function alone, and of no other object's method of that name."""
    if values.targets.get(call) != [function]:
        return False
    if isinstance(live.program.meaning(call.func, where), Definition):
        return True
    if not (isinstance(call.func, ast.Attribute) and is_chain(call.func.value)):
        return False
    cls = values.class_of(values.value(call.func.value, where))
    methods = [c.methods().get(call.func.attr) for c in (live.program.ancestors(cls) if cls else ())]
    return next((m for m in methods if m is not None), None) is function


def _expression(
    live: Live,
    values: Values,
    function: Function,
    context: Context,
    call: ast.Call,
    where: Context,
    skip: bool,
    several: bool,
) -> ast.expr | None:
    """What stands for the call; None where it cannot be written so."""
    body = code_of(function)
    value = getattr(body[0], "value", None) if len(body) == 1 and isinstance(body[0], ast.Return | ast.Expr) else None
    pairs = bind(call, function, skip)
    if not isinstance(value, ast.expr) or pairs is None or len(ast.unparse(value)) > (SHORT if several else LONGEST):
        return None
    given: dict[str, ast.expr] = dict(pairs)
    if any(name not in pairs.given and not isinstance(node, ast.Constant) for name, node in given.items()):
        return None
    if skip:
        given[function.args.args[0].arg] = call.func.value  # type: ignore[attr-defined]
    value = copied(value)
    parts = tree(value)
    hidden = set().union(*(_names_bound(part) for part in parts))
    if any(isinstance(p, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr) for p in parts) or hidden & set(given):
        return None
    if hidden & {n.id for node in given.values() for n in tree(node) if isinstance(n, ast.Name)}:
        return None
    if not _outside_names(live, parts, given, hidden, context, function, where):
        return None
    plain = [name for name, node in given.items() if not is_chain(node)]
    if len(plain) > 1 or not all(_evaluated_alike(value, name, parts) for name in plain):
        return None
    replaced: ast.expr = Replace(given).visit(value)
    return replaced


def _names_bound(part: ast.AST) -> set[str]:
    """Names that a comprehension or lambda binds."""
    if isinstance(part, COMPREHENSIONS):
        return {n.id for g in part.generators for n in tree(g.target) if isinstance(n, ast.Name)}
    return set(bound(part)) if isinstance(part, ast.Lambda) else set()


def _outside_names(
    live: Live,
    parts: list[ast.AST],
    given: dict[str, ast.expr],
    hidden: set[str],
    context: Context,
    function: Function,
    where: Context,
) -> bool:
    """Whether names of the module mean the same where the call stands; notes what they mean."""
    inside = context.inside(function)
    taken = set().union(*(bound(f) for f in where.functions))
    if hidden & taken:
        return False
    for part in parts:
        if isinstance(part, ast.Attribute):
            live.program.meaning(part, inside)
        if not isinstance(part, ast.Name) or part.id in given or part.id in hidden:
            continue
        meaning = live.program.meaning(part, inside)
        if part.id in taken or not isinstance(part.ctx, ast.Load):
            return False
        if isinstance(meaning, Outside):
            here = live.program.find(where.module, part.id)
            if here is None:
                where.module.outside[part.id] = meaning
            elif here != meaning:
                return False
    return True


def _evaluated_alike(value: ast.expr, name: str, parts: list[ast.AST]) -> bool:
    """Whether an argument that may do something is evaluated once, and before all else that may."""
    uses = [n for n in parts if isinstance(n, ast.Name) and n.id == name]
    late = (ast.Lambda, ast.IfExp, ast.BoolOp, *COMPREHENSIONS)
    inside = [part for part in parts if any(n is uses[0] for n in tree(part))] if len(uses) == 1 else []
    calls = [part for part in parts if isinstance(part, ast.Call)]
    return len(uses) == 1 and not any(isinstance(p, late) for p in inside) and all(c in inside for c in calls)


class _Place(ast.NodeTransformer):
    """Puts an expression in the place of a call."""

    def __init__(self, call: ast.Call, new: ast.expr, statement: bool) -> None:
        self.call, self.new, self.statement, self.found = call, new, statement, False

    def visit_Expr(self, node: ast.Expr) -> Any:
        if node.value is self.call:
            node.value, self.found = self.new, True
            return node
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> Any:
        if node is self.call and not self.statement:
            self.found = True
            return self.new
        return self.generic_visit(node)
