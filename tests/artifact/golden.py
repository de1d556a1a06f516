"""Makes golden_v1.nib, a small artifact of format version 1 that every later niblick must read.

Run once, when version 1 was new: `python tests/artifact/golden.py`. A new format version gets a golden file of its own;
this one is never made again. Its tensors are written as formulas, so that the test needs no second file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from niblick.artifact.container import write_artifact
from niblick.artifact.dequantize import EncodedTensor

PATH = Path(__file__).parent / "golden_v1.nib"
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


if __name__ == "__main__":
    assert not PATH.exists(), "a golden file is made once"
    write_artifact(PATH, CONFIG, golden_tensors(), "zlib")
