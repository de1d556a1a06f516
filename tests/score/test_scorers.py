"""Scorers against plain loops over one window at a time, and what must not matter: batches, filling up, processes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from niblick.data.dataset import Split
from niblick.data.index import RECORD
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.level import Level
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.score import scorers
from niblick.score.contiguous import score_contiguous
from niblick.score.plan import Windows, batches, plan
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import Progress, Score, score_split
from niblick.score.windowing import SCORERS, Scorer, register_scorer

TOKENIZER = ByteTokenizer()
TEXTS = ["A first document, short.", "Zweites Dokument: Größe und Maß.", "x" * 40, "the last one " * 30, "e", "", "end"]


def stream_of(texts: list[str]) -> np.ndarray:
    return np.concatenate([np.concatenate(([1], tokens)) for tokens in TOKENIZER.encode_batch(texts)])


def split(tokens: np.ndarray, index: np.ndarray | None = None) -> Split:
    return Split("val", [Path("memory")], [tokens.astype(np.uint16)], index)


def indexed(texts: list[str]) -> Split:
    tokens = stream_of(texts)
    begin = np.flatnonzero(tokens == 1)
    index = np.zeros(len(texts), RECORD)
    index["offset"], index["tokens"] = begin, np.diff(begin, append=len(tokens))
    return split(tokens, index)


def make_model(seed: int = 0, **level: Any) -> LM:
    """A small H-Net whose weights are no longer at their start, in float64."""
    torch.manual_seed(seed)
    config = LevelConfig(StageConfig("T1"), StageConfig("T2"), **({"target_length": 3.0} | level))
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=(config,), main=StageConfig("T1"))).double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model


@pytest.fixture(scope="module")
def model() -> LM:
    return make_model()


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    return stream_of(TEXTS)


def target_nats(model: LM, tokens: np.ndarray, start: int, length: int) -> np.ndarray:
    """One window read alone, all of it: the cost of the targets start+1…start+length."""
    window = torch.from_numpy(tokens[start : start + length + 1].astype(np.int64))[None]
    with torch.no_grad():
        return F.cross_entropy(model(window[:, :-1])[0], window[0, 1:], reduction="none").numpy()


def collected(model: LM, on: Split, config: ScoreConfig, **options: Any) -> tuple[Score, np.ndarray]:
    """The score, and the cost of every target as `observe` saw it: index 0 is the first target."""
    seen: list[float] = []

    def observe(first: int, nats_N: np.ndarray) -> None:
        assert first == len(seen) + 1
        seen.extend(nats_N)

    return score_split(model, on, TOKENIZER, config, observe=observe, **options), np.array(seen)


def test_contiguous_is_every_window_alone(model: LM, stream: np.ndarray) -> None:
    """Whatever the batch: the sum over windows taken alone, the tail included, BOS worth no bytes."""
    starts = range(0, len(stream) - 1, 32)
    expected = np.concatenate([target_nats(model, stream, s, min(32, len(stream) - 1 - s)) for s in starts])
    for batch_tokens in (1, 32, 100, 10_000):
        score, nats = collected(model, split(stream), ScoreConfig(32, batch_tokens))
        np.testing.assert_allclose(nats, expected, rtol=1e-9)
        assert score.nats == pytest.approx(expected.sum(), rel=1e-12)
        assert score.tokens == len(stream) - 1
        assert score.bytes == int((stream[1:] >= 4).sum())
        assert score.bpb == pytest.approx(expected.sum() / math.log(2) / score.bytes, rel=1e-12)
        assert score.loss == pytest.approx(expected.sum() / score.tokens, rel=1e-12)
        assert score.document_nats is None
        plain = score_contiguous(model, split(stream), TOKENIZER, ScoreConfig(32, batch_tokens))
        assert plain.loss == pytest.approx(score.loss, rel=1e-9) and plain.bpb == pytest.approx(score.bpb, rel=1e-9)


def test_the_plain_score_refuses_what_it_cannot_score(model: LM) -> None:
    with pytest.raises(DataError, match="a score needs at least 2"):
        score_contiguous(model, split(np.array([1])), TOKENIZER, ScoreConfig(8, 8))
    with pytest.raises(DataError, match="outside the vocabulary"):
        score_contiguous(model, split(np.array([1, 70, 300, 71])), TOKENIZER, ScoreConfig(8, 8))
    assert not ScoreConfig(8, 8, capacity="divisor:4").is_plain
    assert not ScoreConfig(8, 8, "sliding", 4).is_plain and ScoreConfig(8, 8, "sliding", 4).plain().is_plain


@pytest.mark.parametrize("stride", [1, 5, 8, 31])
def test_sliding_is_the_published_rule(model: LM, stream: np.ndarray, stride: int) -> None:
    """The records' loop: windows at multiples of the stride; the first scores all, later ones what comes after W−S."""
    length, total = 32, len(stream) - 1
    expected = np.full(total, np.nan)
    for start in range(0, total, stride):
        if start + length - stride < total:
            inputs = min(length, total - start)
            begin = 0 if start == 0 else length - stride
            assert np.isnan(expected[start + begin : start + inputs]).all()
            expected[start + begin : start + inputs] = target_nats(model, stream, start, inputs)[begin:]
    _, nats = collected(model, split(stream), ScoreConfig(length, 500, "sliding", stride))
    np.testing.assert_allclose(nats, expected, rtol=1e-9)


@pytest.mark.parametrize("stride", [0, 5])
@pytest.mark.parametrize("with_index", [True, False])
def test_documents_are_scored_as_if_alone(model: LM, stride: int, with_index: bool) -> None:
    """Each document's cost is that of a stream which holds only it and the BOS that ends it."""
    whole = indexed(TEXTS) if with_index else split(stream_of(TEXTS))
    config = ScoreConfig(32, 300, "document", stride)
    score, nats = collected(model, whole, config)
    expected = []
    for i, text in enumerate(TEXTS):
        alone = stream_of([text])
        if i + 1 < len(TEXTS):
            alone = np.append(alone, 1)
        length = len(alone) - 1
        kind = ScoreConfig(32, 300, "sliding", stride) if stride and length >= 32 else ScoreConfig(32, 300)
        expected.append(collected(model, split(alone), kind)[1])
    np.testing.assert_allclose(nats, np.concatenate(expected), rtol=1e-9)
    if with_index:
        assert score.document_nats is not None
        np.testing.assert_allclose(score.document_nats, [part.sum() for part in expected], rtol=1e-9)


@given(st.lists(st.integers(4, 259), min_size=20, max_size=90), st.integers(2, 20), st.data())
@settings(max_examples=15, deadline=None)
def test_stride_equal_to_the_window_is_contiguous(tokens: list[int], length: int, data: st.DataObject) -> None:
    model, on = make_model(), split(np.array([1, *tokens]))
    batch = data.draw(st.integers(1, 100))
    a = score_split(model, on, TOKENIZER, ScoreConfig(min(length, len(tokens)), batch))
    b = score_split(
        model, on, TOKENIZER, ScoreConfig(min(length, len(tokens)), batch, "sliding", min(length, len(tokens)))
    )
    assert a.nats == b.nats


CONFIGS = [
    ScoreConfig(32, 100),
    ScoreConfig(32, 100, "sliding", 8),
    ScoreConfig(32, 100, "document"),
    ScoreConfig(32, 100, "document", 8),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.scorer}-{c.stride}")
@given(at=st.integers(1, 400), data=st.data())
@settings(max_examples=8, deadline=None)
def test_nothing_after_a_target_matters(config: ScoreConfig, at: int, data: st.DataObject) -> None:
    tokens = stream_of(TEXTS)
    at = min(at, len(tokens) - 1)
    other = tokens.copy()
    other[at:] = data.draw(st.lists(st.integers(4, 259), min_size=len(tokens) - at, max_size=len(tokens) - at))
    model = make_model()
    before, after = (collected(model, split(t), config)[1] for t in (tokens, other))
    np.testing.assert_allclose(after[: at - 1], before[: at - 1], rtol=1e-9)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.scorer}-{c.stride}")
@pytest.mark.parametrize("capacity", ["", "packed", "divisor:4"])
def test_batches_do_not_matter(config: ScoreConfig, capacity: str, model: LM, stream: np.ndarray) -> None:
    """In float32, of all the targets. With a divisor, rows that are filled up would have more room for chunks."""
    narrow = make_model().float()
    on = indexed(TEXTS)
    one = score_split(narrow, on, TOKENIZER, replace(config, batch_tokens=1, capacity=capacity))
    for batch_tokens in (40, 333, 100_000):
        score = score_split(narrow, on, TOKENIZER, replace(config, batch_tokens=batch_tokens, capacity=capacity))
        assert score.nats == pytest.approx(one.nats, rel=1e-6)
        assert score.bytes == one.bytes
        assert score.decisions == one.decisions


def test_capacity_is_chosen_apart_from_training(stream: np.ndarray) -> None:
    tight, free = make_model(capacity="divisor:8"), make_model()
    tight.load_state_dict(free.state_dict())
    on, config = split(stream), ScoreConfig(32, 64)
    capped = score_split(tight, on, TOKENIZER, config).nats
    assert capped != pytest.approx(score_split(free, on, TOKENIZER, config).nats, rel=1e-6)
    for capacity in ("bucketed", "packed"):
        opened = score_split(tight, on, TOKENIZER, replace(config, capacity=capacity))
        assert opened.nats == pytest.approx(score_split(free, on, TOKENIZER, config).nats, rel=1e-9)
    assert score_split(free, on, TOKENIZER, replace(config, capacity="divisor:8")).nats == pytest.approx(capped)
    level = tight.body.levels[0]
    assert isinstance(level, Level)
    assert level.config.capacity == "divisor:8"
    dense = LM(ModelConfig(width=16, heads=2, kv_heads=1, main=StageConfig("T1")))
    with pytest.raises(ConfigError, match="no such level"):
        score_split(dense, on, TOKENIZER, replace(config, capacity="packed"))


def test_sidecars_see_the_stream_in_order(model: LM) -> None:
    """Rows of logits come with their places, each target once; what they return is the cost."""
    on = indexed(TEXTS)
    tokens = stream_of(TEXTS)
    for config in CONFIGS:
        plain, expected = collected(model, on, config)
        places: list[int] = []

        def sidecar(first: int, logits_NV: torch.Tensor, targets_N: torch.Tensor, places: list[int] = places) -> Any:
            assert first == len(places) + 1
            places.extend(range(first, first + len(targets_N)))
            assert np.array_equal(targets_N.numpy(), tokens[first : first + len(targets_N)])
            return logits_NV.log_softmax(-1).gather(1, targets_N[:, None])[:, 0] - 0.5

        score, nats = collected(model, on, config, sidecar=sidecar)
        assert len(places) == len(tokens) - 1
        np.testing.assert_allclose(nats, expected + 0.5, rtol=1e-9)
        assert score.nats == pytest.approx(plain.nats + 0.5 * plain.tokens)


def test_knife_edges_are_counted() -> None:
    """With W_q = W_k and one token over and over, p is 0; with W_k against W_q's direction it is exactly ½."""
    model = make_model()
    level = model.body.levels[0]
    assert isinstance(level, Level)
    with torch.no_grad():
        for p in (level.router.q.weight, level.router.k.weight):  # type: ignore[union-attr]
            p.zero_()
        level.router.q.weight[0, 0] = level.router.k.weight[1, 0] = 1.0  # type: ignore[union-attr, index]
    score = score_split(model, split(np.array([1, *[70] * 40])), TOKENIZER, ScoreConfig(16, 32))
    assert score.decisions == 40
    assert score.knife_edges == 40 - 3  # the first position of each window starts a chunk in any case
    assert score_split(make_model(), split(stream_of(TEXTS)), TOKENIZER, ScoreConfig(16, 32)).knife_edges == 0


def test_progress_ends_with_the_score(model: LM, stream: np.ndarray) -> None:
    seen: list[Progress] = []
    score = score_split(model, split(stream), TOKENIZER, ScoreConfig(32, 64), progress=seen.append)
    assert [p.done for p in seen] == sorted({p.done for p in seen})
    assert len(seen) > 3
    last = seen[-1]
    assert (last.done, last.total, last.eta_seconds) == (len(stream) - 1, len(stream) - 1, 0.0)
    assert last.bpb == pytest.approx(score.bpb)
    assert last.seconds <= score.seconds
    # Not counted from the start: what comes before the first part, a text in the artifact say, does not come again.
    begun = 2 * seen[0].done - seen[1].done
    since = seen[0].seconds - seen[0].eta_seconds * (seen[0].done - begun) / (last.total - seen[0].done)
    assert 0 < since < seen[0].seconds
    assert all(
        p.eta_seconds == pytest.approx((p.seconds - since) * (p.total - p.done) / (p.done - begun)) for p in seen
    )


def test_training_mode_is_left_as_it_was(model: LM, stream: np.ndarray) -> None:
    for mode in (True, False):
        model.train(mode)
        score_split(model, split(stream), TOKENIZER, ScoreConfig(64, 64))
        assert model.training is mode


class Timepiece:
    """A clock that goes on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        self.seconds += 1.0
        return self.seconds


def test_time_budget(model: LM, stream: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "time", Timepiece())
    config = ScoreConfig(32, 32)
    needed = score_split(model, split(stream), TOKENIZER, config).seconds
    assert score_split(model, split(stream), TOKENIZER, replace(config, max_seconds=needed)).nats > 0
    before = scorers.time.perf_counter()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"max_seconds=\S+ is too little to score once: \d+% of the targets took"):
        score_split(model, split(stream), TOKENIZER, replace(config, max_seconds=0.7 * needed))
    assert scorers.time.perf_counter() - before < 0.7 * needed  # type: ignore[attr-defined]


def test_bad_input(model: LM) -> None:
    with pytest.raises(DataError, match="1 tokens"):
        score_split(model, split(np.array([1])), TOKENIZER, ScoreConfig(8, 8))
    with pytest.raises(DataError, match="300"):
        score_split(model, split(np.array([1, 70, 300, 71])), TOKENIZER, ScoreConfig(8, 8))
    with pytest.raises(DataError, match=r"less than one window of score\.seq_len=8"):
        score_split(model, split(np.array([1, *[70] * 7])), TOKENIZER, ScoreConfig(8, 8, "sliding", 4))
    score_split(model, split(np.array([1, *[70] * 8])), TOKENIZER, ScoreConfig(8, 8, "sliding", 4))
    for bad, words in (
        ({"seq_len": 0}, "seq_len=0"),
        ({"scorer": "slide"}, "nearest: sliding"),
        ({"seq_len": 64, "stride": 65, "scorer": "sliding"}, "score.stride=65 must be between 1 and the window"),
        ({"scorer": "sliding"}, "needs a stride"),
        ({"stride": 64}, "set score.scorer=sliding"),
        ({"max_seconds": 0.0}, "must be positive"),
        ({"capacity": "huge"}, "capacity='huge'"),
    ):
        with pytest.raises(ConfigError, match=words):
            ScoreConfig(**bad)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=12),
    st.sampled_from(["contiguous", "sliding", "document"]),
    st.integers(1, 40),
    st.data(),
)
@settings(deadline=None)
def test_windows_cover_every_target_once(counts: list[int], scorer: Any, length: int, data: st.DataObject) -> None:
    tokens = np.concatenate([np.array([1, *[70] * (n - 1)]) for n in counts])
    stride = 0 if scorer == "contiguous" else data.draw(st.integers(1, length))
    config = ScoreConfig(length, scorer=scorer, stride=stride)
    if len(tokens) < 2 or (scorer == "sliding" and len(tokens) - 1 < length):
        with pytest.raises(DataError):
            plan(config, split(tokens), 1)
        return
    windows = plan(config, split(tokens), 1)
    targets = [
        start + i + 1 for start, n, first in zip(*map(np.ndarray.tolist, windows), strict=True) for i in range(first, n)
    ]
    assert targets == list(range(1, len(tokens)))
    assert (windows.length_N <= length).all()
    if scorer == "document":
        document = np.cumsum(tokens == 1)
        for start, n in zip(windows.start_N, windows.length_N, strict=True):
            assert len(set(document[start : start + n])) == 1


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 1)), min_size=1, max_size=30),
    st.integers(1, 200),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_bundles_hold_every_window_once(made: list[tuple[int, int]], room: int, pad: bool, ordered: bool) -> None:
    length_N = np.array([n for n, _ in made])
    windows = Windows(np.cumsum(length_N) - length_N, length_N, np.array([min(f, n - 1) for n, f in made]))
    bundles = list(batches(windows, room, pad=pad, ordered=ordered))
    starts = [start for bundle in bundles for start in bundle.start_N.tolist()]
    assert (starts if ordered else sorted(starts)) == windows.start_N.tolist()
    for bundle in bundles:
        assert len(set(bundle.first_N.tolist())) == 1
        assert pad or len(set(bundle.length_N.tolist())) == 1
        assert len(bundle.start_N) == 1 or len(bundle.start_N) * bundle.length_N.max() <= room


def test_a_scorer_of_ones_own() -> None:
    with pytest.raises(ConfigError, match=r"unknown score.scorer='slide' \(nearest: sliding"):
        ScoreConfig(scorer="slide")
    register_scorer("apart", Scorer(by_document=True, overlap="always"))
    with pytest.raises(ConfigError, match=r"score\.scorer=apart needs a stride"):
        ScoreConfig(scorer="apart")
    found = plan(ScoreConfig(64, scorer="apart", stride=16), indexed(TEXTS), 1)
    known = plan(ScoreConfig(64, scorer="document", stride=16), indexed(TEXTS), 1)
    assert all(map(np.array_equal, found, known))
    with pytest.raises(ConfigError, match="scorer 'sliding' is taken"):
        register_scorer("sliding", SCORERS["document"])
    del SCORERS["apart"]
