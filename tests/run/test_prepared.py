"""What is settled before a run begins: what cannot be trained, and how much goes through a model at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from niblick.config.run_config import RunConfig, override
from niblick.errors import ConfigError
from niblick.memory import tokens_at_once
from niblick.model.layers import BLOCKS, register_block
from niblick.model.model_config import BLOCK_LETTERS, BlockConfig
from niblick.model.routers import ROUTERS
from niblick.recipes.presets import get_preset
from niblick.run import pipeline, prepared, training
from niblick.score.scorers import on_its_device
from niblick.train.distributed import SINGLE
from niblick.train.settings import TrainConfig


@pytest.mark.parametrize(
    ("device", "width", "most"), [("cpu", 512, 4_096), ("cpu", 128, 16_384), ("cpu", 1 << 22, 1), ("cuda", 512, 65_536)]
)
def test_a_processor_takes_less_at_once(device: str, width: int, most: int) -> None:
    assert tokens_at_once(65_536, width, torch.device(device)) == most
    assert tokens_at_once(1, width, torch.device(device)) == 1


def test_small_presets_keep_their_passes() -> None:
    for name in ("quickstart", "hnet-small", "niblick-byte-small", "words-small"):
        config = get_preset(name)
        given = config.train.micro_batch_tokens
        assert tokens_at_once(given, config.model.width, torch.device("cpu")) == given


def wide(data: Path, width: int, seq_len: int) -> RunConfig:
    config = get_preset("hnet-small")
    train = TrainConfig(seq_len=seq_len, batch_tokens=6 * seq_len, micro_batch_tokens=6 * seq_len, device="cpu")
    model = replace(config.model, width=width, heads=2, kv_heads=1)
    return replace(config, model=model, train=train, data=replace(config.data, path=str(data)))


@pytest.mark.parametrize(("seq_len", "rows"), [(64, 6), (1_024, 3), (4_096, 1)])
def test_passes_shrink_and_still_make_up_a_step(seq_len: int, rows: int, toy_data: Path) -> None:
    """And the config stays as it was: a script of this run, or the run gone on with elsewhere, is not bound to it."""
    found = prepared.prepare(wide(toy_data, 512, seq_len))
    assert found.config.train.micro_batch_tokens == 6 * seq_len
    with torch.device("meta"):
        model = training.LM(found.config.model)
    passes = training.in_passes(found.config, model, SINGLE, found.device)
    assert (passes.micro_batch_tokens, passes.passes(1)) == (rows * seq_len, 6 // rows)
    card = training.in_passes(found.config, model, SINGLE, torch.device("cuda"))
    assert card.micro_batch_tokens == 6 * seq_len


@pytest.mark.parametrize("router", [name for name in ROUTERS if name not in ("given", "entropy")])
def test_routers_that_keep_figures_of_their_passes_keep_these(router: str) -> None:
    """A running quantile moves once a pass, and a reward is compared with the mean of the pass."""
    small = get_preset("hnet-small")
    levels = (replace(small.model.levels[0], router=router),)
    config = replace(small, model=replace(small.model, width=512, levels=levels))
    with torch.device("meta"):
        model = training.LM(config.model)
    most = training.in_passes(config, model, SINGLE, torch.device("cpu")).micro_batch_tokens
    keeps = {"score-function", "gumbel", "coding-rate"}
    assert most == (8_192 if router in keeps else 4_096)


def test_scoring_reads_less_at_once_too() -> None:
    config = get_preset("hnet-byte260")
    with torch.device("meta"):
        model = torch.nn.Linear(1, 1)
    model.config = config.model  # type: ignore[assignment]
    assert on_its_device(config.score, model) == config.score  # type: ignore[arg-type]
    assert on_its_device(config.score, model.to_empty(device="cpu")).batch_tokens == 4_096  # type: ignore[arg-type]


def refuses(config: BlockConfig) -> torch.nn.Module:
    raise ConfigError("this block is for even days")


@pytest.fixture
def refused_block() -> Iterator[None]:
    """The letter R, for as long as a test takes."""
    register_block("R", refuses)
    yield
    del BLOCKS["R"]
    BLOCK_LETTERS.discard("R")


@pytest.mark.usefixtures("refused_block")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.levels=[]", "model.main.layout=M1", "model.ssm_head_width=12"], "ssm_head_width=12 does not divide"),
        (["model.levels.0.encoder.layout=m1", "model.levels.0.encoder.ssm_head_width=5"], "ssm_head_width=5 does not"),
        (["model.main.layout=T1R1"], "even days"),
        (['export.rules=["nothing*=int8"]'], "nothing"),
        (["qat.scheme=int6", "qat.share=0.5", "export.scheme=int6", 'export.rules=["nothing*=int8"]'], "nothing"),
    ],
)
def test_a_model_that_cannot_be_made_leaves_nothing(
    settings: list[str], message: str, toy_data: Path, tmp_path: Path
) -> None:
    config = override(get_preset("hnet-small"), [f"data.path={toy_data}", "train.device=cpu", *settings])
    with pytest.raises(ConfigError, match=message):
        pipeline.run(config, tmp_path / "runs", lambda event: None)
    assert not (tmp_path / "runs").exists()


def test_a_spread_of_less_than_nothing() -> None:
    with pytest.raises(ConfigError, match=r"embed_std=-0.1 must be positive, or 0 for none"):
        override(get_preset("hnet-small"), ["model.embed_std=-0.1"])
