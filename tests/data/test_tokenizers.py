"""byte260 gives every text back, and counts bytes by the challenge's rule."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niblick.data.dataset import Dataset
from niblick.data.tokenizers import Byte256Tokenizer, ByteTokenizer, make_tokenizer
from niblick.errors import DataError

TEXT = st.text(st.characters(exclude_categories=("Cs",)))


@given(st.lists(TEXT))
def test_roundtrip(texts: list[str]) -> None:
    tokenizer = ByteTokenizer()
    for text, tokens in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert tokens.dtype == np.uint16
        assert tokens.tolist() == [byte + 4 for byte in text.encode()]
        assert tokenizer.decode(tokens) == text.encode()
        with_bos = np.concatenate([[tokenizer.bos_id], tokens])
        assert tokenizer.decode(with_bos) == text.encode()
        assert tokenizer.token_bytes(with_bos[:-1], with_bos[1:]).sum() == len(text.encode())


@given(st.lists(TEXT), st.sampled_from([ByteTokenizer(), Byte256Tokenizer()]))
def test_documents_at_once_are_each_after_a_bos(texts: list[str], tokenizer: ByteTokenizer) -> None:
    tokens = tokenizer.encode_documents([text.encode() for text in texts])
    each = [[tokenizer.bos_id, *one.tolist()] for one in tokenizer.encode_batch(texts)]
    assert tokens is not None and tokens.dtype == np.uint16
    assert tokens.tolist() == [token for one in each for token in one]


def test_what_does_not_come_back_is_not_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ByteTokenizer().encode_documents([b"abc"]) is not None
    monkeypatch.setattr(np, "subtract", lambda tokens, offset, **how: np.zeros(len(tokens), np.uint8))
    assert ByteTokenizer().encode_documents([b"abc"]) is None


def test_control_tokens_are_no_bytes() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(np.array([0, 1, 2, 3])) == b""
    assert tokenizer.token_bytes(np.array([9, 9, 9, 9, 1]), np.array([0, 1, 2, 3, 4])).tolist() == [0, 0, 0, 0, 1]
    with pytest.raises(DataError, match="token 260 is outside byte260"):
        tokenizer.decode(np.array([7, 260]))


def test_pieces_are_the_bytes_of_tokens() -> None:
    tokenizer = ByteTokenizer()
    pieces = tokenizer.pieces()
    assert len(pieces) == tokenizer.vocab_size
    assert b"".join(pieces[t] for t in [1, *tokenizer.encode_batch(["Größe €"])[0]]) == "Größe €".encode()


def test_built_from_its_name_or_spec() -> None:
    for name in ("byte260", "byte256"):
        spec = json.loads(json.dumps(make_tokenizer(name).spec()))
        assert make_tokenizer(spec).spec() == spec and spec["name"] == name
    with pytest.raises(DataError, match="no tokenizer 'byte25' "):
        make_tokenizer("byte25")


def test_byte256_is_the_paper_s() -> None:
    tokenizer, text = make_tokenizer("byte256"), "Größe €\n\U0001f600"
    [tokens] = tokenizer.encode_batch([text])
    assert tokens.tolist() == list(text.encode())
    assert tokenizer.decode(np.concatenate(([254], tokens, [255]))) == text.encode()
    assert tokenizer.bos_id == 254 and tokenizer.end_ids == (254, 255)
    pieces = tokenizer.pieces()
    assert len(pieces) == 256 and pieces[254:] == [b"", b""] and pieces[65] == b"A"
    assert tokenizer.token_bytes(tokens[:2], np.array([65, 254, 255, 253])).tolist() == [1, 0, 0, 1]
    assert Byte256Tokenizer().encode_bytes(b"\x00\xfd").tolist() == [0, 253]
    with pytest.raises(DataError, match="byte 2 is 0xFE, which is a control token of byte256"):
        Byte256Tokenizer().encode_bytes(b"ab\xfe")
    with pytest.raises(DataError, match="token 256 is outside byte256"):
        tokenizer.decode(np.array([65, 256]))


def test_published_figures(webmix_bytes: Dataset, webmix_figures: dict[str, Any]) -> None:
    figures, val, tokenizer = webmix_figures["byte260"], webmix_bytes.val, webmix_bytes.tokenizer
    stream = val.slice(0, val.tokens)
    assert tokenizer.vocab_size == figures["vocab_size"]
    assert val.tokens == figures["tokens"]
    assert val.stream_hash == figures["token_sha256"]
    assert int(tokenizer.token_bytes(stream[:-1], stream[1:]).sum()) == figures["challenge_byte_count"]
