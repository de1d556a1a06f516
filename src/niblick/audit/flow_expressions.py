"""Reading expressions: what the value of each is made of."""

from __future__ import annotations

import ast
import re
from abc import abstractmethod
from collections.abc import Sequence

from niblick.audit.flow_events import Events, Finding
from niblick.audit.flow_values import TRAIN, VAL, Function, Region, Scope, Value, blend, const

_SETTING = re.compile(
    r"loss|bpb|every|batch_size|seconds|steps|_ms|time|freq|interval|logits?$|seq_?len|shape|share|frac|ratio|num_|count",
    re.IGNORECASE,
)
_DATA = (
    r"(?:tok|id|data|set|x|y|text|doc|stream|load|batch|file|path|shard|chunk|seq|ds|split|corpus|glob|pattern|dir|inp)"
)
_VAL_NAME = re.compile(
    rf"(?:^|_)(?:val|valid|validation|heldout|held_out)_{_DATA}|(?:^|_)(?:heldout|held_out|validation)$|\w_val$",
    re.IGNORECASE,
)
_VAL_FILE = re.compile(
    r"(?:^|[_/\-])val(?:id|idation)?(?:[_*./\-]|$)|^(?:val|valid|validation)$|VAL_FILES|(?:^|[_/\-])held_?out(?:[_*./\-]|$)",
    re.IGNORECASE,
)
_TRAIN_NAME = re.compile(rf"(?:^|_)train(?:ing)?_{_DATA}|\w_train$", re.IGNORECASE)
_TRAIN_FILE = re.compile(r"(?:^|[_/\-])train(?:ing)?(?:[_*./\-]|$)|TRAIN_FILES", re.IGNORECASE)
_TARGET = re.compile(
    r"^(?:y|ys|y_(?:batch|np|flat|ids|tok\w*)|\w+_y|\w*(?:tgt|target|label)s?(?:_(?:ids?|toks?|tokens?|np|flat|batch|arr))?"
    r"|next_(?:tok|token|id)s?|gold)$",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"^(?:ctx|context|prev|x|xs|tok|toks|tokens?|ids|hist|history|inputs?|window|prefix)", re.IGNORECASE
)
_HOLDS_TOKENS = re.compile(r"tok|chunk|seq|ids|window|local|batch|buf|text|doc|stream|val|^x$", re.IGNORECASE)


class Expressions(Events):
    """Gives the value of any expression."""

    @abstractmethod
    def call(self, node: ast.Call, scope: Scope) -> Value:
        """The value of a call."""

    @abstractmethod
    def run_loop(self, node: ast.AST, generators: Sequence[ast.comprehension], body: Sequence[ast.expr], scope: Scope
                 ) -> Value:  # fmt: skip
        """The values of a comprehension."""

    @abstractmethod
    def method(self, value: Value, name: str) -> Value | None:
        """A method of the script's own classes, bound; or what a property gives."""

    def value(self, node: ast.expr | None, scope: Scope) -> Value:
        """The value of an expression."""
        self.step()
        match node:
            case None:
                return const()
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._name(node.id, scope)
            case ast.Attribute():
                return self.attribute(self.value(node.value, scope), node.attr, node)
            case ast.Subscript():
                return self._subscript(node, scope)
            case ast.Call():
                return self.call(node, scope)
            case ast.BinOp():
                return self.operation(node, node.op, self.value(node.left, scope), self.value(node.right, scope))
            case ast.Compare():
                return self._compare(node, scope)
            case ast.Lambda():
                return Value(function=Function(node, scope))
            case ast.Tuple() | ast.List() | ast.Set():
                return self._collection(node, scope)
            case ast.NamedExpr():
                value = self.value(node.value, scope)
                self.bind(node.target, value, scope)
                return value
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                return self.run_loop(node, node.generators, [node.elt], scope)
            case ast.DictComp():
                return self.run_loop(node, node.generators, [node.key, node.value], scope)
        return self._other(node, scope)

    @abstractmethod
    def bind(self, target: ast.expr, value: Value, scope: Scope) -> None:
        """Assign."""

    def _other(self, node: ast.expr, scope: Scope) -> Value:
        match node:
            case ast.UnaryOp():
                value = self.value(node.operand, scope)
                if isinstance(node.op, ast.Not):
                    truth = None if value.truth is None else not value.truth
                    return Value(traits={"bool"}, truth=truth, place=value.place)
                out = blend([value])
                if isinstance(node.op, ast.USub) and value.number is not None:
                    out.number = -value.number
                out.traits |= value.traits & {"bool"}
                return out
            case ast.BoolOp():
                values = [self.value(part, scope) for part in node.values]
                out = blend(values)
                truths = [value.truth for value in values]
                stops = isinstance(node.op, ast.Or)
                if stops in truths:
                    out.truth = stops
                elif all(truth is not None for truth in truths):
                    out.truth = not stops
                states = [value for value in values if value.is_state]
                return states[0] if states and not out.regions else out
            case ast.IfExp():
                test = self.value(node.test, scope)
                if test.truth is not None:
                    return self.value(node.body if test.truth else node.orelse, scope)
                one, other = self.value(node.body, scope), self.value(node.orelse, scope)
                if one.is_state and "const" in other.traits:
                    return one
                return other if other.is_state and "const" in one.traits else blend([one, other])
            case ast.JoinedStr():
                parts = [self.value(part.value, scope) for part in node.values if isinstance(part, ast.FormattedValue)]
                words = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
                own = self._constant(ast.copy_location(ast.Constant(words), node))
                out = blend([*parts, own])
                out.traits.add("text")
                return out
            case ast.Dict():
                out = blend([self.value(part, scope) for part in [*node.keys, *node.values] if part is not None])
                for key, part in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        out.fields[key.value] = self.value(part, scope)
                out.traits = (out.traits - {"const"}) | {"list"}
                return out
            case ast.Starred() | ast.Await() | ast.FormattedValue():
                return self.value(node.value, scope)
            case ast.Slice():
                parts = [self.value(part, scope) for part in (node.lower, node.upper, node.step) if part is not None]
                return blend([const(), *parts])
            case ast.Yield() | ast.YieldFrom():
                value = self.value(node.value, scope)
                scope.names.setdefault("<yields>", Value()).take(value)
                if value.items:
                    scope.names["<yields>"].items = value.items
                return Value()
        return Value()

    def _constant(self, node: ast.Constant) -> Value:
        if isinstance(node.value, str):
            out = Value(traits={"text"})
            if len(node.value) < 400 and not _SETTING.search(node.value):
                if _VAL_FILE.search(node.value):
                    out.regions.add(VAL)
                    self.loads.add(Finding(node.lineno, "names validation files"))
                elif _TRAIN_FILE.search(node.value):
                    out.regions.add(TRAIN)
            return out
        number = node.value if type(node.value) is int else None
        return Value(traits={"const"}, number=number, truth=bool(node.value) if node.value is not Ellipsis else None)

    def _name(self, name: str, scope: Scope) -> Value:
        value = scope.find(name)
        if value is not None:
            return value
        if name == "__name__":
            return Value(traits={"text", "main"})
        value = self.named(name, Value())
        scope.top().names[name] = value
        return value

    def named(self, name: str, value: Value) -> Value:
        """The value as its name tells more of it, where nothing else tells what it is."""
        unknown = not (value.regions or value.costs or value.function or value.scope or value.learned)
        unknown = unknown and not value.traits & {"const", "bool", "text", "module", "list"} and not value.items
        if unknown and not _SETTING.search(name):
            if _VAL_NAME.search(name):
                value = blend([value])
                value.regions.add(VAL)
            elif _TRAIN_NAME.search(name):
                value = blend([value])
                value.regions.add(TRAIN)
        known = value.traits & {"const", "bool", "text", "module", "list", "dist"} or value.costs or value.function
        if not known and not value.items:
            if _TARGET.match(name):
                value.traits.add("target")
            elif _TOKEN.match(name):
                value.traits.add("token")
        return value

    def attribute(self, value: Value, name: str, node: ast.AST) -> Value:
        """An attribute of a value."""
        if value.scope is not None:
            return value.scope.find(name) or Value()
        if name in value.fields:
            return value.fields[name]
        if name in ("shape", "ndim", "device", "dtype", "is_cuda", "itemsize"):
            return const()
        if name in ("T", "mT", "data", "real", "values", "indices", "module", "grad", "_orig_mod"):
            return value
        if (own := self.method(value, name)) is not None:
            return own
        if value.traits & {"module"}:
            return Value(traits={"module"} | (value.traits & {"foreign"}))
        out = self.named(name, Value(base=value))
        if out.base is None and not out.regions:
            out.base = value
        out.regions |= value.regions
        out.makers |= value.makers
        out.costs |= value.costs
        out.place = value.place
        out.traits |= value.traits & {"const", "text", "list"}
        value.fields[name] = out
        return out

    def _collection(self, node: ast.Tuple | ast.List | ast.Set, scope: Scope) -> Value:
        items = [self.value(item, scope) for item in node.elts]
        out = blend(items)
        if isinstance(node, ast.Tuple) or items:
            out.items = items
        if not isinstance(node, ast.Tuple):
            out.traits = (out.traits - {"const"}) | {"list"}
        return out

    def _compare(self, node: ast.Compare, scope: Scope) -> Value:
        left, rights = self.value(node.left, scope), [self.value(right, scope) for right in node.comparators]
        out = blend([left, *rights])
        out.traits = (out.traits - {"const", "target", "key", "dist"}) | {"bool"}
        if "target" in left.traits | rights[0].traits and isinstance(node.ops[0], ast.Eq):
            out.traits.add("onehot")
        if len(rights) == 1 and isinstance(node.ops[0], ast.Eq | ast.NotEq) and _stored(left, rights[0]):
            out.traits.add("matched")
        if "main" in left.traits:
            out.truth = True
        elif len(rights) == 1:
            out.truth = _compared(left, node.ops[0], rights[0], ast.unparse(node.comparators[0]))
        return out

    def operation(self, node: ast.AST, op: ast.operator, left: Value, right: Value) -> Value:
        """Two values put together by an operator."""
        out = blend([left, right])
        for side in (left, right):
            if side.is_state:
                out.makers[id(side.root)] = side.root
        out.traits |= left.traits & right.traits & {"bool", "text"}
        if isinstance(op, ast.BitXor):
            self.mixed(node, [left, right], "XOR")
            out.traits.add("key")
            out.newest = max((v.newest for v in (left, right) if v.newest is not None), default=None)
        elif isinstance(op, ast.BitAnd | ast.Mod):
            if "key" in left.traits and isinstance(op, ast.BitAnd):
                left.traits.add("used alone")
            out.newest = left.newest
        elif isinstance(op, ast.Mult | ast.RShift | ast.LShift):
            out.newest = left.newest if left.newest is not None else right.newest
        elif isinstance(op, ast.MatMult) and out.val():
            return self.ask(node, None, [left, right], "a matrix product")
        if isinstance(op, ast.Mult | ast.Add | ast.Sub | ast.Div | ast.Pow):
            self._bent(node, left, right)
            self.scaled(node, left, right)
            self.scaled(node, right, left)
            if "onehot" in out.traits and "dist" in out.traits:
                out.traits -= {"onehot", "dist", "of target"}  # the target's own place in it
        if left.number is not None and right.number is not None:
            out.number = _calculated(op, left.number, right.number)
        return out

    def _bent(self, node: ast.AST, left: Value, right: Value) -> None:
        """A distribution is changed by something that follows from its own target."""
        for one, other in ((left, right), (right, left)):
            if "dist" in one.traits and "of target" in other.traits and not {"dist", "onehot"} & other.traits:
                self.bent(node, [one, other])

    def bent(self, node: ast.AST, values: Sequence[Value]) -> None:
        """Note that a distribution follows from its target, unless this is about training text."""
        if not any(region == TRAIN or region.text == "train" for value in values for region in value.regions):
            what = "what is predicted is changed by something of the target itself (other than its own place in it)"
            self.find("target in predictions", getattr(node, "lineno", 0), what)

    def mixed(self, node: ast.AST, parts: Sequence[Value], how: str) -> None:
        """Values are mixed into a key."""
        line = getattr(node, "lineno", 0)
        for part in parts:
            rest = [other for other in parts if other is not part and not other.traits & {"bool", "target"}]
            tokens = [
                other
                for other in rest
                if how in ("XOR", "bitwise_xor") or other.regions or other.traits & {"token", "key"}
            ]
            if "target" in part.traits and not part.traits & {"bool"} and tokens:
                self.find("target in keys", line, f"the target goes into a key by {how}")
        if how == "XOR" and len(parts) == 2:
            for key, other in (tuple(parts), tuple(parts)[::-1]):
                newer = key.newest is not None and other.newest is not None and other.newest > key.newest
                if "key" in key.traits and newer:
                    self.extended[id(key)] = (key, line)

    def _subscript(self, node: ast.Subscript, scope: Scope) -> Value:
        base = self.value(node.value, scope)
        index = self.value(node.slice, scope)
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str | int):
            if (
                base.items
                and isinstance(node.slice.value, int)
                and -len(base.items) <= node.slice.value < len(base.items)
            ):
                return base.items[node.slice.value]
            if isinstance(node.slice.value, str) and node.slice.value in base.fields:
                return base.fields[node.slice.value]
            if "sorted" in base.traits:
                out = blend([base])
                self.choose(out, node)
                return out
        if "key" in index.traits:
            index.traits.add("used alone")
        if index.regions and not base.regions and not index.traits & {"bool", "text"}:
            out = self._looked_up(node, base, index)
        else:
            out = part_of(base, index, node.slice)
            if not (base.regions or "target" in base.traits or _HOLDS_TOKENS.search(ast.unparse(node.value))):
                out.traits.discard("target")
        if index.chosen:
            out.chosen |= index.chosen
        if "onehot" in index.traits or ("of target" in index.traits and "bool" in index.traits):
            self._bent(node, base, index)
        if "dist" in base.traits and "target" in index.traits | _traits_of(index):
            out.traits -= {"dist"}
        if base.regions or not base.traits & {"const", "text", "list", "module"}:
            out.traits.add("token")
            out.newest = offset(node.slice)
        return out

    def _looked_up(self, node: ast.Subscript, base: Value, index: Value) -> Value:
        """An entry of a table under a key that is made of text."""
        parts = [index, *(index.items or [])]
        target = any("target" in part.traits for part in parts)
        if base.learned or base.base is not None or "dist" in base.traits or base.costs:
            out = self.ask(node, base, [index, base] if base.regions else [index], "a table")
        else:
            out = blend([index])
            out.regions |= base.regions
        out.traits -= {"target", "key"}
        if target and "dist" not in base.traits:
            out.traits.add("of target")
        return out


def _stored(left: Value, right: Value) -> bool:
    """Whether a target is compared with a token that is looked up and is none of the text at hand."""
    for target, other in ((left, right), (right, left)):
        if "target" in target.traits and "token" in other.traits and other.is_state and not other.costs:
            return True
    return False


def _traits_of(index: Value) -> set[str]:
    return {trait for item in index.items or [] for trait in item.traits}


def part_of(base: Value, index: Value, cut: ast.expr) -> Value:
    """A part of a value, by an index that says which passes of loops it belongs to."""
    if base.is_state and not base.costs and not index.place and not base.items:
        return Value(base=base, makers=dict(base.makers), chosen=set(index.chosen), place=base.place)
    out = blend([base])
    out.place = base.place | index.place
    out.traits |= base.traits & {"const", "bool", "list", "text"}
    if base.is_state:
        out.base = base
    marks = index.place
    if isinstance(cut, ast.Slice) and cut.step is None and not marks:
        if cut.lower is None and cut.upper is not None and not _negative(cut.upper):
            marks = frozenset([(ast.unparse(cut.upper), 0)])
        elif cut.upper is None and cut.lower is not None and not isinstance(cut.lower, ast.Constant):
            marks = frozenset([(ast.unparse(cut.lower), 1)])
    out.regions = {Region(region.text, region.place | marks) for region in base.regions}
    last = cut.elts[-1] if isinstance(cut, ast.Tuple) and cut.elts else cut
    if isinstance(last, ast.Slice) and base.traits.isdisjoint({"dist", "list", "key"}):
        if _is_next(last.lower):
            out.traits.add("target")
        elif last.upper is not None and (_negative(last.upper) or "target" not in base.traits):
            out.traits -= {"target"}
    return out


def _negative(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)


def _is_next(lower: ast.expr | None) -> bool:
    """Whether a slice begins one later: at `1` or at `… + 1`."""
    match lower:
        case ast.Constant(value=1):
            return True
        case ast.BinOp(op=ast.Add(), right=ast.Constant(value=1)) | ast.BinOp(op=ast.Add(), left=ast.Constant(value=1)):
            return True
    return False


def offset(index: ast.expr) -> int | None:
    """How far an index stands from the position that it is told by: −1 before, 0 at, 1 after; None for slices."""
    match index:
        case ast.BinOp(op=ast.Sub()):
            return -1
        case ast.BinOp(op=ast.Add()):
            return 1
        case ast.Name():
            return 0
    return None


def _compared(left: Value, op: ast.cmpop, right: Value, said: str) -> bool | None:
    """Whether a comparison holds, for numbers that are known and for counters in their first or last pass."""
    if left.number is not None and right.number is not None:
        return _holds(op, left.number, right.number)
    if not left.rank:
        return None
    if right.number == 0 or (right.number == 1 and isinstance(op, ast.Lt | ast.GtE)):
        place, edge = (0 if left.rank == "first" else 2), right.number
        return _holds(op, place, edge)
    if left.last is not None and right.number == left.last:
        return _holds(op, 1 if left.rank == "last" else 0, 1)
    if left.stop and re.sub(r"\s", "", said) in (f"{left.stop}-1", f"({left.stop})-1"):
        return _holds(op, 1 if left.rank == "last" else 0, 1)
    return None


def _holds(op: ast.cmpop, left: int, right: int) -> bool | None:
    match op:
        case ast.Eq():
            return left == right
        case ast.NotEq():
            return left != right
        case ast.Lt():
            return left < right
        case ast.LtE():
            return left <= right
        case ast.Gt():
            return left > right
        case ast.GtE():
            return left >= right
    return None


def _calculated(op: ast.operator, left: int, right: int) -> int | None:
    match op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult() if abs(left) < 1 << 40 and abs(right) < 1 << 40:
            return left * right
        case ast.FloorDiv() if right:
            return left // right
    return None
