"""Scorers: how the held-out stream is cut into windows, and what every target costs.

The official number is bits per byte (BPB): the bits the model needs for all targets of the split, over the UTF-8 bytes
those targets stand for by the challenge's rule (BOS is a token of 0 bytes).

Shapes: B batch, L positions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from niblick.data.dataset import Split
from niblick.data.tokenizers import Tokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.lm import LM

ReportProgress = Callable[[int, int, float], None]
"""Called with (targets done, all targets, BPB so far)."""


@dataclass(frozen=True)
class ScoreConfig:
    """How the validation split is scored."""

    seq_len: int = 1024
    """Window length in tokens."""
    batch_tokens: int = 32_768
    """Tokens handled at once; no influence on the score but by rounding."""

    def __post_init__(self) -> None:
        if self.seq_len < 1:
            raise ConfigError(f"score.seq_len={self.seq_len} must be at least 1")


@dataclass(frozen=True)
class Score:
    """What a scorer found on one split."""

    nats: float
    """Cost of all targets together."""
    tokens: int
    """Targets scored."""
    bytes: int
    """UTF-8 bytes that the targets stand for."""
    seconds: float

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bits(self) -> float:
        """Cost of all targets in bits."""
        return self.nats / math.log(2)

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        return self.bits / self.bytes


def windows(tokens: int, seq_len: int) -> Iterator[tuple[int, int]]:
    """Cut the targets 1…tokens−1 into windows (start of inputs, length): whole ones, then what is left."""
    for start in range(0, tokens - 1, seq_len):
        yield start, min(seq_len, tokens - 1 - start)


def contiguous(
    model: LM,
    split: Split,
    tokenizer: Tokenizer,
    config: ScoreConfig,
    *,
    progress: ReportProgress | None = None,
) -> Score:
    """Score every target of the split once, in windows that do not overlap; each starts with empty context.

    The challenge drops what is left after the last whole window; here it is scored too, as a shorter window.
    Runs under the caller's autocast, on the model's device. Raises DataError if the split is too short to hold a
    target or holds a token outside the vocabulary.
    """
    device = next(model.parameters()).device

    def losses(ids_BL: Tensor, targets_BL: Tensor) -> Tensor:
        ids_BL, targets_BL = ids_BL.to(device), targets_BL.to(device)
        hidden_BLD, _ = model.hidden(ids_BL)
        return model.token_losses(hidden_BLD, targets_BL)

    was_training = model.training
    model.eval()
    try:
        return contiguous_losses(losses, model.config.vocab_size, split, tokenizer, config, progress=progress)
    finally:
        model.train(was_training)


def contiguous_losses(
    losses: Callable[[Tensor, Tensor], Tensor],
    vocab_size: int,
    split: Split,
    tokenizer: Tokenizer,
    config: ScoreConfig,
    *,
    progress: ReportProgress | None = None,
) -> Score:
    """`contiguous` for whatever gives the nats of each target, (B, L), from (ids_BL, targets_BL), int64 on the CPU."""
    if split.tokens < 2:
        raise DataError(f"the split holds {split.tokens} tokens, and a score needs at least 2: prepare more documents")
    rows = max(1, config.batch_tokens // config.seq_len)
    started, nats, count = time.perf_counter(), 0.0, 0
    cut = list(windows(split.tokens, config.seq_len))
    with torch.no_grad():
        for first in range(0, len(cut), rows):
            part = cut[first : first + rows]
            whole = [w for w in part if w[1] == config.seq_len]
            for batch in (whole, part[len(whole) :]):
                if batch:
                    start, length = batch[0][0], sum(w[1] for w in batch)
                    span = split.slice(start, length + 1)
                    split.check_vocabulary(span, start, vocab_size)
                    tokens = torch.from_numpy(span.astype(np.int64))
                    loss_BL = losses(tokens[:-1].view(len(batch), -1), tokens[1:].view(len(batch), -1))
                    nats += float(loss_BL.double().sum())
                    count += int(tokenizer.token_bytes(span[:-1], span[1:]).sum())
            if progress and count:
                done = part[-1][0] + part[-1][1]
                progress(done, split.tokens - 1, nats / math.log(2) / count)
    return Score(nats, split.tokens - 1, count, time.perf_counter() - started)
