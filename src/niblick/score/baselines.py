"""What general compressors make of held-out text, in bits per byte: the numbers a language model must beat.

Each is quoted alone, and all but bzip2 also with the training text as prefix, since a language model has seen that too:
size(training + held-out) - size(training), by the same rule for all. bzip2 forgets after 900 kB: a prefix is no use.

Settings are those of the command lines `xz -9e -T1`, `bzip2 -9`, `zstd --ultra -22`, PPMd of variant H with order 16
(`7z a -m0=ppmd:o=16`, without the archive around it) and `zpaq a -m5`. With a prefix the window of xz and zstd grows
until the training text fits (`xz --lzma2=preset=9e,dict=…`, `zstd --long=…`). PPMd has 40 bytes of memory for every
byte it reads, from 16 MiB to 2 GiB, so that it need not forget. zpaq has one file to read, training text first, in one
block; it joins where the program is installed.
"""

from __future__ import annotations

import bz2
import lzma
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from niblick.errors import DataError

PREFIX_BYTES = 64 * 2**20
"""The prefix is at most the last 64 MiB of the training text: the window of `xz -9` (which takes 0.7 GB of memory)."""
SLOW_BYTES = 4 * 2**20
"""zpaq, at some 300 kB/s, reads at most so much held-out text, its beginning, and a prefix that is no longer."""

_XZ_WINDOW = 64 * 2**20
_ZSTD_WINDOW_LOG = 27
_ZSTD_WINDOW_LOG_MAX = 31


def compressor_baselines(
    held_out: bytes,
    training: bytes | None = None,
    *,
    prefix: int = PREFIX_BYTES,
    slow: int = SLOW_BYTES,
    workers: int = 1,
) -> dict[str, dict[str, Any]]:
    """Return for each compressor `bits_per_byte`, compressed `bytes`, `prefix_bytes`, `share` and `seconds`.

    Keys: those of `COMPRESSORS` that are installed; with `training` also each with `_prefixed` but bzip2, which have
    seen its last `prefix` bytes, slow ones its last `slow` bytes. `share` of the held-out text was compressed: less
    than 1 for slow ones if there is more of it than `slow`. `workers` compressions run at once, in threads: training
    can go on beside a call made from a thread. With 29 MB of training text, two workers take 1 GB of memory for xz and
    zstd. Raises DataError if there is no held-out text.
    """
    if not held_out:
        raise DataError("the held-out text is empty; give at least one byte to compress")
    jobs: dict[tuple[str, str], tuple[Callable[[bytes], int], bytes]] = {}
    read: dict[str, tuple[int, int]] = {}
    for name, compressor in COMPRESSORS.items():
        if not compressor.installed():
            continue
        text = held_out[:slow] if compressor.slow else held_out
        seen = (training or b"")[-min(prefix, slow) if compressor.slow else -prefix :] if prefix > 0 else b""
        jobs[name, "whole"] = (compressor.size, text)
        read[name] = (len(text), 0)
        if seen and compressor.remembers:
            jobs[name + "_prefixed", "whole"] = (compressor.size, seen + text)
            jobs[name + "_prefixed", "prefix"] = (compressor.size, seen)
            read[name + "_prefixed"] = (len(text), len(seen))
    longest_first = sorted(
        jobs, key=lambda job: (not COMPRESSORS[job[0].removesuffix("_prefixed")].slow, -len(jobs[job][1]))
    )
    with ThreadPoolExecutor(workers) as pool:
        sizes = pool.map(lambda job: _timed(*jobs[job]), longest_first)
        done = dict(zip(longest_first, sizes, strict=True))
    results = {}
    for name in sorted(read):
        size, seconds = done[name, "whole"]
        without, more = done.get((name, "prefix"), (0, 0.0))
        text_bytes, prefix_bytes = read[name]
        results[name] = {
            "bits_per_byte": 8 * (size - without) / text_bytes,
            "bytes": size - without,
            "prefix_bytes": prefix_bytes,
            "share": text_bytes / len(held_out),
            "seconds": seconds + more,
        }
    return results


def label(name: str) -> str:
    """Return how people call a key of `compressor_baselines`."""
    own = name.removesuffix("_prefixed")
    return COMPRESSORS[own].label + (", training text as prefix" if name != own else "")


def zpaq_size(data: bytes) -> int:
    """Return the bytes of the archive that `zpaq a -m5` makes of a file that holds `data`.

    Raises DataError if the program says that it failed.
    """
    with tempfile.TemporaryDirectory(prefix="niblick-zpaq-") as folder:
        (Path(folder) / "text").write_bytes(data)
        command = ["zpaq", "a", "text.zpaq", "text", "-m5", "-t1"]
        made = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        archive = Path(folder) / "text.zpaq"
        if made.returncode or not archive.exists():
            told = made.stderr.decode(errors="replace").strip().splitlines()
            raise DataError(
                f"`{' '.join(command)}` failed ({told[-1] if told else made.returncode}): remove zpaq or mend it"
            )
        return archive.stat().st_size


def ppmd_size(data: bytes) -> int:
    """Return the bytes that PPMd, variant H, makes of `data` with order 16, without a header."""
    import pyppmd

    memory = min(_PPMD_MEMORY[1], max(_PPMD_MEMORY[0], 40 * len(data)))
    encoder = pyppmd.Ppmd7Encoder(16, memory)
    return len(encoder.encode(data)) + len(encoder.flush())


_PPMD_MEMORY = (2**24, 2**31 - 2**20)


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


class Compressor(NamedTuple):
    """One of the compressors, by the command line it stands for."""

    label: str
    size: Callable[[bytes], int]
    remembers: bool = True
    """Whether a prefix is of use."""
    slow: bool = False
    installed: Callable[[], bool] = lambda: True


COMPRESSORS = {
    "xz": Compressor("xz -9e", xz_size),
    "bzip2": Compressor("bzip2 -9", bzip2_size, remembers=False),
    "zstd": Compressor("zstd -22", zstd_size),
    "ppmd": Compressor("ppmd, order 16", ppmd_size),
    "zpaq": Compressor("zpaq -m5", zpaq_size, slow=True, installed=lambda: shutil.which("zpaq") is not None),
}


def _timed(compressed: Callable[[bytes], int], data: bytes) -> tuple[int, float]:
    start = time.perf_counter()
    return compressed(data), time.perf_counter() - start
