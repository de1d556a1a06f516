"""Multiply-adds that a model spends on a token, and on a chunk of each level: those of its products with weights.

Products of positions with each other (attention, scans) grow with the window and are left out, and so are norms, gates
and look-ups in tables.
"""

from __future__ import annotations

from torch import nn

from niblick.model.lm import LM
from niblick.model.providers import Entropy
from niblick.model.stage import Stage


def position_costs(model: LM) -> tuple[int, ...]:
    """Return what a token costs, and then what a chunk of each level costs inside that level, outermost first.

    A token pays for embedding, head, the outermost level's stages and router, and a small model that is asked (all of
    its levels, as if it cut at every token); a chunk for the next level's, and one of the innermost level for the main
    stage.
    """
    table = model.embed.weight.numel() if model.unembed is None else model.unembed.weight.numel()
    token = table + sum(map(_products, model.ngrams))
    if model.embed_up is not None:
        token += _products(model.embed_up) * (1 + (model.unembed is None))
    if isinstance(model.provider, Entropy):
        token += sum(position_costs(model.provider.lm))
    first, *inside = [*map(_products, model.body.each_level()), _products(model.body.main)]
    return (token + first, *inside)


def _products(module: nn.Module) -> int:
    """Multiply-adds of one position in a module."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        return module.weight.numel()
    if isinstance(module, Stage):  # whose blocks may be used several times
        return sum(_products(module.blocks[i % len(module.blocks)]) for i in range(len(module.layout)))
    return sum(map(_products, module.children()))
