"""The plain score: windows one behind the other, nothing learned, nothing looked at but the cost of the targets.

What `score_split` finds where a config asks for no more; for validation in training, and for scripts that do only this.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from niblick.data.dataset import Split
from niblick.data.tokenizers import Tokenizer
from niblick.errors import DataError
from niblick.memory import tokens_at_once
from niblick.model.lm import LM
from niblick.score.score_config import ScoreConfig


class PlainScore(NamedTuple):
    """Mean cost of the targets of a split."""

    loss: float
    """Nats per token."""
    bpb: float
    """Bits per byte."""


def score_contiguous(model: LM, split: Split, tokenizer: Tokenizer, config: ScoreConfig) -> PlainScore:
    """Score every target of the split once, in windows of `config.seq_len`; what is left makes a shorter one.

    Runs under the caller's autocast, on the model's device, over all processes of torch.distributed where that is set
    up; each returns the same. Raises DataError if the split is too short or holds a token outside the vocabulary.
    """
    targets, length = split.tokens - 1, config.seq_len
    if targets < 1:
        raise DataError(f"the split holds {split.tokens} tokens, and a score needs at least 2: prepare more documents")
    device, was_training = next(model.parameters()).device, model.training
    together = tokens_at_once(config.batch_tokens, model.config.width, device)
    whole, step = targets // length * length, max(1, together // length) * length
    spans = [(at, min(at + step, whole), length) for at in range(0, whole, step)]
    if whole < targets:
        spans.append((whole, targets, targets - whole))
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    nats, count = 0.0, 0
    model.eval()
    with torch.no_grad():
        for begin, end, width in spans[rank::ranks]:
            tokens = split.slice(begin, end - begin + 1)
            split.check_vocabulary(tokens, begin, model.config.vocab_size)
            stream = torch.from_numpy(tokens.astype(np.int64)).to(device)
            hidden_BLD, _ = model.hidden(stream[:-1].view(-1, width))
            nats += float(model.token_losses(hidden_BLD, stream[1:].view(-1, width)).cpu().double().sum())
            count += int(split.target_bytes(begin + 1, tokens, tokenizer).sum())
    model.train(was_training)
    if ranks > 1:
        both = torch.tensor([nats, count], dtype=torch.float64)
        dist.all_reduce(both)
        nats, count = both.tolist()
    return PlainScore(nats / targets, nats / math.log(2) / count)
