"""Trains, packs and scores a language model; made by `niblick submit`.

    python train_gpt.py                                      train, pack, score
    torchrun --standalone --nproc_per_node=8 train_gpt.py    the same on 8 GPUs
    python train_gpt.py --eval                               score the artifact final_model.nib

DATA_PATH names a folder with the challenge's shards. ENVIRONMENT in the module niblick.challenge.rules lists what else
can be set, under the names of the challenge's own scripts. The config stands first, the program itself is
niblick.submission.program.
Shapes in names: B batch, L positions, C chunks, D width, H heads, G key-value heads, K head width, V vocabulary.
"""

import __future__

import importlib
import importlib.machinery
import re
import sys
from types import ModuleType
from typing import Any


class Sections:
    """Gives Python's import the modules that stand below, each in its section of this file."""

    def __init__(self, text: str) -> None:
        parts = re.split(r"^# module (\S+)( annotated)?(?: without (.*))?\n", text, flags=re.M)[1:]
        self.found = dict(zip(parts[::4], zip(parts[1::4], parts[2::4], parts[3::4], strict=True), strict=True))

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        inside = any(other.startswith(name + ".") for other in self.found)
        if name in self.found or inside:
            return importlib.machinery.ModuleSpec(name, self, origin=name, is_package=inside)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> None:
        pass

    def exec_module(self, module: ModuleType) -> None:
        eager, without, code = self.found.get(module.__name__, ("", "", ""))
        for name in (without or "").split():
            setattr(module, name, Absent(name, (), {}))
        file = module.__file__ = f"{__file__}/{module.__name__.replace('.', '/')}.py"
        flags = 0 if eager else __future__.annotations.compiler_flag
        exec(compile(code, file, "exec", flags, True), module.__dict__)

    def get_source(self, name: str) -> str:
        return self.found.get(name, ("", "", ""))[2]


class Absent(type):
    """A part that the config of this script does not use: whoever asks for it all the same is told."""

    is_absent = True

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        """Refuse to make or call it."""
        sys.exit(
            f"{sys.argv[0]}: {cls.__name__} is not in this script: its config does not use it; make another script"
        )

    def __getattr__(cls, name: str) -> Any:
        """Refuse to look into it; what Python itself asks for is simply not there."""
        if name.startswith("__"):
            raise AttributeError(name)
        return cls()


if __name__ == "__main__":
    if "TEXT" not in globals():  # else the packed form has unpacked it
        with open(__file__, encoding="utf-8") as file:
            TEXT = file.read()
    sections = Sections(TEXT)
    for name in sections.found:  # what Python has loaded under such a name is not what is meant
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, sections)
    sys.exit(importlib.import_module("train_config").run())
