"""Multiply-adds by hand, against the counted ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.score.operations import count_operations
from niblick.score.plan import Batch, Windows, read_batch
from niblick.score.scorers import ModelLosses

W, S, B, D, V = 48, 8, 3, 16, 260


@pytest.fixture(scope="module")
def batch() -> Batch:
    stream = np.random.default_rng(0).integers(4, 260, W + S * (B + 1)).astype(np.uint16)
    windows = Windows(np.arange(1, B + 1) * S, np.full(B, W), np.full(B, W - S))
    return read_batch(windows, stream, 0)


def make(**options: Any) -> LM:
    torch.manual_seed(0)
    return LM(ModelConfig(width=D, heads=2, kv_heads=1, **options))


def test_a_dense_model_by_hand(batch: Batch) -> None:
    """Per position of a block: q and out D², k and v D²/2 each, MLP 4D²; per pair that may see each other 2D."""
    counted = count_operations(make(main=StageConfig("T2")), batch)
    block, pairs = 7 * D * D * W, W * (W + 1) // 2
    assert counted.full == B * (2 * (block + 2 * D * pairs) + D * V * W)
    last_block = D * D * W + 6 * D * D * S + 2 * D * (S * W - S * (S - 1) // 2)
    assert counted.skipping == B * (block + 2 * D * pairs + last_block + D * V * S)
    assert counted.bound == counted.full / counted.skipping


def test_fixed_chunks_by_hand(batch: Batch) -> None:
    """An H-Net of one encoder, main and decoder block: the decoder's block and the head are what can be skipped."""
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), router="fixed", target_length=4.0, bucket=1)
    counted = count_operations(make(levels=(level,), main=StageConfig("T1")), batch)
    block, pairs, last = 7 * D * D * W, W * (W + 1) // 2, S * W - S * (S - 1) // 2
    saved = 6 * D * D * (W - S) + 2 * D * (pairs - last) + D * V * (W - S)
    assert counted.full - counted.skipping == B * saved
    assert counted.full > B * (2 * block + D * V * W)


def test_numbers_are_the_same(batch: Batch) -> None:
    model = make(levels=(LevelConfig(),), main=StageConfig("T2"))
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    with torch.no_grad():
        skipping, full = (ModelLosses(model, skip=skip)(batch) for skip in (True, False))
    torch.testing.assert_close(skipping, full, rtol=1e-6, atol=1e-6)
