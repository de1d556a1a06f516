"""niblick: the laboratory for small language models under a byte cap, and for learned tokenization.

model = niblick.load("artifact.nib")
model.generate("The quick ")        model.bits_per_byte(text)

niblick.chunks(model, text)         every level's chunks, with their boundary probabilities

niblick.score(f, "data/web").bpb    any f from ids (B, L) to log-probabilities (B, L, V)
niblick.pack(state_dict, "int6")    any weights in the form of an artifact; cap=16_000_000: as good as fits
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from niblick import pack, score
    from niblick.run.generate import chunks, load

__all__ = ["__version__", "chunks", "load", "pack", "score"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Torch is only imported when something needs it.
    if name in ("chunks", "load"):
        return getattr(importlib.import_module("niblick.run.generate"), name)
    if name in ("pack", "score"):
        return importlib.import_module(f"niblick.{name}")
    raise AttributeError(f"module 'niblick' has no attribute {name!r}")
