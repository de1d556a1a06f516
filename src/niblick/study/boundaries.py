"""What the router decided on a text: its chunks, as data and as the line of brackets of the published study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from niblick.data.tokenizers import Tokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.lm import LM

PUBLISHED_SENTENCE = (
    "The quick brown fox jumps over the lazy dog. "
    "Natural language processing has made remarkable progress in recent years."
)
"""The sentence that study 1 shows before and after training."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of a text."""

    text: str
    """Its bytes as text; bytes that are only part of a character are shown escaped."""
    start: int
    """First byte in the text."""
    end: int
    """First byte after it."""
    p: float
    """Boundary probability at its first token."""


def chunks(model: LM, tokenizer: Tokenizer, text: str) -> list[Chunk]:
    """Cut `text` as the outermost router does after a BOS, which itself is no part of a chunk.

    Raises ConfigError for a model without a router and DataError for an empty text.
    """
    if not model.config.levels:
        raise ConfigError("this model is dense: it has no router, so it has no chunks")
    if not text:
        raise DataError("the text is empty: give at least one character to cut into chunks")
    tokens = tokenizer.encode_batch([text])[0]
    ids = np.concatenate(([tokenizer.bos_id], tokens)).astype(np.int64)
    device = next(model.parameters()).device
    with torch.no_grad():
        _, routings = model.hidden(torch.from_numpy(ids)[None].to(device))
    boundary, p = routings[0].boundary_BL[0, 1:].cpu().numpy(), routings[0].p_BL[0, 1:].cpu().numpy()
    ends = np.cumsum(tokenizer.token_bytes(ids[:-1], ids[1:]))
    starts = np.flatnonzero(boundary | (np.arange(len(boundary)) == 0))
    result = []
    data = text.encode()
    for first, after in zip(starts, [*starts[1:], len(boundary)], strict=True):
        begin, end = (int(ends[first - 1]) if first else 0), int(ends[after - 1])
        piece = data[begin:end].decode("utf-8", errors="backslashreplace")
        result.append(Chunk(piece, begin, end, float(p[first])))
    return result


def brackets(pieces: list[Chunk]) -> str:
    """Write chunks as `[The ][quick ]`; line breaks are shown as ⏎."""
    return "".join(f"[{chunk.text}]" for chunk in pieces).replace("\n", "⏎")
