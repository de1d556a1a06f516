"""What routers are first trained towards, and what cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from niblick.data.subword_training import train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.model_config import LevelConfig, ModelConfig
from niblick.train.guides import SubwordEdges, make_guide, register_guide

BYTES = ModelConfig(levels=(LevelConfig(),))
TEXT = "The quick brown fox jumps over the lazy dog, then thinks of 你好 and Grüße.\n  indented the the\n"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = [f"{a}{b} the quick brown {b}{a}\n  indented {a}" for a in "abcdefghij" for b in "klmnopqrst"]
    path = tmp_path_factory.mktemp("tokenizer") / "small.model"
    path.write_bytes(train_subwords(words, 400))
    return path


def ids(data: bytes) -> torch.Tensor:
    return torch.tensor([b + 4 for b in data])


def starts(tokenizer: SentencePieceTokenizer, text: str) -> set[int]:
    """Where tokens start, by adding up their bytes; only for tokenizers whose tokens give the text back."""
    found, at = set(), 0
    for token in tokenizer.encode_batch([text])[0]:
        found.add(at)
        at += len(tokenizer.decode([1, token]))  # type: ignore[arg-type]
    assert at == len(text.encode())
    within = {i for i, byte in enumerate(text.encode()) if 0x80 <= byte < 0xC0}
    return found - within  # the byte pieces of a character are one place


def test_edges_of_subwords_at_bytes(model_file: Path) -> None:
    guide = make_guide(f"bpe:{model_file}", BYTES)
    row = torch.cat((torch.tensor([1]), ids(TEXT.encode()), torch.tensor([1]), ids(b"the quick")))
    [boundary_L] = guide(row[None])
    tokenizer = SentencePieceTokenizer.read(model_file)
    second = len(TEXT.encode()) + 1
    expected = {0, second} | {1 + i for i in starts(tokenizer, TEXT)}
    expected |= {second + 1 + i for i in starts(tokenizer, "the quick")}
    assert set(boundary_L.nonzero()[:, 0].tolist()) == expected
    assert len(expected) < 0.9 * len(row)


def test_windows_may_cut_characters(model_file: Path) -> None:
    guide = make_guide(f"bpe:{model_file}", BYTES)
    data = "你好 the quick 你好".encode()
    for first in range(3):
        for last in range(3):
            window = data[first : len(data) - last]
            [boundary_L] = guide(ids(window)[None])
            assert not any(boundary_L[i] for i, byte in enumerate(window) if 0x80 <= byte < 0xC0)
            assert boundary_L[window.index(b" the")] or boundary_L[window.index(b"the")]
    assert not guide(ids(b"\x80\x81")[None]).any()


@pytest.mark.parametrize("name", ["fineweb_1024_bpe", "fineweb_8192_bpe", "lossy_1024_bpe"])
def test_published_tokenizers(name: str, shared: Path) -> None:
    """Normalization (the ligature) and a dummy prefix move no edge: each word starts where it starts."""
    tokenizer = SentencePieceTokenizer.read(shared / "data" / "tokenizers" / f"{name}.model")
    text = "The \ufb01ne quick brown fox"
    [boundary_L] = SubwordEdges(tokenizer, 260)(ids(text.encode())[None])
    spaces = [i for i, byte in enumerate(text.encode()) if byte == 32]
    assert boundary_L[0]
    assert all(boundary_L[spaces])
    assert not boundary_L[5:7].any()  # inside the ligature's three bytes


def test_what_does_not_fit_is_refused(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.model").write_bytes(b"no model")
    subwords = ModelConfig(vocab_size=1024, levels=(LevelConfig(),))
    for name, config, words in (
        ("whitespaces", BYTES, "nearest: whitespace"),
        ("whitespace", ModelConfig(), "dense"),
        ("whitespace", subwords, "no byte vocabulary"),
        (f"bpe:{model_file}", subwords, "no byte vocabulary"),
        ("bpe", BYTES, "bpe:FILE.model"),
        ("whitespace:x", BYTES, "takes none"),
        ("entropy", BYTES, "entropy.artifact=FILE.nib"),
        ("whitespace", ModelConfig(levels=(LevelConfig(router="fixed"),)), "nothing to learn"),
    ):
        with pytest.raises(ConfigError, match=words):
            make_guide(name, config)
    for file, words in ((tmp_path / "none.model", "cannot be read"), (tmp_path / "broken.model", "no SentencePiece")):
        with pytest.raises(DataError, match=words):
            make_guide(f"bpe:{file}", BYTES)
    with pytest.raises(ConfigError, match="taken"):
        register_guide("bpe", lambda config: lambda ids_BL: ids_BL == 5)
