"""What a program may reach, by names: more than it does reach, never less.

A statement at the top of a module is reached when code that is reached uses its name: in its own module, by an import,
or as an attribute of a module. A method is reached when its name stands anywhere in code that is reached, as an
attribute or in a string; when Python or a class from outside calls it (`__len__`, `forward`); or when a decorator of
the program's own has seen it. What does more than bind a name stays wherever its module is reached.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from niblick.bundle.pieces import (
    Function,
    Module,
    Piece,
    bound_inside,
    bound_name,
    dictionary,
    is_text,
    read_module,
    shared_names,
)
from niblick.errors import ConfigError

Registries = dict[tuple[str, str], frozenset[str]]
"""(module, name) of dictionaries of which only some keys will ever be asked for."""
Names = dict[str, frozenset[str]]
"""Names of statements and methods by module."""
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class Reach:
    """The modules and pieces that are reached from some names of some modules."""

    def __init__(self, files: dict[str, Path], registries: Registries, package: str, absent: Names) -> None:
        """`package` is the one whose `__init__` files hold nothing that its modules need; `absent` are pieces and
        methods (of any class, or as Class.method) that are known not to be needed, whoever uses their names."""
        self.files, self.registries, self.package, self.absent = files, registries, package, absent
        self.modules: dict[str, Module] = {}
        self.kept: set[Piece] = set()
        self.entries: set[ast.expr] = set()
        self.used: dict[str, set[str]] = {}
        """Names that code which is reached uses, by module."""
        self.words: set[str] = set()
        """Attributes and words in strings, everywhere."""
        self._patterns: list[re.Pattern[str]] = []
        self._as_objects: set[str] = set()
        self.wanted: dict[str, set[str]] = {}
        """Names that are asked of a module from elsewhere."""
        self.outside: list[tuple[str, Path, int, bool]] = []
        """Imports of what is not in `files`: top-level name, file, line, and whether a failure is caught."""
        self.dotted: set[str] = set()
        """Modules of the package that are named with dots, which somebody has to import."""
        self._outer: dict[ast.ClassDef, frozenset[str]] = {}

    def run(self, roots: Mapping[str, Iterable[str]]) -> None:
        """Follow everything from the roots: names of modules."""
        for name, wanted in roots.items():
            self._module(name)
            self.wanted[name].update(wanted)
        size = -1
        while size != (size := self._size()):
            for module in list(self.modules.values()):
                self._visit(module)

    def _size(self) -> int:
        return (
            len(self.kept) + len(self.words) + sum(map(len, self.used.values())) + sum(map(len, self.wanted.values()))
        )

    def _module(self, name: str) -> Module:
        if name not in self.modules:
            self.modules[name] = read_module(name, self.files[name])
            self.used.setdefault(name, set())
            self.wanted.setdefault(name, set())
            if not self._is_ours(name):  # nobody can say what a user's module does when it starts: it stays whole
                pieces = [piece for piece in self.modules[name].pieces if not self._is_import_of_ours(piece.node)]
                self.wanted[name] |= {n for piece in pieces for n in piece.names}
                if (above := name.rpartition(".")[0]) in self.files:
                    self._as_objects.add(self._module(above).name)
        return self.modules[name]

    def _is_ours(self, name: str) -> bool:
        return name.partition(".")[0] == self.package

    def _is_import_of_ours(self, node: ast.stmt) -> bool:
        """Whether a statement imports names from the package, which does nothing else."""
        return isinstance(node, ast.ImportFrom) and self._is_ours(node.module or "") and node.names[0].name != "*"

    def names(self, module: Module) -> set[str]:
        """Names of a module that code which is reached may use."""
        names = self.used[module.name] | self.wanted[module.name]
        computed = module.name in self._as_objects or not names.isdisjoint(("globals", "vars", "eval", "exec"))
        return names | self.words if computed else names

    def _visit(self, module: Module) -> None:
        names = self.names(module)
        absent = self.absent.get(module.name, frozenset())
        for piece in module.pieces:
            if piece.names & absent and not isinstance(piece.node, ast.Import | ast.ImportFrom):
                continue
            if piece not in self.kept and (not piece.optional or piece.names & names):
                self.kept.add(piece)
                self._take(module, piece)
            if piece in self.kept:
                self._members(module, piece)
                if isinstance(piece.node, ast.Import | ast.ImportFrom):
                    self._import(module, piece.node, names)

    def _take(self, module: Module, piece: Piece) -> None:
        own = {id(method.node) for method in piece.methods}
        skipped: set[int] = set()
        asked = self.registries.get((module.name, next(iter(piece.names), "")))
        if asked is not None and (entries := dictionary(piece)):
            for key, value in zip(entries.keys, entries.values, strict=True):
                if isinstance(key, ast.Constant) and key.value not in asked:
                    self.entries.add(key)
                    skipped |= {id(key), id(value)}
        if not isinstance(piece.node, ast.Import | ast.ImportFrom):
            self._read(module, piece.node, own | skipped)

    def _members(self, module: Module, piece: Piece) -> None:
        absent = self.absent.get(module.name, frozenset())
        for method in piece.methods:
            assert isinstance(piece.node, ast.ClassDef)
            (name,) = method.names
            if method in self.kept or not absent.isdisjoint((name, f"{piece.node.name}.{name}")):
                continue
            called = name.startswith("__") or name in self.words or any(p.fullmatch(name) for p in self._patterns)
            called = called or not method.optional or not self._is_ours(module.name)
            if called or name in self._calls(module, piece.node):
                self.kept.add(method)
                self._read(module, method.node, set())

    def _calls(self, module: Module, owner: ast.ClassDef) -> frozenset[str]:
        """Names that base classes from outside the package know: those classes may call them."""
        if owner not in self._outer:
            made = getattr(importlib.import_module(module.name), owner.name)
            outer = [cls for cls in made.__mro__ if cls.__module__ not in self.files]
            self._outer[owner] = frozenset(name for cls in outer for name in vars(cls))
        return self._outer[owner]

    def _read(self, module: Module, node: ast.AST, skipped: set[int]) -> None:
        """Note all names, attributes, words and imports of code that is reached."""
        todo: list[tuple[ast.AST, frozenset[str]]] = [(node, frozenset())]
        while todo:
            node, local = todo.pop()
            if id(node) in skipped or is_text(node):
                continue
            if isinstance(node, ast.Name) and node.id not in local:
                self.used[module.name].add(node.id)
            elif isinstance(node, ast.Attribute):
                self.words.add(node.attr)
                if whole := self._dotted(node):
                    self._as_objects.add(whole)
                    self.dotted.add(whole)
            elif isinstance(node, ast.keyword) and node.arg:
                self.words.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                if _DOTTED.fullmatch(node.value):
                    self.words.update(node.value.split("."))
                    if "." in node.value and node.value in self.files:
                        self._as_objects.add(self._module(node.value).name)
            elif isinstance(node, ast.JoinedStr):
                parts = [re.escape(str(v.value)) if isinstance(v, ast.Constant) else r"\w+" for v in node.values]
                if re.fullmatch(r"(\\?\w|\\w\+)*", "".join(parts)) and set(parts) != {r"\w+"}:
                    self._patterns.append(re.compile("".join(parts)))
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._import(module, node, None)
            outside, inside = _parts(node, module.postponed, bool(local))
            todo += [(part, local) for part in outside]
            if inside:
                own = (local - shared_names(node)) | bound_inside(node)
                todo += [(part, own) for part in inside]

    def _dotted(self, node: ast.Attribute) -> str:
        """The module that a chain of names and dots stands for, as after `import niblick.model.lm`; else nothing."""
        names, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name):
            return ""
        text = ".".join([inner.id, *reversed(names)])
        return self._module(text).name if text in self.files else ""

    def _source(self, module: Module, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        above = module.name.split(".")[: len(module.name.split(".")) - node.level + (module.path.name == "__init__.py")]
        return ".".join([*above, *([node.module] if node.module else [])])

    def _import(self, module: Module, node: ast.Import | ast.ImportFrom, names: set[str] | None) -> None:
        """Follow an import; of `names`, those that are used, where it stands at the top."""
        for alias in node.names:
            if names is not None and bound_name(alias) not in names and alias.name != "*":
                continue
            if isinstance(node, ast.Import):
                if alias.name in self.files:
                    self._as_objects.add(self._module(alias.name).name)
                else:
                    self._note_outside(module, node, alias.name)
                continue
            source = self._source(module, node)
            if f"{source}.{alias.name}" in self.files:
                self._as_objects.add(self._module(f"{source}.{alias.name}").name)
            elif source in self.files:
                found = self._module(source)
                self.wanted[source] |= {n for p in found.pieces for n in p.names} if alias.name == "*" else {alias.name}
            else:
                self._note_outside(module, node, source)

    def _note_outside(self, module: Module, node: ast.stmt, name: str) -> None:
        root = name.partition(".")[0]
        if root == self.package or root in self.files:
            raise ConfigError(f"{module.path}:{node.lineno} imports {name}, which is no module of {root}")
        entry = (root, module.path, node.lineno, id(node) in module.may_be_missing)
        if entry not in self.outside:
            self.outside.append(entry)


def _parts(node: ast.AST, postponed: bool, in_function: bool) -> tuple[list[ast.AST], list[ast.AST]]:
    """Splits a node: parts that are evaluated where it stands, and parts that see the names it binds for itself."""
    if isinstance(node, Function | ast.Lambda):
        taken = node.args
        outside = [*taken.defaults, *filter(None, taken.kw_defaults), *getattr(node, "decorator_list", [])]
        if not postponed:
            outside += [n.annotation for n in ast.walk(taken) if isinstance(n, ast.arg) and n.annotation]
            outside += filter(None, [getattr(node, "returns", None)])
        return [*outside], [*node.body] if isinstance(node.body, list) else [node.body]
    inside = [*ast.iter_child_nodes(node)]
    if generators := getattr(node, "generators", None):  # a comprehension: the first iterable is worked out before it
        return [generators[0].iter], inside
    if isinstance(node, ast.AnnAssign) and in_function:  # annotations of locals are never evaluated
        inside.remove(node.annotation)
    return inside, []
