"""A script gone through without being run: statement by statement, into its functions, each loop twice.

Two passes of a loop are enough to tell whether what a later pass prices was learned in an earlier one. Both branches
of a condition are followed, unless it asks for the first or last pass of a loop. Functions that nothing calls are gone
through at the end, with arguments that are known by their names alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from niblick.audit.flow_assignments import joined
from niblick.audit.flow_calls import called, foreign
from niblick.audit.flow_events import Finding, TooLarge
from niblick.audit.flow_loops import Loops
from niblick.audit.flow_values import VAL, Function, Scope, Value, blend, const
from niblick.audit.unpacking import Layer

_DEEPEST = 30
_WITHOUT_GRADIENTS = ("no_grad", "inference_mode")


class Flow(Loops):
    """Goes through one script."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.modules: dict[str, Scope] = {}
        self.entered: set[int] = set()
        self.active: list[int] = []
        self.too_large = False

    def run(self) -> Flow:
        """Go through everything. `too_large` says whether that had to be given up."""
        try:
            scope = Scope()
            self.block(self.layer.tree.body, scope)
            for name in self.layer.modules:
                self._module(name)
            self.finish()
            named = self._asked_for()
            self.unreached |= set(self._learners(named))
            for last in (False, True):  # what nothing names comes first: it calls the others
                for owner in [scope, *self.modules.values()]:
                    self._uncalled(owner, set() if last else named)
        except (TooLarge, RecursionError):
            self.too_large = True
        self.finish()
        return self

    def _learners(self, named: set[str]) -> Iterator[Finding]:
        """Functions that take gradients, are handed on by name, and were not come to: who runs them is not seen."""
        for tree in [self.layer.tree, *self.layer.modules.values()]:
            for node in ast.walk(tree):
                if not isinstance(node, ast.FunctionDef) or id(node) in self.entered or node.name not in named:
                    continue
                lines = [getattr(inner, "lineno", 0) for inner in ast.walk(node) if called(inner) == "backward"]
                if lines:
                    yield Finding(lines[0], f"{node.name} learns by gradients, and who calls it was not followed")

    def _asked_for(self) -> set[str]:
        """All names and attributes that the script mentions."""
        trees = [self.layer.tree, *self.layer.modules.values()]
        nodes = [node for tree in trees for node in ast.walk(tree)]
        names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        return names | {node.attr for node in nodes if isinstance(node, ast.Attribute)}

    def _uncalled(self, scope: Scope, named: set[str]) -> None:
        """Functions that nothing called, methods too, in the order of the source; not those in `named`."""
        for value in list(scope.names.values()):
            function = value.function
            if function is None or isinstance(function.node, ast.Lambda) or id(function.node) in self.entered:
                continue
            if function.node.name in named:
                continue
            if isinstance(function.node, ast.ClassDef):
                instance = self._instance(function)
                for inner in function.node.body:
                    if isinstance(inner, ast.FunctionDef) and id(inner) not in self.entered:
                        self._entry(Function(inner, function.scope, instance))
            else:
                self._entry(function)

    def _entry(self, function: Function) -> None:
        assert not isinstance(function.node, ast.Lambda | ast.ClassDef)
        arguments = function.node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        scores = re.match(r"(?:eval|score|ttt|adapt|validate)", function.node.name, re.IGNORECASE)
        about = scores and re.search(r"(?:^|_)(?:val|valid|validation|heldout)(?:_|$)", function.node.name)
        words = {}
        for name in names[1 if function.bound is not None else 0 :]:
            value = self.named(name, Value())
            if about and re.search(r"tok|ids|data|loader", name) and not value.regions:
                value.regions.add(VAL)
            words[name] = value
        if words and arguments.defaults:
            for argument, default in zip(arguments.args[::-1], arguments.defaults[::-1], strict=False):
                if not words.get(argument.arg, Value()).regions and argument.arg in words:
                    words[argument.arg] = self.value(default, function.scope)
        self.show(self.enter(function, ast.Pass(), [], words))
        self.finish()

    def enter(self, function: Function, node: ast.AST, given: Sequence[Value], words: dict[str, Value]) -> Value:
        """Go through a function with these arguments; through `__init__` for a class."""
        body = function.node
        if isinstance(body, ast.ClassDef):
            instance = self._instance(function)
            instance.trials = frozenset(self.loops)
            start = self.method(instance, "__init__")
            if start is not None and start.function is not None and not _is_module(body):
                self.enter(start.function, node, given, words)
            else:
                names = [
                    n.target.id for n in body.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
                ]
                names += [str(at) for at in range(len(names), len(given))]
                words = words | dict(zip(names, given, strict=False))
                for name, value in words.items():
                    instance.fields.setdefault(name, value)
            return instance
        if id(body) in self.active or len(self.active) > _DEEPEST:
            return self.ask(node, function.bound, [*given, *words.values()])
        self.entered.add(id(body))
        scope = Scope(function.scope)
        self._arguments(function, given, words, scope)
        self.active.append(id(body))
        self.lines.append(getattr(node, "lineno", 0))
        try:
            if isinstance(body, ast.Lambda):
                return self.value(body.body, scope)
            with self.within():
                self.block(body.body, scope)
        finally:
            self.active.pop()
            self.lines.pop()
        return scope.names.get("<yields>") or scope.names.get("<returned>") or const()

    def _arguments(self, function: Function, given: Sequence[Value], words: dict[str, Value], scope: Scope) -> None:
        arguments = function.arguments
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        static = any(_last(d) == "staticmethod" for d in getattr(function.node, "decorator_list", []))
        values = list(given) if function.bound is None or static else [function.bound, *given]
        spread = words.get("**")
        for number, name in enumerate([*names, *(a.arg for a in arguments.kwonlyargs)]):
            value = values[number] if number < len(values) and name in names else words.get(name, spread)
            if value is None:
                value = self._default(function, name)
            scope.names[name] = self.named(name, value) if value.is_state else value
        if arguments.vararg is not None:
            rest = values[len(names) :]
            scope.names[arguments.vararg.arg] = blend(rest)
            scope.names[arguments.vararg.arg].items = rest
        if arguments.kwarg is not None:
            scope.names[arguments.kwarg.arg] = blend([v for k, v in words.items() if k not in names])

    def _default(self, function: Function, name: str) -> Value:
        arguments = function.arguments
        names = [*arguments.posonlyargs, *arguments.args]
        pairs = [*zip(names[::-1], arguments.defaults[::-1], strict=False),
                 *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]  # fmt: skip
        for argument, default in pairs:
            if argument.arg == name and default is not None:
                return self.value(default, function.scope)
        return Value()

    # Classes

    def _instance(self, function: Function) -> Value:
        return Value(fields={"<class>": Value(function=function)})

    def method(self, value: Value, name: str) -> Value | None:
        """A method of the script's own classes, bound; what a property gives; an attribute of the class."""
        holder = value.fields.get("<class>") or (value if value.function is not None else None)
        if holder is None or holder.function is None or not isinstance(holder.function.node, ast.ClassDef):
            return None
        return self._looked_for(holder.function, name, value, 0)

    def _looked_for(self, function: Function, name: str, owner: Value, depth: int) -> Value | None:
        node = function.node
        assert isinstance(node, ast.ClassDef)
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name == name:
                if name == "forward" or (name in ("__call__",) and _is_module(node)):
                    return None
                bound = Function(inner, function.scope, owner if "<class>" in owner.fields else None)
                if any(_last(d) in ("property", "cached_property") for d in inner.decorator_list):
                    return self.enter(bound, inner, [], {})
                return Value(function=bound)
            if not isinstance(inner, ast.Assign | ast.AnnAssign | ast.AugAssign) or inner.value is None:
                continue
            targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                return self.named(name, self.value(inner.value, function.scope))
        for base in node.bases if depth < 8 else []:
            other = self.value(base, function.scope).function
            if other is not None and isinstance(other.node, ast.ClassDef):
                return self._looked_for(other, name, owner, depth + 1)
        return None

    # Modules

    def _module(self, name: str) -> Scope | None:
        if name not in self.layer.modules:
            return None
        if name not in self.modules:
            self.modules[name] = Scope()
            self.block(self.layer.modules[name].body, self.modules[name])
        return self.modules[name]

    def _import(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            if isinstance(node, ast.Import):
                own = self._module(alias.name)
                scope.names[name] = Value(scope=own) if own else _module_value(alias.name)
                continue
            module = node.module or ""
            own, whole = self._module(module), self._module(f"{module}.{alias.name}")
            if whole is not None:
                scope.names[name] = Value(scope=whole)
            elif own is not None:
                scope.names[name] = own.find(alias.name) or Value()
            else:
                scope.names[name] = _module_value(module if not node.level else "?")

    # Statements

    def block(self, body: Sequence[ast.stmt], scope: Scope) -> bool:
        """Go through statements. Returns whether nothing after them is reached."""
        return any(self.statement(node, scope) for node in self.reached(body))

    def statement(self, node: ast.stmt, scope: Scope) -> bool:
        """Go through one statement. Returns whether it leaves the block."""
        self.step()
        match node:
            case ast.Assign():
                value = self.value(node.value, scope)
                for target in node.targets:
                    self.bind(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self.bind(node.target, self.value(node.value, scope), scope)
            case ast.AugAssign():
                self._augmented(node, scope)
            case ast.Expr():
                self.value(node.value, scope)
            case ast.Return():
                self._returned(self.value(node.value, scope), scope)
                return True
            case ast.If():
                return self._if(node, scope)
            case ast.For() | ast.AsyncFor() | ast.While():
                self.loop(node, scope)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.value(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self.bind(item.optional_vars, value, scope)
                return self.block(node.body, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                scope.names[node.name] = Value(function=Function(node, scope))
            case ast.Import() | ast.ImportFrom():
                self._import(node, scope)
            case ast.Try():
                ended = self.block([*node.body, *node.orelse], scope)
                for handler in node.handlers:
                    self._branch(handler.body, scope)
                return self.block(node.finalbody, scope) or (ended and not node.handlers)
            case ast.Match():
                self.value(node.subject, scope)
                for case in node.cases:
                    self._branch(case.body, scope)
            case ast.Global() | ast.Nonlocal():
                for name in node.names:
                    scope.outer[name] = self._outer(node, name, scope)
            case ast.Continue() | ast.Break() | ast.Raise():
                return True
        return False

    @staticmethod
    def _outer(node: ast.Global | ast.Nonlocal, name: str, scope: Scope) -> Scope:
        if isinstance(node, ast.Global):
            return scope.top()
        other = scope.parent
        while other is not None and name not in other.names:
            other = other.parent
        return other or scope.top()

    def _returned(self, value: Value, scope: Scope) -> None:
        before = scope.names.get("<returned>")
        if before is None or before.traits & {"const"}:
            scope.names["<returned>"] = value
        elif not value.traits & {"const"}:
            scope.names["<returned>"] = joined(before, value)

    def _if(self, node: ast.If, scope: Scope) -> bool:
        test = self.value(node.test, scope)
        if test.truth is not None:
            return self.block(node.body if test.truth else node.orelse, scope)
        self._compared(node, test)
        before, fork = dict(scope.names), self.fork()
        self.branches += 1
        ended = self._arm(node.body, scope, (fork, 0), test)
        one, scope.names = scope.names, before
        other_ended = self._arm(node.orelse, scope, (fork, 1), test)
        self.branches -= 1
        if ended != other_ended:  # what follows is only reached by the other branch
            self.arms.append((fork, int(ended)))
            self.cuts.append(test.place)
        if other_ended and not ended:
            scope.names = one
        elif not ended:
            for name, value in one.items():
                own = scope.names.get(name)
                scope.names[name] = value if own is None or own is value else joined(own, value)
        if "<returned>" in one:
            scope.names.setdefault("<returned>", one["<returned>"])
        return ended and other_ended

    def _arm(self, body: Sequence[ast.stmt], scope: Scope, arm: tuple[int, int], test: Value) -> bool:
        """Go through one branch of a condition, knowing that the other is not gone through."""
        with self.within():
            self.arms.append(arm)
            self.cuts.append(test.place)
            return self.block(body, scope)

    def _branch(self, body: Sequence[ast.stmt], scope: Scope) -> None:
        before = dict(scope.names)
        self.branches += 1
        ended = self.block(body, scope)
        self.branches -= 1
        for name, value in before.items():
            if ended:
                scope.names[name] = value
            elif scope.names.get(name) is not value:
                scope.names[name] = joined(value, scope.names[name])

    def _compared(self, node: ast.If, test: Value) -> None:
        """What is kept because validation text costs less with it."""
        if not test.costs or not any(isinstance(n, ast.Lt | ast.Gt | ast.LtE | ast.GtE) for n in ast.walk(node.test)):
            return
        if not any(cost.region.text == "val" for cost in test.costs):
            return
        keeps = ("state_dict", "deepcopy", "save", "load_state_dict", "save_checkpoint", "clone")
        kept = [n for part in node.body for n in ast.walk(part) if called(n) in keeps]
        if kept:
            what = f"keeps the weights ({called(kept[0])}) that cost validation text least"
            self.find("corrections", node.lineno, what)
        elif test.trials and not all(isinstance(part, ast.Raise) for part in node.body):  # a refusal chooses nothing
            self.choose(test, node)


def _module_value(name: str) -> Value:
    return Value(traits={"module", "foreign"} if foreign(name) else {"module"})


def _is_module(node: ast.ClassDef) -> bool:
    return any(_last(base) in ("Module", "Optimizer", "Function") for base in node.bases)


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
