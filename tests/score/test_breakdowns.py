"""Breakdowns: parts that add up to the whole, each held to a plain loop over the targets."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from niblick.data.dataset import Split
from niblick.data.index import OTHER_SOURCE, RECORD
from niblick.data.subword_training import train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import ByteTokenizer, Tokenizer
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.score.breakdowns import (
    CLASSES,
    UNKNOWN_PLACE,
    Breakdowns,
    Part,
    bin_names,
    byte_classes,
    chunk_places,
    context_edges,
    rest,
    token_classes,
)
from niblick.score.plan import plan
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import room_for_chunks

TEXTS = [
    "A first document, short: 12 words?\n",
    "Zweites Dokument: Größe und Maß, 3½ €.",
    "x" * 40,
    "the last one, again and again; " * 12 + "\x07",
    "",
]
SOURCES = ["letters", "letters", "noise", "books", "noise"]
NAMES = ["letters", "books", "noise"]


def make_split(tokenizer: Tokenizer) -> Split:
    encoded = [np.concatenate(([tokenizer.bos_id], t)).astype(np.uint16) for t in tokenizer.encode_batch(TEXTS)]
    index = np.zeros(len(TEXTS), RECORD)
    index["tokens"] = [len(t) for t in encoded]
    index["offset"] = np.cumsum(index["tokens"]) - index["tokens"]
    index["bytes"] = [len(t.encode()) for t in TEXTS]
    index["source"] = [NAMES.index(s) for s in SOURCES]
    return Split("val", [Path("memory")], [np.concatenate(encoded)], index)


@pytest.fixture(scope="module", params=["bytes", "subwords"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "bytes":
        return ByteTokenizer()
    texts = [f"{text} number {i} of the small words" for i in range(200) for text in TEXTS]
    return SentencePieceTokenizer("small", train_subwords(texts, 300))


CONFIGS = [
    ScoreConfig(seq_len=32, batch_tokens=96),
    ScoreConfig(seq_len=32, batch_tokens=128, scorer="sliding", stride=8),
    ScoreConfig(seq_len=32, batch_tokens=64, scorer="document"),
]


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LM:
    torch.manual_seed(0)
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=3.0)
    config = ModelConfig(
        width=16, heads=2, kv_heads=1, vocab_size=tokenizer.vocab_size, levels=(level,), main=StageConfig("T1")
    )
    model = LM(config).double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model


def add_up(parts: list[Part]) -> tuple[float, int, int]:
    return sum(p.nats for p in parts), sum(p.bytes for p in parts), sum(p.tokens for p in parts)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.scorer)
def test_against_a_loop_over_targets(tokenizer: Tokenizer, model: LM, config: ScoreConfig) -> None:
    """Every part is what a loop finds that asks each target in turn; all breakdowns add up to the whole."""
    split = make_split(tokenizer)
    windows = plan(config, split, tokenizer.bos_id)
    stream = split.shards[0].astype(np.int64)
    nats = np.random.default_rng(1).exponential(2.0, len(stream))
    place_T = chunk_places(model, split, windows, config.batch_tokens)
    assert place_T is not None
    found = Breakdowns(split, tokenizer, windows, NAMES, place_T)
    cuts = [1, 2, 40, 41, len(stream)]
    for begin, end in itertools.pairwise(cuts):
        found.observe(begin, nats[begin:end])

    expected: dict[str, Counter[Any]] = {key: Counter() for key in ("context", "chunk", "class", "document", "source")}
    sizes: dict[str, Counter[Any]] = {key: Counter() for key in expected}
    for start, length, first in zip(*windows, strict=True):
        ids = torch.from_numpy(stream[start : start + length])[None]
        with torch.no_grad():
            boundary = model.hidden(ids)[1][0].boundary_BL[0].tolist()
        place = 1  # of the first input
        for i in range(length):
            target = int(start) + i + 1
            place = 1 if i + 1 < length and boundary[i + 1] else place + 1
            if i < first:
                continue
            piece = tokenizer.pieces()[stream[target]]
            document = sum(target > end for end in split.index["offset"][1:].tolist())
            keys = {
                "context": i + 1,
                "chunk": place if i + 1 < length else 0,
                "class": kind(piece),
                "document": document,
                "source": SOURCES[document],
            }
            size = int(tokenizer.token_bytes(stream[target - 1 : target], stream[target : target + 1])[0])
            for way, key in keys.items():
                expected[way][key] += nats[target]
                sizes[way][key] += size

    total = found.total
    assert total.nats == pytest.approx(nats[1:].sum())
    assert total.tokens == len(stream) - 1
    for parts in (found.by_context(), found.by_chunk(), found.by_boundary(), found.by_class(), found.by_source()):
        assert add_up(parts) == pytest.approx((total.nats, total.bytes, total.tokens))
    assert found.documents.nats.sum() == pytest.approx(total.nats)

    assert {p.name: p.nats for p in found.by_class()} == pytest.approx(dict(expected["class"]))
    assert {p.name: p.bytes for p in found.by_class()} == dict(sizes["class"])
    assert {p.name: p.nats for p in found.by_source()} == pytest.approx(dict(expected["source"]))
    assert found.documents.nats.tolist() == pytest.approx([expected["document"][d] for d in range(len(TEXTS))])
    assert found.documents.bytes.tolist() == [sizes["document"][d] for d in range(len(TEXTS))]
    by_place = {p.name: p.nats for p in found.by_chunk()}
    for place in range(1, 13):
        assert by_place.get(str(place), 0) == pytest.approx(expected["chunk"][place])
    assert by_place[UNKNOWN_PLACE] == pytest.approx(expected["chunk"][0])
    assert found.by_boundary()[0].nats == pytest.approx(expected["chunk"][1])
    by_context = {p.name: p.nats for p in found.by_context()}
    assert by_context["1"] == pytest.approx(expected["context"][1])
    assert by_context["23–32"] == pytest.approx(sum(expected["context"][i] for i in range(23, 33)))


def kind(piece: bytes) -> str:
    """An independent classification of a token, by Unicode."""
    if not piece:
        return "no byte"
    if piece[0] >= 0x80:
        return "UTF-8 continuation" if piece[0] < 0xC0 else "UTF-8 lead"
    letter = chr(piece[0])
    if letter.isspace() and letter not in "\x1c\x1d\x1e\x1f":
        return "whitespace"
    major = unicodedata.category(letter)[0]
    return {"L": "letter", "N": "digit", "C": "control"}.get(major, "punctuation")


def test_byte_classes() -> None:
    assert [CLASSES[c] for c in byte_classes()] == [kind(bytes([b])) for b in range(256)]
    assert CLASSES[token_classes(ByteTokenizer())[1]] == "no byte"


def test_documents_dearest_first() -> None:
    """Order, beginnings, and what the others cost."""
    tokenizer = ByteTokenizer()
    split = make_split(tokenizer)
    found = Breakdowns(split, tokenizer, plan(CONFIGS[0], split, 1), NAMES)
    nats = np.ones(split.tokens)
    nats[int(split.index["offset"][2]) + 1 :][:40] = 5.0
    found.observe(1, nats[1:])
    dearest = found.by_document(2)
    assert dearest[0][0] == 2
    assert dearest[0][1].name == "x" * 40
    assert dearest[0][1].nats == pytest.approx(5.0 * 40 + 1)  # with the BOS that ends it
    others = rest("others", found.total, [part for _, part in dearest])
    assert others.tokens == found.total.tokens - sum(part.tokens for _, part in dearest)
    assert len(found.by_document(100)) == len(TEXTS)
    assert found.beginning(3).endswith("…")
    assert found.beginning(0) == "A first document, short: 12 words?"
    assert found.by_document(100)[-1][1].bpb is None  # the empty one


def test_without_index_and_without_chunks() -> None:
    tokenizer = ByteTokenizer()
    whole = make_split(tokenizer)
    split = Split("val", whole.files, whole.shards)
    found = Breakdowns(split, tokenizer, plan(CONFIGS[0], split, 1), [])
    found.observe(1, np.ones(split.tokens - 1))
    assert found.by_source() == found.by_document(5) == found.by_chunk() == found.by_boundary() == []
    assert add_up(found.by_class()) == pytest.approx((found.total.nats, found.total.bytes, found.total.tokens))
    dense = LM(ModelConfig(width=16, heads=2, kv_heads=1, main=StageConfig("T1")))
    assert chunk_places(dense, split, plan(CONFIGS[0], split, 1), 64) is None


def test_boundaries_without_room_start_no_chunk(model: LM, tokenizer: Tokenizer) -> None:
    split = make_split(tokenizer)
    windows = plan(CONFIGS[0], split, tokenizer.bos_id)
    free_T = chunk_places(model, split, windows, 96)
    with room_for_chunks(model, "divisor:8"):
        capped_T = chunk_places(model, split, windows, 96)
    assert free_T is not None
    assert capped_T is not None
    for start, length in zip(windows.start_N.tolist(), windows.length_N.tolist(), strict=True):
        inside = slice(start + 1, start + length)
        room = max(length // 8, 1) - 1  # the first chunk starts before the first target
        starts = np.flatnonzero(free_T[inside] == 1)
        assert np.flatnonzero(capped_T[inside] == 1).tolist() == starts[:room].tolist()


def test_sources_beyond_the_named_ones() -> None:
    tokenizer = ByteTokenizer()
    split = make_split(tokenizer)
    split.index["source"][2] = OTHER_SOURCE
    found = Breakdowns(split, tokenizer, plan(CONFIGS[0], split, 1), NAMES)
    found.observe(1, np.ones(split.tokens - 1))
    parts = {p.name: p for p in found.by_source()}
    assert parts["other sources"].bytes == 40
    assert math.isclose(sum(p.nats for p in parts.values()), found.total.nats)


@pytest.mark.parametrize("longest", [1, 2, 3, 31, 32, 256, 1000, 2048])
def test_bins_of_context_cover_every_position(longest: int) -> None:
    edges = context_edges(longest)
    assert edges[0] == 1
    assert edges == sorted(set(edges))
    assert edges[-1] <= longest
    names = bin_names(edges, longest)
    covered = [int(x) for name in names for x in (name.split("–") if "–" in name else (name, name))]
    assert covered[0] == 1
    assert covered[-1] == longest
    assert all(b == a + 1 for a, b in zip(covered[1::2], covered[2::2], strict=False))
