"""Sliding windows against the same batched scorer that computes all of every window.

Both read the same batch of windows in the dtype of training and give the same numbers. The bound is the ratio of
counted multiply-adds (`niblick.score.operations`). Weights are drawn; chunks are cut at every N-th position, N the
target length of the router, as often as after training.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from hnet import CPU, DTYPE
from measure import Row, compare
from niblick.data.embedded import embedded_documents
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig
from niblick.recipes.presets import get_preset
from niblick.score.operations import count_operations
from niblick.score.plan import Batch, Windows, read_batch
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import ModelLosses
from niblick.train.precision import autocast

PRESETS = ("hnet-byte260", "hnet-byte260-12l", "baseline-sp1024", "tinyhnet", "soft-chunker-sp1024")


def trained_like(config: ModelConfig) -> LM:
    """A model of a preset's shape with drawn weights, and chunks of the length it would be trained to."""
    levels = [level if level.router == "soft" else replace(level, router="fixed") for level in config.levels]
    torch.manual_seed(0)
    model = LM(replace(config, levels=tuple(levels)))
    for p in model.parameters():
        p.data += 0.02 * torch.randn_like(p)
    return model.eval()


def sliding_batch(rows: int, config: ScoreConfig) -> Batch:
    """Windows that overlap, as the scorer reads them."""
    length, stride = config.seq_len, config.stride
    text = "".join(text for text, _ in embedded_documents("pydocs")[:20]).encode()[: length + stride * rows + 1]
    stream = np.frombuffer(text, np.uint8).astype(np.uint16) + 4
    start_N = np.arange(1, rows + 1) * stride
    windows = Windows(start_N, np.full(rows, length), np.full(rows, length - stride))
    return read_batch(windows, stream, 0)


def score(losses: ModelLosses, batch: Batch) -> torch.Tensor:
    """The cost of the scored targets."""
    with torch.no_grad(), autocast(CPU, DTYPE):
        return losses(batch)


def bench_scoring(quick: bool) -> list[Row]:
    """One row for every preset: what is reached of the bound stands in the last column."""
    rows, config = (
        (2, ScoreConfig(64, scorer="sliding", stride=16))
        if quick
        else (4, ScoreConfig(512, scorer="sliding", stride=64))
    )
    batch = sliding_batch(rows, config)
    found = []
    for name in PRESETS:
        model_config = get_preset(name).model
        if quick:
            model_config = replace(model_config, width=32, heads=2, kv_heads=1)
        model = trained_like(model_config)
        ours, full = ModelLosses(model), ModelLosses(model, skip=False)
        torch.testing.assert_close(score(ours, batch), score(full, batch), rtol=0.02, atol=0.02)
        bound = count_operations(model, batch).bound
        row = compare(
            f"{name}, sliding {config.seq_len}/{config.stride}, {DTYPE}",
            lambda ours=ours: score(ours, batch),  # type: ignore[misc]
            lambda full=full: score(full, batch),  # type: ignore[misc]
            peer_name="",
            repeats=1 if quick else 5,
            amount=rows * config.stride / 1000,
            unit="k targets/s",
        )
        found.append(replace(row, peer_name=f"all of every window (bound {bound:.2f}×: {row.ratio / bound:.0%} of it)"))
    return found
