"""Sidecars: what the tokens already scored say about the next one, added to a model while it is scored.

A sidecar changes the model's logits before the softmax, so there is one normalized distribution at every position, and
it learns a token only after that token's score is fixed. `cache` and `bigram` add a bias to the tokens that came
lately; `ngram` mixes the model with an adaptive n-gram model (`ngram_mixture`); `mixture` mixes it with contexts of
many kinds, decision by decision (`mixture`).

Shapes: N positions in stream order, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from niblick.errors import ConfigError, expect_free
from niblick.score.ngram_mixture import Floats, Integers, NgramMixture, log_softmax
from niblick.score.score_config import SIDECARS, SidecarConfig

if TYPE_CHECKING:
    from niblick.score.known_text import KnownText

_PIECE = 2**18  # numbers in the rows worked on at once: 1008 positions of bytes


class Adjuster(Protocol):
    """The interface of a sidecar: its knowledge, and how that changes the model's distributions."""

    def reveal(self, token: int) -> None:
        """Tell a token of the stream that needs no prediction."""

    def adjust(self, log_p_NV: Floats, tokens_N: Integers) -> Floats:
        """Return log q_NV, float64: row i from the model's row i and tokens before i alone. Then all N are revealed.

        Whoever makes no rows returns log q_N, that of the tokens.
        """


class CacheBias:
    """Adds strength · ln(1 + how often the token came among the last `window`) to the model's logits."""

    def __init__(self, vocab_size: int, window: int, strength: float) -> None:
        self._window, self._strength = window, strength
        self._counts_V = np.zeros(vocab_size)
        self._recent: deque[int] = deque()

    def reveal(self, token: int) -> None:
        self._counts_V[token] += 1
        self._recent.append(token)
        if len(self._recent) > self._window:
            self._counts_V[self._recent.popleft()] -= 1

    def adjust(self, log_p_NV: Floats, tokens_N: Integers) -> Floats:
        counts_NV = np.empty_like(log_p_NV)
        for i, token in enumerate(tokens_N.tolist()):
            counts_NV[i] = self._counts_V
            self.reveal(token)
        return log_softmax(log_p_NV + self._strength * np.log1p(counts_NV))


class BigramBias:
    """Adds strength · ln(1 + how often it followed the token before, among the last `window`) to the model's logits."""

    def __init__(self, window: int, strength: float) -> None:
        self._window, self._strength = window, strength
        self._counts: dict[int, dict[int, int]] = {}
        self._recent: deque[int] = deque()

    def reveal(self, token: int) -> None:
        if self._recent:
            followers = self._counts.setdefault(self._recent[-1], {})
            followers[token] = followers.get(token, 0) + 1
        self._recent.append(token)
        if len(self._recent) > self._window:
            followers = self._counts[self._recent.popleft()]
            followers[self._recent[0]] -= 1
            if not followers[self._recent[0]]:
                del followers[self._recent[0]]

    def adjust(self, log_p_NV: Floats, tokens_N: Integers) -> Floats:
        counts_NV = np.zeros_like(log_p_NV)
        for i, token in enumerate(tokens_N.tolist()):
            if self._recent and (followers := self._counts.get(self._recent[-1])):
                counts_NV[i, list(followers)] = list(followers.values())
            self.reveal(token)
        return log_softmax(log_p_NV + self._strength * np.log1p(counts_NV))


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _mixture(config: SidecarConfig, vocab_size: int, bos_id: int) -> Adjuster:
    from niblick.score.mixture import SETTINGS, Mixture  # compiled only where it is used

    return Mixture(vocab_size, SETTINGS[config.mix], config.memory)


MakeAdjuster = Callable[[SidecarConfig, int, int], Adjuster]
"""(config, size of the vocabulary, BOS) → what rides along from the beginning of a stream or document."""

ADJUSTERS: dict[str, MakeAdjuster] = {
    "cache": lambda config, vocab_size, _: CacheBias(vocab_size, config.window, _or(config.strength, 0.1)),
    "bigram": lambda config, *_: BigramBias(config.window, _or(config.strength, 0.3)),
    "ngram": lambda config, vocab_size, bos_id: NgramMixture(
        vocab_size, config.order, config.weight, config.rate, bos_id if config.reset == "carry" else None
    ),
    "mixture": _mixture,
}
"""What `score.sidecar.name` may name."""


def register_sidecar(name: str, make: MakeAdjuster) -> None:
    """Make `name` available as `score.sidecar.name`. Raises ConfigError if it is taken by another sidecar."""
    expect_free("sidecar", ADJUSTERS, name, make, ConfigError)
    ADJUSTERS[name] = make
    SIDECARS.add(name)


class Sidecar:
    """A sidecar on its way through one stream, which starts with BOS; it may know a text from before."""

    def __init__(self, config: SidecarConfig, vocab_size: int, bos_id: int, text: KnownText | None = None) -> None:
        """Raises ConfigError for a text that would be forgotten with the first document."""
        self.config, self.vocab_size, self.bos_id, self._text = config, vocab_size, bos_id, text
        if text is not None:
            text.expect_kept(config)
        self._next = 1
        self._adjuster: Adjuster | None = None

    def _start(self) -> Adjuster:
        """Make the adjuster, let it read the text it knows from before, and tell it the BOS."""
        if self._text is not None and self.config.name == "mixture":
            self._adjuster = self._text.mixture(self.config)
        else:
            self._adjuster = ADJUSTERS[self.config.name](self.config, self.vocab_size, self.bos_id)
            for token in [] if self._text is None else self._text.tokens_N.tolist():
                self._adjuster.reveal(token)
        self._adjuster.reveal(self.bos_id)
        return self._adjuster

    def __call__(self, first: int, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        """Return the log-probabilities (N,), nats, of the targets first…first+N−1 of the stream, and learn from them.

        `logits_NV` are the model's, before the softmax. Raises ConfigError unless every target comes once, in order.
        """
        if first != self._next:
            raise ConfigError(f"a sidecar needs every target once and in order: target {first} came, not {self._next}")
        self._next += len(targets_N)
        log_q_N = np.empty(len(targets_N))
        targets = targets_N.cpu().numpy()
        piece = max(1, _PIECE // self.vocab_size)
        for start in range(0, len(targets), piece):
            part = slice(start, start + piece)
            log_p_NV = log_softmax(logits_NV[part].double().cpu().numpy())
            log_q_N[part] = self._adjust(log_p_NV, targets[part])
        return torch.from_numpy(log_q_N).to(targets_N.device)

    def _adjust(self, log_p_NV: Floats, tokens_N: Integers) -> Floats:
        """Return log q of the tokens, forgetting at each BOS where that is asked for."""
        adjuster = self._adjuster or self._start()  # not before: reading a text is a part of scoring
        ends = [len(tokens_N)]
        if self.config.reset == "document":
            ends = [*(np.flatnonzero(tokens_N == self.bos_id) + 1).tolist(), len(tokens_N)]
        log_q_N, start = np.empty(len(tokens_N)), 0
        for end in ends:
            if start < end:
                log_q = adjuster.adjust(log_p_NV[start:end], tokens_N[start:end])
                log_q_N[start:end] = log_q if log_q.ndim == 1 else log_q[np.arange(end - start), tokens_N[start:end]]
            if end > start and self.config.reset == "document" and tokens_N[end - 1] == self.bos_id:
                adjuster = self._start()
            start = end
        return log_q_N
