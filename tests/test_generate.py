"""A model out of its artifact: what it streams, what it charges, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import niblick
from niblick.artifact.container import write_artifact
from niblick.config import to_dict
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError
from niblick.generate import GenerateConfig, Loaded, draw, next_bytes
from niblick.model.level import LevelConfig
from niblick.model.lm import LM, ModelConfig
from niblick.model.stage import StageConfig
from niblick.pack.quantize import pack

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
    assert text == loaded.generate("Grüße ", GenerateConfig(max_bytes=60, temperature=3.0, seed=seed))


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
        (lambda m: m.bits_per_byte(""), "empty text"),
        (lambda m: GenerateConfig(top_p=0), "top_p=0"),
        (lambda m: GenerateConfig(temperature=-1), "temperature=-1"),
    ],
)
def test_refusals(loaded: Loaded, ask: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ask(loaded)


def test_draw() -> None:
    logits, random = torch.tensor([0.0, 3.0, 2.9, -1.0]), torch.Generator().manual_seed(0)

    def drawn(allowed: torch.Tensor | None = None, **values: Any) -> set[int]:
        return {draw(logits.clone(), allowed, GenerateConfig(**values), random) for _ in range(300)}

    assert drawn(temperature=0) == {1}
    assert drawn(temperature=5) == {0, 1, 2, 3}
    assert drawn(temperature=5, top_k=2) == {1, 2}
    assert drawn(temperature=1, top_p=0.5) == {1}
    assert drawn(torch.tensor([True, False, False, False])) == {0}


def test_every_character_can_be_written() -> None:
    for character in ("a", "\x7f", "\x80", "߿", "ࠀ", "퟿", "\ue000", "￿", "\U00010000", "\U0010ffff"):
        data = character.encode()
        for i, byte in enumerate(data):
            assert any(low <= byte <= high for low, high in next_bytes(data[:i], len(data) - i)), (character, i)
    assert not any(low <= 0xA0 <= high for low, high in next_bytes(b"\xed", 2))  # a surrogate
    assert next_bytes(b"", 1) == [(0, 0x7F)] and next_bytes(b"", 0) == []
