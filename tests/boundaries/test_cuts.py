"""Decisions of routers, brought back to tokens and bytes; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import niblick
from niblick.boundaries.cuts import Reader, chunks, read_text, row_chunks
from niblick.data.subword_training import train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.run.generate import Loaded

LEVEL = LevelConfig(StageConfig("T1"), StageConfig("T1"))
SPACES = LevelConfig(StageConfig("T1"), StageConfig("T1"), router="whitespace")


def model(*levels: LevelConfig, vocab_size: int = 260) -> LM:
    torch.manual_seed(0)
    made = LM(ModelConfig(width=16, heads=2, kv_heads=1, vocab_size=vocab_size, levels=levels, main=StageConfig("T1")))
    for p in made.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return made


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(model(LEVEL), ByteTokenizer())


def test_chunks_of_known_boundaries() -> None:
    """The whitespace router cuts where runs of space-like bytes start (a UTF-8 lead is one): all is known."""
    found = chunks(model(SPACES), ByteTokenizer(), "Zwölf Boxer.")
    assert [(c.text, c.start, c.end, c.p, c.level) for c in found] == [
        ("Zw", 0, 2, 0.0, 0),
        ("ölf", 2, 6, 1.0, 0),
        (" Boxer", 6, 12, 1.0, 0),
        (".", 12, 13, 1.0, 0),
    ]


def test_rows_say_what_the_model_says(reader: Reader) -> None:
    """Read together with a longer row, a row's decisions are those of the model alone."""
    texts = ["Hello there, world", "No", "one two\nthree"]
    rows = reader.read([reader.encode(text) for text in texts], costs=True)
    for text, row in zip(texts, rows, strict=True):
        ids_1L = torch.from_numpy(row.ids_L)[None]
        hidden_1LD, [routing] = reader.model.hidden(ids_1L)
        assert row.levels[0].boundary_L.tolist() == routing.boundary_BL[0].tolist()
        np.testing.assert_allclose(row.levels[0].p_L, routing.p_BL[0].detach(), atol=1e-5)
        losses = reader.model.token_losses(hidden_1LD[:, :-1], ids_1L[:, 1:])[0].detach()
        np.testing.assert_allclose(row.nats_L[1:], losses, atol=1e-4)
        assert row.data == text.encode()
        assert "".join(c.text for c in row_chunks(row)) == text


def test_levels_nest() -> None:
    """Each inner level's chunks start where chunks of the level outside it do, in the order of its positions."""
    tested = Reader(model(LEVEL, LEVEL), ByteTokenizer())
    texts = ["The quick brown fox jumps over the lazy dog. " * 2, "Short one", "x"]
    rows = tested.read([tested.encode(text) for text in texts])
    for row in rows:
        outer, inner = row.levels
        assert (outer.boundary_L | ~inner.boundary_L).all()
        assert (np.isnan(inner.p_L) == ~outer.boundary_L).all()
        assert inner.seen == outer.boundary_L.sum()
        _, routings = tested.model.hidden(torch.from_numpy(row.ids_L)[None])
        count = int(outer.boundary_L.sum())
        assert inner.boundary_L[outer.boundary_L].tolist() == routings[1].boundary_BL[0, :count].tolist()
    found = chunks(tested.model, tested.tokenizer, texts[0])
    for level in (0, 1):
        assert "".join(c.text for c in found if c.level == level) == texts[0]
        assert all(0 <= c.p <= 1 for c in found)
    assert sum(c.level for c in found) < len(found) / 2


def test_capacity_drops_boundaries() -> None:
    capped = LevelConfig(StageConfig("T1"), StageConfig("T1"), router="whitespace", capacity="divisor:8")
    tested = Reader(model(capped), ByteTokenizer())
    [row] = tested.read([tested.encode("a b c d e f g")])  # 14 tokens with BOS: room for one chunk
    assert row.levels[0].found == 7
    assert row.levels[0].boundary_L.sum() == 1
    assert row.levels[0].dropped == 6


def test_long_text_is_read_in_windows(reader: Reader) -> None:
    """The decisions of the first window are its own, and each later one has at least half a context before it."""
    text = "The quick brown fox jumps over the lazy dog. " * 4
    whole = read_text(reader, text, context=32, costs=True)
    assert whole.data == text.encode()
    ids = reader.encode(text)
    [first] = reader.read([ids[:32]])
    np.testing.assert_array_equal(whole.levels[0].boundary_L[:32], first.levels[0].boundary_L)
    for t in (33, 47, 90, len(ids) - 1):
        begin = max(0, -(-(t - 31) // 16) * 16)
        [window] = reader.read([ids[begin : begin + 32]], costs=True)
        assert whole.levels[0].boundary_L[t] == window.levels[0].boundary_L[t - begin]
        assert whole.nats_L is not None and window.nats_L is not None
        assert whole.nats_L[t] == pytest.approx(window.nats_L[t - begin])
    assert whole.spent_L is not None and np.isnan(whole.nats_L[0]) and not np.isnan(whole.nats_L[1:]).any()
    cuts = whole.levels[0].boundary_L
    assert (whole.spent_L[cuts] == sum(reader.costs)).all() and (whole.spent_L[~cuts] == reader.costs[0]).all()


def test_subwords_in_bytes(tmp_path: Path) -> None:
    text = ["The quick brown fox jumps über the lazy dog.\nNatural language — text. " * 3] * 40
    tokenizer = SentencePieceTokenizer("sp", train_subwords(iter(text), 300))
    tested = Reader(model(LEVEL, vocab_size=300), tokenizer)
    [row] = tested.read([tested.encode(text[0])])
    assert row.data == text[0].encode()
    assert row.size_L[0] == 0 and row.size_L.sum() == len(row.data)
    assert not row.boundary_N()[row.undecided_N()][1:].any()
    assert b"".join(row.data[c.start : c.end] for c in row_chunks(row)) == row.data
    with pytest.raises(DataError, match="byte 1 of the text is no UTF-8, and sp reads text alone"):
        tested.encode(b"a\xff")


def test_bytes_that_are_no_text_are_escaped(reader: Reader) -> None:
    found = niblick.chunks(Loaded(reader.model, reader.tokenizer, 64), b"ok\xff\xfe \xe2\x82")
    assert found[-1].end == 7
    assert "\\xff" in "".join(c.text for c in found)
    assert all(c.text.encode() for c in found)


def test_refusals(reader: Reader) -> None:
    with pytest.raises(DataError, match="the text is empty"):
        reader.encode("")
    with pytest.raises(DataError, match=r"character 2 of the text is '.ud800', which UTF-8 cannot hold"):
        reader.encode("a\ud800")
    with pytest.raises(ConfigError, match="dense: it has no router"):
        Reader(model(), ByteTokenizer())
    with pytest.raises(ConfigError, match="router is soft"):
        Reader(model(LevelConfig(None, None, router="soft")), ByteTokenizer())
