"""Hashed n-gram embeddings: a vector for the last n tokens, looked up by their hash (n = 2: the records' BigramHash).

An n-gram never reaches across a BOS: where fewer than n tokens of the document are there, nothing is added.

Shapes: B batch, L positions, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from niblick.errors import ConfigError

FACTORS = (1, 36_313, 27_191, 50_021, 61_027, 15_511, 44_203, 58_031)
"""One odd factor for each token of an n-gram, newest first; their sum of products is the hash, modulo the rows."""


@dataclass(frozen=True)
class NgramConfig:
    """One table of hashed n-grams."""

    n: int = 2
    rows: int = 4_096
    width: int = 128

    def __post_init__(self) -> None:
        if not 2 <= self.n <= len(FACTORS):
            raise ConfigError(f"ngrams: n={self.n} must be between 2 and {len(FACTORS)}")
        if self.rows < 1 or self.width < 1:
            raise ConfigError(f"ngrams: rows={self.rows} and width={self.width} must be at least 1")


@dataclass
class NgramState:
    """The last n−1 tokens of each row, oldest first; −1 where there are none of this document."""

    last_BN: Tensor


class NgramEmbedding(nn.Module):
    """Table and the map into the stream; the map starts at zero, so that nothing is added before training."""

    def __init__(self, config: NgramConfig, width: int, bos_id: int) -> None:
        super().__init__()
        self.config, self.bos_id = config, bos_id
        self.table = nn.Embedding(config.rows, config.width)
        self.out = nn.Linear(config.width, width, bias=False)
        nn.init.normal_(self.table.weight, std=0.02)
        nn.init.zeros_(self.out.weight)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Return what to add to the embeddings, (B, L, D)."""
        past = [ids_BL]
        for _ in range(self.config.n - 1):
            older = torch.cat((torch.full_like(past[-1][:, :1], -1), past[-1][:, :-1]), 1)
            past.append(older)
        return self._lookup(past)

    def _lookup(self, newest_first: list[Tensor]) -> Tensor:
        """Hash and look up. A BOS may be an n-gram's first token; in another place it cuts the n-gram off."""
        whole = newest_first[-1] >= 0
        for token in newest_first[:-1]:
            whole = whole & (token != self.bos_id)
        mixed = sum(token * factor for token, factor in zip(newest_first, FACTORS, strict=False))
        assert isinstance(mixed, Tensor)
        return self.out(self.table(mixed % self.config.rows) * whole[..., None])

    def new_state(self, rows: int, like: Tensor) -> NgramState:
        """Return the state before the first token."""
        return NgramState(torch.full((rows, self.config.n - 1), -1, dtype=torch.long, device=like.device))

    def step(self, token_B: Tensor, state: NgramState) -> Tensor:
        """Return what to add to the embedding of one more token of every row, (B, D); updates `state` in place."""
        window_BN = torch.cat((state.last_BN, token_B[:, None]), 1)
        state.last_BN = window_BN[:, 1:]
        return self._lookup(list(window_BN.flip(1).unbind(1)))
