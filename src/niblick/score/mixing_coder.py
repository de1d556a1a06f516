"""Text as few bytes: the decisions of a mixture, arithmetic-coded; the reader learns what the writer learned."""

from __future__ import annotations

import hashlib

import numpy as np

from niblick.errors import ArtifactError
from niblick.score import mixing_kernels as kernels
from niblick.score.mixture import Integers, Mixture

_CHECK = 8
_HEAD = _CHECK + 8
_LARGEST = 1 << 32
"""Tokens, at most: what says otherwise is damaged."""


def pack(tokens_N: Integers, mixture: Mixture) -> bytes:
    """Return tokens as few bytes: a check of them, their number, and what the coder wrote.

    The mixture is a new one; afterwards it knows the tokens as if it had read them.
    """
    tokens_N = np.ascontiguousarray(tokens_N, np.int64)
    mixture.expect(tokens_N)
    mixture.tell_speed(len(tokens_N))
    out = np.zeros(2 * mixture.mind.path_VD.shape[1] * len(tokens_N) + 8, np.uint8)
    size = kernels.write_bits(mixture.mind, tokens_N, out)
    return _check(tokens_N) + len(tokens_N).to_bytes(8, "little") + out[:size].tobytes()


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
    tokens_N = np.zeros(count, np.int64)
    body = np.frombuffer(data, np.uint8, offset=_HEAD).astype(np.int64)
    kernels.read_bits(mixture.mind, body, tokens_N)
    if _check(tokens_N) != data[:_CHECK]:
        raise ArtifactError(
            "the packed text decodes to something else than was packed: it is damaged, or was packed with another "
            "setting, memory or version; pack it again"
        )
    return tokens_N


def _check(tokens_N: Integers) -> bytes:
    return hashlib.sha256(tokens_N.astype("<u2").tobytes()).digest()[:_CHECK]
