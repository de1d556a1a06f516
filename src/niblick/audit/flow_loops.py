"""Reading loops: each is gone through twice, and what its passes cut out of a text is told apart."""

from __future__ import annotations

import ast
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from niblick.audit.flow_assignments import Assignments
from niblick.audit.flow_calls import called
from niblick.audit.flow_values import Place, Scope, Value, blend, elements

_LEAVES = ast.Return | ast.Continue | ast.Break | ast.Raise


class Loops(Assignments):
    """Goes through loops and comprehensions."""

    @abstractmethod
    def block(self, body: Sequence[ast.stmt], scope: Scope) -> bool:
        """Go through statements. Returns whether nothing after them is reached."""

    @abstractmethod
    def statement(self, node: ast.stmt, scope: Scope) -> bool:
        """Go through one statement. Returns whether it leaves the block."""

    @contextmanager
    def within(self) -> Iterator[None]:
        """Forget at the end which conditions hold inside."""
        arms, cuts = len(self.arms), len(self.cuts)
        try:
            yield
        finally:
            del self.arms[arms:], self.cuts[cuts:]

    @staticmethod
    def reached(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
        """The statements up to one that leaves."""
        for node in body:
            yield node
            if isinstance(node, _LEAVES):
                return

    def loop(self, node: ast.For | ast.AsyncFor | ast.While, scope: Scope) -> None:
        """Go through a loop, twice unless it is known to have fewer passes."""
        counters = {
            inner.target.id for inner in ast.walk(node)
            if isinstance(inner, ast.AugAssign) and isinstance(inner.target, ast.Name)
        }  # fmt: skip
        source = None if isinstance(node, ast.While) else self.value(node.iter, scope)
        drawn = set[str]()
        if isinstance(node, ast.While):
            self.value(node.test, scope)
            drawn = self._drawn(node, scope)
        for at in range(self._passes(node, scope)):
            self.loops.append((node.lineno, at))
            for name in counters & scope.names.keys():
                value = scope.names[name]
                if value.traits & {"const"} and not value.costs:
                    scope.names[name] = Value(traits={"const"}, place=frozenset([(node.lineno, at)]))
            if not isinstance(node, ast.While) and source is not None:
                self.bind(node.target, self._element(node.iter, source, node.lineno, at, scope), scope)
            with self.within():
                self._pass(node, drawn, scope, at)
            self.loops.pop()
        self.block(node.orelse, scope)

    def _pass(self, node: ast.For | ast.AsyncFor | ast.While, drawn: set[str], scope: Scope, at: int) -> None:
        """One pass of a loop. What it draws from a queue or counter is another part than in the pass before."""
        if not drawn:
            self.block(node.body, scope)
            return
        for part in self.reached(node.body):
            ended = self.statement(part, scope)
            if isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name) and part.targets[0].id in drawn:
                value = blend([scope.names[part.targets[0].id]])
                value.place |= frozenset([(node.lineno, at)])
                scope.names[part.targets[0].id] = value
            if ended:
                return

    def _drawn(self, node: ast.While, scope: Scope) -> set[str]:
        """Names that a loop draws until they run out: `at = claim(queue)`, and `if at >= size: break`.

        What is claimed by one of the script's own functions counts if that adds one to something.
        """
        names = set()
        for part in node.body:
            if not (isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name)):
                continue
            if not isinstance(part.value, ast.Call):
                continue
            own = self.value(part.value.func, scope).function if isinstance(part.value.func, ast.Name) else None
            counts = own is not None and any(_adds_one(inner) for inner in ast.walk(own.node))
            if counts or called(part.value) in ("next", "pop", "popleft", "get", "get_nowait"):
                names.add(part.targets[0].id)
        ends = [part.test for part in node.body if isinstance(part, ast.If) and isinstance(part.body[-1], ast.Break)]
        return names & {name.id for test in ends for name in ast.walk(test) if isinstance(name, ast.Name)}

    def _passes(self, node: ast.For | ast.AsyncFor | ast.While, scope: Scope) -> int:
        if isinstance(node, ast.While):
            return 2
        if called(node.iter) == "range" and isinstance(node.iter, ast.Call) and len(node.iter.args) == 1:
            number = self.value(node.iter.args[0], scope).number
            if number is not None:
                return max(0, min(2, number))
        if isinstance(node.iter, ast.Tuple | ast.List) and len(node.iter.elts) == 1:
            return 1
        return 2

    def _element(self, node: ast.expr, source: Value, loop: object, at: int, scope: Scope) -> Value:
        """What a loop gets from `node` in its pass `at`."""
        name = called(node)
        if isinstance(node, ast.Call) and name in ("range", "trange"):
            parts = [self.value(part, scope) for part in node.args]
            out = Value(traits={"const"}, place=frozenset([(loop, at)]).union(*(part.place for part in parts)))
            if len(node.args) == 1 or parts[0].number == 0:
                stop = node.args[0] if len(node.args) == 1 else node.args[1]
                number = self.value(stop, scope).number
                out.rank, out.stop = ("last" if at else "first"), re.sub(r"\s", "", ast.unparse(stop))
                out.last = number - 1 if number is not None else None
                if number == 1:
                    out.number, out.rank = 0, ""
            return out
        if isinstance(node, ast.Call) and name in ("enumerate", "zip") and node.args:
            parts = [self._element(part, self.value(part, scope), loop, at, scope) for part in node.args if
                     not isinstance(part, ast.Constant)]  # fmt: skip
            counter = Value(traits={"const"}, place=frozenset([(loop, at)]), rank="last" if at else "first")
            items = [counter, *parts[:1]] if name == "enumerate" else parts
            out = blend(items)
            out.items = items
            return out
        if isinstance(node, ast.Call) and name in ("tqdm", "reversed", "list", "iter") and node.args:
            return self._element(node.args[0], source, loop, at, scope)
        return elements(source, loop, at)

    def run_loop(
        self, node: ast.AST, generators: Sequence[ast.comprehension], body: Sequence[ast.expr], scope: Scope
    ) -> Value:
        """The values of a comprehension."""
        inner = Scope(scope)
        out, values, tests = Value(traits={"list"}), list[Value](), list[Place]()
        known = generators[0].iter
        passes = len(known.elts) if isinstance(known, ast.Tuple | ast.List) and len(generators) == 1 else 0

        def go(level: int) -> None:
            if level == len(generators):
                for part in body:
                    value = self.value(part, inner)
                    values.append(value)
                    self.settle(value, getattr(node, "lineno", 0), summed=True)
                    out.take(value)
                    out.place |= value.place | self.chosen_by(value, tests)
                    if value.function is not None:
                        out.function = value.function
                return
            one = generators[level]
            source = self.value(one.iter, inner)
            for at in range(passes if 0 < passes < 9 else 2):
                loop = (getattr(node, "lineno", 0), getattr(node, "col_offset", 0), level)
                self.loops.append((loop, at))
                self.bind(one.target, self._element(one.iter, source, loop, at, inner), inner)
                kept = len(tests)
                tests.extend(self.value(test, inner).place for test in one.ifs)
                go(level + 1)
                del tests[kept:]
                self.loops.pop()

        go(0)
        if passes and len(values) == passes:
            out.items = values
        return out


def _adds_one(node: ast.AST) -> bool:
    parts = (node.right, node.left) if isinstance(node, ast.BinOp) else (getattr(node, "value", None),)
    plus = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Add)
    return plus and any(isinstance(part, ast.Constant) and part.value == 1 for part in parts)
