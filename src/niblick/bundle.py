"""What code weighs: the modules that a config needs, joined into one script and counted in UTF-8 bytes.

The cap counts code as well as weights. Starting from root modules (and a user's recipe), imports inside the package are
followed through the sources without running anything, those in functions too, and the text is really built: comments,
docstrings and blank lines stand as they are; imports inside the package fall away; all other imports at module level
are merged at the top. The script shows what would be submitted and is valid Python, but names of different modules may
clash in it: it is made to be weighed. Modules that are imported by computed names are not seen: name them as roots.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from niblick.errors import ConfigError, nearest

_IMPORTS = "imports"


@dataclass(frozen=True)
class CodeSize:
    """`total` UTF-8 bytes of the script `text`; `modules`: the bytes of each part of it, in the order of the script.

    The parts add up to the total; the one called "imports" holds the merged imports.
    """

    total: int
    modules: dict[str, int]
    text: str


@dataclass(frozen=True)
class _Import:
    """One name imported from outside the package: `import module as alias`, or `from module import name as alias`."""

    module: str
    name: str | None
    alias: str | None


def code_bytes(
    roots: Iterable[str], extra_files: Iterable[str | Path] = (), *, package: Path | None = None
) -> CodeSize:
    """Weigh the script made of the modules `roots` (such as "niblick.model.lm"), all that they import, and extra files.

    An extra file is a user's recipe; modules beside it that it imports are counted too. `package` is the folder of the
    package, niblick's own by default. The same sources give the same bytes. Raises ConfigError for a root that does
    not exist, a file that cannot be read or is no Python, and for relative imports.
    """
    package = package or Path(__file__).parent
    known = _modules(package)
    walk = _Walk()
    for root in roots:
        if root not in known:
            raise ConfigError(f"there is no module {root!r}{nearest(root, known)}; name one of the package's own")
        walk.visit(root, known)
    for file in map(Path, extra_files):
        walk.visit_source(file.name, file, _modules_beside(file) | known)
    merged = _merged(walk.external)
    parts = {_IMPORTS: merged} if merged else {}
    parts |= walk.texts
    text = "".join(parts.values())
    return CodeSize(len(text.encode()), {name: len(part.encode()) for name, part in parts.items()}, text)


def _modules(package: Path) -> dict[str, Path]:
    """Dotted names of a package and all modules in it, with their files."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        names = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def _modules_beside(file: Path) -> dict[str, Path]:
    """What a user's file can import from its own folder: modules and packages."""
    found = {path.stem: path for path in sorted(file.parent.glob("*.py"))}
    for path in sorted(file.parent.glob("*/__init__.py")):
        found |= _modules(path.parent)
    return found


class _Walk:
    """A walk over sources: each is visited once, after all that it imports."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.external: set[_Import] = set()
        self._visited: set[Path] = set()

    def visit(self, name: str, own: dict[str, Path]) -> None:
        """Visit the packages that module `name` lies in, then itself: what importing it runs."""
        names = name.split(".")
        for depth in range(1, len(names) + 1):
            module = ".".join(names[:depth])
            if module in own:
                self.visit_source(module, own[module], own)

    def visit_source(self, label: str, path: Path, own: dict[str, Path]) -> None:
        """Visit a file whose imports of the modules in `own` are followed, and keep what remains of its text."""
        if path.resolve() in self._visited:
            return
        self._visited.add(path.resolve())
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (OSError, ValueError, SyntaxError) as error:
            raise ConfigError(f"{path} cannot be weighed ({error}); give a readable Python file") from None
        blocks = []
        for block, runs in _blocks(tree):
            removed = set()
            for number, node in enumerate(block):
                if not isinstance(node, ast.Import | ast.ImportFrom):
                    continue
                if isinstance(node, ast.ImportFrom) and node.level:
                    raise ConfigError(f"{path}, line {node.lineno}: imports are absolute here; write the whole name")
                names = [(item, target) for item in _items(node) if (target := _target(item, own))]
                for _, target in names if runs else ():
                    self.visit(target, own)
                if block is tree.body:
                    self.external.update(set(_items(node)) - {item for item, _ in names})
                if names or block is tree.body:
                    removed.add(number)
            blocks.append((block, removed, block is tree.body))
        text = _without(source, blocks)
        if text.strip():
            key = label if label not in self.texts else f"{label} ({path.parent.name})"
            self.texts[key] = text if text.endswith("\n") else text + "\n"


def _blocks(tree: ast.Module) -> Iterator[tuple[list[ast.stmt], bool]]:
    """All lists of statements in a module, with whether they run (those under `if TYPE_CHECKING:` do not)."""
    todo: list[tuple[ast.AST, bool]] = [(tree, True)]
    while todo:
        node, runs = todo.pop()
        for field, value in ast.iter_fields(node):
            inner = runs and not (field == "body" and isinstance(node, ast.If) and _is_type_checking(node.test))
            nodes = [item for item in value if isinstance(item, ast.AST)] if isinstance(value, list) else []
            if nodes and all(isinstance(item, ast.stmt) for item in nodes):
                yield nodes if node is not tree else tree.body, inner  # type: ignore[misc]
            todo += [(item, inner) for item in nodes]


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _items(node: ast.Import | ast.ImportFrom) -> list[_Import]:
    if isinstance(node, ast.Import):
        return [_Import(item.name, None, item.asname) for item in node.names]
    return [_Import(node.module or "", item.name, item.asname) for item in node.names]


def _target(item: _Import, own: dict[str, Path]) -> str | None:
    """The module of `own` that an import leads to, or None if it leads elsewhere."""
    for name in (f"{item.module}.{item.name}", item.module):
        if name in own:
            return name
    return None


def _merged(external: set[_Import]) -> str:
    """The imports from outside, one line a module, `__future__` first (Python wants it there), else by name."""
    lines = []
    plain = [item for item in external if item.name is None]
    for item in sorted(plain, key=lambda item: (item.module, item.alias or "")):
        lines.append(f"import {item.module}" + (f" as {item.alias}" if item.alias else ""))
    for module in sorted({item.module for item in external if item.name is not None}):
        names = sorted({_named(item) for item in external if item.module == module and item.name not in (None, "*")})
        line = f"from {module} import {', '.join(names)}"
        if names and module == "__future__":
            lines.insert(0, line)
        elif names:
            lines.append(line)
        if _Import(module, "*", None) in external:
            lines.append(f"from {module} import *")
    return "".join(line + "\n" for line in lines)


def _named(item: _Import) -> str:
    return f"{item.name} as {item.alias}" if item.alias else str(item.name)


def _without(source: str, blocks: list[tuple[list[ast.stmt], set[int], bool]]) -> str:
    """`source` without the removed statements of each (block, numbers removed, whether it may become empty)."""
    lines = source.encode().split(b"\n")  # columns of the syntax tree count UTF-8 bytes
    cuts = []
    for block, removed, may_be_empty in blocks:
        keep_one = len(removed) == len(block) and not may_be_empty
        cuts += [(block[number], keep_one and number == min(removed)) for number in removed]
    for node, keep in sorted(cuts, key=lambda cut: (cut[0].lineno, cut[0].col_offset), reverse=True):
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
        alone = not before.strip() and (not after.strip() or after.lstrip().startswith(b"#"))
        lines[first : last + 1] = [before + b"pass" + after] if keep or not alone else []
    return b"\n".join(lines).decode()
