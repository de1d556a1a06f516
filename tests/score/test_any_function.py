"""`niblick.score(f, data)`: any function, the same windows and bytes, and nothing that is no distribution."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import niblick
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.score.score_config import ScoreConfig, TTTConfig
from niblick.score.scorers import score_split

CONFIG = ScoreConfig(seq_len=50, batch_tokens=500)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    texts = [f"Document {i} of some, a short one.\n" * (1 + i % 3) for i in range(40)]
    (folder / "text.jsonl").write_text("".join(f'{{"text": {t!r}}}\n'.replace("'", '"') for t in texts))
    prepare(str(folder / "text.jsonl"), "byte260", folder / "out", val_docs=9)
    return folder / "out"


def test_a_model_as_a_function_has_the_model_s_score(data: Path) -> None:
    torch.manual_seed(0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, main=StageConfig("T1"))).double()
    dataset = Dataset.open(data)
    own = score_split(model, dataset.val, dataset.tokenizer, CONFIG)
    for where in (data, str(data), dataset):
        score: Any = niblick.score(lambda ids_BL: model(ids_BL).log_softmax(-1), where, CONFIG)
        assert (score.tokens, score.bytes) == (own.tokens, own.bytes)
        assert score.bpb == pytest.approx(own.bpb, rel=1e-6)


@pytest.mark.parametrize("kind", [("sliding", 10), ("document", 0), ("document", 20)])
def test_other_scorers(data: Path, kind: tuple[Any, int]) -> None:
    """Windows that overlap, and documents: rows of a batch are always of one length."""
    torch.manual_seed(0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, main=StageConfig("T1"), embed_std=0.2)).double()
    dataset, config = Dataset.open(data), ScoreConfig(50, 500, *kind)
    shapes = set()

    def f(ids_BL: Tensor) -> Tensor:
        assert (ids_BL > 0).all(), "nothing is filled up"
        shapes.add(ids_BL.shape)
        return model(ids_BL).log_softmax(-1)

    own = score_split(model, dataset.val, dataset.tokenizer, config)
    score: Any = niblick.score(f, dataset, config)
    assert (score.tokens, score.bytes) == (own.tokens, own.bytes)
    assert score.bpb == pytest.approx(own.bpb, rel=1e-6)
    assert score.document_nats == pytest.approx(own.document_nats)
    assert max(shape[0] for shape in shapes) > 1


def test_only_models_learn(data: Path) -> None:
    for config in (ScoreConfig(50, ttt=TTTConfig("sgd")), ScoreConfig(50, capacity="packed")):
        with pytest.raises(ConfigError, match="are for models"):
            niblick.score(uniform, data, config)


def test_a_uniform_function(data: Path) -> None:
    score: Any = niblick.score(lambda ids_BL: torch.full((*ids_BL.shape, 260), -math.log(260)), data)
    assert score.bits / score.tokens == pytest.approx(math.log2(260))


def uniform(ids_BL: Tensor, shift: float = 0.0) -> Tensor:
    return torch.full((*ids_BL.shape, 260), -math.log(260) + shift)


@pytest.mark.parametrize(
    ("f", "words"),
    [
        (
            lambda ids_BL: uniform(ids_BL)[:, :, :256],
            r"expected floating-point log-probabilities of shape \(\d+, 50, 260",
        ),
        (lambda ids_BL: uniform(ids_BL)[:, -1], "expected floating-point"),
        (lambda ids_BL: ids_BL, "int64"),
        (lambda ids_BL: None, "NoneType"),
        (lambda ids_BL: uniform(ids_BL, 0.01), "sum to 1.01, expected 1"),
        (lambda ids_BL: uniform(ids_BL).exp(), "log_softmax"),
        (lambda ids_BL: uniform(ids_BL, math.nan), "sum to nan"),
    ],
)
def test_what_is_no_distribution_is_refused(data: Path, f: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        niblick.score(f, data, CONFIG)


def test_the_package_stays_a_package() -> None:
    """Whatever is imported first, `niblick.score` can be called and its modules can be imported."""
    for first in ("import niblick", "import niblick.score.scorers", "from niblick.score import scorers"):
        code = f"{first}\nimport niblick, niblick.score.baselines\nassert callable(niblick.score)"
        subprocess.run([sys.executable, "-c", code], check=True)
