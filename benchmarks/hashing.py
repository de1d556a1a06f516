"""What it costs to hold the scored shards against their digests: `python benchmarks/hashing.py`.

A shard is hashed once before its tokens are used. The smallest model that anyone scores is the worst case: the share
is that of hashing the validation text in the time of scoring it plainly.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from niblick.data.dataset import Split
from niblick.data.shards import ShardWriter, file_hash
from niblick.data.tokenizers import ByteTokenizer
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import score_split

TOKENS = 4_000_000
SCORED = 65_536


def main() -> None:
    """Print nanoseconds per token of hashing and of scoring, and their ratio."""
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(4, 260, TOKENS).astype(np.uint16)
    tokens[0] = 1
    with tempfile.TemporaryDirectory() as name:
        writer = ShardWriter(Path(name), "val", TOKENS)
        writer.write(tokens)
        writer.close()
        [path] = Path(name).glob("*.bin")
        started = time.perf_counter()
        file_hash(path)
        hashing = (time.perf_counter() - started) / TOKENS
    model = LM(ModelConfig(width=64, heads=2, kv_heads=1, main=StageConfig("T1"))).eval()
    split = Split("val", [], [tokens[: SCORED + 1]])
    started = time.perf_counter()
    score_split(model, split, ByteTokenizer(), ScoreConfig(seq_len=512))
    scoring = (time.perf_counter() - started) / SCORED
    print(f"hashing {1e9 * hashing:.1f} ns a token, scoring {1e9 * scoring:.0f} ns: {100 * hashing / scoring:.3f}%")


if __name__ == "__main__":
    main()
