"""Simplifies code by what is known of its values: dead branches and everything that is never read fall away.

Trees are changed in place.
"""

from __future__ import annotations

import ast
from collections import Counter

from niblick.bundle.binding import Way, bindings, is_name
from niblick.bundle.expressions import Expressions
from niblick.bundle.facts import Known
from niblick.bundle.program import (
    COMPREHENSIONS,
    FUNCTIONS,
    Context,
    Definition,
    Function,
    bound,
    cached,
    forget,
    tree,
    walked,
)
from niblick.bundle.trees import (
    Replace,
    code_of,
    is_chain,
    is_empty_dict,
    is_plain,
    is_pure,
    is_same,
    lists,
    parameters,
    reads,
    targets_of,
)


class Folder(Expressions):
    """Simplifies all live code once."""

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
            self._drop_aliases(function, inside)
            changed |= self.changed
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
        return self._returned(kept, context)

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
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and self._unheard(node.value, context):
            return []
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and is_same(node.targets[0], node.value):
            return []
        if isinstance(node, ast.Assign):
            return self._attributes(node, context)
        if (
            isinstance(node, ast.AugAssign)
            and self.live.unread(node.target, context)
            and self.harmless(node.value, context)
        ):
            return []
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr) and is_empty_dict(node.value):
            return []
        if isinstance(node, ast.For):
            return self._for(node, context)
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant | ast.Yield):
            ours = context.module.name in self.live.facts.trusted
            return [] if ours and self.harmless(node.value, context) else [node]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return [node] if isinstance(node.value.value, str) else []
        return [node]

    def _for(self, node: ast.For, context: Context) -> list[ast.stmt]:
        """Nothing for a loop over nothing; the body alone for one over a single thing that it does not look at."""
        if self.values.elements(node.iter, context) == Known(()):
            return []
        single = isinstance(node.iter, ast.Tuple) and len(node.iter.elts) == 1 and is_chain(node.iter.elts[0])
        plain = single and isinstance(node.target, ast.Name) and not node.orelse
        if not plain or any(isinstance(n, ast.Break | ast.Continue) for n in tree(node)):
            return [node]
        names = {n.id for n in tree(context.functions[-1]) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        return [node] if node.target.id in names else node.body  # type: ignore[attr-defined]

    def _only_raises(self, body: list[ast.stmt], context: Context) -> bool:
        """Whether statements do nothing but raise one of niblick's own errors, having put its message together."""
        if not body or any(targets_of(part) is None for part in body[:-1]):
            return False
        last = body[-1]
        node = last.exc if isinstance(last, ast.Raise) else getattr(last, "value", None)
        if not isinstance(node, ast.Call) or not isinstance(last, ast.Raise | ast.Expr):
            return False
        target = self.program.meaning(node.func, context)
        if isinstance(last, ast.Raise):
            ours = isinstance(target, Definition) and target.module.name == "niblick.errors"
            return ours and target.key not in self.live.facts.kept  # type: ignore[union-attr]
        if not (isinstance(target, Definition) and isinstance(target.node, ast.FunctionDef)):
            return False
        return self._only_raises(code_of(target.node), Context(target.module, None, (target.node,)))

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
        empty = bool(functions) and known and not any(code_of(f) for f in functions)
        return empty and all(self.harmless(part, context) for part in (*call.args, *call.keywords))

    def _attributes(self, node: ast.Assign, context: Context) -> list[ast.stmt]:
        """Take out what is kept in attributes that nothing reads."""
        if (
            len(node.targets) > 1
            and all(self.live.unread(t, context) for t in node.targets)
            and self.harmless(node.value, context)
        ):
            return []
        if len(node.targets) != 1:
            return [node]
        target, value = node.targets[0], node.value
        pairs = [(target, value)]
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            pairs = list(zip(target.elts, value.elts, strict=True))
        kept = [(t, v) for t, v in pairs if not (self.live.unread(t, context) and self.harmless(v, context))]
        if len(kept) == len(pairs):
            return [node]
        self.changed = True
        if len(kept) > 1:
            node.targets = [ast.Tuple([t for t, _ in kept], ast.Store())]
            node.value = ast.Tuple([v for _, v in kept], ast.Load())
        elif kept:
            node.targets, node.value = [kept[0][0]], kept[0][1]
        return [node] if kept else []

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
        return [ast.unparse(line) for line in code_of(target.node)] == ["(yield)"] and not node.args  # type: ignore[attr-defined]

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

    def _drop_locals(self, function: Function, context: Context) -> None:
        """Take out assignments to locals, and functions, that nothing reads."""
        nodes = [node for node, _ in walked(function, context)]
        context = context.inside(function)
        read = cached(function, reads) | {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Del)}
        read |= {name for n in nodes if isinstance(n, ast.Nonlocal | ast.Global) for name in n.names}
        added = [n for n in nodes if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)]
        read |= {n.target.id for n in added if not self.harmless(n.value, context)}  # type: ignore[union-attr]
        assigned = bindings(function) if added else {}
        for target in (n.target.id for n in added):  # type: ignore[union-attr]
            plain = [isinstance(value, ast.Constant) or value is None for value, _ in assigned.get(target, [])]
            if not all(plain) or plain.count(True) < 2 or target in parameters(function):
                read.add(target)  # what it is added to may be known elsewhere
        for block in lists(nodes):
            for node in list(block):
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple) and len(node.targets) == 1:
                    self._drop_items(node, node.value, read, context)
                target = targets_of(node)
                unread = (
                    target is not None and not (target & read) and self.harmless(getattr(node, "value", None), context)
                )
                if isinstance(node, ast.FunctionDef) and node.name not in read and not node.decorator_list:
                    unread = True
                if isinstance(node, ast.For) and not node.orelse and all(isinstance(n, ast.Pass) for n in node.body):
                    names = {n.id for n in tree(node.target) if isinstance(n, ast.Name)}
                    unread = not (names & reads(function)) and self.harmless(node.iter, context)
                if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and node.target.id not in read:
                    unread = True
                if unread:
                    block.remove(node)
                    self.changed = True
            if not block:
                block.append(ast.Pass())

    def _drop_aliases(self, function: Function, context: Context) -> None:
        """Put the one local, or plain value, in the place of another that is never anything else."""
        if context.module.name not in self.live.facts.trusted:
            return
        new = cached(function, _aliases)
        if new:
            for place in lists(tree(function)):
                for node in list(place):
                    if isinstance(node, ast.Assign):
                        self._without(place, node, set(new))
            Replace(new).visit(function)
            forget(function)
            self.changed = True

    def _without(self, place: list[ast.stmt], node: ast.Assign, names: set[str]) -> None:
        """Take locals out of an assignment."""
        target, value = node.targets[0], node.value
        several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        if several and len(target.elts) != len(value.elts):  # type: ignore[attr-defined]
            return
        pairs = list(zip(target.elts, value.elts, strict=True)) if several else [(target, value)]  # type: ignore[attr-defined]
        kept = [(t, v) for t, v in pairs if not (isinstance(t, ast.Name) and t.id in names)]
        if len(node.targets) > 1 or len(kept) == len(pairs):
            return
        if not kept:
            at = place.index(node)
            place[at : at + 1] = [ast.Pass()] if len(place) == 1 else []
        else:
            one = len(kept) == 1
            node.targets = [kept[0][0] if one else ast.Tuple([t for t, _ in kept], ast.Store())]
            node.value = kept[0][1] if one else ast.Tuple([v for _, v in kept], ast.Load())

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

    def _unheard(self, call: ast.Call, context: Context) -> bool:
        """Whether a call tells of an event of a kind that nobody knows."""
        named = isinstance(call.func, ast.Name) and call.func.id in self.live.facts.told
        event = call.args[0] if named and len(call.args) == 1 else None
        if not isinstance(event, ast.Dict) or not self.harmless(event, context):
            return False
        kinds = [
            v.value
            for k, v in zip(event.keys, event.values, strict=True)
            if isinstance(k, ast.Constant) and k.value == "event" and isinstance(v, ast.Constant)
        ]
        return bool(kinds) and kinds[0] not in self.live.words

    def _returned(self, body: list[ast.stmt], context: Context) -> list[ast.stmt]:
        """Without `pass`; `x = …` and `return x` in one."""
        body = [n for n in body if not isinstance(n, ast.Pass)]
        if len(body) < 2 or not isinstance(body[-1], ast.Return) or not isinstance(body[-1].value, ast.Name):
            return body
        name, before = body[-1].value.id, body[-2]
        local = context.functions and name in bound(context.functions[-1])
        alone = isinstance(before, ast.Assign) and len(before.targets) == 1 and is_name(before.targets[0], name)
        if not local or not alone or context.module.name not in self.live.facts.trusted:
            return body
        uses = [n for n in tree(context.functions[-1]) if isinstance(n, ast.Name) and n.id == name]
        inner = [f for f in tree(context.functions[-1])[1:] if isinstance(f, FUNCTIONS)]
        captured = any(isinstance(n, ast.Name) and n.id == name for f in inner for n in tree(f))
        if captured or len(ast.unparse(before)) > 80 or not uses:
            return body
        self.changed = True
        assert isinstance(before, ast.Assign)
        return [*body[:-2], ast.copy_location(ast.Return(before.value), before)]


def _aliases(function: Function) -> dict[str, ast.expr]:
    """Locals that are another local, or a plain value, and never anything else; with what they are."""
    nodes = tree(function)
    inner = {
        n.id
        for f in nodes[1:]
        if isinstance(f, (*FUNCTIONS, *COMPREHENSIONS))
        for n in tree(f)
        if isinstance(n, ast.Name)
    }
    stored = Counter(n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load))
    read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    given = parameters(function)
    new: dict[str, ast.expr] = {}
    for name, [(value, way), *more] in bindings(function).items():
        if name not in read or more or way != Way() or name in given or name in inner or stored[name] != 1:
            continue
        if isinstance(value, ast.Name) and value.id in bound(function) and value.id not in inner | set(new):
            if stored[value.id] == (value.id not in given):
                new[name] = value
        elif isinstance(value, ast.Constant) and is_plain(value.value):
            new[name] = value
    return new
