"""Tokens as few bytes: the decisions of a mixture, arithmetic-coded; the reader learns what the writer learned.

`pack` and `unpack` are for whole texts without a model. `Writer` and `Reader` go along with a model that says something
about every token, and may only say it when it has read those before.
"""

from __future__ import annotations

import hashlib

import numpy as np

from niblick.errors import ArtifactError
from niblick.score import mixing_kernels as kernels
from niblick.score.mixture import Floats, Integers, Mixture

_CHECK = 8
_HEAD = _CHECK + 8
_LARGEST = 1 << 32
"""Tokens, at most: what says otherwise is damaged."""


class Writer:
    """Writes tokens with a mixture, a few at a time; `data` is what was written."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture, self.data = mixture, bytearray()
        self._coder = np.array([0, kernels.MASK, 0, 0])

    def write(self, tokens_N: Integers, p_NV: Floats | None = None) -> None:
        """Write tokens, and let the mixture learn them; `p_NV` is what the model says of each."""
        p_NV = np.zeros((len(tokens_N), 0)) if p_NV is None else np.ascontiguousarray(p_NV, np.float64)
        out = np.zeros(2 * self.mixture.mind.path_VD.shape[1] * len(tokens_N) + 8, np.uint8)
        self._coder[kernels.AT] = 0
        kernels.write_bits(self.mixture.mind, p_NV, tokens_N, out, self._coder)
        self.data += out[: self._coder[kernels.AT]].tobytes()

    def finish(self) -> bytes:
        """Return all that was written, with the fewest bytes that settle the last token: zeros follow them."""
        low, high = int(self._coder[kernels.LOW]), int(self._coder[kernels.HIGH])
        for shift in (24, 16, 8):
            value = -(-low >> shift) << shift
            if value <= high:
                return bytes(self.data) + value.to_bytes(4, "big")[: 4 - shift // 8]
        return bytes(self.data) + high.to_bytes(4, "big")


class Reader:
    """Reads what a `Writer` with such a mixture wrote. What none wrote gives some tokens or other."""

    def __init__(self, mixture: Mixture, data: bytes) -> None:
        self.mixture, self._data_B = mixture, np.frombuffer(data, np.uint8).astype(np.int64)
        self._coder = np.array([0, kernels.MASK, 4, int.from_bytes(data[:4].ljust(4, b"\0"), "big")])

    def read(self, count: int, p_NV: Floats | None = None) -> Integers:
        """Return the next tokens, which the mixture then has learned; `p_NV` is what the model says of each."""
        tokens_N = np.zeros(count, np.int64)
        p_NV = np.zeros((count, 0)) if p_NV is None else np.ascontiguousarray(p_NV, np.float64)
        kernels.read_bits(self.mixture.mind, p_NV, self._data_B, tokens_N, self._coder)
        return tokens_N


def pack(tokens_N: Integers, mixture: Mixture) -> bytes:
    """Return tokens as few bytes: a check of them, their number, and what the coder wrote.

    The mixture is a new one; afterwards it knows the tokens as if it had read them.
    """
    tokens_N = np.ascontiguousarray(tokens_N, np.int64)
    mixture.expect(tokens_N)
    mixture.tell_speed(len(tokens_N))
    writer = Writer(mixture)
    writer.write(tokens_N)
    return _check(tokens_N) + len(tokens_N).to_bytes(8, "little") + writer.finish()


def unpack(data: bytes, mixture: Mixture, most: int = _LARGEST) -> Integers:
    """Return the tokens of what `pack` made with such a mixture, which then knows them as if it had read them.

    Raises ArtifactError if the bytes are not that, or say that they are more than `most` tokens.
    """
    if len(data) < _HEAD:
        raise ArtifactError(f"the packed text holds {len(data)} bytes, less than its head of {_HEAD}: pack it again")
    count = int.from_bytes(data[_CHECK:_HEAD], "little")
    if count > most:
        raise ArtifactError(f"the packed text says it holds {count:,} tokens, more than {most:,}: it is damaged")
    mixture.tell_speed(count)
    tokens_N = Reader(mixture, data[_HEAD:]).read(count)
    if _check(tokens_N) != data[:_CHECK]:
        raise ArtifactError(
            "the packed text decodes to something else than was packed: it is damaged, or was packed with another "
            "setting, memory or version; pack it again"
        )
    return tokens_N


def _check(tokens_N: Integers) -> bytes:
    return hashlib.sha256(tokens_N.astype("<u2").tobytes()).digest()[:_CHECK]
