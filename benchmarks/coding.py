"""Bytes and seconds of the codec `range` against zlib-9, zstd-22, brotli-11 and xz -9e on the same codes, in one run.

`make bench` takes Gaussian weights with rows and columns of unlike spread, eight million. Sizes that
mean something need trained ones: `python benchmarks/coding.py RUN/model.safetensors …` prints a table for those.
"""

from __future__ import annotations

import lzma
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import numpy as np
import torch
import zstandard
from safetensors.torch import load_file

from measure import Row, compare
from niblick.artifact.codecs import get_codec
from pack import model_weights

PEERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib-9": lambda raw: zlib.compress(raw, 9),
    "zstd-22": lambda raw: zstandard.ZstdCompressor(level=22).compress(raw),
    "brotli-11": lambda raw: brotli.compress(raw, quality=11, lgwin=24),
    "xz -9e": lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
}


def unlike_weights(blocks: int, width: int) -> dict[str, torch.Tensor]:
    """Return the benchmark's weights with a log-normal spread of rows (0.3) and of columns (0.2)."""
    generator = torch.Generator().manual_seed(1)
    state = model_weights(blocks, width)
    for tensor in state.values():
        if tensor.ndim == 2:
            rows, columns = (torch.randn(n, generator=generator) for n in tensor.shape)
            tensor.mul_((0.3 * rows).exp()[:, None] * (0.2 * columns).exp())
    return state


def stored_arrays(state: dict[str, torch.Tensor], bits: int) -> list[np.ndarray]:
    """Return what an artifact holds: matrices as codes of `bits` bits and one fp16 scale per row, the rest as fp16."""
    levels, arrays = 2 ** (bits - 1) - 1, []
    for tensor in state.values():
        if tensor.ndim == 2 and min(tensor.shape) > 2:
            scale = (tensor.abs().amax(1) / levels).clamp_min(1e-6).half()
            codes = (tensor / scale.float()[:, None]).round().clamp(-levels, levels)
            arrays += [codes.to(torch.int8).numpy(), scale.numpy()]
        else:
            arrays.append(tensor.half().numpy())
    return arrays


def order0_bytes(arrays: list[np.ndarray]) -> float:
    """Return the bytes of all codes under the frequencies of each matrix, those for nothing."""
    total = 0.0
    for array in arrays:
        if array.dtype == np.int8:
            counts = np.unique(array, return_counts=True)[1]
            total += float((counts * np.log2(counts.sum() / counts)).sum() / 8)
    return total


def bench_coding(quick: bool) -> list[Row]:
    """Return rows of decoding time against brotli, and of sizes against all peers; `quick`: one narrow block."""
    arrays = stored_arrays(unlike_weights(1, 256) if quick else unlike_weights(4, 512), bits=6)
    specs = [(array.dtype, array.shape) for array in arrays]
    raw, codec = b"".join(array.tobytes() for array in arrays), get_codec("range")
    data, others = codec.encode(arrays), {name: compress(raw) for name, compress in PEERS.items()}
    what = f"range: int6 codes, {len(data) / 1e6:.1f} MB"
    rows = [
        compare(
            f"{what}, decode",
            lambda: codec.decode(data, specs),
            lambda: brotli.decompress(others["brotli-11"]),
            peer_name="brotli",
            repeats=1 if quick else 3,
        )
    ]
    for name, other in others.items():
        ratio = len(other) / len(data)
        rows.append(Row(f"{what}, size", len(data) / 1e6, len(other) / 1e6, "MB", ratio, ratio, ratio, name))
    return rows


def main(paths: list[str]) -> None:
    """Print the table of each file of trained weights at 4, 5, 6 and 8 bits; seconds are of one core."""
    if not paths:
        sys.exit("give the model.safetensors of one run or more")
    codec = get_codec("range")
    print("| weights | bits | order-0 | range, codes | range, all | " + " | ".join(PEERS) + " | encode | decode |")
    print("| --- " + "| ---: " * (6 + len(PEERS)) + "|")
    for path in paths:
        state = load_file(path)
        for bits in (4, 5, 6, 8):
            arrays = stored_arrays(state, bits)
            specs = [(array.dtype, array.shape) for array in arrays]
            start = time.process_time()
            data = codec.encode(arrays)
            between = time.process_time()
            codec.decode(data, specs)
            seconds = between - start, time.process_time() - between
            sizes = codec.part_bytes(data, specs) or []
            codes = sum(size for size, array in zip(sizes, arrays, strict=True) if array.dtype == np.int8)
            raw = b"".join(array.tobytes() for array in arrays)
            figures = [order0_bytes(arrays), codes, len(data), *(len(compress(raw)) for compress in PEERS.values())]
            cells = [Path(path).parent.name, str(bits), *(f"{figure:,.0f}" for figure in figures)]
            print("| " + " | ".join([*cells, *(f"{s:.2f} s" for s in seconds)]) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
