"""What general compressors make of held-out text, in bits per byte: the numbers a language model must beat.

Each is quoted alone, and xz and zstd also with the training text as prefix, since a language model has seen that too:
size(training + held-out) - size(training), by the same rule for both. bzip2 forgets after 900 kB: a prefix is no use.
Settings are those of the command lines `xz -9e -T1`, `bzip2 -9` and `zstd --ultra -22`; with a prefix the window grows
until the training text fits (`xz --lzma2=preset=9e,dict=…`, `zstd --long=…`).
"""

from __future__ import annotations

import bz2
import lzma
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import zstandard

from niblick.errors import DataError

PREFIX_BYTES = 64 * 2**20
"""The prefix is at most the last 64 MiB of the training text: the window of `xz -9` (which takes 0.7 GB of memory)."""

_XZ_WINDOW = 64 * 2**20
_ZSTD_WINDOW_LOG = 27
_ZSTD_WINDOW_LOG_MAX = 31


def compressor_baselines(
    held_out: bytes, training: bytes | None = None, *, prefix: int = PREFIX_BYTES, workers: int = 1
) -> dict[str, dict[str, Any]]:
    """Return for each compressor `bits_per_byte`, compressed `bytes`, `prefix_bytes` and `seconds`.

    Keys: xz, bzip2, zstd; with `training` also xz_prefixed and zstd_prefixed, which have seen its last `prefix` bytes.
    `workers` compressions run at once, in threads: all three compressors release the interpreter, so training can go
    on beside a call made from a thread. With 2.5 MB of training text all take 3 CPU seconds, with 29 MB 80, and two
    workers then 1 GB of memory. Raises DataError if there is no held-out text.
    """
    if not held_out:
        raise DataError("the held-out text is empty; give at least one byte to compress")
    seen = training[-prefix:] if training and prefix > 0 else b""
    jobs: dict[tuple[str, str], tuple[Callable[[bytes], int], bytes]] = {}
    if seen:  # the longest ones first
        for name, compressed in (("xz", xz_size), ("zstd", zstd_size)):
            jobs[name + "_prefixed", "whole"] = (compressed, seen + held_out)
            jobs[name + "_prefixed", "prefix"] = (compressed, seen)
    for name, compressed in (("xz", xz_size), ("bzip2", bzip2_size), ("zstd", zstd_size)):
        jobs[name, "whole"] = (compressed, held_out)
    with ThreadPoolExecutor(workers) as pool:
        done = dict(zip(jobs, pool.map(lambda job: _timed(*job), jobs.values()), strict=True))
    results = {}
    for name in sorted(name for name, what in jobs if what == "whole"):
        size, seconds = done[name, "whole"]
        without, more = done.get((name, "prefix"), (0, 0.0))
        results[name] = {
            "bits_per_byte": 8 * (size - without) / len(held_out),
            "bytes": size - without,
            "prefix_bytes": len(seen) if name.endswith("_prefixed") else 0,
            "seconds": seconds + more,
        }
    return results


def xz_size(data: bytes) -> int:
    """Return the bytes that `xz -9e -T1` makes of `data`, with a dictionary that all of `data` fits into."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": max(_XZ_WINDOW, len(data))}]
    return len(lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC64, filters=filters))


def bzip2_size(data: bytes) -> int:
    """Return the bytes that `bzip2 -9` makes of `data`."""
    return len(bz2.compress(data, 9))


def zstd_size(data: bytes) -> int:
    """Return the bytes that `zstd --ultra -22` makes of `data`, with a window (`--long`) that all of it fits into."""
    log = min((max(len(data), 2) - 1).bit_length(), _ZSTD_WINDOW_LOG_MAX)
    wider = {"window_log": log, "enable_ldm": True} if log > _ZSTD_WINDOW_LOG else {}
    parameters = zstandard.ZstdCompressionParameters.from_level(22, source_size=len(data), write_checksum=1, **wider)
    return len(zstandard.ZstdCompressor(compression_params=parameters).compress(data))


def _timed(compressed: Callable[[bytes], int], data: bytes) -> tuple[int, float]:
    start = time.perf_counter()
    return compressed(data), time.perf_counter() - start
