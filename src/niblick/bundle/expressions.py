"""Simplifies expressions by what is known of their values. Trees are changed in place."""

from __future__ import annotations

import ast
from typing import Any

from niblick.bundle.binding import alternatives
from niblick.bundle.facts import Facts, Known
from niblick.bundle.live import Live
from niblick.bundle.program import (
    Context,
    Definition,
    Program,
    inner_fields,
    tree,
    walk,
)
from niblick.bundle.trees import (
    PURE,
    PURE_METHODS,
    code_of,
    copied,
    is_chain,
    is_empty_dict,
    is_plain,
    is_pure,
    literal,
    sides,
    targets_of,
)
from niblick.bundle.values import Values


class Expressions:
    """Simplifies expressions; statements in them are left to who derives from it."""

    def __init__(self, program: Program, facts: Facts, live: Live, known: dict[Any, Any]) -> None:
        self.program, self.live = program, live
        self.values = Values(program, facts, live.seen, known)
        self.changed = False

    def harmless(self, node: ast.AST | None, context: Context, depth: int = 4) -> bool:
        """Whether evaluating an expression does nothing but give a value; functions of the program are looked into."""
        if node is None:
            return True
        for part, where in walk(node, context):
            if len(where.functions) > len(context.functions):
                continue  # inside a lambda, which is not called here
            if isinstance(part, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
                return False
            if isinstance(part, ast.Call) and not (isinstance(part.func, ast.Name) and part.func.id in PURE):
                target = self.program.meaning(part.func, where)
                if isinstance(part.func, ast.Attribute) and part.func.attr in PURE_METHODS:
                    continue
                function, inner = self._called(part, where, target)
                if not depth or function is None:
                    return False
                for statement in function.body:
                    value = getattr(statement, "value", None)
                    fine = targets_of(statement) is not None or isinstance(statement, ast.Return | ast.Expr | ast.Pass)
                    if not (fine and self.harmless(value, inner, depth - 1)):
                        return False
        return True

    def _called(self, call: ast.Call, context: Context, target: object) -> tuple[ast.FunctionDef | None, Context]:
        """The one function that a call is of, and its context."""
        if isinstance(target, Definition):
            found = target.node if isinstance(target.node, ast.FunctionDef) else None
            return found, Context(target.module, None, (target.node,))
        functions = self.values.targets.get(call, [])
        cls = None
        if isinstance(call.func, ast.Attribute) and len(functions) == 1:
            cls = self.values.class_of(self.values.value(call.func.value, context))
        function = functions[0] if functions else None
        if cls is None or not isinstance(function, ast.FunctionDef):
            return None, context
        owners = [c for c in self.program.ancestors(cls) if function in c.methods().values()]
        return (function, Context(owners[0].module, owners[0], (function,))) if owners else (None, context)

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

    def expression(self, node: ast.expr, context: Context, test: bool = False) -> ast.expr:
        """Simplify an expression; `test`: only whether it holds matters."""
        if isinstance(node, ast.Name | ast.Constant):
            return node
        if isinstance(node, ast.Dict):
            self._event(node, context)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.live.facts.told:
            for argument in node.args:
                for part in sides(argument):
                    part._event = True  # type: ignore[attr-defined]
                    self._event(part, context)
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
                if is_empty_dict(side):
                    self.changed = True
                    return other
        if isinstance(node, ast.JoinedStr):
            self._formatted(node)
        if isinstance(node, ast.Attribute | ast.Compare | ast.UnaryOp | ast.Subscript | ast.BinOp):
            return self._settled(node, context)
        if isinstance(node, ast.Call):
            self._isinstance(node, context)
            return self._nothing(node, context) or self._computed(node, context)
        return node

    def _settled(self, node: ast.expr, context: Context) -> ast.expr:
        """A plain value in the place of an expression that can have no other, and arithmetic that changes nothing."""
        if isinstance(node, ast.Subscript):
            return self._entry(node, context)
        if isinstance(node, ast.Attribute) and (
            not isinstance(node.ctx, ast.Load) or self.program.meaning(node, context) is not None
        ):
            return node
        if isinstance(node, ast.BinOp):
            return self._neutral(node, context)
        value = self.values.value(node, context)
        if not (isinstance(value, Known) and len(value.values) == 1 and is_plain(value.values[0]) and is_pure(node)):
            return node
        if isinstance(node, ast.UnaryOp) and value.values[0] != 0 and not isinstance(node.op, ast.Not):
            return node  # a negative number, as numbers are written
        self.changed = True
        return ast.copy_location(ast.Constant(value.values[0]), node)

    def _formatted(self, node: ast.JoinedStr) -> None:
        """Put constant texts into a formatted one."""
        kept: list[ast.expr] = []
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else None
            bare = isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None
            if bare and isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                part, self.changed = ast.copy_location(ast.Constant(inner.value), part), True
            if kept and isinstance(part, ast.Constant) and isinstance(kept[-1], ast.Constant):
                kept[-1] = ast.copy_location(ast.Constant(str(kept[-1].value) + str(part.value)), part)
            else:
                kept.append(part)
        node.values = kept

    def _neutral(self, node: ast.BinOp, context: Context) -> ast.expr:
        """x for x · 1, x + 0 and x - 0: of niblick's own code, which makes no copies that way."""
        neutral = {ast.Mult: 1, ast.Add: 0, ast.Sub: 0}.get(type(node.op))
        ours = context.module.name in self.live.facts.trusted and neutral is not None
        for side, other in ((node.right, node.left), (node.left, node.right)):
            same = isinstance(side, ast.Constant) and type(side.value) is int and side.value == neutral
            if ours and same and not (side is node.left and isinstance(node.op, ast.Sub)):
                self.changed = True
                return other
        return node

    def _entry(self, node: ast.Subscript, context: Context) -> ast.expr:
        """The entry of a registry that is asked for, where that is settled; x for x[:, :]."""
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        changed = False
        for part in parts:
            if isinstance(part, ast.Slice) and isinstance(part.lower, ast.Constant) and part.lower.value in (0, None):
                part.lower, changed = None, True
            if isinstance(part, ast.Slice) and isinstance(part.upper, ast.Constant) and part.upper.value is None:
                part.upper, changed = None, True
        several = isinstance(node.slice, ast.Tuple) and bool(parts)
        whole = (several or changed) and all(
            isinstance(p, ast.Slice) and not (p.lower or p.upper or p.step) for p in parts
        )
        if whole and isinstance(node.ctx, ast.Load) and context.module.name in self.live.facts.trusted:
            self.changed = True
            return node.value
        target = self.program.meaning(node.value, context)
        table = getattr(target.node, "value", None) if isinstance(target, Definition) else None
        if not isinstance(table, ast.Dict) or target in self.live.handed_on or not isinstance(node.ctx, ast.Load):
            return node
        assert isinstance(target, Definition)
        entries = {k.value: v for k, v in zip(table.keys, table.values, strict=True) if isinstance(k, ast.Constant)}
        key = self.values.value(node.slice, context)
        if len(entries) < len(table.keys):
            return node
        if target.key in self.live.facts.registries and len(entries) == 1:
            entry = next(iter(entries.values()))
        elif isinstance(key, Known) and len(key.values) == 1 and key.values[0] in entries:
            entry = entries[key.values[0]]
        else:
            return node
        if not is_chain(entry):
            return node
        for inner in tree(entry):
            self.program.meaning(inner, Context(target.module))  # type: ignore[arg-type]
        self.changed = True
        return copied(entry)

    def _event(self, node: ast.AST, context: Context) -> None:
        """Take out of an event what nobody reads."""
        if not isinstance(node, ast.Dict) or not self.live.facts.told:
            return
        names = [k.value if isinstance(k, ast.Constant) else None for k in node.keys]
        if "event" not in names and not getattr(node, "_event", False):
            return
        kept = [
            (k, v)
            for k, v, name in zip(node.keys, node.values, names, strict=True)
            if not isinstance(name, str) or name == "event" or name in self.live.words or not self.harmless(v, context)
        ]
        self.changed |= len(kept) < len(node.keys)
        node.keys, node.values = [k for k, _ in kept], [v for _, v in kept]

    def _nothing(self, node: ast.Call, context: Context) -> ast.expr | None:
        """None, for a call of a function that only returns it by now."""
        target = self.program.meaning(node.func, context)
        if not (isinstance(target, Definition) and isinstance(target.node, ast.FunctionDef)):
            return None
        line = code_of(target.node)[0] if len(code_of(target.node)) == 1 else None
        if not (isinstance(line, ast.Return) and isinstance(line.value, ast.Constant) and line.value.value is None):
            return None
        if target.node.decorator_list:
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

    def block(self, body: list[ast.stmt], context: Context) -> list[ast.stmt]:
        """Simplify a list of statements."""
        raise NotImplementedError
