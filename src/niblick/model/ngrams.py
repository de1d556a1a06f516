"""Hashed n-gram embeddings: a vector for the last n tokens or words, looked up by their hash.

Of tokens, n = 2 is the records' BigramHash. Of bytes, words reach further: the letters since the current word began,
and the n − 1 words before it, in lower case, whatever stands between them (as the PAQ compressors' word models).

An n-gram never reaches across a BOS: where fewer than n of the document are there, nothing is added.

Shapes: B batch, L positions, D width, V vocabulary, N tokens or words before the current one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from niblick.model.model_config import FACTORS, NgramConfig, control_tokens

LETTER = 6_364_136_223_846_793_005
"""Each letter of a word counts this much more than the one before, modulo 2⁶⁴ (Knuth's factor for such sequences)."""


@dataclass
class NgramState:
    """The last n−1 tokens of each row, oldest first; −1 where there are none of this document."""

    last_BN: Tensor


@dataclass
class WordState:
    """What each row has read of the current word, and the words before it, newest first."""

    word_B: Tensor
    factor_B: Tensor
    """What the next letter's value is multiplied by."""
    before_BN: Tensor
    whole_BN: Tensor
    """Whether there is such a word in this document."""


class HashedTable(nn.Module):
    """Table and the map into the stream.

    The table starts at zero, so nothing is added before training, and rows that are never looked up stay what an
    artifact says in a bit.
    """

    def __init__(self, config: NgramConfig, width: int, bos_id: int) -> None:
        super().__init__()
        self.config, self.bos_id = config, bos_id
        self.table = nn.Embedding(config.rows, config.width)
        self.out = nn.Linear(config.width, width, bias=False)
        nn.init.zeros_(self.table.weight)

    def added(self, hashed: Tensor, whole: Tensor) -> Tensor:
        """Return the rows of these hashes as vectors of the stream; zero where an n-gram is not whole."""
        return self.out(self.table(hashed % self.config.rows) * whole[..., None])


class NgramEmbedding(HashedTable):
    """Of the last n tokens."""

    def __init__(self, config: NgramConfig, width: int, bos_id: int) -> None:
        super().__init__(config, width, bos_id)
        self.factors_N = torch.tensor(FACTORS[: config.n][::-1])
        """What tokens count in a hash, the oldest first."""

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
        hashed = sum(token * factor for token, factor in zip(newest_first, FACTORS, strict=False))
        assert isinstance(hashed, Tensor)
        return self.added(hashed, whole)

    def new_state(self, rows: int, like: Tensor) -> NgramState:
        """Return the state before the first token."""
        return NgramState(torch.full((rows, self.config.n - 1), -1, dtype=torch.long, device=like.device))

    def step(self, token_B: Tensor, state: NgramState) -> Tensor:
        """Return what to add to the embedding of one more token of every row, (B, D); updates `state` in place."""
        window_BN = torch.cat((state.last_BN, token_B[:, None]), 1)
        state.last_BN = window_BN[:, 1:]
        whole_B = (window_BN[:, 0] >= 0) & (state.last_BN != self.bos_id).all(1)
        return self.added((window_BN * self.factors_N.to(token_B.device)).sum(1), whole_B)


class WordEmbedding(HashedTable):
    """Of the current word as far as it is read, and the n−1 words before it.

    Letters are ASCII letters and digits, and all bytes of other characters. At a byte between words the current word
    is that byte.
    """

    def __init__(self, config: NgramConfig, width: int, bos_id: int, vocab_size: int) -> None:
        """Raises ConfigError for a vocabulary that is not bytes after a few control tokens."""
        super().__init__(config, width, bos_id)
        controls = control_tokens(vocab_size, "ngrams of words are")
        values = [b | 32 * (65 <= b <= 90) if b >= 128 or chr(b).isalnum() else 0 for b in range(256)]
        self.value_V = torch.tensor([0] * controls + values)
        """Of each letter; 0 for all that is none."""

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Return what to add to the embeddings, (B, L, D)."""
        at_BL = torch.arange(ids_BL.shape[1], device=ids_BL.device).expand_as(ids_BL)
        value_BL = self.value_V.to(ids_BL.device)[ids_BL]
        letter_BL = value_BL > 0
        gap_BL = _last(at_BL, ~letter_BL)
        factors_L = torch.full_like(at_BL[0], LETTER).cumprod(0)
        sums_BL = (value_BL * factors_L[(at_BL - gap_BL - 1).clamp(0)]).cumsum(1)
        word_BL = sums_BL - _taken(sums_BL, gap_BL)
        end_BL = _taken(_last(at_BL, letter_BL), gap_BL, -1)
        end_BL = torch.where(_last(at_BL, ids_BL == self.bos_id) > end_BL, -1, end_BL)
        before, whole = [word_BL], [torch.ones_like(letter_BL)]
        for _ in range(self.config.n - 1):
            before.append(_taken(before[-1], end_BL))
            whole.append((end_BL >= 0) & whole[-1].gather(1, end_BL.clamp(0)))
        return self._lookup(torch.where(letter_BL, word_BL, -1 - ids_BL), before[1:], whole[-1])

    def _lookup(self, current: Tensor, before: list[Tensor], whole: Tensor) -> Tensor:
        hashed = current
        for word, factor in zip(before, FACTORS[1:], strict=False):
            hashed = hashed * LETTER + word * factor
        hashed = (hashed ^ (hashed >> 32)) * LETTER  # a row's number depends on high bits too
        return self.added(hashed ^ (hashed >> 32), whole)

    def new_state(self, rows: int, like: Tensor) -> WordState:
        """Return the state before the first token."""
        zero_B = torch.zeros(rows, dtype=torch.long, device=like.device)
        before_BN = zero_B[:, None].repeat(1, self.config.n - 1)
        return WordState(zero_B, torch.full_like(zero_B, LETTER), before_BN, before_BN > 0)

    def step(self, token_B: Tensor, state: WordState) -> Tensor:
        """Return what to add to the embedding of one more token of every row, (B, D); updates `state` in place."""
        value_B = self.value_V.to(token_B.device)[token_B]
        letter_B, inside_B = value_B > 0, state.factor_B != LETTER
        ends_B = inside_B & ~letter_B
        n = self.config.n - 1
        pushed_BN = torch.cat((state.word_B[:, None], state.before_BN), 1)[:, :n]
        known_BN = torch.cat((ends_B[:, None], state.whole_BN), 1)[:, :n]
        state.before_BN = torch.where(ends_B[:, None], pushed_BN, state.before_BN)
        state.whole_BN = torch.where(ends_B[:, None], known_BN, state.whole_BN) & (token_B != self.bos_id)[:, None]
        state.word_B = torch.where(letter_B, state.word_B + value_B * state.factor_B, 0)
        state.factor_B = torch.where(letter_B, state.factor_B * LETTER, LETTER)
        current_B = torch.where(letter_B, state.word_B, -1 - token_B)
        whole_B = state.whole_BN[:, -1] if n else torch.ones_like(letter_B)
        return self._lookup(current_B, list(state.before_BN.unbind(1)), whole_B)


def _last(at_BL: Tensor, marked_BL: Tensor) -> Tensor:
    """Return the last marked position up to each position; −1 where there is none."""
    return torch.where(marked_BL, at_BL, -1).cummax(1).values


def _taken(values_BL: Tensor, at_BL: Tensor, otherwise: int = 0) -> Tensor:
    """Return the values at these positions; `otherwise` where a position is −1."""
    return torch.where(at_BL >= 0, values_BL.gather(1, at_BL.clamp(0)), otherwise)


def hashed_table(config: NgramConfig, width: int, bos_id: int, vocab_size: int) -> NgramEmbedding | WordEmbedding:
    """Make the table that a config describes."""
    if config.words:
        return WordEmbedding(config, width, bos_id, vocab_size)
    return NgramEmbedding(config, width, bos_id)
