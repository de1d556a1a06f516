"""How fast the n-gram mixture goes along a stream of bytes, against the way everyone writes it first.

The plain way keeps a dictionary for every order and blends vectors as wide as the vocabulary, position by position.
Both end with the same log-probabilities. The model's part is left out: its distributions are uniform here.

The mixture, without a model, stands beside PPMd's own encoder, and beside the n-gram mixture.
"""

from __future__ import annotations

import numpy as np
import pyppmd

from measure import Row, compare
from niblick.data.embedded import embedded_documents
from niblick.score.mixture import SETTINGS, Mixture
from niblick.score.ngram_mixture import FLOOR, LARGEST_WEIGHT, NOVELTY, STEP, Floats, Integers, NgramMixture
from niblick.score.score_config import SidecarConfig

VOCAB = 260
CONFIG = SidecarConfig("ngram")


def stream(size: int) -> Integers:
    """Return `size` byte tokens of Python's own documentation."""
    text = "".join(text for text, _ in embedded_documents("pydocs")).encode()[:size]
    return np.frombuffer(text, np.uint8).astype(np.int64) + 4


def ours(tokens_N: Integers) -> Floats:
    """Return the log-probability of each token, (N,), in pieces as the scorer has them."""
    mixture = NgramMixture(VOCAB, CONFIG.order, CONFIG.weight, CONFIG.rate)
    parts = []
    for start in range(0, len(tokens_N), 1008):
        part_N = tokens_N[start : start + 1008]
        log_q_NV = mixture.adjust(np.full((len(part_N), VOCAB), -np.log(VOCAB)), part_N)
        parts.append(log_q_NV[np.arange(len(part_N)), part_N])
    return np.concatenate(parts)


def plain(tokens_N: Integers) -> Floats:
    """The same, the plain way."""
    tables: list[dict[tuple[int, ...], dict[int, int]]] = [{} for _ in range(CONFIG.order + 1)]
    weights = np.tile([1.0, CONFIG.weight], (2 * CONFIG.order + 2, 1))
    gradient = np.zeros_like(weights)
    model_V = np.full(VOCAB, -np.log(VOCAB))
    context: tuple[int, ...] = ()
    out = np.empty(len(tokens_N))
    for i, token in enumerate(tokens_N.tolist()):
        p_V, longest, certain = np.full(VOCAB, 1 / VOCAB), 0, False
        for k in range(len(context) + 1):
            counts = tables[k].get(context[len(context) - k :])
            if counts is None:
                break
            seen, new = sum(counts.values()), NOVELTY * len(counts)
            p_V *= new / (seen + new)
            p_V[list(counts)] += np.array(list(counts.values())) / (seen + new)
            longest, certain = k, len(counts) == 1
        ngram_V = np.log((1 - FLOOR) * p_V + FLOOR / VOCAB)
        gate = 2 * longest + certain
        z_V = weights[gate, 0] * model_V + weights[gate, 1] * ngram_V
        z_V -= np.log(np.exp(z_V).sum())
        out[i] = z_V[token]
        q_V = np.exp(z_V)
        gradient[gate] += [model_V[token] - q_V @ model_V, ngram_V[token] - q_V @ ngram_V]
        if (i + 1) % STEP == 0:
            weights = np.clip(weights + CONFIG.rate * gradient, 0, LARGEST_WEIGHT)
            gradient[:] = 0
        for k in range(len(context) + 1):
            counts = tables[k].setdefault(context[len(context) - k :], {})
            counts[token] = counts.get(token, 0) + 1
        context = (*context, token)[-CONFIG.order :]
    return out


def bench_sidecars(quick: bool) -> list[Row]:
    """kB of text a second on one core, over 5 (quick) or 50 kB of Python's documentation."""
    tokens_N = stream(5_000 if quick else 50_000)
    repeats = 1 if quick else 3
    rows = [
        compare(
            f"n-gram mixture, one model of order {CONFIG.order}, {len(tokens_N) // 1000} kB of bytes",
            lambda: ours(tokens_N),
            lambda: plain(tokens_N),
            peer_name="a dictionary and a vector for every order",
            repeats=repeats,
            amount=len(tokens_N) / 1000,
            unit="kB/s",
        )
    ]
    for name, setting in SETTINGS.items():
        peers = {"the n-gram mixture": lambda: ours(tokens_N), "pyppmd, order 16": lambda: ppmd(tokens_N)}
        rows += [
            compare(
                f"mixture, {name}, {len(tokens_N) // 1000} kB of bytes",
                lambda setting=setting: Mixture(VOCAB, setting, memory=8).read(tokens_N),
                peer,
                peer_name=peer_name,
                repeats=repeats,
                amount=len(tokens_N) / 1000,
                unit="kB/s",
            )
            for peer_name, peer in peers.items()
        ]
    return rows


def ppmd(tokens_N: Integers) -> bytes:
    """Return what PPMd makes of the bytes."""
    encoder = pyppmd.Ppmd7Encoder(16, 2**24)
    return encoder.encode((tokens_N - 4).astype(np.uint8).tobytes()) + encoder.flush()
