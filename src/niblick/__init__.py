"""niblick: the laboratory for small language models under a byte cap, and for learned tokenization.

model = niblick.load("artifact.nib")
model.generate("The quick ")        model.bits_per_byte(text)        model.chunks(text)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from niblick.generate import load

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch is only imported when something needs it, so that `niblick --help` answers at once.
    if name == "load":
        from niblick.generate import load

        return load
    raise AttributeError(f"module 'niblick' has no attribute {name!r}")
