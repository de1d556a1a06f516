"""SentencePiece tokenizers: the published streams and counts, and models of our own that give every text back."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from niblick.data.documents import read_documents
from niblick.data.subword_training import train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import make_tokenizer
from niblick.errors import DataError

TEXT = st.text(st.one_of(st.sampled_from("ab \n\t\u2581\u00a0é\0"), st.characters(exclude_categories=("Cs",))))
PUBLISHED = ["sp1024", "sp8192", "lossy1024"]


@pytest.fixture(scope="module")
def texts(webmix: Path) -> list[str]:
    return [document.text for document in read_documents(str(webmix))]


@pytest.fixture(scope="module")
def ours(texts: list[str]) -> SentencePieceTokenizer:
    """sp:1024 of webmix's training documents."""
    return SentencePieceTokenizer("sp1024", train_subwords(texts[220:], 1024))


@pytest.fixture(scope="session")
def small() -> SentencePieceTokenizer:
    """A little model that needs no shared data."""
    words = [f"{a}{b} the quick brown {b}{a}\n  indented {a}" for a in "abcdefghij" for b in "klmnopqrst"]
    return SentencePieceTokenizer("small", train_subwords(words, 400))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str, shared: Path, texts: list[str], webmix_figures: dict[str, Any]) -> None:
    figures = webmix_figures[name]
    tokenizer = make_tokenizer(str(shared / "data" / "tokenizers" / figures["file"]))
    encoded = tokenizer.encode_batch(texts[:220])
    stream = np.concatenate([np.append(np.uint16(tokenizer.bos_id), tokens) for tokens in encoded])
    decoded = [tokenizer.decode(tokens) for tokens in encoded]
    assert tokenizer.vocab_size == figures["vocab_size"]
    assert len(stream) == figures["tokens"]
    assert hashlib.sha256(stream.astype("<u2").tobytes()).hexdigest() == figures["token_sha256"]
    assert int(tokenizer.token_bytes(stream[:-1], stream[1:]).sum()) == figures["challenge_byte_count"]
    assert sum(map(len, decoded)) == figures["decoded_utf8_bytes"]
    exact = sum(a == b.encode() for a, b in zip(decoded, texts, strict=False))
    assert exact == figures["documents_decoded_exactly"]
    assert tokenizer.decode(stream) == b"".join(decoded)


@pytest.mark.parametrize("name", PUBLISHED)
def test_decoding_is_sentencepieces(name: str, shared: Path, texts: list[str], webmix_figures: dict[str, Any]) -> None:
    path = shared / "data" / "tokenizers" / webmix_figures[name]["file"]
    tokenizer, theirs = make_tokenizer(str(path)), sentencepiece.SentencePieceProcessor(model_file=str(path))
    for tokens in tokenizer.encode_batch(texts[:220]):
        assert tokenizer.decode(tokens) == theirs.decode(tokens.tolist()).encode()


def test_ours_gives_everything_back(ours: SentencePieceTokenizer, texts: list[str], shared: Path) -> None:
    everything = [*texts, *(d.text for d in read_documents(str(shared / "data" / "multilingual.jsonl")))]
    assert len(everything) == 4028 + 85
    for text, tokens in zip(everything, ours.encode_batch(everything), strict=True):
        assert ours.decode(tokens) == text.encode()
        previous = np.append(np.uint16(ours.bos_id), tokens[:-1])
        assert int(ours.token_bytes(previous, tokens).sum()) == len(text.encode())
    assert ours.vocab_size == 1024


def test_trained_on_many_scripts(shared: Path) -> None:
    """More characters than the vocabulary has room for: the rare ones are bytes, and all of it comes back."""
    many = [document.text for document in read_documents(str(shared / "data" / "multilingual.jsonl"))]
    assert len(set("".join(many))) > 1024
    tokenizer = SentencePieceTokenizer("sp1024", train_subwords(many, 1024))
    assert [tokenizer.decode(tokens).decode() for tokens in tokenizer.encode_batch(many)] == many


@given(texts=st.lists(TEXT))
def test_any_text_comes_back(small: SentencePieceTokenizer, texts: list[str]) -> None:
    for text, tokens in zip(texts, small.encode_batch(texts), strict=True):
        assert small.decode(tokens) == text.encode()
        previous = np.append(np.uint16(small.bos_id), tokens[:-1])
        counted = small.token_bytes(previous, tokens) if len(tokens) else np.zeros(0)
        assert counted.sum() == len(text.encode())
        assert counted.tolist() == [len(small.decode(np.array([token]))) for token in tokens]


def test_slices_decode_to_the_bytes_they_stand_for(small: SentencePieceTokenizer) -> None:
    """Also in the middle of a character."""
    text = "  the quick 日本語\n\n\u2581"
    tokens = small.encode_batch([text])[0]
    for cut in range(len(tokens) + 1):
        assert small.decode(tokens[:cut]) + small.decode(tokens[cut:]) == text.encode()


def test_pieces_stay_inside_lines(ours: SentencePieceTokenizer) -> None:
    pieces = [ours.decode(np.array([i])) for i in range(ours.vocab_size)]
    assert b"\n" in pieces
    assert not [piece for piece in pieces if b"\n" in piece and len(piece) > 1]


def test_training_is_repeatable() -> None:
    words = [f"word{i} and again word{i * 7}" for i in range(2000)]
    assert train_subwords(words, 400) == train_subwords(iter(words), 400)


def test_meter_bars() -> None:
    """SentencePiece's trainer drops each line that holds U+2585, which it keeps for itself; U+2581 is its space."""
    bars = [f"cpu {number} ▁▂▃▄▅▆▇█ load {number * 7 % 100}%\n▅▅ disk{number}" for number in range(200)]
    tokenizer = SentencePieceTokenizer("bars", train_subwords(bars, 320))
    assert [tokenizer.decode(tokens).decode() for tokens in tokenizer.encode_batch(bars)] == bars
    pieces = tokenizer.pieces()
    for trained in ("load", "disk", "▇"):
        assert any(trained.encode() in piece for piece in pieces), trained
    assert not [piece for piece in pieces if "▅".encode() in piece or "▁".encode() in piece]
    with pytest.raises(DataError, match="nothing but line ends and reserved characters"):
        train_subwords(["▅▅▁", ""], 300)


def test_the_challenges_way(texts: list[str]) -> None:
    """nmt_nfkc normalizes: newlines and runs of spaces are gone, as with the challenge's own models."""
    tokenizer = SentencePieceTokenizer("x", train_subwords(texts[220:400], 512, "nmt_nfkc"))
    tokens = tokenizer.encode_batch(["Two  lines\nof text"])[0]
    assert tokenizer.decode(tokens) == b"Two lines of text"
    with_bos = np.append(np.uint16(1), tokens)
    assert tokenizer.token_bytes(with_bos[:-1], with_bos[1:]).sum() == len(b"Two lines of text")


def test_travels_between_processes_and_manifests(small: SentencePieceTokenizer, tmp_path: Path) -> None:
    again = pickle.loads(pickle.dumps(small))
    assert again.spec() == small.spec() == json.loads(json.dumps(small.spec()))
    path = tmp_path / small.spec()["model_path"]
    path.parent.mkdir()
    path.write_bytes(small.model)
    assert make_tokenizer(small.spec(), tmp_path).spec() == small.spec()
    path.write_bytes(train_subwords(["other words entirely, " * 40, "zyx"], 300))
    with pytest.raises(DataError, match="another tokenizer than the data was made with"):
        make_tokenizer(small.spec(), tmp_path)
    with pytest.raises(DataError, match="needs its model file"):
        make_tokenizer(small.spec())


def test_files_that_are_no_models(tmp_path: Path) -> None:
    path = tmp_path / "x.model"
    with pytest.raises(DataError, match="cannot be read"):
        make_tokenizer(str(path))
    for content in (b"", b"garbage", b"\0" * 100, b'{"model": "json"}'):
        path.write_bytes(content)
        with pytest.raises(DataError, match="no SentencePiece model"):
            make_tokenizer(str(path))


def test_vocabularies_that_do_not_fit() -> None:
    few = ["hello world, hello again"] * 3
    with pytest.raises(DataError, match=r"too small for sp:2000: it yields \d+ tokens at most"):
        train_subwords(few, 2000)
    for size in (10, 299, 65537):
        with pytest.raises(DataError, match="out of range"):
            train_subwords(few, size)
    with pytest.raises(DataError, match="no training documents"):
        train_subwords([], 300)


def test_tokens_outside_the_vocabulary(small: SentencePieceTokenizer) -> None:
    with pytest.raises(DataError, match="token 400 is outside small"):
        small.decode(np.array([5, 400]))
