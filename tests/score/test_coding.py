"""Tokens and files under a model: bits as the score says, every byte back, and nothing read that was not written."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from niblick.data.dataset import Split
from niblick.data.index import RECORD
from niblick.data.subword_training import train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ArtifactError, ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import EntropyConfig, LevelConfig, ModelConfig, StageConfig
from niblick.model.stepping import can_compile
from niblick.score import coded_file, coding, mixing_kernels
from niblick.score.coded_file import MAGIC, STORED, Model, compress, decompress, model_stream
from niblick.score.coding import Layout, decode, encode
from niblick.score.known_text import KnownText
from niblick.score.score_config import ScoreConfig, SidecarConfig, TTTConfig
from niblick.score.scorers import score_split

LEVEL = LevelConfig(StageConfig("T1"), StageConfig("T1"))
TINY = ModelConfig(width=8, heads=1, kv_heads=1, main=StageConfig("c1"))
HNET = ModelConfig(width=16, heads=2, kv_heads=1, levels=(LEVEL,), main=StageConfig("T1"))
ENTROPY = replace(HNET, levels=(replace(LEVEL, router="entropy"),), entropy=EntropyConfig(TINY, 4.0))
MODELS = {
    "dense": TINY,
    "hnet": HNET,
    "capped": replace(HNET, levels=(replace(LEVEL, capacity="divisor:3"),)),
    "whitespace": replace(HNET, levels=(replace(LEVEL, router="whitespace"),)),
    "entropy": ENTROPY,
    "soft": replace(HNET, levels=(replace(LEVEL, router="soft"),)),
    "windowed": replace(HNET, window=5),
}


def make(config: ModelConfig, seed: int = 0) -> LM:
    torch.manual_seed(seed)
    model = LM(config)
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model.eval()


def a_split(lengths: list[int], seed: int = 0) -> Split:
    """Documents of bytes from a small alphabet, each after a BOS."""
    random = np.random.default_rng(seed)
    documents = [np.append(1, 4 + random.choice([32, 97, 98, 101, 200], n)).astype(np.uint16) for n in lengths]
    index = np.zeros(len(lengths), RECORD)
    index["tokens"] = [len(d) for d in documents]
    index["offset"] = np.cumsum(index["tokens"]) - index["tokens"]
    index["bytes"] = lengths
    return Split("val", [], [np.concatenate(documents)], index)


def layout(split: Split, config: ScoreConfig) -> Layout:
    assert split.index is not None
    return Layout(split.tokens, split.index["offset"].astype(np.int64), config, 1, 260)


@pytest.fixture(scope="module")
def tiny() -> Model:
    return Model(make(TINY), ByteTokenizer(), "tiny", "a" * 64)


def test_tables_in_any_memory_order_give_the_same_stream() -> None:
    tables = coding._tables(torch.randn(7, 260, generator=torch.Generator().manual_seed(0)))
    known, written = np.arange(7, dtype=np.uint16), []
    for order in (tables, np.asfortranarray(tables)):
        writer = coding._Writer()
        writer.code_under(order, known)
        written.append(writer.data())
        back = coding._Reader(written[-1]).code_under(np.asfortranarray(tables), known)
        assert back.tolist() == known.tolist()
    assert written[0] == written[1]


PLANS = [
    ScoreConfig(seq_len=16),
    ScoreConfig(seq_len=16, scorer="document"),
    ScoreConfig(seq_len=16, scorer="document", stride=6),
]


@pytest.mark.parametrize("config", PLANS, ids=lambda c: f"{c.scorer}-{c.stride}")
@pytest.mark.parametrize("name", MODELS)
def test_bits_are_the_score_s_and_tokens_come_back(name: str, config: ScoreConfig, monkeypatch: Any) -> None:
    """Every kind of model, in blocks of several lanes: the coder pays the score, and log₂ V where a lane opens."""
    monkeypatch.setattr(coding, "LANE", 40)
    monkeypatch.setattr(coding, "MAX_LANES", 4)
    model, split = make(MODELS[name]), a_split([90, 3, 0, 31, 16, 110])
    tokens, plan = np.array(split.slice(0, split.tokens)), layout(split, config)
    blocks = list(encode(model, tokens, plan))
    assert (decode(model, iter(blocks), plan) == tokens).all()
    scored = score_split(model, split, ByteTokenizer(), config)
    lanes = [own for block in plan.blocks() for own in block[1:]]
    opened = sum(int(own.start_N[0]) not in plan.opened_D() for own in lanes)
    assert plan.opening_bits() == pytest.approx(opened * np.log2(260))
    bits = 8 * sum(len(block.data) for block in blocks)
    assert 0 <= bits - (scored.bits + opened * np.log2(260)) < 48 * len(blocks)
    assert sum(int((own.length_N - own.first_N).sum()) for block in plan.blocks() for own in block) == scored.tokens


def test_payload_is_within_half_a_percent_of_the_score() -> None:
    """With lanes as they are for real; a peaked model and an even one."""
    split, config = a_split([2500, 900]), ScoreConfig(seq_len=64)
    for scale in (0.05, 0.6):
        model = make(TINY)
        model.embed.weight.data.mul_(scale / 0.2)
        blocks = list(encode(model, np.array(split.slice(0, split.tokens)), layout(split, config)))
        bits, score = 8 * sum(len(block.data) for block in blocks), score_split(model, split, ByteTokenizer(), config)
        assert abs(bits / score.bits - 1) < 0.005


MIXTURE = SidecarConfig("mixture", mix="fast", memory=1)
compiled = pytest.mark.skipif(not mixing_kernels.COMPILED, reason="numba is not installed (pip install 'niblick[mix]')")


def a_text() -> KnownText:
    tokens = np.array(a_split([700], seed=5).slice(0, 701)).astype(np.int64)
    return KnownText(KnownText.packing(tokens, 260, MIXTURE, 700, 1).packed, 260)


@compiled
@pytest.mark.parametrize("known", [False, True], ids=["nothing", "text"])
@pytest.mark.parametrize("config", PLANS, ids=lambda c: f"{c.scorer}-{c.stride}")
@pytest.mark.parametrize("name", ["dense", "hnet"])
def test_a_mixture_reads_along(name: str, config: ScoreConfig, known: bool, monkeypatch: Any) -> None:
    """In several blocks, each of which goes on where the last one ended; what it knows from before, both sides know."""
    monkeypatch.setattr(coding, "MIXED_LANE", 96)
    model, split = make(MODELS[name]), a_split([90, 3, 0, 31, 16, 110, 150])
    config, text = replace(config, sidecar=MIXTURE), a_text() if known else None
    tokens, plan = np.array(split.slice(0, split.tokens)), layout(split, config)
    blocks = list(encode(model, tokens, plan, text=text))
    assert len(blocks) > 1 and plan.opening_bits() == 0
    assert (decode(model, iter(blocks), plan, text=text) == tokens).all()
    scored = score_split(model, split, ByteTokenizer(), config, text=text)
    bits = 8 * sum(len(block.data) for block in blocks)
    assert 0 <= bits - scored.bits < 40 * len(blocks)
    assert len(tokens) <= plan.room(len(blocks), bits // 8)
    if known:
        without = score_split(model, split, ByteTokenizer(), config)
        assert scored.bits < without.bits - 100
        with pytest.raises(ArtifactError, match="block 0 decodes to something else"):
            decode(model, iter(blocks), plan)


@compiled
def test_a_mixture_that_forgets_at_documents_reads_along() -> None:
    split, config = a_split([60, 0, 80]), ScoreConfig(seq_len=16, sidecar=replace(MIXTURE, reset="document"))
    model, tokens, plan = make(TINY), np.array(split.slice(0, split.tokens)), layout(split, config)
    blocks = list(encode(model, tokens, plan))
    assert (decode(model, iter(blocks), plan) == tokens).all()
    scored = score_split(model, split, ByteTokenizer(), config)
    assert 0 <= 8 * sum(len(block.data) for block in blocks) - scored.bits < 40
    with pytest.raises(ConfigError, match="reset=document forgets the artifact's text"):
        list(encode(model, tokens, plan, text=a_text()))


@compiled
def test_files_under_a_mixture_that_knows_a_text() -> None:
    model = Model(make(TINY), ByteTokenizer(), "tiny", "a" * 64, a_text())
    config = ScoreConfig(seq_len=32, sidecar=MIXTURE)
    data = bytes(np.random.default_rng(5).choice([32, 97, 98, 101, 200], 500).tolist())
    stream, sizes = model_stream(data, model, config)
    assert decompress(stream, model) == data
    assert sizes.payload < model_stream(data, replace(model, text=None), config)[1].payload
    with pytest.raises(ArtifactError, match="decodes to something else"):
        decompress(stream, replace(model, text=None))
    stream = bytearray(stream)
    stream[-20] ^= 4
    with pytest.raises(ArtifactError, match="is not as it was written"):
        decompress(bytes(stream), model)


@compiled
@pytest.mark.slow
def test_long_texts_are_coded_with_compiled_steps(monkeypatch: Any) -> None:
    """To the same bits but for rounding; one who cannot compile is told so."""
    if not can_compile():
        pytest.skip("torch.compile does not work here: there is no compiler of C++")
    model, config = Model(make(MODELS["hnet"]), ByteTokenizer(), "tiny", "a" * 64), ScoreConfig(16, sidecar=MIXTURE)
    data = bytes(np.random.default_rng(5).choice([32, 97, 98, 101, 200], 300).tolist())
    plainly, sizes = model_stream(data, model, config)
    monkeypatch.setattr(coding, "COMPILED_FROM", 200)
    stream, compiled_sizes = model_stream(data, model, config)
    assert [coded_file._read_head(s)[0]["machine"]["compiled"] for s in (plainly, stream)] == [False, True]
    assert abs(compiled_sizes.payload - sizes.payload) <= 1
    assert decompress(stream, model) == decompress(plainly, model) == data
    monkeypatch.setattr(coded_file, "can_compile", lambda: False)
    assert decompress(plainly, model) == data
    with pytest.raises(ArtifactError, match="was written with compiled steps"):
        decompress(stream, model)


@compiled
def test_payload_of_a_mixture_is_within_half_a_percent_of_the_score() -> None:
    split, config = a_split([1500, 500]), ScoreConfig(seq_len=64, sidecar=replace(MIXTURE, mix="strong"))
    model = make(TINY)
    blocks = list(encode(model, np.array(split.slice(0, split.tokens)), layout(split, config)))
    bits, score = 8 * sum(len(block.data) for block in blocks), score_split(model, split, ByteTokenizer(), config)
    assert 0 <= bits / score.bits - 1 < 0.005


def test_another_rounding_is_noticed() -> None:
    """A model that differs in the last bits, as on a machine that rounds otherwise: the block says so."""
    split, config = a_split([300, 300]), ScoreConfig(seq_len=32)
    model, tokens = make(HNET), np.array(split.slice(0, split.tokens))
    blocks = list(encode(model, tokens, layout(split, config)))
    model.embed.weight.data[100] += 1e-3
    with pytest.raises(ArtifactError, match="block 0 decodes to something else"):
        decode(model, iter(blocks), layout(split, config))


@pytest.mark.parametrize(
    "config",
    [
        ScoreConfig(seq_len=16, scorer="sliding", stride=4),
        ScoreConfig(seq_len=16, ttt=TTTConfig("sgd")),
        ScoreConfig(seq_len=16, sidecar=SidecarConfig("cache")),
    ],
)
def test_other_scorers_are_not_provable(config: ScoreConfig, tiny: Model) -> None:
    with pytest.raises(ConfigError, match="not provable by decoding"):
        model_stream(b"text", tiny, config)


@pytest.mark.parametrize("data", [b"", b"a", b"\xff\xfe\0", "Grüße\n\n  zwei\t".encode(), bytes(range(256)) * 6])
@pytest.mark.parametrize("config", PLANS[:2], ids=lambda c: c.scorer)
def test_files_come_back(data: bytes, config: ScoreConfig, tiny: Model) -> None:
    stream, sizes = model_stream(data, tiny, config)
    assert decompress(stream, tiny) == data
    assert (sizes.original, sizes.tokens, sizes.total) == (len(data), len(data) + 1, len(stream))


def test_what_a_model_makes_larger_is_stored(tiny: Model) -> None:
    config = ScoreConfig(seq_len=16)
    for data, method in ((b"", "raw"), (bytes(range(256)), "raw"), (b"half of it is said twice, " * 9, "deflate")):
        stream, sizes = compress(data, tiny, config)
        assert (sizes.method, sizes.total) == (method, len(stream)) and sizes.total <= len(data) + 56 < sizes.coded
        assert sizes.overhead == sizes.coded - sizes.payload > 300
        assert decompress(stream, tiny) == data
        for at in (len(STORED), len(stream) - 1):
            damaged = stream[:at] + bytes([stream[at] ^ 1]) + stream[at + 1 :]
            with pytest.raises(ArtifactError, match="not as it was written"):
                decompress(damaged, tiny)
    rest = b"z" + (1 << 40).to_bytes(8, "little") + stream[-20:]
    with pytest.raises(ArtifactError, match="more than it can hold"):
        decompress(STORED + hashlib.sha256(rest).digest() + rest, tiny)
    for cut in (b"", stream[len(STORED) : len(STORED) + 3]):
        with pytest.raises(ArtifactError, match="not as it was written"):
            decompress(STORED + cut, tiny)
    long = model_stream(a_text := b"abab" * 2000, tiny, config)[1]
    assert compress(a_text, tiny, config)[1].total <= long.coded


def test_what_a_subword_tokenizer_loses_comes_with_the_stream() -> None:
    words = [f"{a}{b} the quick brown {b}{a}" for a in "abcdefghij" for b in "klmnopqrst"]
    tokenizer = SentencePieceTokenizer("small", train_subwords(words, 400, "nmt_nfkc"))
    model = Model(make(replace(TINY, vocab_size=tokenizer.vocab_size)), tokenizer, "small", "b" * 64)
    for data in (b"the quick brown", b"the \n\n quick\tbrown \xff\x00 fox", b"", "ﬁn ① é".encode()):
        stream, sizes = model_stream(data, model, ScoreConfig(seq_len=16))
        assert decompress(stream, model) == data
    assert sizes.patch


def test_a_foreign_model_is_named(tiny: Model) -> None:
    stream, _ = model_stream(b"some text", tiny, ScoreConfig(seq_len=16))
    with pytest.raises(ArtifactError, match=r"written with the model tiny \(SHA-256 aaaa.* this is other"):
        decompress(stream, replace(tiny, name="other", sha256="c" * 64))


def test_probabilities_of_another_machine_are_named(tiny: Model) -> None:
    stream, _ = model_stream(b"some text, a little longer" * 3, tiny, ScoreConfig(seq_len=16))
    lm = make(TINY)
    lm.embed.weight.data += 0.01 * torch.randn_like(lm.embed.weight)
    with pytest.raises(ArtifactError, match="computes other probabilities than the one that wrote it"):
        decompress(stream, replace(tiny, lm=lm))


def test_nothing_else_is_read(tiny: Model) -> None:
    stream, _ = model_stream(b"some text", tiny, ScoreConfig(seq_len=16))
    with pytest.raises(ArtifactError, match="it is empty"):
        decompress(b"", tiny)
    with pytest.raises(ArtifactError, match="does not begin like one"):
        decompress(b"PK\x03\x04 something else", tiny)
    with pytest.raises(ArtifactError, match="ends inside its head"):
        decompress(MAGIC + (1 << 31).to_bytes(4, "little"), tiny)
    with pytest.raises(ArtifactError, match="hold at most 262,145"):
        decompress(_with_head(stream, tokens=300_000), tiny)
    _, at = coded_file._read_head(stream)
    with pytest.raises(ArtifactError, match="has 2 blocks where 1 are needed"):
        decompress(stream + stream[at:], tiny)


@pytest.mark.parametrize("config", PLANS, ids=lambda c: f"{c.scorer}-{c.stride}")
def test_declared_tokens_are_not_believed(config: ScoreConfig, tiny: Model) -> None:
    """What a stream says of its length is held against its blocks before anything of that length is made."""
    stream, _ = model_stream(b"some text", tiny, config)
    tracemalloc.start()
    with pytest.raises(ArtifactError, match=r"declares 68,719,476,736 tokens, and its 1 blocks hold at most"):
        decompress(_with_head(stream, tokens=2**36, bytes=2**36), tiny)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    for data in (b"a" * 5000, bytes(5000)):  # what is as predictable as can be stays within it
        assert decompress(model_stream(data, tiny, config)[0], tiny) == data


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": 2**62},
        {"tokens": -1},
        {"tokens": True},
        {"patch": "%"},
        {"scorer": {}},
        {"machine": {"threads": 1, "compiled": 1}},
    ],
)
def test_a_head_that_cannot_be_allocates_nothing(change: dict[str, Any], tiny: Model) -> None:
    stream, _ = model_stream(b"some text", tiny, ScoreConfig(seq_len=16))
    with pytest.raises(ArtifactError, match="head that cannot be"):
        decompress(_with_head(stream, **change), tiny)


def _with_head(stream: bytes, **change: Any) -> bytes:
    """The stream with another head, its hash right again: what a stranger might write."""
    head, at = coded_file._read_head(stream)
    coded = json.dumps(head | {"bytes": 400_000} | change).encode()
    start = MAGIC + len(coded).to_bytes(4, "little") + coded
    return start + hashlib.sha256(start).digest() + stream[at:]


@pytest.mark.slow
def test_fuzz_random_files_come_back(tiny: Model) -> None:
    random = np.random.default_rng(7)
    for n in range(500):
        data = random.integers(0, 256, int(random.integers(0, 24)), np.uint8).tobytes()
        stream, _ = model_stream(data, tiny, PLANS[n % 2])
        assert decompress(stream, tiny) == data


@pytest.mark.slow
def test_fuzz_damaged_streams_are_refused(tiny: Model) -> None:
    """Bits turned, bytes cut off the end, added, taken out, put in another order."""
    random = np.random.default_rng(8)
    streams = [model_stream(b"the quick brown fox " * n, tiny, PLANS[n % 2])[0] for n in (1, 3, 120)]
    for n in range(500):
        stream = bytearray(streams[n % len(streams)])
        at = int(random.integers(len(stream)))
        kind = n % 5
        if kind == 0:
            stream[at] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del stream[at:]
        elif kind == 2:
            stream[at:at] = random.bytes(int(random.integers(1, 9)))
        elif kind == 3:
            del stream[at : at + int(random.integers(1, 9))]
        else:
            other = int(random.integers(len(stream)))
            if stream[at] == stream[other]:
                stream[at] ^= 0xFF
            stream[at], stream[other] = stream[other], stream[at]
        with pytest.raises(ArtifactError):
            decompress(bytes(stream), tiny)
