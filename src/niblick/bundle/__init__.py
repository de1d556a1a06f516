"""A config's own code as one script: only what it and the user's recipe use, and what that weighs.

The cap counts code as well as weights. `make_script` starts from the program of a submission (`niblick.script`),
follows names through the sources without running them (`program`), takes away what the config settles (`values`,
`folding`) and writes down what is left (`writing`). The file that `niblick submit` writes is this text, byte for byte.
"""

from __future__ import annotations

import ast
import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from niblick.bundle.facts import Facts
from niblick.bundle.program import Module, Program
from niblick.bundle.specializing import specialize
from niblick.bundle.trees import literal
from niblick.bundle.writing import write
from niblick.errors import ConfigError

ENTRY = "niblick.script"


@dataclass(frozen=True)
class CodeSize:
    """`total` UTF-8 bytes of the script `text`; `modules`: the bytes of each part of it, in the order of the script.

    The parts add up to the total; "imports" are those from outside, "start" is what runs the script.
    """

    total: int
    modules: dict[str, int]
    text: str


def join(parts: dict[str, str]) -> CodeSize:
    """Put parts of a script together."""
    text = "".join(parts.values())
    return CodeSize(len(text.encode()), {name: len(part.encode()) for name, part in parts.items()}, text)


def modules_of(package: Path) -> dict[str, Path]:
    """Dotted names of a package and all modules in it, with their files."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        names = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def modules_beside(file: Path) -> dict[str, Path]:
    """What a user's file can import from its own folder: modules and packages."""
    found = {path.stem: path for path in sorted(file.parent.glob("*.py"))}
    for path in sorted(file.parent.glob("*/__init__.py")):
        found |= modules_of(path.parent)
    return found


def build(
    files: dict[str, Path],
    entry: str,
    facts: Facts,
    given: dict[str, Any],
    recipe: Path | None = None,
    start: str = "main",
    about: str = "",
) -> tuple[dict[str, str], dict[str, str]]:
    """Make the script that starts at the function `start` of the module `entry`: its parts, and its names of classes.

    `given` are values for names of the entry module; a recipe's statements are all kept, but its function `recipe`.
    Raises ConfigError for sources that cannot be read, and for values that cannot be written down.
    """
    program = Program(files)
    first = program.module(entry)
    scripts: list[Module] = []
    if recipe is not None:
        program.files |= {f"{recipe.stem}.py": recipe} | modules_beside(recipe) | files
        scripts.append(program.module(f"{recipe.stem}.py"))
        scripts += [program.module(name) for name in _imported(program, scripts[0])]
    for name, value in given.items():
        first.definitions[name].node.value = _written(value, first)  # type: ignore[attr-defined]
    with _no_collection():
        live = specialize(program, facts, [first.definitions[start]], scripts)
        parts, classes = write(program, live, scripts)
    parts["start"] = f'\n\nif __name__ == "__main__":\n    {start}()\n'
    return ({"about": about} if about else {}) | parts, classes


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector: it would look through all trees again and again, and find nothing."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _written(value: Any, module: Module) -> ast.expr:
    """A value as code in a module, whose classes it may then name. Raises ConfigError for what cannot be written."""

    def name(cls: type) -> str:
        target = (cls.__module__, cls.__qualname__)
        own = cls.__name__ if module.own.get(cls.__name__, target) == target else "_".join(target).replace(".", "_")
        module.own[own] = target
        return own

    if isinstance(value, dict):
        text: str | None = repr(value)
    else:
        text = literal(value, name)
    if text is None:
        raise ConfigError("the config holds values that cannot be written down: give numbers, texts and tuples")
    return ast.parse(text, mode="eval").body


def _imported(program: Program, module: Module) -> list[str]:
    """Modules beside a recipe that it imports: what they do at their top is done too."""
    names, todo = [], [module]
    while todo:
        for other, _ in todo.pop().own.values():
            if other not in names and not other.startswith("niblick"):
                names.append(other)
                todo.append(program.module(other))
    return names


def config_facts(config: Any) -> dict[tuple[str, str], tuple[Any, ...]]:
    """All dataclass objects in a config by class, each at its base classes too."""
    found: dict[tuple[str, str], list[Any]] = {}

    def visit(value: Any) -> None:
        if is_dataclass(value) and not isinstance(value, type):
            for cls in type(value).__mro__:
                if is_dataclass(cls):
                    known = found.setdefault((cls.__module__, cls.__qualname__), [])
                    if value not in known:
                        known.append(value)
            for item in vars(value).values():
                visit(item)
        elif isinstance(value, tuple | list):
            for item in value:
                visit(item)

    visit(config)
    return {key: tuple(values) for key, values in found.items()}
