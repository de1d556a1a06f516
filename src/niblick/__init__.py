"""niblick: the laboratory for small language models under a byte cap, and for learned tokenization.

import niblick as nb

data = nb.prepare("book.txt", "data/book")            text → token shards
run = nb.train("hnet-small", "data/book", schedule__max_seconds=60)
run.score, run.curve, run.result                      bits per byte; columns; everything that made the score
model = nb.load(run)                                  or nb.load("artifact.nib"), nb.load("latest")
model.bits(text), model.logits(text), model.chunks(text), model.generate("The quick ", temperature=0.7)
nb.compare(run, other), nb.plot(run, other), nb.audit(run)
nb.export(run, scheme="int6", codec="range"), nb.fit(run, cap=16_000_000)
nb.push(run, "hf:me/tiny")                            or to a folder; nb.load takes either
nb.decompress(nb.compress(text, run), run)
nb.sweep("hnet-small", {"model.width": [64, 96]}, "data/book", name="widths")
nb.resume(run), nb.open_run("latest"), nb.runs(), nb.remove(run), nb.presets(), nb.show("hnet-small")

nb.score(f, "data/book").bpb                          any f from ids (B, L) to log-probabilities (B, L, V)
nb.pack(state_dict, "int6")                           any weights in the form of an artifact; cap=…: as good as fits

Each name is documented: help(nb.train). Errors are NiblickError, with one sentence that says what to do.
"""

import functools
import importlib
import os
import sys
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from niblick.api.judging import audit, compare, plot
    from niblick.api.making import Data, prepare, resume, sweep, train
    from niblick.api.own_runs import Artifact, Run, open_run, presets, remove, runs, show
    from niblick.api.reworking import compress, decompress, export, fit, push
    from niblick.errors import NiblickError
    from niblick.pack.weights import pack_weights as pack
    from niblick.run.generate import Loaded, chunks, load
    from niblick.score.any_function import score_function as score
    from niblick.sweeps.sweep import Sweep, grid, listed, zipped

# OpenMP threads wait for each other in a busy loop; beside any other process that costs ten times the work itself.
# A short loop loses nothing on an idle machine (docs/performance.md). torch looks at this once, when it is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_HOMES = {
    "api.judging": ("plot",),
    "api.making": ("Data", "prepare", "resume", "sweep"),
    "api.own_runs": ("Artifact", "Run", "open_run", "presets", "remove", "runs", "show"),
    "api.reworking": ("compress", "decompress", "export", "fit", "push"),
    "errors": ("NiblickError",),
    "run.generate": ("Loaded", "chunks", "load"),
    "sweeps.sweep": ("Sweep", "grid", "listed", "zipped"),
}
"""Where each name lives: torch is only imported when something needs it."""

_VERBS = {
    "audit": ("api.judging", "audit"),
    "compare": ("api.judging", "compare"),
    "pack": ("pack.weights", "pack_weights"),
    "score": ("score.any_function", "score_function"),
    "train": ("api.making", "train"),
}
"""Names that are both a package and a function: the package is called."""

_WHERE = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "Artifact",
    "Data",
    "Loaded",
    "NiblickError",
    "Run",
    "Sweep",
    "__version__",
    "audit",
    "chunks",
    "compare",
    "compress",
    "decompress",
    "export",
    "fit",
    "grid",
    "listed",
    "load",
    "open_run",
    "pack",
    "plot",
    "prepare",
    "presets",
    "push",
    "remove",
    "resume",
    "runs",
    "score",
    "show",
    "sweep",
    "train",
    "zipped",
]


def _described(verb: ModuleType) -> str:
    """What `help` shows of a package that can be called: its function, then itself."""
    import inspect

    what = _function(verb)
    said = f"{verb.__name__}{inspect.signature(what)}\n\n{inspect.getdoc(what)}"
    return f"{said}\n\nThe package of this name. {vars(verb).get('__doc__')}"


def _function(verb: ModuleType) -> Any:
    return _public(*_VERBS[verb.__name__.rpartition(".")[2]])


@functools.cache
def _public(home: str, name: str) -> Any:
    """A name as people are given it: functions check their arguments, and speak Python."""
    from niblick.api.wording import at_edge

    found = getattr(importlib.import_module(f"niblick.{home}"), name)
    return at_edge(found) if isinstance(found, FunctionType) else found


class _Verb(ModuleType):
    # A package that can be called, since the natural name of its function is its own. An attribute of that name on
    # `niblick` would be replaced by the package as soon as anything imports its modules.

    __doc__: Any = property(_described)
    __wrapped__ = property(_function)  # where `inspect.signature` and notebooks look for the real thing

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return _function(self)(*arguments, **options)


class _Niblick(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        if name in _VERBS and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(__all__)

    def __getattr__(self, name: str) -> Any:
        if name in _VERBS:
            return importlib.import_module(f"niblick.{name}")
        if name in _WHERE:
            found = _public(_WHERE[name], name)
            setattr(self, name, found)
            return found
        raise AttributeError(f"module 'niblick' has no attribute {name!r}")


sys.modules[__name__].__class__ = _Niblick
