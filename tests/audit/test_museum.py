"""The museum of cheats: each is a way in which a wrong score was, or could be, believed. All are caught.

Cheats are kept as small as they get. What stands beside each is the check that must fail, and how.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niblick.audit.artifact_text import artifact_text
from niblick.audit.checks import Check
from niblick.audit.function_checks import Effort, Function, audit_function
from niblick.audit.model_checks import as_function, audit_model, gradients
from niblick.audit.scorer_checks import Scorer, audit_scorer
from niblick.audit.text_checks import bytes_counted
from niblick.data.dataset import Dataset, Split
from niblick.data.tokenizers import ByteTokenizer
from niblick.model.chunking import cosine_probability
from niblick.model.layers import BLOCKS, ConvBlock, TransformerBlock, register_block
from niblick.model.level import Level
from niblick.model.lm import LM
from niblick.model.model_config import BLOCK_LETTERS, ROUTER_NAMES, BlockConfig, LevelConfig, ModelConfig, StageConfig
from niblick.model.plain_routers import CosineRouter
from niblick.model.routers import ROUTERS, register_router
from niblick.score import mixing_kernels
from niblick.score.known_text import KnownText
from niblick.score.mixture import FAST, Mixture
from niblick.score.score_config import SidecarConfig

V, L = 24, 40
compiled = pytest.mark.skipif(not mixing_kernels.COMPILED, reason="numba is not installed (pip install 'niblick[mix]')")


def rows(count: int = 4, length: int = L, seed: int = 0, vocab: int = V) -> Tensor:
    ids_BL = torch.randint(2, vocab, (count, length), generator=torch.Generator().manual_seed(seed))
    ids_BL[:, length // 2] = 1  # a document starts inside
    return ids_BL


def status(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks}


def caught(checks: list[Check], name: str) -> Check:
    found = {check.name: check for check in checks}[name]
    assert found.status == "fail", checks
    return found


# Functions

torch.manual_seed(0)
TABLE_VV = torch.randn(V, V)
"""An honest bigram model: what everything here is built from."""


def honest(ids_BL: Tensor) -> Tensor:
    return TABLE_VV[ids_BL].log_softmax(-1)


def two_token_grouping(ids_BL: Tensor) -> Tensor:
    """Tokens in pairs, pooled before the first of the two is predicted: scored 0.68 in the challenge."""
    pooled_BLV = TABLE_VV[ids_BL].clone()
    pooled_BLV[:, ::2][:, : ids_BL.shape[1] // 2] += TABLE_VV[ids_BL[:, 1::2]]
    return pooled_BLV.log_softmax(-1)


def pool_over_the_chunk(ids_BL: Tensor) -> Tensor:
    """Every position sees the mean of its whole chunk of eight."""
    x_BLV = TABLE_VV[ids_BL]
    out = [chunk + chunk.mean(1, keepdim=True) for chunk in x_BLV.split(8, 1)]
    return torch.cat(out, 1).log_softmax(-1)


def centred_convolution(ids_BL: Tensor) -> Tensor:
    """A kernel of three with the padding on both sides."""
    x_BVL = TABLE_VV[ids_BL].transpose(1, 2)
    kernel = torch.tensor([0.3, 1.0, 0.3]).repeat(V, 1, 1)
    return F.conv1d(x_BVL, kernel, padding=1, groups=V).transpose(1, 2).log_softmax(-1)


def dechunk_one_early(ids_BL: Tensor) -> Tensor:
    """Chunks of four; a position gets the state of the chunk that starts one token after it."""
    state_BLV = TABLE_VV[ids_BL][:, ::4].repeat_interleave(4, 1)[:, : ids_BL.shape[1]]
    early_BLV = torch.cat((state_BLV[:, 1:], state_BLV[:, -1:]), 1)
    return (TABLE_VV[ids_BL] + early_BLV).log_softmax(-1)


def one_position_one_channel(ids_BL: Tensor) -> Tensor:
    """The smallest leak there is: position 29 lets one logit follow the next token's parity."""
    x_BLV = TABLE_VV[ids_BL].clone()
    if ids_BL.shape[1] > 30:
        x_BLV[:, 29, 7] += 0.05 * (ids_BL[:, 30] % 2)
    return x_BLV.log_softmax(-1)


def batch_statistics(ids_BL: Tensor) -> Tensor:
    """Batch normalization that was never put into evaluation mode."""
    x_BLV = TABLE_VV[ids_BL]
    return (x_BLV - x_BLV.mean(0, keepdim=True)).log_softmax(-1)


def best_of_two(ids_BL: Tensor) -> Tensor:
    """For every token the better of two models."""
    other_BLV = (-TABLE_VV[ids_BL]).log_softmax(-1)
    return torch.maximum(honest(ids_BL), other_BLV)


def padding_by_length(ids_BL: Tensor) -> Tensor:
    """What stands at the end of a row (its filling) sets the temperature of the whole row."""
    return (TABLE_VV[ids_BL] / (1 + (ids_BL[:, -1:, None] % 3).float())).log_softmax(-1)


class DocumentCache:
    """Counts of every token it was ever shown: nothing is forgotten between rows."""

    def __init__(self) -> None:
        self.counts_V = torch.zeros(V)

    def __call__(self, ids_BL: Tensor) -> Tensor:
        out = (TABLE_VV[ids_BL] + self.counts_V.log1p()).log_softmax(-1)
        self.counts_V += torch.bincount(ids_BL.flatten(), minlength=V)
        return out


class TrainsBeforeScoring:
    """Learns from a window, then scores it."""

    def __init__(self) -> None:
        self.table_VV = TABLE_VV.clone().requires_grad_()

    def __call__(self, ids_BL: Tensor) -> Tensor:
        with torch.enable_grad():
            loss = F.cross_entropy(self.table_VV[ids_BL[:, :-1]].flatten(0, 1), ids_BL[:, 1:].flatten())
            [grad_VV] = torch.autograd.grad(loss, [self.table_VV])
        return (self.table_VV.detach() - 5 * grad_VV)[ids_BL].log_softmax(-1)


FUNCTIONS: list[tuple[str, Callable[[], Function], str]] = [
    ("two-token grouping", lambda: two_token_grouping, "causality"),
    ("pooling over the whole chunk", lambda: pool_over_the_chunk, "causality"),
    ("centred convolution", lambda: centred_convolution, "causality"),
    ("dechunk one early", lambda: dechunk_one_early, "causality"),
    ("one position in one channel", lambda: one_position_one_channel, "causality"),
    ("padding sets the temperature", lambda: padding_by_length, "causality"),
    ("training before scoring", TrainsBeforeScoring, "causality"),
    ("batch statistics", lambda: batch_statistics, "independence"),
    ("a document cache across resets", DocumentCache, "independence"),
    ("best-of-two", lambda: best_of_two, "normalization"),
]


@pytest.mark.parametrize(("name", "make", "check"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS])
def test_functions(name: str, make: Callable[[], Function], check: str) -> None:
    found = caught(audit_function(make(), rows(), V), check)
    assert found.detail and found.facts


def test_the_honest_function_passes() -> None:
    assert set(status(audit_function(honest, rows(), V)).values()) == {"pass"}


def test_the_counter_example_is_as_small_as_it_gets() -> None:
    """A look-ahead of one token is shown in a row of two; where the place matters, in the row up to there."""
    facts = caught(audit_function(centred_convolution, rows(), V), "causality").facts
    assert facts["length"] == 2 and facts["position"] == 0 and [c["at"] for c in facts["changed"]] == [1]
    facts = caught(audit_function(one_position_one_channel, rows(), V), "causality").facts
    assert (facts["length"], facts["position"], facts["token"]) == (31, 29, 7)


# Models: blocks and routers that look ahead


class CentredConv(ConvBlock):
    """A convolution with its taps on both sides."""

    def forward(self, x_BLD: Tensor, x0_BLD: Tensor, context: Any) -> Tensor:
        ahead_BLD = F.pad(x_BLD[:, 1:], (0, 0, 0, 1))
        return super().forward(x_BLD + 0.5 * ahead_BLD, x0_BLD, context)


class Bidirectional(TransformerBlock):
    """Attention without a mask."""

    def forward(self, x_BLD: Tensor, x0_BLD: Tensor, context: Any) -> Tensor:
        everything_LL = torch.ones(x_BLD.shape[1], x_BLD.shape[1], dtype=torch.bool)
        return super().forward(x_BLD, x0_BLD, context._replace(mask_LL=everything_LL))


class PaddingLeaks(ConvBlock):
    """Adds the mean of the row up to each position from the end: what the row is filled up with comes in."""

    def forward(self, x_BLD: Tensor, x0_BLD: Tensor, context: Any) -> Tensor:
        return super().forward(x_BLD + 0.1 * x_BLD.mean(1, keepdim=True), x0_BLD, context)


class AheadRouter(CosineRouter):
    """Compares a position with the one after it: position t knows whether t+1 starts something new."""

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        ahead_BLD = torch.cat((x_BLD[:, 1:], x_BLD[:, -1:]), 1)
        p_BL = cosine_probability(self.q(ahead_BLD), self.k(ahead_BLD))
        return p_BL, p_BL >= 0.3


class BpeEdges:
    """A provider that puts boundaries where the next token starts a word: the edges of a tokenizer's pieces, which
    the text up to there does not give away."""

    def __call__(self, ids_BL: Tensor) -> Tensor:
        word_BL = ids_BL % 4 == 0
        return torch.cat((word_BL[:, 1:], word_BL[:, -1:]), 1)

    def new_state(self, count: int, like: Tensor) -> None:
        return None

    def step(self, token_B: Tensor, state: None) -> Tensor:
        return token_B % 4 == 0


CHEATS: dict[str, Callable[[BlockConfig], nn.Module]] = {"X": CentredConv, "Y": Bidirectional, "Z": PaddingLeaks}


@pytest.fixture(autouse=True)
def _cheats() -> Any:
    for letter, block in CHEATS.items():
        register_block(letter, block)
    register_router("ahead", AheadRouter)
    yield
    for letter in CHEATS:
        BLOCKS.pop(letter)
        BLOCK_LETTERS.remove(letter)
    ROUTERS.pop("ahead")
    ROUTER_NAMES.remove("ahead")


def a_model(layout: str = "T1", router: str = "", seed: int = 0) -> LM:
    torch.manual_seed(seed)
    levels = (LevelConfig(StageConfig("T1"), StageConfig("T1"), router=router),) if router else ()
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=levels, main=StageConfig(layout), vocab_size=V))
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "layout", "router"),
    [
        ("centred convolution", "X1", ""),
        ("bidirectional block", "Y1", ""),
        ("padding that leaks", "Z1", ""),
        ("router seeing t+1", "T1", "ahead"),
    ],
)
def test_models(name: str, layout: str, router: str) -> None:
    found = caught(audit_model(a_model(layout, router), rows(), 1), "causality")
    assert "position" in found.facts


def test_bpe_edge_router() -> None:
    model = a_model("T1", "given")
    model.provider = BpeEdges()
    caught(audit_model(model, rows(), 1), "causality")


def test_dechunk_one_early_in_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Level.dechunk

    def early(self: Level, chunks_BCD: Tensor, *rest: Any) -> Tensor:
        spread_BLD = plain(self, chunks_BCD, *rest)
        return torch.cat((spread_BLD[:, 1:], spread_BLD[:, -1:]), 1)

    monkeypatch.setattr(Level, "dechunk", early)
    caught(audit_model(a_model("T1", "cosine"), rows(), 1), "causality")


def test_padding_that_leaks_without_looking_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only rows that are filled up are wrong: their length goes into the embedding."""
    plain = LM.hidden

    def hidden(self: LM, ids_BL: Tensor, *rest: Any, length_B: Tensor | None = None, **more: Any) -> Any:
        hidden_BLD, routings = plain(self, ids_BL, *rest, length_B=length_B, **more)
        filled = 0 if length_B is None else (ids_BL[:, -1:] % 3 + 1)[..., None]
        return hidden_BLD * (1 + 0.1 * filled), routings

    monkeypatch.setattr(LM, "hidden", hidden)
    found = caught(audit_model(a_model("T1", "cosine"), rows(), 1), "independence")
    assert "padding leaks" in found.detail


def test_gradients_find_what_few_cuts_miss() -> None:
    """In a row too long for every cut, position 777 sees 778: the gradient there tells."""
    model = a_model("c1").double()
    plain = model.hidden

    def hidden(ids_BL: Tensor, **more: Any) -> Any:
        hidden_BLD, routings = plain(ids_BL, **more)
        leaky_BLD = hidden_BLD.clone()
        leaky_BLD[:, 777] += 0.01 * hidden_BLD[:, 778]
        return leaky_BLD, routings

    ids_BL = rows(1, 1024)
    assert gradients(model, ids_BL[0], [777]).status == "pass"
    model.hidden = hidden  # type: ignore[method-assign]
    assert gradients(model, ids_BL[0], [777]).facts["gradient_at"] == 778
    few = audit_function(as_function(model), ids_BL, V, Effort(tokens=1 << 14))
    assert status(few)["causality"] == "pass"
    every = audit_function(as_function(model), ids_BL, V, Effort(tokens=1 << 20))
    assert caught(every, "causality").facts["position"] == 777


# Whole scorers


def stream(length: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    tokens = rows(1, length, seed)[0].numpy().astype(np.uint16)
    tokens[0], tokens[length // 2], tokens[3 * length // 4] = 1, 1, 1
    return tokens, np.flatnonzero(tokens == 1)


def log_p(tokens: np.ndarray) -> np.ndarray:
    return honest(torch.from_numpy(tokens.astype(np.int64))[None])[0].double().numpy()


def nats(tokens: np.ndarray) -> np.ndarray:
    return -log_p(tokens)[np.arange(len(tokens) - 1), tokens[1:]]


def unnormalized_ngrams(tokens: np.ndarray) -> np.ndarray:
    """Probability is added where the pair was seen, and taken away nowhere."""
    seen: Counter[tuple[int, int]] = Counter()
    out = nats(tokens)
    for i in range(len(out)):
        pair = (int(tokens[i]), int(tokens[i + 1]))
        out[i] = -np.log(min(1.0, np.exp(-out[i]) + 0.5 * min(1, seen[pair])))
        seen[pair] += 1
    return out


def target_xor_cache(tokens: np.ndarray) -> np.ndarray:
    """The key is the context XOR the target: a hit says that it is this target."""
    seen: Counter[int] = Counter()
    out = nats(tokens)
    for i in range(len(out)):
        key = (int(tokens[i]) * 36_313) ^ int(tokens[i + 1]) * 27_191
        count = seen[key]
        out[i] = -np.log(0.5 * np.exp(-out[i]) + 0.5 * (count + 0.1) / (count + 0.2))
        seen[key] += 1
    return out


def fitted_corrections(tokens: np.ndarray) -> np.ndarray:
    """A bias for each token, from how often it comes in the region that is scored."""
    counts_V = np.bincount(tokens[1:], minlength=V)
    logits = log_p(tokens)[:-1] + np.log1p(counts_V)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    return -logits[np.arange(len(logits)), tokens[1:]]


def best_of_two_scorings(tokens: np.ndarray) -> np.ndarray:
    """Scored twice, and every target's better cost counts."""
    other = -(-TABLE_VV[torch.from_numpy(tokens.astype(np.int64))]).log_softmax(-1).double().numpy()
    return np.minimum(nats(tokens), other[np.arange(len(tokens) - 1), tokens[1:]])


def trains_before_scoring(tokens: np.ndarray) -> np.ndarray:
    """Test-time training on each stretch of 16 before it is scored."""
    function, out = TrainsBeforeScoring(), []
    ids = torch.from_numpy(tokens.astype(np.int64))
    for at in range(0, len(ids) - 1, 16):
        window = ids[at : at + 17]
        scored = function(window[None])[0, :-1]
        out.append(-scored[torch.arange(len(window) - 1), window[1:]].double().numpy())
    return np.concatenate(out)


def mixture_cost(mixture: Mixture, tokens: np.ndarray) -> np.ndarray:
    """What a mixture asks for tokens beside the honest model, from the second one on."""
    mixture.reveal(int(tokens[0]))
    return mixture.read(tokens[1:].astype(np.int64), np.exp(log_p(tokens)[:-1]))


def new_mixture() -> Mixture:
    return Mixture(V, FAST, 1)


def a_mixture(tokens: np.ndarray) -> np.ndarray:
    """An honest one."""
    return mixture_cost(new_mixture(), tokens)


def unnormalized_mixture(tokens: np.ndarray) -> np.ndarray:
    """A match is believed on top of the mixture: what it gains is taken from nobody."""
    out, last = a_mixture(tokens), {}
    for i in range(1, len(out)):
        if (place := last.get(tuple(tokens[i - 1 : i + 1]))) is not None and tokens[place] == tokens[i + 1]:
            out[i] = -np.log(0.5 + 0.5 * np.exp(-out[i]))
        last[tuple(tokens[i - 1 : i + 1])] = i + 1
    return out


def mixture_that_learns_first(tokens: np.ndarray) -> np.ndarray:
    """Every stretch of 16 is learned, then scored by what has learned it."""
    mixture, out = new_mixture(), []
    p_NV = np.exp(log_p(tokens)[:-1])
    for at in range(1, len(tokens), 16):
        part = tokens[at : at + 16].astype(np.int64)
        mixture.read(part, p_NV[at - 1 : at - 1 + len(part)])
        out.append(copy.deepcopy(mixture).read(part, p_NV[at - 1 : at - 1 + len(part)]))
    return np.concatenate(out)


def mixture_that_has_read_it(tokens: np.ndarray) -> np.ndarray:
    """What is scored was read before, as training text is."""
    mixture = new_mixture()
    mixture.read(tokens.astype(np.int64))
    return mixture_cost(mixture, tokens)


def skipped_tokens(tokens: np.ndarray) -> np.ndarray:
    """Targets after a document start are hard, and left out."""
    return nats(tokens)[tokens[:-1] != 1]


def skipped_as_free(tokens: np.ndarray) -> np.ndarray:
    """The same, with the right number of costs."""
    return np.where(tokens[:-1] == 1, 0.0, nats(tokens))


def cache_across_resets(tokens: np.ndarray) -> np.ndarray:
    """A count of all tokens so far, said to be forgotten at documents: normalized and causal, but not apart."""
    counts_V, out = np.zeros(V), []
    row = log_p(tokens)
    for i in range(len(tokens) - 1):
        logits = row[i] + np.log1p(counts_V)
        out.append(np.log(np.exp(logits).sum()) - logits[tokens[i + 1]])
        counts_V[tokens[i + 1]] += 1
    return np.array(out)


SCORERS: list[tuple[str, Scorer, str]] = [
    ("n-gram mixing that does not sum to one", unnormalized_ngrams, "normalization"),
    ("target-XOR n-gram cache", target_xor_cache, "normalization"),
    ("best-of-two scoring", best_of_two_scorings, "normalization"),
    ("skipped tokens that are free", skipped_as_free, "normalization"),
    ("corrections fitted on the scored region", fitted_corrections, "score-first"),
    ("training before scoring", trains_before_scoring, "score-first"),
    ("skipped tokens", skipped_tokens, "score-first"),
    ("a document cache across resets", cache_across_resets, "independence"),
]


@pytest.mark.parametrize(("name", "scorer", "check"), SCORERS, ids=[s[0] for s in SCORERS])
def test_scorers(name: str, scorer: Scorer, check: str) -> None:
    tokens, begin_D = stream()
    caught(audit_scorer(scorer, tokens, V, begin_D, resets=True), check)


def test_the_honest_scorer_passes() -> None:
    tokens, begin_D = stream()
    assert set(status(audit_scorer(nats, tokens, V, begin_D, resets=True)).values()) == {"pass"}


def test_a_cache_that_says_it_carries_on_is_not_held_to_resets() -> None:
    tokens, begin_D = stream()
    assert status(audit_scorer(cache_across_resets, tokens, V, begin_D, resets=False)) == {
        "score-first": "pass",
        "normalization": "pass",
        "independence": "not applicable",
    }


# Mixtures that learn as they read

MIXTURES: list[tuple[str, Scorer, str]] = [
    ("a mixture that does not sum to one", unnormalized_mixture, "normalization"),
    ("a mixture that learns before it scores", mixture_that_learns_first, "score-first"),
    ("a mixture that has read what it scores", mixture_that_has_read_it, "score-first"),
]


def repeated() -> np.ndarray:
    """A text that comes again and again, never quite the same."""
    random, tokens = np.random.default_rng(0), np.tile(stream(40)[0], 4)
    other = random.random(len(tokens)) < 0.25
    return np.where(other, random.integers(2, V, len(tokens)), tokens).astype(np.uint16)


@compiled
@pytest.mark.parametrize(("name", "scorer", "check"), MIXTURES, ids=[m[0] for m in MIXTURES])
def test_mixtures(name: str, scorer: Scorer, check: str) -> None:
    tokens = repeated()
    assert scorer(tokens).sum() < a_mixture(tokens).sum() - 1  # it would pay
    caught(audit_scorer(scorer, tokens, V, np.zeros(1, np.int64), resets=False), check)


@compiled
def test_the_honest_mixture_passes() -> None:
    found = status(audit_scorer(a_mixture, repeated(), V, np.zeros(1, np.int64), resets=False))
    assert found == {"score-first": "pass", "normalization": "pass", "independence": "not applicable"}


PROSE = [bytes(np.random.default_rng(seed).integers(97, 123, 600).tolist()) for seed in range(9)]
"""Documents that share nothing: six to train on, three to score."""


def documents_of(texts: list[bytes]) -> np.ndarray:
    parts = [np.append(1, np.frombuffer(text, np.uint8).astype(np.int64) + 4) for text in texts]
    return np.concatenate(parts)


def in_an_artifact(texts: list[bytes], **header: int) -> Check:
    """What the audit says of an artifact with these texts, trained and scored on `PROSE`."""
    train, val = (
        Split(name, [], [documents_of(part).astype(np.uint16)])
        for name, part in (("train", PROSE[:6]), ("val", PROSE[6:]))
    )
    config, size = SidecarConfig("mixture", mix="fast", memory=1), sum(map(len, texts))
    packed = replace(KnownText.packing(documents_of(texts), 260, config, size, len(texts)).packed, **header)
    return artifact_text(KnownText(packed, 260), Dataset(Path("data"), {}, ByteTokenizer(), train, val))


@compiled
def test_text_in_an_artifact_is_searched_for_what_is_scored() -> None:
    honest = in_an_artifact([PROSE[0], PROSE[3], PROSE[5][:100]])
    assert honest.status == "pass" and "3 of its 3 documents are training documents" in honest.detail
    hidden = PROSE[0][:200] + PROSE[7][50:450].upper() + PROSE[1][:100]
    for texts, document, val in (([PROSE[0], PROSE[8]], 1, 2), ([hidden, PROSE[2]], 0, 1)):
        check = in_an_artifact(texts)
        assert check.status == "fail" and check.facts["foreign_runs"] == 1, check
        assert (check.facts["document"], check.facts["val_document"]) == (document, val)
        assert "runs of validation text stand in documents that are no training documents" in check.detail
    elsewhere = in_an_artifact([b"some other text that nobody scores " * 12])
    assert elsewhere.status == "pass" and "0 of its 1 documents are training documents" in elsewhere.detail


@compiled
def test_text_that_is_not_what_the_header_says() -> None:
    for header in ({"bytes": 1}, {"documents": 7}):
        check = in_an_artifact([PROSE[0]], **header)
        assert check.status == "fail" and "and the text has 600 of 1" in check.detail
    assert "cannot be read" in in_an_artifact([PROSE[0]], tokens=10).detail


# Bytes


class Words(ByteTokenizer):
    """Bytes, and a few words with their leading space; characters of several bytes only by their bytes."""

    name, kind = "words", "sentencepiece_bpe"
    words = (" the", " of", " word")
    vocab_size = 260 + len(words)

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        out = []
        for text in texts:
            tokens, rest = [], text.encode()
            while rest:
                word = next((i for i, w in enumerate(self.words) if rest.startswith(w.encode())), None)
                tokens.append(4 + rest[0] if word is None else 260 + word)
                rest = rest[1:] if word is None else rest[len(self.words[word]) :]
            out.append(np.array(tokens, np.uint16))
        return out

    def pieces(self) -> list[bytes]:
        return super().pieces() + [word.encode() for word in self.words]

    def decode(self, tokens: np.ndarray) -> bytes:
        pieces = self.pieces()
        return b"".join(pieces[token] for token in np.asarray(tokens).tolist())

    def token_bytes(self, previous: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return np.array([len(piece) for piece in self.pieces()])[np.asarray(tokens)]


class SpaceTwice(Words):
    """The piece is counted with its space, and the space by itself."""

    def token_bytes(self, previous: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return super().token_bytes(previous, tokens) + (np.asarray(tokens) >= 260)


class BytePiecesAsThree(Words):
    """Bytes of characters that have no piece of their own count three, as many as the character may have."""

    def token_bytes(self, previous: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        tokens = np.asarray(tokens)
        return super().token_bytes(previous, tokens) + 2 * ((tokens >= 4 + 0x80) & (tokens < 260))


class Sentinels(Words):
    """A reversible transform puts a sentinel before capitals; the sentinel is no byte of the text, but is counted."""

    sentinel = 3

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        marked = []
        for tokens in super().encode_batch([text.lower() for text in texts]):
            marked.append(np.insert(tokens, np.arange(0, len(tokens), 11), self.sentinel))
        return marked

    def token_bytes(self, previous: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return super().token_bytes(previous, tokens) + (np.asarray(tokens) == self.sentinel)


def a_val(tokenizer: ByteTokenizer) -> Split:
    texts = ["the word of the word of a word", "die Größe of the word, ärger of straße", "one of the last"]
    parts = [np.append(np.uint16(1), tokens) for tokens in tokenizer.encode_batch(texts)]
    return Split("val", [], [np.concatenate(parts).astype(np.uint16)])


@pytest.mark.parametrize("cheat", [SpaceTwice, BytePiecesAsThree, Sentinels])
def test_bytes(cheat: type[Words]) -> None:
    tokenizer = cheat()
    check = bytes_counted(a_val(tokenizer), tokenizer)
    assert check.status == "fail" and check.facts["counted"] > check.facts["decoded"]
    assert "is counted as" in check.detail


def test_bytes_of_a_score() -> None:
    """A right table, and a score that claims more bytes than it counts."""
    split, tokenizer = a_val(Words()), Words()
    right = bytes_counted(split, tokenizer).facts["bytes"]
    assert bytes_counted(split, tokenizer, claimed=right).status == "pass"
    check = bytes_counted(split, tokenizer, claimed=round(1.17 * right))
    assert check.status == "fail" and "+17" in check.detail
