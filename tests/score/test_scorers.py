"""The contiguous scorer against a plain loop over one window at a time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from niblick.data.dataset import Split
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.hnet import LevelConfig
from niblick.model.lm import LM, ModelConfig
from niblick.model.stage import StageConfig
from niblick.score.scorers import ScoreConfig, contiguous, windows


def split(tokens: np.ndarray) -> Split:
    return Split("val", [Path("memory")], [tokens.astype(np.uint16)])


@pytest.fixture(scope="module")
def model() -> LM:
    torch.manual_seed(0)
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=3.0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T1"))).double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model


@pytest.fixture(scope="module")
def stream() -> np.ndarray:
    texts = ["A first document, short.", "Zweites Dokument: Größe und Maß.", "x" * 40, "the last one " * 30]
    encoded = ByteTokenizer().encode_batch(texts)
    return np.concatenate([np.concatenate(([1], tokens)) for tokens in encoded])


def test_every_target_once(model: LM, stream: np.ndarray) -> None:
    """Whatever the batch: the sum over windows taken alone, the tail included, BOS worth no bytes."""
    nats, length = 0.0, 32
    for start in range(0, len(stream) - 1, length):
        window = torch.from_numpy(stream[start : start + length + 1].astype(np.int64))[None]
        with torch.no_grad():
            logits = model(window[:, :-1])
        nats += float(F.cross_entropy(logits[0], window[0, 1:], reduction="sum"))
    for batch_tokens in (1, 32, 100, 10_000):
        score = contiguous(model, split(stream), ByteTokenizer(), ScoreConfig(length, batch_tokens))
        assert score.nats == pytest.approx(nats, rel=1e-9)
        assert score.tokens == len(stream) - 1
        assert score.bytes == int((stream[1:] >= 4).sum())
        assert score.bpb == pytest.approx(nats / math.log(2) / score.bytes, rel=1e-9)
        assert score.loss == pytest.approx(nats / score.tokens, rel=1e-9)


def test_progress_ends_with_the_score(model: LM, stream: np.ndarray) -> None:
    seen: list[tuple[int, int, float]] = []
    score = contiguous(
        model, split(stream), ByteTokenizer(), ScoreConfig(32, 64), progress=lambda *facts: seen.append(facts)
    )
    assert [done for done, _, _ in seen] == sorted({done for done, _, _ in seen})
    assert seen[-1][:2] == (len(stream) - 1, len(stream) - 1)
    assert seen[-1][2] == pytest.approx(score.bpb)


def test_training_mode_is_left_as_it_was(model: LM, stream: np.ndarray) -> None:
    for mode in (True, False):
        model.train(mode)
        contiguous(model, split(stream), ByteTokenizer(), ScoreConfig(64, 64))
        assert model.training is mode


@pytest.mark.parametrize(("tokens", "length"), [(2, 8), (9, 8), (10, 8), (17, 8), (3, 1)])
def test_windows_cover_all_targets(tokens: int, length: int) -> None:
    targets = [start + 1 + i for start, n in windows(tokens, length) for i in range(n)]
    assert targets == list(range(1, tokens))


def test_bad_input(model: LM) -> None:
    with pytest.raises(DataError, match="1 tokens"):
        contiguous(model, split(np.array([1])), ByteTokenizer(), ScoreConfig(8, 8))
    with pytest.raises(DataError, match="300"):
        contiguous(model, split(np.array([1, 70, 300, 71])), ByteTokenizer(), ScoreConfig(8, 8))
    with pytest.raises(ConfigError, match="seq_len=0"):
        ScoreConfig(0)
