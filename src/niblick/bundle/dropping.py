"""What nothing reads is taken out of dataclasses, parameters and registries."""

from __future__ import annotations

import ast
from typing import Any

from niblick.bundle.binding import bind
from niblick.bundle.facts import Known
from niblick.bundle.live import VIRTUAL, Live
from niblick.bundle.program import (
    FUNCTIONS,
    Context,
    Definition,
    Function,
    bound,
    forget,
    tree,
    walked,
)
from niblick.bundle.trees import (
    Replace,
    code_of,
    is_plain,
    is_pure,
)
from niblick.bundle.values import Values


def drop_checks(live: Live) -> None:
    """Take the checks out of config dataclasses: what is baked into a script was checked when it was made."""
    for cls in live.seen.classes:
        method = cls.methods().get("__post_init__")
        frozen = cls.is_dataclass and "frozen=True" in ast.unparse(cls.node.decorator_list[0])  # type: ignore[attr-defined]
        if method is not None and frozen and cls.key in live.facts.configs and "__setattr__" not in ast.unparse(method):
            cls.node.body.remove(method)  # type: ignore[attr-defined]


def prune_registries(live: Live) -> bool:
    changed = False
    for definition in live.definitions:
        keys = live.facts.registries.get(definition.key)
        value = getattr(definition.node, "value", None)
        if keys is None or not isinstance(value, ast.Dict):
            continue
        pairs = list(zip(value.keys, value.values, strict=True))
        kept = [(k, v) for k, v in pairs if not isinstance(k, ast.Constant) or k.value in keys]
        changed |= len(kept) < len(pairs)
        value.keys, value.values = [k for k, _ in kept], [v for _, v in kept]
    return changed


def drop_fields(live: Live) -> bool:
    """Take out fields of dataclasses that nothing reads."""
    program, changed = live.program, False
    replaced = {
        keyword.arg
        for call, context in live.seen.calls
        if getattr(program.meaning(call.func, context), "name", "") == "replace"
        for keyword in call.keywords
    }
    sites: dict[Definition, list[tuple[ast.Call, Context]]] = {}
    for call, context in live.seen.calls:
        target = program.meaning(call.func, context)
        if isinstance(target, Definition):
            for cls in program.ancestors(target) if isinstance(target.node, ast.ClassDef) else []:
                sites.setdefault(cls, []).append((call, context))
    for cls in live.seen.classes:
        named = any(ast.unparse(b).endswith("NamedTuple") for b in cls.node.bases)  # type: ignore[attr-defined]
        if not (cls.is_dataclass or named) or cls in live.seen.classes_passed_on:
            continue
        if named and _is_unpacked(live, cls):
            continue
        own = [c for c in live.seen.classes if cls in program.ancestors(c)]
        if len(own) > 1 and any(call.args for call, _ in sites.get(cls, [])):
            continue  # where derived classes are made, places of arguments mean others
        for field in cls.fields():
            name = field.target.id  # type: ignore[union-attr]
            if any(live.reads(c, name) for c in own) or live.stored(cls, name) or name in replaced:
                continue
            if _drop_field(live, cls, field, sites.get(cls, [])):
                changed = True
    return changed


def _is_unpacked(live: Live, cls: Definition) -> bool:
    """Whether a tuple of that class may be taken apart by place somewhere: something is, into as many targets."""
    count = len(cls.fields())
    for function, context in live.functions():
        for node, _ in walked(function, context):
            targets = [*node.targets] if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Tuple | ast.List) and len(target.elts) == count:
                    return True
    return False


def _drop_field(live: Live, cls: Definition, field: ast.AnnAssign, sites: list[tuple[ast.Call, Context]]) -> bool:
    ancestors = live.program.ancestors(cls)
    names = [f.target.id for c in reversed(ancestors) for f in c.fields()]  # type: ignore[union-attr]
    name, found = field.target.id, []  # type: ignore[union-attr]
    if any((c.key, name) in live.facts.open_fields for c in ancestors):
        return False
    for call, where in sites:
        if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
            if cls.key in live.facts.configs:
                continue  # made by name of what fields there are
            return False
        at = names.index(name)
        given: list[ast.AST] = [*(k for k in call.keywords if k.arg == name), *call.args[at : at + 1]]
        if given and (cls.key in live.facts.configs or not all(is_pure(g) for g in given)):
            return False
        found.append((call, where, given))
    for call, where, given in found:
        for outer in where.functions[:1]:
            forget(outer)
        call.args = [a for a in call.args if a not in given]
        call.keywords = [k for k in call.keywords if k not in given]
    cls.node.body.remove(field)  # type: ignore[attr-defined]
    if not cls.node.body:  # type: ignore[attr-defined]
        cls.node.body.append(ast.Pass())  # type: ignore[attr-defined]
    return True


def drop_parameters(live: Live, values: Values) -> bool:
    """Take out parameters that nothing reads, or that every call gives the same plain value."""
    changed = False
    for function, context in live.functions():
        sites = values.sites.get(function, [])
        special = function.name.startswith("__") and function.name != "__init__"
        if function in live.seen.passed_on or not sites or special:
            continue
        if function.decorator_list and any("property" in ast.unparse(d) for d in function.decorator_list):
            continue
        method = context.cls is not None and bool(sites) and sites[0][2]
        # Where a call may be of another function too, only what it does not give can go.
        certain = function.name not in VIRTUAL and all(len(values.targets[call]) == 1 for call, _, _ in sites)
        own = [*(function.args.args[1 if method else 0 :] if certain else []), *function.args.kwonlyargs]
        for parameter in own:
            if _drop_parameter(function, parameter, context, sites, values):
                changed = True
                values._bound.clear()
                break  # what calls give by position has moved
    return changed


def _drop_parameter(function: Function, parameter: ast.arg, context: Context, sites: list[Any], values: Values) -> bool:
    name = parameter.arg
    uses = [(n, c) for n, c in walked(function, context) if isinstance(n, ast.Name) and n.id == name]
    used = [c for _, c in uses if function in c.functions]
    if any(not isinstance(n.ctx, ast.Load) for n, _ in uses):
        return False
    value = values.parameter(function, context, name) if used else None
    new = _global_default(function, name, context, sites, values) if used else None
    if new is None and isinstance(value, Known) and len(value.values) == 1 and is_plain(value.values[0]):
        new = ast.Constant(value.values[0])
    if used and new is None:
        return False
    if any(name in bound(f) for c in used for f in c.functions if f is not function):
        return False
    bindings_ = [(call, where, bind(call, function, skip)) for call, where, skip in sites]
    for call, _, pairs in bindings_:
        if pairs is None or (name in pairs.given and (len(values.targets[call]) > 1 or not is_pure(pairs[name]))):
            return False
    for call, where, pairs in bindings_:
        assert pairs is not None
        if name in pairs.given:
            call.args = [a for a in call.args if a is not pairs[name]]
            call.keywords = [k for k in call.keywords if k.arg != name]
            for outer in where.functions[:1]:
                forget(outer)
    _remove_parameter(function.args, parameter)
    if used and new is not None:
        Replace({name: new}).visit(function)
    function._bound = None  # type: ignore[union-attr]
    forget(function)
    return True


def _remove_parameter(arguments: ast.arguments, parameter: ast.arg) -> None:
    if parameter in arguments.kwonlyargs:
        at = arguments.kwonlyargs.index(parameter)
        del arguments.kwonlyargs[at], arguments.kw_defaults[at]
        return
    at = arguments.args.index(parameter)
    from_end = at - len(arguments.args)
    if -from_end <= len(arguments.defaults):
        del arguments.defaults[from_end]
    del arguments.args[at]


def _global_default(
    function: Function, name: str, context: Context, sites: list[Any], values: Values
) -> ast.expr | None:
    """The default of a parameter that no call gives, where that is a name of the module."""
    found = [bind(call, function, skip) for call, _, skip in sites]
    if not found or any(pairs is None or name in pairs.given for pairs in found):
        return None
    default = found[0][name]  # type: ignore[index]
    root: ast.expr = default
    while isinstance(root, ast.Attribute):
        root = root.value
    outside = Context(context.module)
    known = isinstance(root, ast.Name) and values.program.meaning(root, outside) is not None
    if not known or any(root.id in bound(f) for f in tree(function) if isinstance(f, FUNCTIONS)):  # type: ignore[attr-defined]
        return None
    for part in tree(default):
        values.program.meaning(part, outside)  # type: ignore[arg-type]
    return default


def drop_defaults(live: Live, values: Values) -> bool:
    """Take out defaults of parameters that every call gives. Returns whether there were any."""
    changed = False
    for function, context in live.functions():
        if context.module in live.scripts:
            continue
        sites = values.sites.get(function, [])
        certain = all(len(values.targets[call]) == 1 for call, _, _ in sites)
        if not sites or not certain or function in live.seen.passed_on or function.name in VIRTUAL:
            continue
        pairs = [bind(call, function, skip) for call, _, skip in sites]
        if any(p is None for p in pairs):
            continue
        given = frozenset.intersection(*(p.given for p in pairs if p is not None))
        arguments = function.args
        while arguments.defaults and arguments.args[-len(arguments.defaults)].arg in given:
            del arguments.defaults[0]
            changed = True
        for at, (parameter, default) in enumerate(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)):
            if default is not None and parameter.arg in given:
                arguments.kw_defaults[at] = None
                changed = True
    return changed


def drop_class_attributes(live: Live) -> bool:
    """Take out attributes of classes that nothing reads, and base classes in which nothing is left."""
    changed = False
    own = sorted((c for c in live.seen.classes if c.module not in live.scripts), key=lambda c: c.key)
    for cls in own:
        body = cls.node.body  # type: ignore[attr-defined]
        for node in list(body):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [t.id for t in targets if isinstance(t, ast.Name)]
            plain = isinstance(node, ast.Assign | ast.AnnAssign) and len(names) == len(targets) and is_pure(node.value)
            fields = cls.is_dataclass or any(ast.unparse(b).endswith("Tuple") for b in cls.node.bases)  # type: ignore[attr-defined]
            if plain and not fields and not any(n.startswith("_") or _is_read(live, cls, n) for n in names):
                body.remove(node)
                changed = True
        changed |= _drop_init(live, cls)
    return changed


def drop_empty_bases(live: Live) -> None:
    """Take out base classes in which nothing is left: once all is known, as they are types to be known by."""
    for cls in list(live.definitions):
        if not isinstance(cls.node, ast.ClassDef) or cls.module in live.scripts:
            continue
        for base in list(cls.node.bases):
            target = live.program.meaning(base, Context(cls.module))
            if ast.unparse(base) == "ABC" and not any("abstract" in ast.unparse(m) for m in _alive(live, cls)):
                cls.node.bases.remove(base)
            if not (isinstance(target, Definition) and _is_empty(live, target)):
                continue
            bases = [b for b in target.node.bases if ast.unparse(b) != "ABC"]  # type: ignore[attr-defined]
            for inherited in bases:
                live.program.meaning(inherited, Context(target.module))
            at = cls.node.bases.index(base)
            cls.node.bases[at : at + 1] = bases
            live.definitions.pop(target, None)


def _is_read(live: Live, cls: Definition, name: str) -> bool:
    return any(live.reads(c, name) or live.stored(c, name) for c in live.family(cls))


def _drop_init(live: Live, cls: Definition) -> bool:
    """Take out an `__init__` that only calls that of the class above."""
    method = cls.methods().get("__init__")
    if method is None or len(method.args.args) + len(method.args.kwonlyargs) > 1 or method not in live.methods:
        return False
    calls = [ast.unparse(n) for n in code_of(method)]
    alone = not calls and not cls.node.bases  # type: ignore[attr-defined]
    if not (alone or calls == ["super().__init__()"]) or cls in live.seen.classes_passed_on:
        return False
    cls.node.body.remove(method)  # type: ignore[attr-defined]
    return True


def _is_empty(live: Live, cls: Definition) -> bool:
    """Whether nothing is left of a class, and it is only ever derived from."""
    alive, methods = _alive(live, cls), cls.methods().values()
    body = [n for n in cls.node.body if not isinstance(n, ast.Pass) and (n in alive or n not in methods)]  # type: ignore[attr-defined]
    texts = all(isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant) for n in body)
    named = cls in live.handed_on or cls in live.asked_about or cls.is_dataclass
    exceptions = any(ast.unparse(b).endswith(("Exception", "Error")) for b in cls.node.bases)  # type: ignore[attr-defined]
    return texts and not named and not exceptions


def _alive(live: Live, cls: Definition) -> list[ast.AST]:
    return [m for m in cls.methods().values() if m in live.methods]
