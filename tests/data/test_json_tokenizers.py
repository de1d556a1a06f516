"""tokenizer.json as a tokenizer: text comes back, bytes are counted, and what it loses is said."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niblick.data.dataset import Dataset
from niblick.data.json_tokenizers import JsonTokenizer
from niblick.data.prepare import convert, prepare
from niblick.data.tokenizers import make_tokenizer
from niblick.errors import DataError

library = pytest.importorskip("tokenizers", reason="tokenizers comes with niblick[hub]")
TEXTS = [f"Document {number}: été\n\n  the quick brown fox <|endoftext|> " + "jumps " * number for number in range(12)]


def trained(normalizer: Any = None, prefix: bool = False) -> bytes:
    """A byte-level BPE as GPT-2 has it."""
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = library.decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding()
    return tokenizer.to_str().encode()


@pytest.fixture(scope="module")
def tokenizer() -> JsonTokenizer:
    return JsonTokenizer("tiny", trained())


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_text_comes_back_and_bytes_are_counted(text: str) -> None:
    made = _cached()
    (tokens,) = made.encode_batch([text])
    assert made.decode(tokens) == text.encode()
    previous = np.concatenate([[made.bos_id], tokens[:-1]]) if len(tokens) else tokens
    assert int(made.token_bytes(previous, tokens).sum()) == len(text.encode())
    assert made.bos_id not in tokens


_made: list[JsonTokenizer] = []


def _cached() -> JsonTokenizer:
    if not _made:
        _made.append(JsonTokenizer("tiny", trained()))
    return _made[0]


def test_a_dataset_of_it(tmp_path: Path, tokenizer: JsonTokenizer) -> None:
    """Control tokens that a text spells are text; the file travels with the data, and its digest is held."""
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.model)
    made = prepare(TEXTS, str(tmp_path / "tokenizer.json"), tmp_path / "data", val_docs=3, workers=1)
    split = made["niblick"]["splits"]["val"]
    assert split["lossless"] and split["repair_bits"] == 0 and split["challenge_bytes"] == split["bytes"]
    dataset = Dataset.open(tmp_path / "data")
    assert dataset.tokenizer.kind == "tokenizers_bpe" and dataset.tokenizer.vocab_size == tokenizer.vocab_size
    back = convert(tmp_path / "data", "byte260", tmp_path / "bytes")
    assert back["niblick"]["splits"]["val"]["text_hash"] == split["text_hash"]
    file = next((tmp_path / "data" / "tokenizers").iterdir())
    file.write_bytes(tokenizer.model + b" ")
    with pytest.raises(DataError, match="another tokenizer than the data was made with"):
        Dataset.open(tmp_path / "data")


@pytest.mark.parametrize("kind", ["normalizer", "prefix"])
def test_what_is_lost_is_said(kind: str, tmp_path: Path) -> None:
    model = trained(library.normalizers.Lowercase()) if kind == "normalizer" else trained(prefix=True)
    (tmp_path / "lossy.json").write_bytes(model)
    made = prepare(TEXTS, str(tmp_path / "lossy.json"), tmp_path / "data", val_docs=3, workers=1)
    split = made["niblick"]["splits"]["val"]
    assert not split["lossless"] and split["repair_bits"] > 0 and split["lost"]["documents"] == 3


def test_it_can_be_sent_to_workers(tokenizer: JsonTokenizer) -> None:
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.spec() == tokenizer.spec()
    assert np.array_equal(again.encode_batch(TEXTS)[4], tokenizer.encode_batch(TEXTS)[4])
    assert len(tokenizer.encode_batch(TEXTS)[4]) > 5, "no truncation"


def test_bad_files(tmp_path: Path) -> None:
    good = json.loads(trained())
    large = {**good, "model": {**good["model"], "vocab": {**good["model"]["vocab"], "zz": 65536}}}
    without = {**good, "model": {**good["model"], "merges": [["never", "seen"]]}}
    other = {**good, "decoder": {"type": "WordPiece"}}
    for name, content, sentence in (
        ("large", large, "shards hold at most 65536"),
        ("without", without, "is not read by the tokenizers library"),
        ("other", other, "only byte-level BPE is read"),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        with pytest.raises(DataError, match=sentence):
            make_tokenizer(str(path))
    (tmp_path / "vocab.json").write_text(json.dumps(good["model"]["vocab"]))
    with pytest.raises(DataError, match="niblick decodes shards made with it"):
        make_tokenizer(str(tmp_path / "vocab.json"))
    with pytest.raises(DataError, match="cannot be read"):
        make_tokenizer(str(tmp_path / "absent.json"))


def test_without_the_library(tokenizer: JsonTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"pip install niblick\[hub\]"):
        JsonTokenizer("tiny", tokenizer.model)
