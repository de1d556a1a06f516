"""The published models at the reference's small size: a preset made small, its weights, inputs and figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from niblick.artifact.foreign.names import from_published
from niblick.config.run_config import override
from niblick.model.lm import LM
from niblick.recipes.presets import get_preset

REFERENCE = Path(__file__).parents[1] / "reference"
TOLERANCE = 1e-4


class Reference:
    """One reference file: the model as the preset builds it, loaded with the published weights, and the figures."""

    def __init__(self, file: str, preset: str, *assignments: str, weights: str | None = None) -> None:
        self.figures = arrays(file)
        published = arrays(weights or file)
        small = ["model.width=64", "model.heads=4", "model.kv_heads=2", *assignments]
        self.config = override(get_preset(preset), small)
        self.model = LM(self.config.model)
        self.model.load_state_dict(from_published(part(published, "param/")))
        self.ids_BL, self.targets_BL = published["in/input_ids"].long(), published["in/target_ids"].long()
        self.meta: dict[str, Any] = json.loads(bytes(self.figures["meta/json"].numpy()))

    def out(self, name: str) -> Tensor:
        return self.figures[f"out/{name}"]

    def gradients(self) -> dict[str, Tensor]:
        """The published gradients under our names."""
        return from_published(part(self.figures, "grad/"))


def arrays(file: str) -> dict[str, Tensor]:
    with np.load(REFERENCE / file) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def assert_close(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Largest difference within TOLERANCE of the largest value."""
    scale = theirs.abs().max().item() or 1.0
    worst = (ours.detach().float() - theirs.float()).abs().max().item() / scale
    assert worst <= TOLERANCE, f"{what}: off by {worst:.2e}"
