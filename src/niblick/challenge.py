"""The rules of the Parameter Golf challenge in one place: cap, limits, shard header, log lines.

Source: the challenge's published scripts (March to April 2026). Nothing here is niblick's own choice.
"""

from __future__ import annotations

CAP_BYTES = 16_000_000
"""Code and artifact together must not be larger."""

TRAIN_SECONDS = 600
"""Record track: seconds of training on 8×H100."""

EVAL_SECONDS = 600
"""Record track: seconds of scoring on 8×H100."""

VALIDATION_DOCUMENTS = 50_000
"""The first documents of the challenge's cache are its validation split."""

SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_INTS = 256
"""A shard is 256 little-endian int32 (magic, version, number of tokens, zeros), then uint16 tokens."""

SHARD_TOKENS = 100_000_000
"""Tokens per shard; documents run on across shards of one split."""


def shard_name(split: str, number: int) -> str:
    """Return the file name of shard `number` of `split` ("train" or "val")."""
    return f"fineweb_{split}_{number:06d}.bin"
