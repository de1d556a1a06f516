"""Sources as they stand, cut into the pieces that can be left out: statements at the top of a module, and methods.

Nothing here is run and nothing is rewritten. A module is its text and its syntax tree; a piece is a statement with the
lines that it takes, decorators, comments above it and the string below it included.
"""

from __future__ import annotations

import ast
import builtins
import re
from dataclasses import dataclass, field
from pathlib import Path

from niblick.errors import ConfigError

Function = ast.FunctionDef | ast.AsyncFunctionDef
PLAIN = re.compile(
    r"dataclass|property|\w+\.setter|(static|class|abstract)method|once_differentiable|overload|runtime_checkable"
    r"|(lru_)?cache|contextmanager|contextlib\.|functools\.|torch\."
)
"""Decorators that only change what they decorate; any other may register it."""
HARMLESS = frozenset({*vars(builtins), "partial"})
"""Functions in lower case that do nothing but return something; any other may register what it is given."""


@dataclass(eq=False)
class Piece:
    """A statement at the top of a module; of a class, `methods` are pieces of their own."""

    node: ast.stmt
    names: frozenset[str]
    """What it binds in its module."""
    optional: bool
    """Whether it only binds names: where none of them is used, it can be left out."""
    methods: list[Piece] = field(default_factory=list)
    end: int = 0
    """Its last line: that of the string after it, if one says what it is."""


@dataclass(eq=False)
class Module:
    """A module's text, tree and pieces."""

    name: str
    path: Path
    text: str
    tree: ast.Module
    pieces: list[Piece]
    postponed: bool
    """Whether its annotations are only text (`from __future__ import annotations`)."""
    may_be_missing: set[int]
    """Its imports (by `id`) of which a failure is caught."""


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted names of a package and all modules in it, with their files."""
    return {dotted_name(p.relative_to(package.parent).as_posix()): p for p in sorted(package.rglob("*.py"))}


def dotted_name(path: str) -> str:
    """The name that a file with this path is imported by."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def read_module(name: str, path: Path) -> Module:
    """Read a module. Raises ConfigError if it is no Python of this version."""
    try:
        text = path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError) as error:
        raise ConfigError(f"{path} cannot become part of a script: {error}") from error
    postponed = any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body)
    return Module(name, path, text, tree, _pieces(tree), postponed, may_be_missing(tree))


def _pieces(tree: ast.Module) -> list[Piece]:
    pieces: list[Piece] = []
    for node in tree.body:
        if not is_text(node):
            pieces.append(_piece(node))
        elif pieces and isinstance(pieces[-1].node, ast.Assign | ast.AnnAssign):
            pieces[-1].end = node.end_lineno or node.lineno
    return pieces


def _piece(node: ast.stmt) -> Piece:
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and not node.orelse:
        return Piece(node, frozenset(), True)  # for those who check types alone
    if isinstance(node, ast.ClassDef | Function):
        methods = [_piece(n) for n in node.body if isinstance(n, Function)] if isinstance(node, ast.ClassDef) else []
        kept = any(not PLAIN.match(ast.unparse(decorator)) for decorator in node.decorator_list)
        return Piece(node, frozenset({node.name}), not kept, methods)
    if isinstance(node, ast.Import | ast.ImportFrom):
        return Piece(node, frozenset(bound_name(alias) for alias in node.names), True)
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
    names = {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    plain = isinstance(node, ast.Assign | ast.AnnAssign) and all(
        isinstance(n, ast.Name | ast.Tuple | ast.Store) for target in targets for n in ast.walk(target)
    )
    if not plain:  # whatever a block, a call or an assignment to a part of something does, it does
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
        names |= {bound_name(alias) for n in inner for alias in n.names}
    later = {id(n) for part in ast.walk(node) if isinstance(part, ast.Lambda) for n in ast.walk(part)}
    now = [n.func for n in ast.walk(node) if isinstance(n, ast.Call) and id(n) not in later]
    calls = [func.id for func in now if isinstance(func, ast.Name)]
    does = any(name.islower() and name not in HARMLESS for name in calls)  # it may register something
    return Piece(node, frozenset(names), plain and not does)


def bound_name(alias: ast.alias) -> str:
    """The name that an import binds."""
    return alias.asname or alias.name.partition(".")[0]


Scope = (
    ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
)


def bound_inside(scope: ast.AST) -> frozenset[str]:
    """Names that a function or a comprehension binds for itself; none for anything else."""
    if not isinstance(scope, Scope):
        return frozenset()
    bound: set[str] = set()
    todo: list[ast.AST] = [scope.args, *scope.body] if isinstance(scope, Function) else [*ast.iter_child_nodes(scope)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(bound_name(alias) for alias in node.names)
        elif isinstance(node, Function | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            bound.add(node.name or "")
        if not isinstance(node, Scope | ast.ClassDef):
            todo += ast.iter_child_nodes(node)
    return frozenset(bound - shared_names(scope))


def shared_names(scope: ast.AST) -> frozenset[str]:
    """Names that a function takes from its module though it sets them."""
    if not isinstance(scope, Function):
        return frozenset()
    return frozenset(name for node in ast.walk(scope) if isinstance(node, ast.Global) for name in node.names)


def is_text(node: ast.AST) -> bool:
    """Whether a statement is a string that only says something."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def without(module: Module, kept: set[Piece], entries: set[ast.expr], used: set[str]) -> str:
    """Return the text of a module without the pieces that are not `kept`, and without its future import.

    Of imports the names that are not `used` go too, and of dictionaries the `entries`, given as their keys.
    """
    lines: list[str | None] = [*module.text.split("\n")]

    def leave_out(piece: Piece, after: int) -> None:
        first = min([piece.node.lineno, *(d.lineno for d in getattr(piece.node, "decorator_list", []))])
        while first - 1 > after and ((above := (lines[first - 2] or "").strip()).startswith("#") or not above):
            first -= 1  # what is said of it goes with it
        clear(first, max(piece.end, piece.node.end_lineno or 0))

    def clear(first: int, last: int) -> None:
        lines[first - 1 : last] = [None] * (last - first + 1)

    after = 0
    for piece in module.pieces:
        node = piece.node
        if piece not in kept or (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            leave_out(piece, after)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias for alias in node.names if bound_name(alias) in used or alias.name == "*"]
            if len(names) < len(node.names):
                clear(node.lineno, node.end_lineno or node.lineno)
                of = (node.module, names, node.level) if isinstance(node, ast.ImportFrom) else (names,)
                lines[node.lineno - 1] = ast.unparse(type(node)(*of))
        else:
            before = node.lineno
            for method in piece.methods:
                if method not in kept:
                    leave_out(method, before)
                before = method.node.end_lineno or before
            for key, value in zip(*((d.keys, d.values) if (d := dictionary(piece)) else ((), ())), strict=True):
                if key in entries and key is not None:
                    clear(key.lineno, value.end_lineno or key.lineno)
        after = max(piece.end, node.end_lineno or 0)
    return "\n".join(line for line in lines if line is not None).strip("\n") + "\n"


def dictionary(piece: Piece) -> ast.Dict | None:
    """The dictionary that a statement binds to a name, with one entry a line; None for anything else."""
    value = getattr(piece.node, "value", None)
    if not isinstance(value, ast.Dict) or not piece.optional:
        return None
    firsts = [key.lineno for key in value.keys if key is not None]
    return value if len(set(firsts)) == len(value.keys) and value.lineno not in firsts else None


def may_be_missing(tree: ast.AST) -> set[int]:
    """The imports (by `id`) of which a failure is caught, or that `find_spec` was asked about."""
    found: set[int] = set()
    asked: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(_catches(handler.type) for handler in node.handlers):
            found |= {id(n) for statement in node.body for n in ast.walk(statement)}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_spec"):
            asked |= {n.value for n in node.args if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)] if asked else []
    return found | {id(node) for node in imports for name in asked if name in ast.unparse(node)}


def _catches(kind: ast.expr | None) -> bool:
    names = {n.id for n in ast.walk(kind) if isinstance(n, ast.Name)} if kind else {"Exception"}
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception"})
