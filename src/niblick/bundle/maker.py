"""The script of a config: the program of `niblick.submission.program` with all that it may reach, in one file.

The script carries its modules as sections, each under a line `# module NAME`. Its head gives them to Python's import as
they are asked for, so every module keeps its own names and nothing has to be rewritten. The readable form holds the
sections as they stand in the sources; the packed form, which is what ships and counts, holds them minified by
python-minifier and compressed.
"""

from __future__ import annotations

import ast
import base64
import gc
import importlib.util
import lzma
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from niblick.bundle.parts import left_out, registries
from niblick.bundle.pieces import dotted_name, modules_of, without
from niblick.bundle.reach import Reach
from niblick.config.run_config import RunConfig, as_code, for_submission
from niblick.errors import ConfigError
from niblick.files import imported_beside

PACKAGE = Path(__file__).parents[1]
ENTRY, START, RECIPE = "niblick.submission.program", "main", "niblick_recipe"
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
    files = modules_of(PACKAGE)
    roots: dict[str, Any] = {ENTRY: [START]}
    if recipe is not None:
        files |= {dotted_name(name): path for name, path in imported_beside(recipe).items()}
        files[RECIPE] = recipe
        roots[RECIPE] = None
    own = _own_module(config, recipe)
    for node in ast.parse(own).body:
        if isinstance(node, ast.ImportFrom) and roots.setdefault(str(node.module), []) is not None:
            roots[str(node.module)] += [alias.name for alias in node.names]
    collects = gc.isenabled()
    gc.disable()  # it would look through all syntax trees again and again, and find nothing
    try:
        return _made(config, files, roots, own)
    finally:
        if collects:
            gc.enable()


def _made(config: RunConfig, files: dict[str, Path], roots: dict[str, Any], own: str) -> Script:
    absent = left_out(config)
    reach = Reach(files, registries(config), "niblick", absent)
    reach.run(roots)
    sections, marks = {"train_config": own}, {"train_config": ""}
    for name, module in reach.modules.items():
        sections[name] = without(module, reach.kept, reach.entries, reach.names(module))
        missing = sorted({n for piece in module.pieces for n in piece.names} & absent.get(name, frozenset()))
        marks[name] = "" if module.postponed else " annotated"
        marks[name] += f" without {' '.join(missing)}" if missing else ""
    head = (PACKAGE / "submission" / "head.py").read_text(encoding="utf-8")
    readable = head + _joined(sections, marks)
    packed = minified(head) + _joined({name: minified(text) for name, text in sections.items()}, marks)
    if len(re.findall(r"^# module ", readable, re.MULTILINE)) != len(sections):
        raise ConfigError("a line of the recipe begins with `# module `, as a script's sections do: write it otherwise")
    sizes = {name: len(text.encode()) for name, text in sections.items()}
    return Script(compressed(packed), readable, sizes, _packages(reach))


def _joined(sections: dict[str, str], marks: dict[str, str]) -> str:
    future = re.compile(r"^from __future__ import annotations\n+", re.MULTILINE)
    return "".join(f"\n\n# module {name}{marks[name]}\n{future.sub('', text)}" for name, text in sections.items())


@cache
def minified(text: str) -> str:
    """Return code with short names for locals, without what only people read."""
    import python_minifier
    from python_minifier import RemoveAnnotationsOptions

    return python_minifier.minify(
        text,
        # Those of classes stay: dataclasses are made of them.
        remove_annotations=RemoveAnnotationsOptions(remove_class_attribute_annotations=False),
        remove_literal_statements=True,
        hoist_literals=False,
        rename_globals=False,
        # These take a quarter of the time, and save nothing once the text is compressed.
        combine_imports=False,
        remove_object_base=False,
        remove_pass=False,
        convert_posargs_to_args=False,
        remove_explicit_return_none=False,
        remove_builtin_exception_brackets=False,
        constant_folding=False,
    )


def compressed(text: str) -> str:
    """Return a script that unpacks a text and runs what stands before its first section."""
    data = lzma.compress(text.encode(), lzma.FORMAT_RAW, filters=_FILTERS)
    return STUB.format(data=base64.b85encode(data).decode())


def _own_module(config: RunConfig, recipe: Path | None) -> str:
    """The module that holds the config and starts the program; it imports the recipe first, for what that registers."""
    classes: dict[str, tuple[str, str]] = {}
    call = ast.parse(as_code(config, classes, RECIPE if recipe else ""), mode="eval").body
    assert isinstance(call, ast.Call)
    settings = "".join(f"    {keyword.arg}={ast.unparse(keyword.value)},\n" for keyword in call.keywords)
    lines = [f"import {RECIPE}  # registers its parts"] if recipe else []
    for own, (module, name) in sorted(classes.items()):
        lines.append(f"from {module} import {name}" + (f" as {own}" if own != name else ""))
    lines.append(f"from {ENTRY} import {START}\n\nCONFIG = {ast.unparse(call.func)}(\n{settings})\n")
    return "\n".join([*lines, f"\ndef run():\n    {START}(CONFIG)\n"])


def _packages(reach: Reach) -> tuple[str, ...]:
    """Modules from outside that the script cannot do without. Raises ConfigError for one that nobody could install."""
    found = set()
    for name, path, line, may_be_missing in reach.outside:
        if may_be_missing or name in sys.stdlib_module_names:
            continue
        if name not in found and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"{path}:{line} imports {name}, which is no Python file beside it and no installed package: a script "
                "carries neither compiled code nor what it does not find; put it into the recipe, or install a package"
            )
        found.add(name)
    return tuple(sorted(found))
