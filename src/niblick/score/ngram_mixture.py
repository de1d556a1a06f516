"""A model mixed with an n-gram model that learns from the tokens already scored, as compressors of PPM kind do.

Both are distributions over the whole vocabulary, and so is their mixture: a weighted geometric mean, normalized again.
(Adding probability only where an n-gram was found, as has been published, gives numbers that sum to more than one.)

Source: Cleary and Witten, "Data compression using adaptive coding and partial string matching" (1984), with the escape
of method C scaled and all orders blended; the geometric mixture with weights learned online is that of Mattern, "Mixing
strategies in data compression" (2012).

Shapes: N positions in stream order, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

NOVELTY = 0.5
"""How much every distinct follower of a context speaks for one that was never seen there."""
FLOOR = 1e-5
"""The uniform distribution's share in the n-gram model: no token ever gets less than this over V."""
STEP = 32
"""Weights of the mixture change after so many tokens, counted from the first: results do not depend on block sizes."""
LARGEST_WEIGHT = 2.0


class _Node:
    """One context: how often it was seen, what followed, and the contexts that are one token longer.

    Among `children` (by the token further back) an integer stands for a context seen once: the place of what followed.
    """

    __slots__ = ("children", "counts", "seen")

    def __init__(self) -> None:
        self.seen = 0
        self.counts: dict[int, int] = {}
        self.children: dict[int, _Node | int] = {}

    def add(self, token: int) -> None:
        self.seen += 1
        self.counts[token] = self.counts.get(token, 0) + 1


class ContextCounts:
    """Exact counts of what followed each context of 0…order tokens, and the distribution that they make.

    For the longest context down to the empty one, as far as each was seen: p_k(v) = (c_k(v) + NOVELTY·t_k·p_{k−1}(v)) /
    (n_k + NOVELTY·t_k), where n_k counts the visits, c_k(v) those followed by v, t_k the distinct followers; p_{−1} is
    uniform, and FLOOR of it is mixed in at the end. A context seen once costs one integer, however many longer ones
    there are, and becomes a node when it is seen again. After each token `restart` nothing but that token is known.
    """

    def __init__(self, vocab_size: int, order: int, restart: int | None = None) -> None:
        self.vocab_size, self.order, self.restart = vocab_size, order, restart
        self._known: list[int] = []
        self._root = _Node()

    def predict(self) -> Floats:
        """Return the distribution of the next token, p_V."""
        rows = _Rows()
        rows.add(*self._look())
        return rows.distributions(self.vocab_size)[0]

    def reveal(self, token: int) -> None:
        """Count the next token of the stream."""
        if token == self.restart:
            self._known, self._root = [], _Node()
        known, place = self._known, len(self._known)
        known.append(token)
        node, depth = self._root, 0
        while True:
            node.add(token)
            if depth == min(self.order, place):
                return
            back = known[place - 1 - depth]
            child = node.children.get(back)
            if child is None:
                node.children[back] = place
                return
            depth += 1
            if isinstance(child, int):
                once, child = child, _Node()
                child.add(known[once])
                if depth < min(self.order, once):
                    child.children[known[once - 1 - depth]] = once
                node.children[back] = child
            node = child

    def rows(self, tokens_N: Integers) -> tuple[Floats, Integers]:
        """Return the distribution before each token, p_NV, and its `gate_N` (see `gates`), revealing one by one."""
        rows = _Rows()
        for token in tokens_N.tolist():
            rows.add(*self._look())
            self.reveal(token)
        return rows.distributions(self.vocab_size), np.array(rows.gates, np.int64)

    @property
    def gates(self) -> int:
        """How many kinds of places there are: by the longest context seen before, and whether one thing followed it."""
        return 2 * (self.order + 1)

    def _look(self) -> tuple[list[tuple[float, dict[int, int]]], float, int]:
        """Return the next distribution as shares of counts, the share left for the uniform one, and the gate."""
        known, place = self._known, len(self._known)
        node, path, depth = self._root, [self._root], 0
        parts: list[tuple[float, dict[int, int]]] = []
        rest = 1.0
        while depth < min(self.order, place):
            child = node.children.get(known[place - 1 - depth])
            if child is None:
                break
            depth += 1
            if isinstance(child, int):  # the longer contexts that agree there were seen at this one place, too
                shortest, reach = depth, min(self.order, child)
                while depth < reach and known[child - 1 - depth] == known[place - 1 - depth]:
                    depth += 1
                rest = (NOVELTY / (1 + NOVELTY)) ** (depth - shortest + 1)
                parts.append((1 - rest, {known[child]: 1}))
                break
            path.append(child)
            node = child
        certain = bool(parts) or len(node.counts) == 1
        for node in reversed(path if place else ()):
            new = NOVELTY * len(node.counts)
            share = rest / (node.seen + new)
            parts.append((share, node.counts))
            rest = share * new
        return parts, rest, 2 * depth + certain


class _Rows:
    """Distributions as shares of counts, collected to be added up together: a Python list grows fast, an array sums."""

    def __init__(self) -> None:
        self.gates: list[int] = []
        self._rest: list[float] = []
        self._parts: list[int] = []
        self._shares: list[float] = []
        self._lengths: list[int] = []
        self._tokens: list[int] = []
        self._counts: list[int] = []

    def add(self, parts: list[tuple[float, dict[int, int]]], rest: float, gate: int) -> None:
        self.gates.append(gate)
        self._rest.append(rest)
        self._parts.append(len(parts))
        for share, counts in parts:
            self._shares.append(share)
            self._lengths.append(len(counts))
            self._tokens.extend(counts)
            self._counts.extend(counts.values())

    def distributions(self, vocab_size: int) -> Floats:
        """Return p_NV, with FLOOR of the uniform distribution in each."""
        p_NV = np.empty((len(self.gates), vocab_size))
        p_NV[:] = ((1 - FLOOR) * np.array(self._rest)[:, None] + FLOOR) / vocab_size
        row = np.repeat(np.arange(len(self.gates)), self._parts)
        place = np.repeat(row * vocab_size, self._lengths) + np.array(self._tokens, np.int64)
        share = np.repeat((1 - FLOOR) * np.array(self._shares), self._lengths)
        return p_NV + np.bincount(place, share * np.array(self._counts), p_NV.size).reshape(p_NV.shape)


class NgramMixture:
    """q ∝ p_model^a · p_stream^b · p_document^c, normalized, with weights (a, b, c) for every gate of the last.

    One n-gram model knows the whole stream so far, the other what came since the last `bos_id`; without a `bos_id`
    there is only the first. The weights start at 1 for the model and `weight` divided among the n-gram models, and
    climb the gradient of the log-probability of the tokens revealed, at `rate`: with weight 0 and rate 0 the mixture
    is the model.
    """

    def __init__(self, vocab_size: int, order: int, weight: float, rate: float, bos_id: int | None = None) -> None:
        self._ngrams = [ContextCounts(vocab_size, order)]
        if bos_id is not None:
            self._ngrams.append(ContextCounts(vocab_size, order, restart=bos_id))
        self._rate = rate
        start = [1.0] + [weight / len(self._ngrams)] * len(self._ngrams)
        self._weights = np.tile(np.array(start), (self._ngrams[-1].gates, 1))
        self._gradient = np.zeros_like(self._weights)
        self._done = 0

    def reveal(self, token: int) -> None:
        """Tell a token of the stream that needs no prediction."""
        for ngrams in self._ngrams:
            ngrams.reveal(token)

    def adjust(self, log_p_NV: Floats, tokens_N: Integers) -> Floats:
        """Return log q_NV, float64: row i from the model's row i and tokens before i alone. Then all N are revealed."""
        parts = [log_p_NV]
        for ngrams in self._ngrams:
            p_NV, gate_N = ngrams.rows(tokens_N)
            parts.append(np.log(p_NV))
        log_q_NV = np.empty_like(p_NV)
        start = 0
        while start < len(tokens_N):
            stop = min(len(tokens_N), start + STEP - self._done % STEP)
            here = slice(start, stop)
            log_q_NV[here] = self._mix([part_NV[here] for part_NV in parts], gate_N[here], tokens_N[here])
            self._done += stop - start
            start = stop
            if self._done % STEP == 0:
                self._weights = np.clip(self._weights + self._rate * self._gradient, 0, LARGEST_WEIGHT)
                self._gradient[:] = 0
        return log_q_NV

    def _mix(self, parts: list[Floats], gate_N: Integers, tokens_N: Integers) -> Floats:
        """Return log q_NV under the weights as they are, and add up their gradient: ln p_j(x) − E_q[ln p_j]."""
        z_NV = np.zeros_like(parts[0])
        for weight_N, part_NV in zip(self._weights[gate_N].T, parts, strict=True):
            z_NV += weight_N[:, None] * part_NV
        z_NV = log_softmax(z_NV)
        q_NV, rows = np.exp(z_NV), np.arange(len(tokens_N))
        for j, part_NV in enumerate(parts):
            gain_N = part_NV[rows, tokens_N] - np.einsum("nv,nv->n", q_NV, part_NV)
            np.add.at(self._gradient[:, j], gate_N, gain_N)
        return z_NV


def log_softmax(z_NV: Floats) -> Floats:
    """Return z_NV less the logarithm of the sum of its exponentials, row by row."""
    z_NV = z_NV - z_NV.max(1, keepdims=True)
    return np.asarray(z_NV - np.log(np.exp(z_NV).sum(1, keepdims=True)))
