"""Kinds of schemes: what a scheme's name means, how a tensor is stored by it, and what training rounds to.

A kind is one object. `schemes.KINDS` lists niblick's own, `schemes.register_scheme` adds a recipe's. Its reader, from
stored parts back to float32, is in the registry of `artifact.dequantize`, because whoever reads weights need not make
them.

Names are looked up to check a config, which imports no torch; so a kind imports what it computes with when it computes.

Shapes: R rows, C columns of the matrix that a tensor is seen as (first dimension by all others).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from niblick.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from niblick.artifact.dequantize import EncodedTensor
    from niblick.pack.grid import Grid
    from niblick.pack.rounding import Rounding
    from niblick.pack.schemes import Scheme

SMALL_ELEMENTS = 2_048
"""Vectors, and matrices up to this many elements, are fp16 unless a rule names them."""


class SchemeKind(ABC):
    """A kind of scheme. Subclasses say how tensors are written and rounded; the rest has defaults."""

    options = False
    """Whether names may end in options: row, column, tensor, auto, gN and log."""
    axis = "row"
    """What shares a scale where no option says it."""
    floats = False
    """Whether weights stay floats: then nothing is pruned, and training rounds nothing."""
    on_grid = False
    """Whether weights are rounded to the grid that `fit` gives, so that GPTQ has something to say."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reader = name
        """The dequantizer that reads what `write` returns."""
        self.names: tuple[str, ...] = (name,)
        """Names of its schemes, or examples of them, that messages offer as the nearest."""
        self.offer = name
        """Its schemes in words, for the message that lists what there is."""

    def bits(self, name: str) -> float | None:
        """Return the bits that a scheme's name gives, 0 where it gives none; None for a name of other kinds."""
        return 0.0 if name in self.names else None

    def refusal(self, scheme: Scheme) -> str:
        """Return why the options of a scheme do not suit the kind; "" where they do."""
        return ""

    def instead(self, name: str, tensor: Tensor) -> str:
        """Return the floats that a tensor too small for the kind is stored as; "": it is stored as all others are."""
        return "" if tensor.ndim >= 2 and tensor.numel() > SMALL_ELEMENTS else "fp16"

    @abstractmethod
    def write(self, name: str, weights: Tensor, scheme: Scheme) -> EncodedTensor:
        """Return a finite float32 tensor on the CPU, not empty, in stored form; `name` is for messages."""

    @abstractmethod
    def rounding(self, weights: Tensor, scheme: Scheme, floor: float) -> Rounding:
        """Return what training rounds a float32 tensor on any device to, which must be what the artifact gives back.

        `floor` is the magnitude up to which weights are pruned.
        """

    def fit(self, weights_RC: Tensor, scheme: Scheme, weight_C: Tensor | None = None) -> Grid:
        """Return the grid for a matrix; only kinds that are `on_grid` have one. See `grid.fit_grid`."""
        raise ConfigError(f"the scheme {scheme} has no grid: choose int2 to int8, ternary or ecsqB")


class Floats(SchemeKind):
    """fp32, fp16 and bf16."""

    floats = True

    def instead(self, name: str, tensor: Tensor) -> str:
        return "" if self.name == "fp32" else super().instead(name, tensor)

    def write(self, name: str, weights: Tensor, scheme: Scheme) -> EncodedTensor:
        from niblick.pack.stored import as_floats

        return as_floats(name, weights, self.name)

    def rounding(self, weights: Tensor, scheme: Scheme, floor: float) -> Rounding:
        raise ConfigError(f"the scheme {scheme} keeps floats: there is nothing to round; choose int2 to int8, say")


class Published(SchemeKind):
    """The challenge's export, with its own idea of what is small."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.reader = "int8"

    def instead(self, name: str, tensor: Tensor) -> str:
        from niblick.pack.published import CONTROL_PATTERNS, KEEP_ELEMENTS

        if tensor.numel() > KEEP_ELEMENTS:
            return ""
        return "fp32" if any(pattern in name for pattern in CONTROL_PATTERNS) else "fp16"

    def write(self, name: str, weights: Tensor, scheme: Scheme) -> EncodedTensor:
        from niblick.pack.stored import as_published

        return as_published(name, weights)

    def rounding(self, weights: Tensor, scheme: Scheme, floor: float) -> Rounding:
        from niblick.pack.rounding import published_rounding

        return published_rounding(weights, floor)


class GridKind(SchemeKind):
    """Codes times scales. Subclasses say which grid; to write, to read and to round are the same for all."""

    options = True
    on_grid = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.reader = "grid"

    @abstractmethod
    def fit(self, weights_RC: Tensor, scheme: Scheme, weight_C: Tensor | None = None) -> Grid:
        """Return the grid for a matrix, as `grid.fit_grid` says."""

    def write(self, name: str, weights: Tensor, scheme: Scheme) -> EncodedTensor:
        from niblick.pack.stored import rounded_to_grid

        return rounded_to_grid(weights, scheme)

    def rounding(self, weights: Tensor, scheme: Scheme, floor: float) -> Rounding:
        from niblick.pack.rounding import grid_rounding

        return grid_rounding(weights, scheme, floor)


class Int(GridKind):
    """int2 to int8: scales that clip where that costs least."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.names = (*(f"int{n}" for n in range(2, 9)), "ternary")
        self.offer = "int2 to int8, ternary"

    def bits(self, name: str) -> float | None:
        if name not in self.names:
            return None
        return 2.0 if name == "ternary" else float(name[3:])

    def fit(self, weights_RC: Tensor, scheme: Scheme, weight_C: Tensor | None = None) -> Grid:
        from niblick.pack.grid import clipped_grid

        return clipped_grid(weights_RC, scheme, weight_C)


class Ecsq(GridKind):
    """ecsq0.5 to ecsq24: an even grid whose codes hold so many bits."""

    axis = "tensor"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.names, self.offer = ("ecsq4.5",), "ecsq0.5 to ecsq24"

    def bits(self, name: str) -> float | None:
        found = re.fullmatch(r"ecsq(\d+(\.\d+)?)", name)
        return float(found[1]) if found and 0.5 <= float(found[1]) <= 24 else None

    def refusal(self, scheme: Scheme) -> str:
        refused = scheme.group or scheme.axis == "auto"
        return "ecsq has no groups and no auto; give row, column or tensor" if refused else ""

    def fit(self, weights_RC: Tensor, scheme: Scheme, weight_C: Tensor | None = None) -> Grid:
        from niblick.pack.grid import even_grid

        return even_grid(weights_RC, scheme, weight_C)
