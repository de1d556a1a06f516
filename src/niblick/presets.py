"""Presets: recipes by name. Each is a function that returns a RunConfig and reads like the description of a run."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from niblick.config import DataConfig, RunConfig
from niblick.errors import ConfigError, NiblickError, nearest
from niblick.model.hnet import LevelConfig
from niblick.model.lm import ModelConfig
from niblick.model.stage import StageConfig
from niblick.score.scorers import ScoreConfig
from niblick.train.optim import OptimConfig
from niblick.train.schedule import ScheduleConfig
from niblick.train.trainer import TrainConfig

PRESETS: dict[str, Callable[[], RunConfig]] = {}


def preset(recipe: Callable[[], RunConfig]) -> Callable[[], RunConfig]:
    """Register a recipe under its function's name, with dashes."""
    PRESETS[recipe.__name__.replace("_", "-")] = recipe
    return recipe


def get_preset(name: str) -> RunConfig:
    """Return the config of a preset. Raises ConfigError with the nearest names if there is none."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}{nearest(name, PRESETS)}: `niblick presets` lists them all")
    return PRESETS[name]()


def load_recipe(path: Path) -> RunConfig:
    """Run a user's recipe file and return what its `recipe()` gives. Raises ConfigError if that does not work.

    The file may register blocks, routers or codecs of its own before it returns.
    """
    if not path.is_file():
        raise ConfigError(f"there is no recipe file {path}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest not in _LOADED:
        _LOADED[digest] = _run_recipe(path)
    return _LOADED[digest]


_LOADED: dict[str, RunConfig] = {}
"""Recipes by content: a file and its copy in a run register their parts once."""


def _run_recipe(path: Path) -> RunConfig:
    spec = importlib.util.spec_from_file_location(f"niblick_recipe_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.recipe()
    except NiblickError:
        raise
    except Exception as error:
        raise ConfigError(f"recipe {path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, RunConfig):
        raise ConfigError(f"recipe() of {path} returned {type(config).__name__}, expected a RunConfig")
    return config


@preset
def quickstart() -> RunConfig:
    """A small byte-level H-Net for two CPU cores: two and a half minutes, no GPU."""
    return RunConfig(
        preset="quickstart",
        model=ModelConfig(
            width=128,
            heads=2,
            kv_heads=1,
            levels=(LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=6.0, ratio_weight=0.05),),
            main=StageConfig("T4"),
        ),
        data=DataConfig(order="shuffle"),
        train=TrainConfig(
            seq_len=256,
            batch_tokens=8_192,
            micro_batch_tokens=8_192,
            warmup_steps=0,
            val_every=0,
            log_every=20,
        ),
        schedule=ScheduleConfig(steps=20_000, max_seconds=150, warmdown_share=0.5),
        optim=OptimConfig(matrix_lr=0.02),
        score=ScoreConfig(seq_len=256, batch_tokens=16_384),
    )


@preset
def hnet_byte260() -> RunConfig:
    """Study 1's byte-level H-Net: 9 layers of 512, one level, 17,455,176 parameters; 10 minutes on 8×H100."""
    return RunConfig(
        preset="hnet-byte260",
        model=ModelConfig(
            levels=(LevelConfig(StageConfig("T2"), StageConfig("T2"), target_length=9.0, ratio_weight=0.05),),
            main=StageConfig("T5"),
        ),
        schedule=ScheduleConfig(steps=20_000, max_seconds=600, warmdown_steps=1_200),
    )
