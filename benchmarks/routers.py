"""What a way to decide takes of a training step: router, its loss and bookkeeping, beside the same cuts handed over.

The peer is the same model without a router: the boundaries of the same step are given, and neither smoothing nor a
loss asks for p. So both have as many chunks, and 1 − ratio is the share of the step that the method takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hnet import CPU, DTYPE, batch
from measure import Row, compare
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig
from niblick.recipes.presets import get_preset
from niblick.train.optim import Optimizers
from niblick.train.precision import DTYPES, autocast
from niblick.train.settings import OptimConfig

PLAIN: dict[str, Any] = {"dechunk": "plain", "confidence": False}
METHODS: dict[str, dict[str, Any]] = {
    "cosine": {},
    "cosine-bias": {},
    "cosine-threshold": {},
    "delayed": {},
    "score-function": PLAIN,
    "gumbel": {"ratio": "binomial"},
    "sombrero": {"dechunk": "input"},
    "coding-rate": PLAIN,
    "fixed": PLAIN,
}
"""Routers with the settings of the level that they are published with."""


def stepper(
    model: LM, optim: OptimConfig, text: tuple[Tensor, Tensor], given_BL: Tensor | None
) -> Callable[[], Tensor]:
    """Return what takes one optimizer step on `text` and tells the outermost cuts; draws are the same each time."""
    optimizers = Optimizers(model, optim, dtype=DTYPES[DTYPE])

    def step() -> Tensor:
        torch.manual_seed(0)
        with autocast(CPU, DTYPE):
            losses, routings = model(*text, given_BL=given_BL)
        losses.total.backward()
        optimizers.step(0, 0.0)  # the work of a step, with weights that stay
        model.zero_grad(set_to_none=True)
        return routings[0].boundary_BL

    return step


def bench_routers(quick: bool) -> list[Row]:
    """Rows: a step of `hnet-small` with each router, against the same cuts given; and units ahead, against none."""
    config, shape, repeats = get_preset("hnet-small"), (32, 256), 1 if quick else 5
    if quick:
        config, shape = replace(config, model=replace(config.model, width=32, heads=2, kv_heads=1)), (2, 64)
    text = batch(*shape)

    def made(**level: Any) -> LM:
        torch.manual_seed(0)
        return LM(replace(config.model, levels=(replace(config.model.levels[0], **level),)))

    where = f"hnet-small, {shape[0]}×{shape[1]} bytes, a step with"
    rows = []
    for name, level in METHODS.items():
        ours = stepper(made(router=name, **level), config.optim, text, None)
        peer = stepper(made(router="given", ratio_weight=0.0, **PLAIN), config.optim, text, ours())
        rows.append(compare(f"{where} `{name}`", ours, peer, peer_name="the same cuts, given", repeats=repeats))
    words = get_preset("words-small").model
    pair = [
        stepper(_words(config.model, words.levels, weight), config.optim, text, None)
        for weight in (words.levels[0].ahead_weight, 0.0)
    ]
    rows.append(compare(f"words{where[4:]} units ahead", *pair, peer_name="without that loss", repeats=repeats))
    return rows


def _words(model: Any, levels: tuple[LevelConfig, ...], weight: float) -> LM:
    torch.manual_seed(0)
    return LM(replace(model, levels=tuple(replace(level, ahead_weight=weight) for level in levels)))
