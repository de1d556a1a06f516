"""The script of a config: the program of `niblick.submission.program` with all that it may reach, in one file.

The script carries its modules as sections, each under a line `# module NAME`. Its head gives them to Python's import as
they are asked for, so every module keeps its own names and nothing has to be rewritten. The readable form holds the
sections as they stand in the sources; the packed form, which is what ships and counts, holds them minified by
python-minifier and compressed.
"""

from __future__ import annotations

import ast
import base64
import importlib.machinery
import lzma
import re
import sys
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from niblick.bundle.parts import FASTER_WITH, left_out, registries
from niblick.bundle.pieces import dotted_name, is_text, modules_of, read_module, without
from niblick.bundle.reach import Reach
from niblick.bundle.recalled import PACKAGE, recall
from niblick.config.run_config import RunConfig, as_code, for_submission
from niblick.errors import ConfigError
from niblick.files import imported_beside
from niblick.memory import uncollected

PRESETS = "niblick.recipes.presets"
OWN, ENTRY, START, RECIPE = "train_config", "niblick.submission.program", "main", "niblick_recipe"
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
STUB = """\
import base64,lzma
TEXT=lzma.decompress(base64.b85decode("{data}"),3,None,[{{"id":33}}]).decode()
exec(compile(TEXT.partition("\\n# module ")[0],__file__,"exec"))
"""


@dataclass(frozen=True)
class Script:
    """One program in two forms, which give the same numbers."""

    packed: str
    """What ships as train_gpt.py."""
    readable: str
    modules: dict[str, int]
    """UTF-8 bytes of each module in the readable form."""
    requires: tuple[str, ...]
    """Top-level modules from outside the standard library that it imports and cannot do without."""

    @property
    def total(self) -> int:
        """UTF-8 bytes of code: those of the packed form."""
        return len(self.packed.encode())


def make_script(config: RunConfig, recipe: Path | None = None) -> Script:
    """Return the script that trains, packs and scores a config. Raises ConfigError if it cannot be one file.

    The recipe must have been loaded: what it registers is in use.
    """
    config = for_submission(config)
    users = {RECIPE: recipe} if recipe else {}
    users |= {dotted_name(name): path for name, path in imported_beside(recipe).items()} if recipe else {}
    if taken := sorted({OWN, RECIPE, "niblick"} & {name.partition(".")[0] for name in users} - {RECIPE}):
        raise ConfigError(f"a module beside the recipe is called {taken[0]}, as a part of scripts is: rename it")
    with uncollected():
        return _made(config, users)


def _made(config: RunConfig, users: dict[str, Path]) -> Script:
    trees = {name: read_module(name, path).tree for name, path in users.items()}
    words = {word for tree in trees.values() for word in words_of(tree)}
    absent = {module: names - words for module, names in left_out(config).items()}
    asked = {key: names for key, names in registries(config).items() if key[1] not in words}
    calls = bool(users) and acts(trees[RECIPE])
    unused = {} if calls or not users else {RECIPE: frozenset({"recipe"})}  # the config says it all
    classes: dict[str, tuple[str, str]] = {}
    code = as_code(config, classes, RECIPE if users else "")
    roots: dict[str, list[str]] = {ENTRY: [START], **{name: [] for name in users}}
    for owner, name in classes.values():
        roots.setdefault(owner, []).append(name)
    own = tuple((name, path, path.read_bytes()) for name, path in users.items())
    named = tuple((name, *sorted(names)) for name, names in roots.items())
    parts = _parts(Wanted(own, named, frozenset(asked.items()), frozenset(absent.items()), frozenset(unused.items())))
    sections = {OWN: _own_module(code, classes, parts.dotted, bool(users), calls)} | parts.sections
    marks = {OWN: ""} | parts.marks
    readable = _head() + _joined(sections, marks)
    packed = parts.head + _joined({OWN: minified(sections[OWN])} | parts.small, marks)
    if any(len(re.findall(r"^# module ", text, re.MULTILINE)) != len(sections) for text in (readable, packed)):
        raise ConfigError("a line of the recipe begins with `# module `, as a script's sections do: write it otherwise")
    sizes = {name: len(text.encode()) for name, text in sections.items()}
    return Script(compressed(packed), readable, sizes, _packages(parts))


@dataclass(frozen=True)
class Parts:
    """What a script holds besides its config."""

    sections: dict[str, str]
    """The text of each module that is reached, without what is not."""
    marks: dict[str, str]
    """What the line over each says after its name."""
    dotted: list[str]
    """Modules that are named with dots somewhere."""
    outside: list[list[Any]]
    """Imports of what is not in the sections: top-level name, file, line, and whether a failure is caught."""
    head: str
    """What stands before all sections, minified."""
    small: dict[str, str]
    """The sections, minified."""


class Wanted(NamedTuple):
    """What decides which parts a script holds."""

    users: tuple[tuple[str, Path, bytes], ...]
    """Name, file and bytes of each of the recipe's modules."""
    roots: tuple[tuple[str, ...], ...]
    """Modules, each with the names that are wanted of it."""
    asked: frozenset[tuple[tuple[str, str], frozenset[str]]]
    """Registries, each with the entries that are asked for."""
    absent: frozenset[tuple[str, frozenset[str]]]
    """Pieces and methods that are left out, by module."""
    unused: frozenset[tuple[str, frozenset[str]]]
    """Of these, those that are left out whatever is reached."""


@lru_cache(maxsize=32)
def _parts(wanted: Wanted) -> Parts:
    """The modules that are reached: the same for configs that differ in numbers only, and found once for them.

    Without a recipe, an earlier process may have found them.
    """
    if wanted.users:
        return _found(wanted)
    named = [sorted([key, sorted(names)] for key, names in each) for each in (wanted.asked, wanted.absent)]
    return Parts(**recall([wanted.roots, *named], lambda: asdict(_found(wanted))))


def _found(wanted: Wanted) -> Parts:
    files = modules_of(PACKAGE) | {name: path for name, path, _ in wanted.users}
    roots, missing = {name: names for name, *names in wanted.roots}, dict(wanted.absent) | dict(wanted.unused)
    reach = Reach(files, dict(wanted.asked), "niblick", missing)
    reach.run(roots)
    if PRESETS in reach.modules:  # they name parts of all kinds
        missing = dict(wanted.unused)
        reach = Reach(files, {}, "niblick", missing)
        reach.run(roots)
    sections, marks = {}, {}
    for name, module in reach.modules.items():
        sections[name] = without(module, reach.kept, reach.entries, reach.names(module))
        left = sorted({n for piece in module.pieces for n in piece.names} & missing.get(name, frozenset()))
        marks[name] = "" if module.postponed else " annotated"
        marks[name] += f" without {' '.join(left)}" if left else ""
    own = {name for name, _, _ in wanted.users}
    small = {name: minified(text, name in own) for name, text in sections.items()}
    outside = [[name, str(path), *rest] for name, path, *rest in reach.outside]
    return Parts(sections, marks, sorted(reach.dotted), outside, minified(_head()), small)


def _head() -> str:
    return (PACKAGE / "submission" / "head.py").read_text(encoding="utf-8")


def words_of(tree: ast.AST) -> set[str]:
    """All names, attributes and words in strings of a tree: what a user's module may ask of ours."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(re.findall(r"\w+", node.value))
        found |= {str(getattr(node, key)) for key in ("id", "attr", "name") if getattr(node, key, None)}
    return found


def acts(tree: ast.Module) -> bool:
    """Whether a recipe's function `recipe` may do more than return a config: it is then called before the config."""
    own = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "recipe"]
    lasting = ast.Global | ast.Nonlocal | ast.Delete | ast.Import | ast.ImportFrom
    stores = ast.Attribute | ast.Subscript
    return (
        any(
            isinstance(node, lasting)
            or (isinstance(node, stores) and isinstance(node.ctx, ast.Store))
            or (isinstance(node, ast.Expr) and not is_text(node))
            for function in own
            for node in ast.walk(function)
        )
        or not own
    )


def _joined(sections: dict[str, str], marks: dict[str, str]) -> str:
    return "".join(f"\n\n# module {name}{marks[name]}\n{text}" for name, text in sections.items())


@cache
def minified(text: str, typed: bool = False) -> str:
    """Return code with short names for locals, without what only people read; `typed`: annotations stay.

    Raises ConfigError for code that the minifier cannot handle.
    """
    import python_minifier
    from python_minifier import RemoveAnnotationsOptions

    # Annotations of classes stay: dataclasses are made of them. The other passes take a quarter of the time, and save
    # nothing once the text is compressed.
    drop = {f"remove_{kind}_annotations": not typed for kind in ("variable", "return", "argument")}
    annotations = RemoveAnnotationsOptions(remove_class_attribute_annotations=False, **drop)
    try:
        return python_minifier.minify(
            text,
            remove_annotations=annotations,
            remove_literal_statements=not typed,
            rename_locals=not typed,
            combine_imports=False,
            remove_object_base=False,
            remove_pass=False,
            convert_posargs_to_args=False,
            constant_folding=False,
            remove_explicit_return_none=False,
            remove_builtin_exception_brackets=False,
            hoist_literals=False,
            rename_globals=False,
        )
    except Exception as error:
        name = text.partition("\n")[0]
        raise ConfigError(
            f"the code that begins with {name!r} cannot be minified ({error}): write it simpler"
        ) from error


@lru_cache(maxsize=8)
def compressed(text: str) -> str:
    """Return a script that unpacks a text and runs what stands before its first section."""
    data = lzma.compress(text.encode(), lzma.FORMAT_RAW, filters=_FILTERS)
    return STUB.format(data=base64.b85encode(data).decode())


def _own_module(code: str, classes: dict[str, tuple[str, str]], dotted: list[str], recipe: bool, calls: bool) -> str:
    """The module that holds the config and starts the program.

    As at home, niblick is there before the recipe, and that before the config.
    """
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    settings = "".join(f"    {keyword.arg}={ast.unparse(keyword.value)},\n" for keyword in call.keywords)
    lines = [f"from {ENTRY} import {START}", *(f"import {name}" for name in dotted)]
    lines += [f"import {RECIPE}"] if recipe else []
    lines += [f"{RECIPE}.recipe()"] if calls else []
    for own, (module, name) in sorted(classes.items(), key=lambda item: item[1]):
        lines.append(f"from {module} import {name}" + (f" as {own}" if own != name else ""))
    lines.append(f"\nCONFIG = {ast.unparse(call.func)}(\n{settings})\n")
    return "\n".join([*lines, f"\ndef run():\n    {START}(CONFIG)\n"])


def _packages(parts: Parts) -> tuple[str, ...]:
    """Modules from outside that the script cannot do without. Raises ConfigError for one that nobody could install."""
    found = set()
    for name, path, line, may_be_missing in parts.outside:
        if may_be_missing or name in sys.stdlib_module_names:
            continue
        if name not in found and importlib.machinery.PathFinder.find_spec(name) is None:
            raise ConfigError(
                f"{path}:{line} imports {name}, which is no Python file beside it and no installed package: a script "
                "carries neither compiled code nor what it does not find; put it into the recipe, or install a package"
            )
        found.add(name)
    found |= {package for module, package in FASTER_WITH.items() if module in parts.sections}
    return tuple(sorted(found))
