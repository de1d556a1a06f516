"""The interface of a codec of an artifact's payload: arrays → bytes → the same arrays.

A codec sees all arrays of an artifact at once, with their dtypes and shapes, so that it may model every tensor by
itself. `decode` must be safe on any bytes; what it may allocate is bounded by the specs, which the container has
checked before.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

Spec = tuple[np.dtype, tuple[int, ...]]
"""(dtype, shape) of an array."""


def spec_bytes(spec: Spec) -> int:
    """Return the bytes of an array of this dtype and shape, in exact integers."""
    return spec[0].itemsize * math.prod(spec[1])


class Codec(ABC):
    """Turns a list of arrays into bytes and back; deterministic, and lossless down to the bits of a NaN."""

    @abstractmethod
    def encode(self, parts: list[np.ndarray]) -> bytes:
        """Return the arrays as bytes: the same bytes for the same arrays, always."""

    @abstractmethod
    def decode(self, data: bytes, specs: Sequence[Spec]) -> list[np.ndarray]:
        """Return new arrays of exactly these specs; raise ArtifactError if `data` does not hold them."""

    def part_bytes(self, data: bytes, specs: Sequence[Spec]) -> list[int] | None:
        """Return how many bytes of `data` each array takes, or None where the codec cannot tell."""
        return None
