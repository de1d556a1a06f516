"""Reading assignments: to names, attributes and entries, and by operators."""

from __future__ import annotations

import ast

from niblick.audit.flow_calls import Calls
from niblick.audit.flow_values import Scope, Value, blend, each


class Assignments(Calls):
    """Gives names, attributes and entries their values."""

    branches = 0
    """Conditions inside of which this is read: what is assigned there may not be."""

    def bind(self, target: ast.expr, value: Value, scope: Scope) -> None:
        """Assign a value to a name, an attribute, an entry, or to several."""
        match target:
            case ast.Name():
                owner = scope.outer.get(target.id, scope)
                owner.names[target.id] = self.named(target.id, value)
            case ast.Tuple() | ast.List():
                for at, part in enumerate(target.elts):
                    one = value
                    if value.items is not None and len(value.items) == len(target.elts):
                        one = value.items[at]
                    elif len(target.elts) > 1 and not value.is_state:
                        one = blend([value])
                        one.traits |= value.traits & {"const"}
                    elif value.is_state and value.base is None and not value.learned and not value.costs:
                        one = Value(place=value.place, makers=dict(value.makers))
                    self.bind(part, one, scope)
            case ast.Starred():
                self.bind(target.value, value, scope)
            case ast.Attribute():
                self._set_attribute(target, value, scope)
            case ast.Subscript():
                self._set_entry(target, value, scope)

    def _set_attribute(self, target: ast.Attribute, value: Value, scope: Scope) -> None:
        owner = self.value(target.value, scope)
        if target.attr in ("data", "weight", "bias") and value.val() and not value.costs:
            self._weights(owner, value, target.lineno)
            return
        if target.attr in ("data", "weight", "bias") and value.val():
            self._weights(owner, value, target.lineno)
            return
        value = self.named(target.attr, value)
        before = owner.fields.get(target.attr)
        owner.fields[target.attr] = joined(before, value) if before is not None and self.branches else value

    def _set_entry(self, target: ast.Subscript, value: Value, scope: Scope) -> None:
        owner, index = self.value(target.value, scope), self.value(target.slice, scope)
        keys = [part for part in each([index]) if part.val() and not part.traits & {"bool", "text"}]
        self.scaled(target, owner, index)
        self.settle(value, target.lineno, summed=True)
        if keys and not owner.regions and not value.costs:
            self.learn(blend(keys), [owner], target.lineno, "counts", must_be_scored=False)
            return
        if isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str):
            owner.fields[target.slice.value] = value
        owner.take(value)
        owner.place |= value.place
        owner.items = None
        if value.function is not None and owner.function is None:
            owner.function = value.function

    def _augmented(self, node: ast.AugAssign, scope: Scope) -> None:
        value = self.value(node.value, scope)
        target = node.target
        self.settle(value, node.lineno, summed=True)
        if isinstance(target, ast.Subscript):
            self._set_entry_by(target, node, value, scope)
            return
        own = self.value(target, scope)
        self.scaled(node, own, value)
        if isinstance(node.op, ast.BitXor):
            self.mixed(node, [own, value], "XOR")
            own.traits.add("key")
            own.newest = max((v.newest for v in (own, value) if v.newest is not None), default=None)
            if own.traits & {"const"}:
                own = Value(traits={"key"}, newest=own.newest)
                self.bind(target, own, scope)
        elif own.number is not None and value.number is not None:
            self.bind(target, self.operation(node, node.op, own, value), scope)
            return
        if own.traits & {"const"} or own.items is not None:
            out = blend([own, value])
            self.bind(target, out, scope)
            return
        own.take(value)
        own.makers |= value.makers

    def _set_entry_by(self, target: ast.Subscript, node: ast.AugAssign, value: Value, scope: Scope) -> None:
        owner, index = self.value(target.value, scope), self.value(target.slice, scope)
        keys = [part for part in each([index]) if part.val() and not part.traits & {"bool", "text"}]
        self.scaled(node, owner, value)
        if "key" in index.traits:
            index.traits.add("used alone")
        if keys and not value.costs and not owner.regions:
            self.learn(blend(keys), [owner], node.lineno, "counts", must_be_scored=False)
            return
        owner.take(value)
        owner.items = None


def joined(one: Value, other: Value) -> Value:
    """What is one of two: the same thing where one of them says nothing."""
    if one is other or (other.traits & {"const"} and not other.costs and one.is_state):
        return one
    if one.traits & {"const"} and other.is_state:
        return other
    if one.function is not None or other.function is not None:
        return one if one.function is not None else other
    out = blend([one, other])
    out.traits |= one.traits & other.traits
    out.traits |= (one.traits | other.traits) & {"list", "target"}
    out.fields = {**one.fields, **other.fields}
    if one.is_state and other.is_state:
        out.makers |= {id(one.root): one.root, id(other.root): other.root}
    return out
