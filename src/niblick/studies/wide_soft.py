"""The recipe of the large soft chunker: a gate 256 wide. Its router is registered by this file, which runs keep."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from niblick.config.run_config import RunConfig
from niblick.model.plain_routers import SoftRouter
from niblick.model.routers import register_router
from niblick.recipes.presets import get_preset

WIDE = 256


class WideSoftRouter(SoftRouter):
    """The soft gate with a hidden layer of 256."""

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.gate = nn.Sequential(nn.Linear(2 * width, WIDE), nn.GELU(), nn.Linear(WIDE, 1))  # type: ignore[assignment]


register_router("soft-wide", WideSoftRouter)


def recipe() -> RunConfig:
    """`soft-chunker-sp1024` with the wide gate."""
    config = get_preset("soft-chunker-sp1024")
    level = replace(config.model.levels[0], router="soft-wide")
    return replace(config, preset="soft-chunker-wide", model=replace(config.model, levels=(level,)))
