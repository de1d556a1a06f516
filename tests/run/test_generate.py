"""A model out of its artifact: what it streams, what it charges, what it refuses."""

from __future__ import annotations

import codecs
import copy
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch

import niblick
from niblick.artifact.container import write_artifact
from niblick.config.run_config import override, to_dict
from niblick.data.subword_training import train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import ByteTokenizer, Tokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.pack.quantize import pack
from niblick.recipes.presets import get_preset
from niblick.run import generate
from niblick.run.generate import GenerateConfig, Loaded, begins_text, draw, written

LEVEL = LevelConfig(StageConfig("T1"), StageConfig("T1"))
CONFIG = ModelConfig(width=32, heads=2, kv_heads=1, levels=(LEVEL,), main=StageConfig("T1"))


def artifact(folder: Path, config: ModelConfig = CONFIG) -> Path:
    torch.manual_seed(0)
    model = LM(config)
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    header = {
        "model": to_dict(config),
        "tokenizer": ByteTokenizer().spec(),
        "score": {"seq_len": 128, "batch_tokens": 1024, "dtype": "float32"},
    }
    write_artifact(folder / "artifact.nib", header, pack(dict(model.state_dict())), "zlib")
    return folder / "artifact.nib"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return niblick.load(artifact(tmp_path_factory.mktemp("artifact")))


@pytest.mark.parametrize("seed", range(5))
def test_streams_valid_text_within_bounds(loaded: Loaded, seed: int) -> None:
    pieces = list(loaded.stream("Grüße ", GenerateConfig(max_bytes=60, temperature=3.0, seed=seed)))
    text = "".join(p.text for p in pieces)
    assert "\ufffd" not in text and len(text.encode()) <= 60
    assert all(len(p.text) == 1 for p in pieces)
    assert text == loaded.generate("Grüße ", max_bytes=60, temperature=3.0, seed=seed)


def test_many_are_written_as_each_alone(loaded: Loaded) -> None:
    """Prompts of any length, none and one with characters of several bytes; texts that end early; a full context."""
    prompts = ["", "Grüße ", "a", "the cat sat on a mat, and so it did " * 3, "a"]
    found = loaded.generate_many(prompts, max_bytes=90, temperature=2.0, seed=5)
    alone = [loaded.generate(p, max_bytes=90, temperature=2.0, seed=5 + i) for i, p in enumerate(prompts)]
    assert found == alone
    assert found[2] != found[4] and len(set(map(len, found))) > 1
    assert loaded.generate_many([]) == []
    assert loaded.generate_many(prompts, max_bytes=0) == [""] * 5
    assert loaded.generate_many(["a"] * 2, seed=(1 << 64) - 1)[1] == loaded.generate("a", seed=0)
    order = [i for i, _ in loaded.streams(["a", "a"], GenerateConfig(max_bytes=6, temperature=3.0))]
    assert set(order[:4]) == {0, 1}, "together, not one after the other"


def test_a_sample_is_drawn_and_leaves_no_trace(loaded: Loaded) -> None:
    """In training's mode again after it, its random state untouched; and nothing of a model that cannot step."""
    config = override(get_preset("hnet-small"), ["score.seq_len=128", "train.sample_bytes=20", "seed=3"])
    model, before = loaded.model.train(), torch.get_rng_state()
    text = written(model, ByteTokenizer(), config)
    assert 0 < len(text.encode()) <= 20 and model.training and torch.equal(torch.get_rng_state(), before)
    assert text == written(model.eval(), ByteTokenizer(), config) and not model.training
    lame = copy.deepcopy(model)
    lame.body.main.blocks[0].step = None  # type: ignore[assignment]
    assert written(lame.train(), ByteTokenizer(), config) == "" and lame.training


def test_follows_the_whole_model(loaded: Loaded) -> None:
    """Step by step it takes the very bytes, and sees the very chunks, that the forward pass does."""
    config = GenerateConfig(max_bytes=40, temperature=0)
    pieces = list(loaded.stream("abc", config))
    data = ("abc" + "".join(p.text for p in pieces)).encode()
    ids_BL = torch.tensor([[1, *(b + 4 for b in data)]])
    hidden_BLD, routings = loaded.model.hidden(ids_BL)
    if all(b < 128 for b in data):
        best = loaded.model.head(hidden_BLD)[0, :, 4:132].argmax(-1)
        assert best[3 : len(data)].tolist() == list(data[3:])
    ends = np.cumsum([len(p.text.encode()) for p in pieces])
    starts = [0, *ends[:-1]]
    for piece, start, end in zip(pieces, starts, ends, strict=True):
        assert piece.starts_chunk == bool(routings[0].boundary_BL[0, 4 + start : 4 + end].any())


def test_bits_and_chunks(loaded: Loaded) -> None:
    text = "The quick brown fox. " * 12  # longer than the context
    assert 4 < loaded.bits_per_byte(text) < 40
    assert "".join(c.text for c in loaded.chunks(text[:60])) == text[:60]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.generate("x" * 127), "127 tokens long"),
        (lambda m: m.stream("x" * 127, GenerateConfig()), "127 tokens long"),  # before a piece is asked for
        (lambda m: m.generate_many(["a", "x" * 127]), "127 tokens long"),
        (lambda m: m.generate_many("abc"), "give a list"),
        (lambda m: m.generate_many(["a", 5]), "the prompt is int: give a str"),
        (lambda m: m.generate("ab\udcff"), r"character 3 of the prompt is '\\udcff'"),
        (lambda m: m.bits_per_byte(""), "text is empty"),
        (lambda m: GenerateConfig(top_p=0), "top_p=0"),
        (lambda m: GenerateConfig(temperature=-1), "temperature=-1"),
    ],
)
def test_refusals(loaded: Loaded, ask: Any, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        ask(loaded)


def test_draw() -> None:
    logits, random = torch.tensor([0.0, 3.0, 2.9, -1.0], dtype=torch.float64), torch.Generator().manual_seed(0)

    def drawn(allowed: tuple[bool, ...] = (True,) * 4, **values: Any) -> set[int]:
        config = GenerateConfig(**values)
        return {draw(logits.clone(), torch.tensor(allowed), config, random) for _ in range(300)}

    assert drawn(temperature=0) == drawn(temperature=1e-320) == {1}
    assert drawn(temperature=5) == {0, 1, 2, 3}
    assert drawn(temperature=5, top_k=2) == {1, 2}
    assert drawn(temperature=1, top_p=0.5) == {1}
    assert drawn((True, False, False, False)) == {0}


def test_every_character_can_be_written() -> None:
    for character in ("a", "\x7f", "\x80", "߿", "ࠀ", "퟿", "\ue000", "￿", "\U00010000", "\U0010ffff"):
        data = character.encode()
        assert all(begins_text(data[:count]) for count in range(len(data) + 1)), character
    for wrong in (b"\xed\xa0", b"\xc0", b"\xe0\x80", b"\xf0\x80", b"\xf4\x90", b"\xf5", b"\x80", b"a\xff"):
        assert not begins_text(wrong), wrong  # surrogates, long forms, what is past the end, what begins nothing


def subwords(name: str, request: pytest.FixtureRequest) -> Tokenizer:
    """Real models: trained here, without loss and the challenge's way; the challenge's own; one without byte pieces."""
    if name in ("identity", "nmt_nfkc"):
        words = [f"{a}{b} the quick brown {b}{a}\n  indented {a} €é" for a in "abcdefghij" for b in "klmnopqrst"]
        return SentencePieceTokenizer(name, train_subwords(words, 360, name))  # type: ignore[arg-type]
    return SentencePieceTokenizer.read(request.getfixturevalue("shared") / "data" / "tokenizers" / f"{name}.model")


@pytest.fixture(scope="module", params=["identity", "nmt_nfkc", "fineweb_1024_bpe", "lossy_1024_bpe"])
def of_subwords(request: pytest.FixtureRequest) -> Loaded:
    tokenizer = subwords(request.param, request)
    torch.manual_seed(0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, vocab_size=tokenizer.vocab_size, main=StageConfig("T1")))
    return Loaded(model, tokenizer, context=64)


LONG = 100_000


@pytest.mark.parametrize("prompt", ["", "ab", "the quick ", "€ Grüße ✓"])
def test_subwords_stream_what_the_whole_decodes_to(
    of_subwords: Loaded, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the tokenizer decodes all tokens at once, and as sentencepiece itself does; half of all tokens are bytes."""
    tokenizer, tokens = of_subwords.tokenizer, [1, *of_subwords.tokenizer.encode_batch([prompt])[0].tolist()]
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)  # type: ignore[attr-defined]
    drawn: list[int] = []
    monkeypatch.setattr(generate, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    for seed in range(6):
        drawn.clear()
        config = GenerateConfig(max_bytes=LONG, temperature=50.0, seed=seed)
        pieces = [piece.text for piece in of_subwords.stream(prompt, config)]
        text = "".join(pieces)
        assert all(pieces) and len(drawn) in (64 - len(tokens), drawn.index(1) + 1 if 1 in drawn else -1)
        before, whole = (tokenizer.decode(np.array(ids)) for ids in (tokens, tokens + drawn))
        assert before.decode() == of_subwords.read_back(prompt)
        # Strict, and what is not whole at the end is left out.
        assert before.decode() + text == codecs.getincrementaldecoder("utf-8")().decode(whole)
        assert processor.decode(tokens + drawn).rstrip("\ufffd") == before.decode() + text
        for most in (0, 1, 2, 3, 7, 20, 21, 22, 23) if seed == 0 else ():
            less = of_subwords.generate(prompt, max_bytes=most, temperature=50.0, seed=seed)
            assert less == text.encode()[:most].decode(errors="ignore")


def script(monkeypatch: pytest.MonkeyPatch, tokens: list[int]) -> None:
    """Let these tokens be drawn, then BOS, whatever the model thinks of them."""
    waiting = itertools.chain(tokens, itertools.repeat(1))
    monkeypatch.setattr(generate, "draw", lambda *given: next(waiting))


def streamed(loaded: Loaded, prompt: str) -> list[str]:
    return [piece.text for piece in loaded.stream(prompt, GenerateConfig(max_bytes=LONG))]


@pytest.mark.parametrize(("name", "keeps"), [("identity", True), ("nmt_nfkc", False), ("fineweb_1024_bpe", False)])
def test_spaces_and_bytes_of_subwords(
    name: str, keeps: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    tokenizer = subwords(name, request)
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)  # type: ignore[attr-defined]
    torch.manual_seed(0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, vocab_size=tokenizer.vocab_size, main=StageConfig("T1")))
    loaded = Loaded(model, tokenizer, context=16)
    space, the = processor.piece_to_id("\u2581"), processor.piece_to_id("\u2581the")
    euro = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in "€".encode()]
    first = " " if keeps else ""
    for tokens, after_text, at_start in (
        ([the, the], [" the", " the"], [first + "the", " the"]),
        ([space, the], [" ", " the"], [*([" "] if keeps else []), " the"]),
        ([*euro, the], ["€", " the"], ["€", " the"]),  # held back until it is whole; a byte is no control token
        ([the, *euro[:2]], [" the"], [first + "the"]),  # the document ends inside a character
    ):
        for prompt, expected in (("a", after_text), ("", at_start)):
            script(monkeypatch, tokens)
            assert streamed(loaded, prompt) == expected
    script(monkeypatch, [the] * 12 + euro)  # the context of 16 ends inside it
    assert "".join(streamed(loaded, "")) == (first + "the" + " the" * 11) + "€"
    script(monkeypatch, [the] * 13 + euro)
    assert "".join(streamed(loaded, "")) == (first + "the" + " the" * 12)


def test_only_what_goes_on_with_a_character_may_be_drawn(request: pytest.FixtureRequest) -> None:
    tokenizer = subwords("identity", request)
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)  # type: ignore[attr-defined]
    text = generate._Text(tokenizer).begun(1)

    def allowed() -> set[str]:
        return {processor.id_to_piece(int(i)) for i in text.allowed().nonzero()}

    start = allowed()
    assert {"<s>", "\u2581the", "<0x0A>", "<0xC2>", "<0xF4>"} <= start
    assert not start & {"<pad>", "</s>", "<0x80>", "<0xC1>", "<0xF5>", "<0xFF>"}
    text.add(processor.piece_to_id("<0xE0>"))
    assert allowed() == {f"<0x{byte:02X}>" for byte in range(0xA0, 0xC0)}  # shorter forms are no UTF-8
    text.add(processor.piece_to_id("<0xA0>"))
    assert allowed() == {f"<0x{byte:02X}>" for byte in range(0x80, 0xC0)}
    assert text.add(processor.piece_to_id("<0x80>")) == "\u0800"
    assert allowed() == start


def test_long_texts_are_not_decoded_over_again(of_subwords: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    decode = SentencePieceTokenizer.decode
    monkeypatch.setattr(SentencePieceTokenizer, "decode", lambda self, ids: calls.append(len(ids)) or decode(self, ids))
    config = GenerateConfig(max_bytes=LONG, temperature=50.0, seed=1)
    stream = of_subwords.stream("ab", config)
    next(stream)
    made = len(calls)
    assert max(calls) <= 2 and list(stream) and len(calls) == made
