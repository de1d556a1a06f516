"""byte260 gives every text back, and counts bytes by the challenge's rule."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niblick.data.dataset import Dataset
from niblick.data.tokenizers import ByteTokenizer, make_tokenizer
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
    spec = json.loads(json.dumps(make_tokenizer("byte260").spec()))
    assert make_tokenizer(spec).spec() == spec
    with pytest.raises(DataError, match=r"no tokenizer 'byte256' \(nearest: byte260\)"):
        make_tokenizer("byte256")


def test_published_figures(webmix_bytes: Dataset, webmix_figures: dict[str, Any]) -> None:
    figures, val, tokenizer = webmix_figures["byte260"], webmix_bytes.val, webmix_bytes.tokenizer
    stream = val.slice(0, val.tokens)
    assert tokenizer.vocab_size == figures["vocab_size"]
    assert val.tokens == figures["tokens"]
    assert val.stream_hash == figures["token_sha256"]
    assert int(tokenizer.token_bytes(stream[:-1], stream[1:]).sum()) == figures["challenge_byte_count"]
