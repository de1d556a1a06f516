"""Makes the golden files, small artifacts of format version 1 that every later niblick must read.

golden_v1.nib holds every scheme and shape, golden_v1_range.nib every form of a segment of the codec `range`. Each is
made once (`python tests/artifact/golden.py` makes those that are not there) and never again: a new format version gets
files of its own. The tensors are written as formulas, so that the tests need no other files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from niblick.artifact.container import write_artifact
from niblick.artifact.dequantize import EncodedTensor

PATH = Path(__file__).parent / "golden_v1.nib"
RANGE_PATH = Path(__file__).parent / "golden_v1_range.nib"
CONFIG: dict[str, Any] = {"model": {"width": 8, "layout": "T2"}, "tokenizer": "byte260", "note": "σ ≤ ½"}


def golden_tensors() -> dict[str, EncodedTensor]:
    """Return the tensors as they are stored: every scheme and shape of version 1, with values at the edges."""
    codes = (np.arange(24 * 8).reshape(24, 8) * 37 % 255 - 127).astype(np.int8)
    row_scale = (np.arange(1, 25) / 256).astype(np.float16)
    values = np.array([0.0, -0.0, 1.5, -65504.0, 2**-24], np.float16)
    return {
        "embed.weight": EncodedTensor("int8", (24, 8), {"codes": codes, "scale": row_scale}),
        "vector": EncodedTensor("int8", (192,), {"codes": codes.ravel(), "scale": np.array(0.0078125, np.float32)}),
        "halves": EncodedTensor("fp16", (5,), {"values": values}),
        "body.main.blocks.0.attn_scale": EncodedTensor("fp32", (2, 3), {"values": np.full((2, 3), 0.1, np.float32)}),
        "scalar": EncodedTensor("fp32", (), {"values": np.array(-3.0, np.float32)}),
        "empty": EncodedTensor("fp16", (0, 4), {"values": np.zeros((0, 4), np.float16)}),
    }


def golden_weights() -> dict[str, torch.Tensor]:
    """Return the float32 weights that the file stands for, computed without niblick."""
    codes = (torch.arange(192).reshape(24, 8) * 37) % 255 - 127
    return {
        "embed.weight": codes.float() * (torch.arange(1, 25) / 256)[:, None],
        "vector": codes.reshape(-1).float() / 128,
        "halves": torch.tensor([0.0, -0.0, 1.5, -65504.0, 2**-24]),
        "body.main.blocks.0.attn_scale": torch.full((2, 3), 0.1),
        "scalar": torch.tensor(-3.0),
        "empty": torch.zeros(0, 4),
    }


def range_tensors() -> dict[str, EncodedTensor]:
    """Return tensors of which some are coded with spreads, some in planes, and some raw, by integer formulas."""
    place = np.arange(64 * 48, dtype=np.uint64)
    noise = sum((place * np.uint64(prime) >> np.uint64(7)) % np.uint64(61) for prime in (7919, 10_007, 31_337, 65_537))
    noise = noise.astype(np.int64).reshape(64, 48) - 120  # near to a Gaussian, by the sum of four
    row, column = np.arange(64)[:, None] % 7 + 1, np.arange(48) % 3 + 2
    codes = np.clip(noise * row * column // 64, -31, 31).astype(np.int8)
    twins = np.repeat(codes.reshape(32, 96)[:8], 3, axis=0)  # rows like the one above
    scale = (np.arange(64) % 9 + 1).astype(np.float16) / 512
    state = {
        "spreads": EncodedTensor("int8", (64, 48), {"codes": codes, "scale": scale}),
        "twins": EncodedTensor("int8", (24, 96), {"codes": twins, "scale": np.array(0.125, np.float16)}),
        "planes": EncodedTensor("fp32", (300,), {"values": (np.arange(300) % 17).astype(np.float32)}),
        "constant": EncodedTensor("fp16", (40, 40), {"values": np.ones((40, 40), np.float16)}),
    }
    return state | golden_tensors()


if __name__ == "__main__":
    for path, tensors, codec in ((PATH, golden_tensors(), "zlib"), (RANGE_PATH, range_tensors(), "range")):
        if not path.exists():
            write_artifact(path, CONFIG, tensors, codec)
