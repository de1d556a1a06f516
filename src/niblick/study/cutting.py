"""How a router cuts a text, in numbers: the boundary metrics of study 1, and what study 2 says of its chunk cap.

Shapes: B batch, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from niblick.data.dataset import Split
from niblick.data.tokenizers import Tokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.lm import LM

WINDOW = 256
"""Boundaries are counted per so many tokens."""


@dataclass(frozen=True)
class BoundaryMetrics:
    """Of the outermost router, over windows of a split; the first position of a window, always a boundary, is left out
    but for the chunks it starts."""

    whitespace: float
    """Share of boundaries next to whitespace: their token starts with it, or the one before ends with it."""
    variation: float
    """Coefficient of variation of chunk sizes in tokens: standard deviation over mean."""
    per_window: float
    """Boundaries per 256 tokens."""
    mean_length: float
    """Tokens of a chunk."""
    dropped: float
    """Share of boundaries that the model's chunk capacity has no room for."""


def boundary_metrics(model: LM, split: Split, tokenizer: Tokenizer, seq_len: int, windows: int = 32) -> BoundaryMetrics:
    """Route the first `windows` windows of a split. Raises ConfigError for a dense model, DataError for no text."""
    if not model.config.levels:
        raise ConfigError("this model is dense: it has no router, so it has no boundaries")
    count = min(windows, split.tokens // seq_len)
    if not count:
        raise DataError(f"the split holds {split.tokens} tokens, less than one window of {seq_len}")
    pieces = tokenizer.pieces()
    starts = np.array([piece[:1].isspace() for piece in pieces])
    ends = np.array([piece[-1:].isspace() for piece in pieces])
    sizes, near, found, dropped = [], 0, 0, 0
    device = next(model.parameters()).device
    for number in range(count):
        ids = split.slice(number * seq_len, seq_len).astype(np.int64)
        with torch.no_grad():
            _, routings = model.eval().hidden(torch.from_numpy(ids)[None].to(device))
        boundary_L = routings[0].boundary_BL[0].cpu().numpy()
        dropped += int(routings[0].dropped_B().sum())
        places = np.flatnonzero(boundary_L)
        sizes.append(np.diff([*places, seq_len]))
        inner = places[places > 0]
        found += len(inner)
        near += int((starts[ids[inner]] | ends[ids[inner - 1]]).sum())
    chunks = np.concatenate(sizes)
    return BoundaryMetrics(
        near / found if found else 0.0,
        float(chunks.std() / chunks.mean()),
        found * WINDOW / (count * seq_len),
        float(chunks.mean()),
        dropped / max(found, 1),
    )
