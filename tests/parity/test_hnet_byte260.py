"""Study 1's byte-level H-Net, float32: what the published implementation computed from the same weights and inputs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from niblick.artifact.foreign.names import from_published
from niblick.model.level import Level
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig

REFERENCE = Path(__file__).parents[1] / "reference" / "hnet_byte260.npz"
TOLERANCE = 1e-4


def close(ours: torch.Tensor, name: str, figures: np.lib.npyio.NpzFile) -> None:
    """Largest difference within TOLERANCE of the largest value."""
    theirs = torch.from_numpy(np.asarray(figures[name]))
    assert ours.shape == theirs.shape, name
    error = (ours.detach() - theirs).abs().max() / theirs.abs().max()
    assert error < TOLERANCE, f"{name}: {error:.1e}"


@pytest.fixture(scope="module")
def figures() -> np.lib.npyio.NpzFile:
    return np.load(REFERENCE)


@pytest.fixture
def model(figures: np.lib.npyio.NpzFile) -> LM:
    meta = json.loads(bytes(figures["meta/json"]))
    outer = StageConfig(f"T{meta['outer']}")
    level = LevelConfig(outer, outer, target_length=meta["target"], ratio_weight=meta["rlw"], lr_diff=meta["lrd"])
    config = ModelConfig(
        width=meta["dim"],
        heads=meta["heads"],
        kv_heads=meta["kv"],
        mlp_mult=meta["mult"],
        vocab_size=meta["vocab"],
        levels=(level,),
        main=StageConfig(f"T{meta['layers'] - 2 * meta['outer']}"),
    )
    model = LM(config)
    published = {
        k.removeprefix("param/"): torch.from_numpy(figures[k]) for k in figures.files if k.startswith("param/")
    }
    model.load_state_dict(from_published(published))
    return model


@pytest.fixture(scope="module")
def batch(figures: np.lib.npyio.NpzFile) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(figures["in/input_ids"]).long(), torch.from_numpy(figures["in/target_ids"]).long()


def test_losses(model: LM, batch: tuple[torch.Tensor, torch.Tensor], figures: np.lib.npyio.NpzFile) -> None:
    losses, _ = model(*batch)
    close(losses.lm, "out/eval_loss", figures)
    close(losses.total, "out/train_loss", figures)


def test_logits(model: LM, batch: tuple[torch.Tensor, torch.Tensor], figures: np.lib.npyio.NpzFile) -> None:
    close(model(batch[0]), "out/logits", figures)


def test_states(model: LM, batch: tuple[torch.Tensor, torch.Tensor], figures: np.lib.npyio.NpzFile) -> None:
    """Encoder, probabilities, decisions, chunks, main stage, dechunked states."""
    level = model.body.levels[0]
    assert isinstance(level, Level)
    with torch.no_grad():
        chunks, _, (encoded, routing, starts, _) = level.down(model.embed(batch[0]), None)
        main = model.body.main(chunks)
        dechunked = level.dechunk(main, starts, routing)
    close(encoded, "out/encoder", figures)
    close(routing.p_BL, "out/boundary_prob", figures)
    assert np.array_equal(routing.boundary_BL.numpy(), figures["out/boundary_mask"])
    assert float(routing.boundary_BL.float().mean()) == pytest.approx(float(figures["out/boundary_rate"]), rel=1e-6)
    valid = figures["out/pad_mask"]
    if int(valid.sum()) != int(routing.boundary_BL.sum()):  # the mask may mark the padding instead
        valid = ~valid
    assert np.array_equal(valid.sum(1), routing.chunks_B().numpy())
    width = valid.shape[1]
    for ours, name in ((chunks, "out/chunked"), (main, "out/main")):
        theirs = figures[name]
        error = np.abs(ours[:, :width].numpy() - theirs)[valid].max() / np.abs(theirs[valid]).max()
        assert error < TOLERANCE, name
    close(dechunked, "out/dechunked", figures)


def test_gradients(model: LM, batch: tuple[torch.Tensor, torch.Tensor], figures: np.lib.npyio.NpzFile) -> None:
    """Of every parameter, from the training loss."""
    losses, _ = model(*batch)
    losses.total.backward()
    theirs = {k.removeprefix("grad/"): torch.from_numpy(figures[k]) for k in figures.files if k.startswith("grad/")}
    expected = from_published(theirs)
    own = dict(model.named_parameters())
    assert own.keys() == expected.keys()
    for name, gradient in expected.items():
        error = (own[name].grad - gradient).abs().max() / gradient.abs().max()
        assert error < TOLERANCE, f"{name}: {error:.1e}"
