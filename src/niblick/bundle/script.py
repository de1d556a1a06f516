"""The script of a config: the program of `niblick.script` with all that it may reach, in one file.

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
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from niblick.bundle.parts import left_out, registries
from niblick.bundle.reach import Reach
from niblick.bundle.sources import Module, dotted_name, modules_of, without
from niblick.config import RunConfig, as_code
from niblick.errors import ConfigError
from niblick.files import imported_beside

PACKAGE = Path(__file__).parents[1]
ENTRY, START, RECIPE = "niblick.script", "main", "niblick_recipe"
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]

HEAD = '''\
class Sections:
    """Gives Python's import the modules that stand below, each in its section of this file."""

    def __init__(self, text):
        parts = re.split(r"^# module (\\S+)( annotated)?(?: without (.*))?\\n", text, flags=re.M)[1:]
        self.found = dict(zip(parts[::4], zip(parts[1::4], parts[2::4], parts[3::4])))

    def find_spec(self, name, path=None, target=None):
        inside = any(other.startswith(name + ".") for other in self.found)
        if name in self.found or inside:
            return importlib.machinery.ModuleSpec(name, self, origin=name, is_package=inside)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        eager, without, code = self.found.get(module.__name__, ("", "", ""))
        for name in (without or "").split():
            setattr(module, name, absent(name))
        file = module.__file__ = f"{__file__}/{module.__name__.replace('.', '/')}.py"
        flags = 0 if eager else __future__.annotations.compiler_flag
        exec(compile(code, file, "exec", flags, True), module.__dict__)

    def get_source(self, name):
        return self.found.get(name, ("", "", ""))[2]


def absent(name):
    """A part that the config of this script does not use: whoever asks for it all the same is told."""

    def refuse(self, *arguments, **options):
        sys.exit(f"{sys.argv[0]}: {name} is not in this script: its config does not use it; make another script")

    return type(name, (), {"__init__": refuse})


sys.meta_path.insert(0, Sections(TEXT))
if __name__ == "__main__":
    from train_config import run

    sys.exit(run())
'''
IMPORTS = "import __future__, importlib.machinery, re, sys\n"
STUB = """\
import __future__,base64,importlib.machinery,lzma,re,sys
TEXT=lzma.decompress(base64.b85decode("{data}"),3,None,[{{"id":33}}]).decode()
exec(compile(TEXT.partition("\\n# module ")[0],__file__,"exec"))
"""
USE = '''\
"""{name}: trains, packs and scores a language model; made by `niblick submit`.

    python {file}                                      train, pack, score
    torchrun --standalone --nproc_per_node=8 {file}    the same on 8 GPUs
    python {file} --eval                               score the artifact final_model.nib

DATA_PATH names a folder with the challenge's shards. ENVIRONMENT in the module niblick.challenge lists what else can be
set, under the names of the challenge's own scripts. The config stands first, the program itself is niblick.script.
Shapes in names: B batch, L positions, C chunks, D width, H heads, G key-value heads, K head width, V vocabulary.
"""

'''


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
    for node in ast.walk(ast.parse(own)):
        if isinstance(node, ast.ImportFrom) and node.module:
            wanted = roots.setdefault(node.module, [])
            if wanted is not None:
                wanted += [alias.name for alias in node.names]
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
    sections = {"train_config": own}
    for name, module in reach.modules.items():
        sections[name] = without(module, reach.kept, reach.entries, reach.names(module))
    marks = {"train_config": ""} | {
        name: _mark(module, absent.get(name, frozenset())) for name, module in reach.modules.items()
    }
    about = USE.format(name=config.preset, file="train_gpt.py")
    source = 'from pathlib import Path\n\nTEXT = Path(__file__).read_text(encoding="utf-8")\n\n\n'
    readable = about + IMPORTS + source + HEAD + _joined(sections, marks)
    packed = minified(HEAD) + "\n" + _joined({name: minified(text) for name, text in sections.items()}, marks)
    if len(re.findall(r"^# module ", readable, re.MULTILINE)) != len(sections):
        raise ConfigError("a line of the recipe begins with `# module `, as a script's sections do: write it otherwise")
    sizes = {name: len(text.encode()) for name, text in sections.items()}
    return Script(compressed(packed), readable, sizes, _packages(reach))


def _mark(module: Module, absent: frozenset[str]) -> str:
    """What a section's line says after its name: how annotations are meant, and what is not there."""
    names = sorted({n for piece in module.pieces for n in piece.names} & absent)
    return (" annotated" if not module.postponed else "") + (f" without {' '.join(names)}" if names else "")


def _joined(sections: dict[str, str], marks: dict[str, str]) -> str:
    future = re.compile(r"^from __future__ import annotations\n+", re.MULTILINE)
    return "".join(f"\n\n# module {name}{marks[name]}\n{future.sub('', text)}" for name, text in sections.items())


@cache
def minified(text: str) -> str:
    """Return code with short names for locals, without what only people read."""
    import python_minifier
    from python_minifier import RemoveAnnotationsOptions

    annotations = RemoveAnnotationsOptions(
        remove_variable_annotations=True,
        remove_return_annotations=True,
        remove_argument_annotations=True,
        remove_class_attribute_annotations=False,
    )
    return python_minifier.minify(
        text,
        remove_annotations=annotations,
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


def for_submission(config: RunConfig) -> RunConfig:
    """The config without what belongs to one machine. Raises ConfigError for what needs files that no folder has."""
    if reads_another_file(config):
        raise ConfigError(
            f"train.init_from={config.train.init_from} reads a file besides data and code, and a submission has none: "
            "leave it out, or start from train.init_from=whitespace"
        )
    entropy = replace(config.entropy, artifact="entropy.nib") if config.entropy.artifact else config.entropy
    # Checkpoints, and watching over them, are for runs at home.
    train = replace(config.train, checkpoint_every=0, rollback=False, device="auto")
    return replace(config, track="", entropy=entropy, train=train, data=replace(config.data, path="data"))


def reads_another_file(config: RunConfig) -> bool:
    """Whether training starts from a file besides data and code, which no submission has."""
    guide = config.train.init_from
    return guide == "entropy" or guide.startswith("bpe:")


def _own_module(config: RunConfig, recipe: Path | None) -> str:
    """The module that holds the config and starts the program; it imports the recipe first, for what that registers."""
    classes: dict[str, tuple[str, str]] = {}
    text = as_code(config, classes, RECIPE if recipe else "")
    imports = [
        f"from {module} import {name}" + (f" as {own}" if own != name else "")
        for own, (module, name) in sorted(classes.items())
    ]
    first = [f"import {RECIPE}  # registers its parts"] if recipe else []
    start = f"def run():\n    {START}(CONFIG)\n"
    lines = [
        *first,
        *imports,
        f"from {ENTRY} import {START}",
        "",
        _laid_out(ast.parse(f"CONFIG = {text}")),
        "",
        "",
        start,
    ]
    return "\n".join(lines)


def _laid_out(tree: ast.Module) -> str:
    """The config with a line for each setting of its parts."""
    assign = tree.body[0]
    assert isinstance(assign, ast.Assign)
    call = assign.value
    assert isinstance(call, ast.Call)
    inside = "".join(f"    {keyword.arg}={ast.unparse(keyword.value)},\n" for keyword in call.keywords)
    return f"CONFIG = {ast.unparse(call.func)}(\n{inside})"


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
