"""Weights from elsewhere: the tensor names of the published systems, and ours.

The published H-Net (studies 1 and 2) and dense baseline hold the same tensors in the same layouts as ours, under other
names. Both maps are pure: a state dict in, a new dictionary of the same tensors out, in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from niblick.errors import ArtifactError

T = TypeVar("T")

# (published, ours) inside a block; everything not listed is called the same on both sides.
_BLOCK = [
    ("attn.c_q.weight", "attn.q.weight"),
    ("attn.c_k.weight", "attn.k.weight"),
    ("attn.c_v.weight", "attn.v.weight"),
    ("attn.proj.weight", "attn.out.weight"),
    ("mlp.fc.weight", "mlp.up.weight"),
    ("mlp.proj.weight", "mlp.down.weight"),
    *((name, name) for name in ("attn_scale", "mlp_scale", "resid_mix", "attn.q_gain")),
]
_WHOLE = [("tok_emb.weight", "embed.weight"), ("lm_head.weight", "unembed.weight")]
_ROUTER = [
    ("routing0.q_proj.weight", "body.levels.0.router.q.weight"),
    ("routing0.k_proj.weight", "body.levels.0.router.k.weight"),
    ("residual_proj0.weight", "body.levels.0.residual.weight"),
]
_DENSE_STAGES = [("", "body.main.")]
_HNET_STAGES = [
    ("encoder_stage.", "body.levels.0.encoder."),
    ("main_stage.", "body.main."),
    ("decoder_stage.", "body.levels.0.decoder."),
]


def from_published(state: Mapping[str, T]) -> dict[str, T]:
    """Return `state` (published names, dense baseline or H-Net) under our names.

    Raises ArtifactError that names the first tensor that neither of the two has.
    """
    hnet = any(name.startswith(("encoder_stage.", "main_stage.", "decoder_stage.", "routing0.")) for name in state)
    return _renamed(state, hnet, 0)


def to_published(state: Mapping[str, T]) -> dict[str, T]:
    """Return `state` (our names; a dense model, or an H-Net with one level) under the published names.

    Raises ArtifactError that names the first tensor that the published models do not have.
    """
    return _renamed(state, any(name.startswith("body.levels.") for name in state), 1)


def _renamed(state: Mapping[str, T], hnet: bool, source: int) -> dict[str, T]:
    """Return `state` with names of column `source` (0 published, 1 ours) of the tables as in the other column."""
    rename = _renamer(_HNET_STAGES if hnet else _DENSE_STAGES, _WHOLE + (_ROUTER if hnet else []), source)
    renamed = {}
    for name, tensor in state.items():
        new = rename(name)
        if new is None:
            side, model = ("published", "our")[source], "an H-Net" if hnet else "a dense model"
            raise ArtifactError(
                f"the tensor {name!r} has no place among the {side} names of {model}; "
                "give weights of the published baseline or one-level H-Net, with no others among them"
            )
        renamed[new] = tensor
    return renamed


def _renamer(
    stages: Iterable[tuple[str, str]], whole: Iterable[tuple[str, str]], source: int
) -> Callable[[str], str | None]:
    target = 1 - source
    exact = {pair[source]: pair[target] for pair in whole}
    exact |= {pair[source] + "skip_weights": pair[target] + "skip_weights" for pair in stages}
    blocks = {pair[source] + "blocks.": pair[target] + "blocks." for pair in stages}
    inner = {pair[source]: pair[target] for pair in _BLOCK}

    def rename(name: str) -> str | None:
        match = re.fullmatch(r"(.*?blocks\.)(\d+)\.(.+)", name)
        if match is None:
            return exact.get(name)
        stage, number, rest = match.groups()
        return f"{blocks[stage]}{number}.{inner[rest]}" if stage in blocks and rest in inner else None

    return rename
