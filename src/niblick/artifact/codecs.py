"""Lossless codecs for the payload of an artifact: arrays → bytes → the same arrays, never more memory than declared.

`range` models every array by itself (range_coding.py). The three others compress the joined bytes as one stream.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import brotli
import numpy as np
import zstandard

from niblick.artifact.codec import Codec, Spec, spec_bytes
from niblick.artifact.range_coding import RangeCodec
from niblick.errors import ArtifactError, expect_free, nearest


@dataclass(frozen=True)
class StreamCodec(Codec):
    """Joins all arrays and compresses them as one stream.

    `decompress(data, size)` returns what `data` holds, but stops soon after `size` bytes (a bomb costs no more than
    what the header declared), and raises one of `failures` on damaged data.
    """

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]
    failures: tuple[type[Exception], ...]

    def encode(self, parts: list[np.ndarray]) -> bytes:
        """Compress the bytes of all arrays (C order) as one stream."""
        return self.compress(b"".join(part.tobytes() for part in parts))

    def decode(self, data: bytes, specs: Sequence[Spec]) -> list[np.ndarray]:
        """Decompress and cut into arrays; raise ArtifactError unless the stream has exactly their bytes."""
        size = sum(map(spec_bytes, specs))
        try:
            raw = self.decompress(data, size)
        except self.failures as error:
            raise ArtifactError(f"the {self.name} stream is damaged ({error}); copy or export the file again") from None
        if len(raw) != size:
            found = f"more than {size}" if len(raw) > size else len(raw)
            raise ArtifactError(
                f"the {self.name} stream holds {found} bytes where the header declares {size}; "
                "the file was not made by niblick, or is damaged"
            )
        arrays, at = [], 0
        for dtype, shape in specs:
            array = np.frombuffer(raw, dtype, math.prod(shape), at) if math.prod(shape) else np.empty(0, dtype)
            arrays.append(array.reshape(shape).copy())  # own memory: aligned, writable, and `raw` can go
            at += arrays[-1].nbytes
        return arrays


def _zlib_decompress(data: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    raw = stream.decompress(data, size + 1)
    if len(raw) <= size and (not stream.eof or stream.unused_data):
        raise zlib.error("incomplete, or followed by other bytes")
    return raw


def _zstd_decompress(data: bytes, size: int) -> bytes:
    declared = zstandard.frame_content_size(data)
    if declared != size:  # the frame states its size: nothing is allocated for one that lies
        raise zstandard.ZstdError(f"its frame declares {declared} bytes instead of {size}")
    if size == 0:  # `max_output_size=0` would mean "no limit"
        if data != _zstd_compress(b""):
            raise zstandard.ZstdError("an empty frame with other bytes")
        return b""
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)


def _zstd_compress(raw: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=22, write_checksum=False).compress(raw)


def brotli_decompress(data: bytes, size: int) -> bytes:
    """Return what a brotli stream holds, but stop soon after `size` bytes. Raises brotli.error for damaged data."""
    stream = brotli.Decompressor()
    out, length = [stream.process(data, output_buffer_limit=size + 1)], 0
    while (length := length + len(out[-1])) <= size and out[-1] and not stream.is_finished():
        out.append(stream.process(b"", output_buffer_limit=size + 1 - length))
    if length <= size and not stream.is_finished():
        raise brotli.error("incomplete")
    return b"".join(out)


def _brotli_compress(raw: bytes) -> bytes:
    return brotli.compress(raw, quality=11, lgwin=24)


_CODECS: dict[str, Codec] = {
    "zlib": StreamCodec("zlib", lambda raw: zlib.compress(raw, 9), _zlib_decompress, (zlib.error,)),
    "zstd": StreamCodec("zstd", _zstd_compress, _zstd_decompress, (zstandard.ZstdError,)),
    "brotli": StreamCodec("brotli", _brotli_compress, brotli_decompress, (brotli.error,)),
    "range": RangeCodec(),
}


def register_codec(name: str, codec: Codec) -> None:
    """Make `codec` known by `name`; raise ArtifactError if another one has that name."""
    expect_free("codec", _CODECS, name, codec, ArtifactError)
    _CODECS[name] = codec


def get_codec(name: str) -> Codec:
    """Return the codec of that name; raise ArtifactError with the nearest names if there is none."""
    if name not in _CODECS:
        raise ArtifactError(
            f"there is no codec {name!r} here{nearest(name, _CODECS)}; "
            "name one of these, or register yours with register_codec first"
        )
    return _CODECS[name]
