"""Sidecars against slow, exact twins: dictionaries and loops in float64, one position at a time."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from niblick.data.dataset import Split
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.score import mixing_kernels, ngram_mixture, score_config, sidecars
from niblick.score.ngram_mixture import FLOOR, LARGEST_WEIGHT, NOVELTY, STEP, ContextCounts, NgramMixture
from niblick.score.score_config import ScoreConfig, SidecarConfig, TTTConfig
from niblick.score.scorers import score_split
from niblick.score.sidecars import ADJUSTERS, BigramBias, CacheBias, Sidecar, register_sidecar

V = 7
BOS = 1
NAMES = ("cache", "bigram", "ngram") + ("mixture",) * mixing_kernels.COMPILED


def plain_ngram(known: list[int], order: int, vocab_size: int = V) -> tuple[list[float], int]:
    """p_V and the gate by the definition: every context counted anew over all that is known."""
    p, longest, certain = [1 / vocab_size] * vocab_size, 0, False
    for k in range(min(order, len(known)) + 1):
        context = known[len(known) - k :]
        counts = Counter(known[i + k] for i in range(len(known) - k) if known[i : i + k] == context)
        if not counts:
            break
        seen, new = sum(counts.values()), NOVELTY * len(counts)
        p = [(counts[v] + new * p[v]) / (seen + new) for v in range(vocab_size)]
        longest, certain = k, len(counts) == 1
    return [(1 - FLOOR) * x + FLOOR / vocab_size for x in p], 2 * longest + certain


def plain_mixture(
    log_p: np.ndarray, known: list[int], tokens: list[int], order: int, weight: float, rate: float, *, both: bool
) -> list[list[float]]:
    """Rows of log q, with a dictionary of weights."""
    weights: dict[int, list[float]] = {}
    pending: dict[int, list[float]] = {}
    rows = []
    known = list(known)
    for i, token in enumerate(tokens):
        p, gate = plain_ngram(known, order)
        parts = [list(log_p[i]), [math.log(x) for x in p]]
        start = [1.0, weight]
        if both:
            since = len(known) - 1 - known[::-1].index(BOS)
            p, gate = plain_ngram(known[since:], order)
            parts.append([math.log(x) for x in p])
            start = [1.0, weight / 2, weight / 2]
        z = [sum(w * x for w, x in zip(weights.get(gate, start), row, strict=True)) for row in zip(*parts, strict=True)]
        total = math.log(math.fsum(map(math.exp, z)))
        rows.append([x - total for x in z])
        gain = [part[token] - math.fsum(math.exp(q) * x for q, x in zip(rows[-1], part, strict=True)) for part in parts]
        pending[gate] = [g + h for g, h in zip(pending.get(gate, [0.0] * len(start)), gain, strict=True)]
        if (i + 1) % STEP == 0:
            for key, gradient in pending.items():
                old = weights.get(key, start)
                weights[key] = [min(LARGEST_WEIGHT, max(0.0, w + rate * g)) for w, g in zip(old, gradient, strict=True)]
            pending = {}
        known.append(token)
    return rows


def plain_bias(name: str, known: list[int], window: int, strength: float) -> list[float]:
    """The bias of every token by the definition."""
    recent = known[-window:]
    if name == "cache":
        counts = Counter(recent)
    else:
        counts = Counter(b for a, b in itertools.pairwise(recent) if a == recent[-1])
    return [strength * math.log(1 + counts[v]) for v in range(V)]


def normalized(rows: np.ndarray) -> np.ndarray:
    return rows - np.log(np.exp(rows).sum(1, keepdims=True))


def drawn(seed: int, tokens: int) -> np.ndarray:
    return normalized(np.random.default_rng(seed).normal(size=(tokens, V)))


streams = st.lists(st.integers(0, V - 1), max_size=120)
phrases = st.lists(st.integers(0, 2), min_size=1, max_size=12)
repeats = st.builds(lambda phrase, n: (phrase * n)[:120], phrases, st.integers(1, 20))
texts = st.one_of(streams, repeats)


@given(tokens=texts, order=st.integers(0, 20))
@settings(max_examples=60, deadline=None)
def test_counts_are_exact(tokens: list[int], order: int) -> None:
    counts = ContextCounts(V, order)
    p_NV, gate_N = counts.rows(np.array(tokens, np.int64))
    for i, (p_V, gate) in enumerate(zip(p_NV, gate_N, strict=True)):
        expected, kind = plain_ngram(tokens[:i], order)
        np.testing.assert_allclose(p_V, expected, rtol=1e-9)
        assert gate == kind < counts.gates
    np.testing.assert_allclose(counts.predict(), plain_ngram(tokens, order)[0], rtol=1e-9)
    assert counts.predict().sum() == pytest.approx(1, abs=1e-9)


@given(
    tokens=texts,
    order=st.integers(0, 8),
    weight=st.sampled_from([0.0, 0.2, 1.0]),
    rate=st.sampled_from([0.0, 0.001, 0.3]),
    both=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_mixture_is_what_it_says(tokens: list[int], order: int, weight: float, rate: float, both: bool) -> None:
    log_p_NV = drawn(order, len(tokens))
    mixture = NgramMixture(V, order, weight, rate, BOS if both else None)
    mixture.reveal(BOS)
    log_q_NV = mixture.adjust(log_p_NV, np.array(tokens, np.int64))
    expected = plain_mixture(log_p_NV, [BOS], tokens, order, weight, rate, both=both)
    np.testing.assert_allclose(log_q_NV, np.array(expected).reshape(-1, V), rtol=1e-7, atol=1e-9)
    if weight == rate == 0:
        np.testing.assert_allclose(log_q_NV, log_p_NV, atol=1e-12)


@given(tokens=texts, window=st.integers(1, 30), strength=st.sampled_from([0.0, 0.1, 1.5]), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_biases_are_what_they_say(tokens: list[int], window: int, strength: float, seed: int) -> None:
    log_p_NV = drawn(seed, len(tokens))
    for name, sidecar in (("cache", CacheBias(V, window, strength)), ("bigram", BigramBias(window, strength))):
        sidecar.reveal(BOS)
        log_q_NV = sidecar.adjust(log_p_NV, np.array(tokens, np.int64))
        for i in range(len(tokens)):
            row = log_p_NV[i] + plain_bias(name, [BOS, *tokens[:i]], window, strength)
            np.testing.assert_allclose(log_q_NV[i], normalized(row[None])[0], atol=1e-9)


def config(name: Any, **keys: Any) -> SidecarConfig:
    return SidecarConfig(name, **({"window": 20, "strength": 0.5, "order": 6, "rate": 0.02, "memory": 1} | keys))


def fed(sidecar: Sidecar, logits_NV: torch.Tensor, targets_N: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """The log-probabilities when the stream comes in pieces that end at `cuts`."""
    ends = [*sorted(cut for cut in set(cuts) if cut < len(targets_N)), len(targets_N)]
    starts = [0, *ends[:-1]]
    return torch.cat([sidecar(1 + a, logits_NV[a:b], targets_N[a:b]) for a, b in zip(starts, ends, strict=True)])


@pytest.mark.parametrize("name", NAMES)
@given(tokens=texts, seed=st.integers(0, 9), cuts=st.lists(st.integers(1, 119), max_size=6), reset=st.booleans())
@settings(max_examples=40, deadline=None)
def test_pieces_do_not_matter(name: str, tokens: list[int], seed: int, cuts: list[int], reset: bool) -> None:
    logits_NV, targets_N = torch.from_numpy(3 + drawn(seed, len(tokens))), torch.tensor(tokens, dtype=torch.int64)
    made = [Sidecar(config(name, reset="document" if reset else "carry"), V, BOS) for _ in range(2)]
    whole, parts = fed(made[0], logits_NV, targets_N, []), fed(made[1], logits_NV, targets_N, cuts)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@given(tokens=texts, seed=st.integers(0, 9), data=st.data())
@settings(max_examples=40, deadline=None)
def test_one_distribution_everywhere_and_nothing_later_matters(
    name: str, tokens: list[int], seed: int, data: st.DataObject
) -> None:
    """At every position: the probabilities of all tokens that could stand there, each scored in its own stream."""
    at = data.draw(st.integers(0, len(tokens)))
    later = data.draw(streams)
    logits = torch.from_numpy(drawn(seed, at + 1 + len(later)))
    total = 0.0
    for token in range(V):
        targets = torch.tensor([*tokens[:at], token, *later])
        log_q_N = Sidecar(config(name), V, BOS)(1, logits, targets)
        alone_N = Sidecar(config(name), V, BOS)(1, logits[: at + 1], targets[: at + 1])
        torch.testing.assert_close(log_q_N[: at + 1], alone_N, rtol=0, atol=1e-12)
        total += float(log_q_N[at].exp())
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_reset_at_documents(name: str) -> None:
    """With document, every document is scored as if it were alone; with carry the second one profits."""
    tokens = torch.tensor([2, 3, 4, 5, 2, 3, 4, 6] * 8 + [BOS])
    logits = torch.zeros(2 * len(tokens), V)
    alone = Sidecar(config(name, reset="document"), V, BOS)(1, logits[: len(tokens)], tokens)
    apart, carried = (
        Sidecar(config(name, reset=reset), V, BOS)(1, logits, tokens.repeat(2)) for reset in ("document", "carry")
    )
    torch.testing.assert_close(apart, alone.repeat(2))
    assert carried.sum() > apart.sum() + 0.01


@pytest.mark.parametrize(("name", "least"), [("cache", 0.2), ("bigram", 0.4), ("ngram", 1.0)])
def test_gains_where_text_repeats(name: Any, least: float) -> None:
    """Nats a token over the uniform model, on a sentence said forty times."""
    text = torch.tensor(list(b"the same line again and again, as logs have it\n") * 40) + 4
    log_q_N = Sidecar(SidecarConfig(name, strength=0.5), 260, BOS)(1, torch.zeros(len(text), 260), text)
    assert float(log_q_N.mean()) + math.log(260) > least


def test_contexts_seen_once_stay_small() -> None:
    """An unseen context costs one integer however long it may be: nodes are only for what came again."""
    counts = ContextCounts(260, 64)
    rng = np.random.default_rng(0)
    for token in rng.integers(4, 260, 3000).tolist():
        counts.reveal(token)
    nodes, todo = 0, [counts._root]
    while todo:
        node = todo.pop()
        nodes += 1
        todo += [child for child in node.children.values() if isinstance(child, ngram_mixture._Node)]
    assert nodes < 400  # the root, 256 contexts of one token, and few longer ones


def test_order_of_the_stream_is_kept() -> None:
    sidecar = Sidecar(config("cache"), V, BOS)
    sidecar(1, torch.zeros(3, V), torch.tensor([2, 3, 4]))
    for wrong in (1, 5):
        with pytest.raises(ConfigError, match=f"target {wrong} came, not 4"):
            sidecar(wrong, torch.zeros(1, V), torch.tensor([2]))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"name": "bigrams"}, "nearest: bigram"),
        ({"reset": "never"}, "carry or document"),
        ({"window": 0}, "window=0 must be at least 1"),
        ({"order": -1}, "order=-1 must be between 0 and 64"),
        ({"order": 65}, "order=65"),
        ({"strength": -0.1}, "strength=-0.1 must be between 0 and 2"),
        ({"weight": 3.0}, "weight=3"),
        ({"rate": math.nan}, "rate=nan"),
    ],
)
def test_bad_settings(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SidecarConfig(**keys)


def test_rides_along_with_every_scorer() -> None:
    """The score with a sidecar is that of the model's own distributions, put through the sidecar in stream order."""
    torch.manual_seed(0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=(), main=StageConfig("T1"))).double()
    tokens = np.concatenate([[BOS, *(np.frombuffer(text, np.uint8) + 4)] for text in (b"one, two, " * 9, b"two" * 20)])
    split = Split("val", [Path("memory")], [tokens.astype(np.uint16)])
    ttt = TTTConfig("sgd", lr=0.05, chunk_tokens=48, step_tokens=48, epochs=1)
    scorers = (
        ScoreConfig(24, 100),
        ScoreConfig(24, 100, ttt=ttt),
        ScoreConfig(24, 100, scorer="sliding", stride=5),
        ScoreConfig(24, 100, scorer="document"),
    )
    for plain in scorers:
        for name in NAMES:
            # Rows as the scorer hands them out, collected by a sidecar that changes nothing.
            rows: list[torch.Tensor] = []

            def collect(first: int, logits_NV: torch.Tensor, targets_N: torch.Tensor, rows: Any = rows) -> torch.Tensor:
                rows.append(logits_NV)
                return logits_NV.log_softmax(1)[torch.arange(len(targets_N)), targets_N]

            alone = score_split(model, split, ByteTokenizer(), plain, sidecar=collect)
            targets_N = torch.from_numpy(tokens[1:].astype(np.int64))
            expected = Sidecar(config(name), 260, BOS)(1, torch.cat(rows), targets_N)
            nats = []
            for batch_tokens in (1, 100, 10_000):
                with_it = replace(plain, batch_tokens=batch_tokens, sidecar=config(name))
                nats.append(score_split(model, split, ByteTokenizer(), with_it).nats)
            assert nats == pytest.approx([-float(expected.sum())] * 3, abs=1e-6)
            assert abs(nats[0] - alone.nats) > 1
    still = replace(plain, sidecar=SidecarConfig("ngram", weight=0, rate=0))
    assert score_split(model, split, ByteTokenizer(), still).nats == pytest.approx(alone.nats, abs=1e-6)


def test_a_sidecar_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecars, "ADJUSTERS", dict(ADJUSTERS))
    names = set(score_config.SIDECARS)
    for module in (sidecars, score_config):
        monkeypatch.setattr(module, "SIDECARS", names)
    with pytest.raises(ConfigError, match=r"unknown score.sidecar.name='cachet' \(nearest: cache"):
        SidecarConfig(name="cachet")
    register_sidecar("strong", lambda config, vocab_size, _: CacheBias(vocab_size, config.window, 1.5))
    logits_NV, targets_N = torch.randn(20, V), torch.randint(0, V, (20,))
    found = Sidecar(SidecarConfig(name="strong"), V, BOS)(1, logits_NV, targets_N)
    assert torch.equal(found, Sidecar(SidecarConfig(name="cache", strength=1.5), V, BOS)(1, logits_NV, targets_N))
    with pytest.raises(ConfigError, match="sidecar 'cache' is taken"):
        register_sidecar("cache", ADJUSTERS["bigram"])
