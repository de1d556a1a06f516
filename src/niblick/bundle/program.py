"""Sources as a program: modules, their definitions, what each name in them means. Nothing is run.

Everything else in this package works on these trees; they are changed in place, so every program is parsed anew.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from niblick.errors import ConfigError, nearest

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True)
class Outside:
    """A name imported from outside the package: `import module as alias`, or `from module import name as alias`."""

    module: str
    name: str | None
    alias: str | None

    @property
    def bound(self) -> str:
        """The name that it has in the code."""
        return self.alias or (self.name or self.module.partition(".")[0])


@dataclass(eq=False)
class Definition:
    """A function, class or assignment at the top of a module."""

    module: Module
    name: str
    node: ast.stmt

    @property
    def key(self) -> tuple[str, str]:
        """Module and name."""
        return self.module.name, self.name

    def methods(self) -> dict[str, Function]:
        """Methods of a class by name."""
        body = self.node.body if isinstance(self.node, ast.ClassDef) else []
        return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}

    @functools.cached_property
    def is_dataclass(self) -> bool:
        """Whether it is a class whose decorator makes it a dataclass."""
        decorators = self.node.decorator_list if isinstance(self.node, ast.ClassDef) else []
        return any("dataclass" in ast.unparse(decorator) for decorator in decorators)

    def fields(self) -> list[ast.AnnAssign]:
        """Annotated names in the body of a class, in order."""
        body = self.node.body if isinstance(self.node, ast.ClassDef) else []
        return [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]


@dataclass(eq=False)
class Module:
    """One file. `own` are names that stand for modules and definitions of the program, `outside` all other imports."""

    name: str
    path: Path
    text: str
    tree: ast.Module
    definitions: dict[str, Definition] = field(default_factory=dict)
    own: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    outside: dict[str, Outside] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)
    """Statements at the top that are run for what they do, such as registering something."""

    @functools.cached_property
    def pristine(self) -> dict[tuple[int, int, str], ast.AST]:
        """All statements as they were written, by place and kind."""
        nodes = (node for node in ast.walk(ast.parse(self.text)) if isinstance(node, ast.stmt))
        return {(node.lineno, node.col_offset, type(node).__name__): node for node in nodes}


@dataclass(frozen=True)
class Context:
    """Where an expression stands: its module, the class around it, and the functions around it, outermost first."""

    module: Module
    cls: Definition | None = None
    functions: tuple[ast.AST, ...] = ()

    def inside(self, function: ast.AST) -> Context:
        """The context of what stands in `function`."""
        return Context(self.module, self.cls, (*self.functions, function))


class Program:
    """All modules that can be reached by imports, parsed when they are first asked for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        self.modules: dict[str, Module] = {}
        self._ancestors: dict[Definition, tuple[Definition, ...]] = {}

    def module(self, name: str) -> Module:
        """Return a module. Raises ConfigError if there is none, or if it cannot be read."""
        if name not in self.modules:
            if name not in self.files:
                raise ConfigError(f"there is no module {name!r}{nearest(name, self.files)}; name one of the package's")
            self.modules[name] = self._parse(name, self.files[name])
        return self.modules[name]

    def _parse(self, name: str, path: Path) -> Module:
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (OSError, ValueError, SyntaxError) as error:
            raise ConfigError(f"{path} cannot be weighed ({error}); give a readable Python file") from None
        module = Module(name, path, text, tree)
        self._take_imports(module, tree)
        for node in tree.body:
            names = _defined(node)
            for defined in names:
                module.definitions[defined] = Definition(module, defined, node)
            if not names and not _is_text(node):
                module.effects.append(node)
        for first, *others in _shared(module):
            for other in others:
                module.definitions[other] = module.definitions[first]
        return module

    def _take_imports(self, module: Module, tree: ast.Module) -> None:
        """Note all imports, also those in functions, and take those of the program itself out of the code."""
        for block in list(_blocks(tree)):
            for node in list(block):
                if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
                    self._take_imports(module, ast.Module(node.body, []))
                    block.remove(node)
                elif isinstance(node, ast.Import | ast.ImportFrom):
                    self._take(module, node, block, top=block is tree.body)
            if not block and block is not tree.body:
                block.append(ast.Pass())

    def _take(self, module: Module, node: ast.Import | ast.ImportFrom, block: list[ast.stmt], *, top: bool) -> None:
        if isinstance(node, ast.ImportFrom) and node.level:
            raise ConfigError(f"{module.path}, line {node.lineno}: imports are absolute here; write the whole name")
        items = [
            Outside(item.name, None, item.asname)
            if isinstance(node, ast.Import)
            else Outside(node.module or "", item.name, item.asname)
            for item in node.names
        ]
        kept = []
        for item, alias in zip(items, node.names, strict=True):
            target = self._target(item)
            if target is None:
                kept.append(alias)
                if top:
                    module.outside[item.bound] = item
            elif item.name is None and not item.alias and "." in item.module:
                raise ConfigError(
                    f"{module.path}, line {node.lineno}: a submission is one file, so take what is needed by name: "
                    f"from {item.module} import …"
                )
            else:
                module.own[item.bound] = target
        if top or not kept:
            block.remove(node)
        else:
            node.names = kept

    def _target(self, item: Outside) -> tuple[str, str | None] | None:
        """The module, and the name in it, that an import leads to; None if it leads outside."""
        if item.name is None:
            return (item.module, None) if item.module in self.files else None
        if f"{item.module}.{item.name}" in self.files:
            return f"{item.module}.{item.name}", None
        return (item.module, item.name) if item.module in self.files else None

    def find(self, module: Module, name: str) -> Definition | Outside | Module | None:
        """What a name at the top of a module stands for; None for a builtin, or nothing."""
        if name in module.definitions:
            return module.definitions[name]
        if name in module.own:
            other, inner = module.own[name]
            if inner is None:
                return self.module(other)
            found = self.find(self.module(other), inner)
            if found is None:
                raise ConfigError(f"{module.path} imports {inner!r} from {other}, which has no such name")
            return found
        return module.outside.get(name)

    def meaning(self, node: ast.expr, context: Context) -> Definition | Outside | Module | None:
        """What a name or `module.name` stands for; None for a local, a builtin, and everything else."""
        if not isinstance(node, ast.Name | ast.Attribute):
            return None
        try:
            known: Definition | Outside | Module | None = node._meaning  # type: ignore[union-attr]
            return known
        except AttributeError:
            found = self._meaning(node, context)
            node._meaning = found  # type: ignore[union-attr]
            return found

    def _meaning(self, node: ast.expr, context: Context) -> Definition | Outside | Module | None:
        if isinstance(node, ast.Name):
            if any(node.id in bound(function) for function in context.functions):
                return None
            return self.find(context.module, node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = self.meaning(node.value, context)
            if isinstance(owner, Module):
                return self.find(owner, node.attr)
        return None

    def forget_ancestors(self) -> None:
        """Bases of classes were changed."""
        self._ancestors.clear()

    def ancestors(self, cls: Definition) -> tuple[Definition, ...]:
        """A class and the classes of the program that it derives from, nearest first."""
        if cls not in self._ancestors:
            found = [cls]
            for base in cls.node.bases:  # type: ignore[attr-defined]
                target = self.meaning(base, Context(cls.module))
                if isinstance(target, Definition) and isinstance(target.node, ast.ClassDef):
                    found += [c for c in self.ancestors(target) if c not in found]
            self._ancestors[cls] = tuple(found)
        return self._ancestors[cls]


def bound(function: ast.AST) -> frozenset[str]:
    """Names that a function binds: its parameters, and whatever is assigned, imported or defined in it."""
    known = getattr(function, "_bound", None)
    if known is None:
        known = frozenset(_bound(function))
        function._bound = known  # type: ignore[attr-defined]
    return known


def _bound(function: ast.AST) -> Iterator[str]:
    arguments = function.args  # type: ignore[attr-defined]
    yield from (a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
    yield from (a.arg for a in (arguments.vararg, arguments.kwarg) if a)
    outer: set[str] = set()
    names: set[str] = set()
    body = function.body  # type: ignore[attr-defined]
    todo = list(body) if isinstance(body, list) else [body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Global | ast.Nonlocal):
            outer.update(node.names)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((item.asname or item.name).partition(".")[0] for item in node.names)
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            names.add(node.rest)
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            if not isinstance(node, ast.Lambda):
                names.add(node.name)
            continue
        todo.extend(children(node))
    yield from names - outer


_LEAVES = ("ctx", "op", "ops", "id", "attr", "arg", "name", "kind", "conversion", "type_comment")
_INNER: dict[type[ast.AST], tuple[str, ...]] = {ast.Constant: ()}


def inner_fields(kind: type[ast.AST]) -> tuple[str, ...]:
    """Fields in which a kind of node may hold others; operators and contexts of names count as none."""
    names = _INNER.get(kind)
    if names is None:
        names = _INNER[kind] = tuple(name for name in kind._fields if name not in _LEAVES)
    return names


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below a node, in order."""
    found = []
    for name in inner_fields(type(node)):
        value = getattr(node, name, None)
        if type(value) is list:
            found += [child for child in value if isinstance(child, ast.AST)]
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def tree(node: ast.AST) -> list[ast.AST]:
    """All nodes of a tree."""
    found = [node]
    for part in found:  # it grows
        found += children(part)
    return found


def walk(node: ast.AST, context: Context) -> Iterator[tuple[ast.AST, Context]]:
    """All nodes of a tree with their contexts, in order, annotations left out: they are never evaluated."""
    todo = [(node, context)]
    while todo:
        node, context = todo.pop()
        yield node, context
        if isinstance(node, FUNCTIONS):
            outer = [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]
            outer += [] if isinstance(node, ast.Lambda) else node.decorator_list
            inside = context.inside(node)
            body = node.body if isinstance(node.body, list) else [node.body]
            todo += [(child, inside) for child in reversed(body)]
            todo += [(child, context) for child in reversed(outer)]
        else:
            below = children(node)
            if isinstance(node, ast.AnnAssign):
                below.remove(node.annotation)
            todo += [(child, context) for child in reversed(below)]


def walked(function: ast.AST, context: Context) -> list[tuple[ast.AST, Context]]:
    """What `walk` gives of a function at the top of a module or class, kept until `forget`."""
    return cached(function, _walked, context)


def _walked(function: ast.AST, context: Context) -> list[tuple[ast.AST, Context]]:
    return list(walk(function, context))


def cached(function: Any, compute: Callable[..., Any], *more: Any) -> Any:
    """What `compute` gives of a function, kept until `forget`."""
    known = function.__dict__.setdefault("_kept", {})
    if compute not in known:
        known[compute] = compute(function, *more)
    return known[compute]


def forget(function: ast.AST) -> None:
    """A function was changed: what is kept of it, and of functions in it, holds no more."""
    for part in tree(function):
        if isinstance(part, FUNCTIONS):
            part.__dict__.pop("_kept", None)


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    for _, value in ast.iter_fields(node):
        if isinstance(value, list):
            if value and all(isinstance(item, ast.stmt) for item in value):
                yield value
            for item in value:
                if isinstance(item, ast.AST):
                    yield from _blocks(item)


def _defined(node: ast.stmt) -> list[str]:
    """Names that a statement at the top of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [
        n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]


def _shared(module: Module) -> Iterator[list[str]]:
    """Names that one statement defines together."""
    by_node: dict[int, list[str]] = {}
    for name, definition in module.definitions.items():
        by_node.setdefault(id(definition.node), []).append(name)
    yield from (names for names in by_node.values() if len(names) > 1)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
