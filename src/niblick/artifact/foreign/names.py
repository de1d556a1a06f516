"""Weights from elsewhere: the tensor names of the published systems, and ours.

The published H-Net (studies 1 and 2), dense baseline, TinyHNet and soft chunker hold the same tensors in the same
layouts as ours, under other names. Both maps are pure: a state dict in, a new dictionary of the same tensors out, in
the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from niblick.errors import ArtifactError

T = TypeVar("T")
Pairs = list[tuple[str, str]]
"""Pairs of (published, ours)."""

_BLOCK = [
    ("attn.c_q.weight", "attn.q.weight"),
    ("attn.c_k.weight", "attn.k.weight"),
    ("attn.c_v.weight", "attn.v.weight"),
    ("attn.proj.weight", "attn.out.weight"),
    ("mlp.fc.weight", "mlp.up.weight"),
    ("mlp.proj.weight", "mlp.down.weight"),
    *((name, name) for name in ("attn_scale", "mlp_scale", "resid_mix", "attn.q_gain")),
]
_CONV = [(name, name) for name in ("conv.weight", "conv.bias")]
_SOFT = [
    *((f"boundary_proj.{part}", f"router.gate.{part}") for part in ("weight", "bias")),
    *((f"chunk_mixer.{part}", f"mixer.{part}") for part in ("weight", "bias")),
]
_ENDS = [("tok_emb.weight", "embed.weight"), ("lm_head.weight", "unembed.weight")]


class _System(NamedTuple):
    """The names of one published system."""

    title: str
    tells: tuple[str, str]
    """What only this system's names contain: the published ones, ours."""
    numbered: list[tuple[str, str, Pairs]]
    """What stands before and after the number of a block or layer."""
    whole: Pairs


_DENSE = _System(
    "a dense model", ("", ""), [("blocks.", "body.main.blocks.", _BLOCK)], [("skip_weights", "body.main.skip_weights")]
)
_HNET_STAGES = [
    ("encoder_stage.", "body.levels.0.encoder."),
    ("main_stage.", "body.main."),
    ("decoder_stage.", "body.levels.0.decoder."),
]
_SYSTEMS = [
    _System(
        "TinyHNet",
        (
            r"chunking_gate\.|dechunk_layer\.|transformer\.|(en|de)coder\.",
            r"body\.levels\.0\.(decay|router\.threshold)",
        ),
        [
            ("encoder.", "body.levels.0.encoder.blocks.", _CONV),
            ("transformer.", "body.main.blocks.", _BLOCK),
            ("decoder.", "body.levels.0.decoder.blocks.", _CONV),
        ],
        [
            # Its gate compares W_q of the position before with W_k of this one: the other way round than the paper.
            ("chunking_gate.q_proj.weight", "body.levels.0.router.k.weight"),
            ("chunking_gate.k_proj.weight", "body.levels.0.router.q.weight"),
            ("chunking_gate.chunk_threshold", "body.levels.0.router.threshold"),
            ("dechunk_layer.ema_log_decay", "body.levels.0.decay"),
            ("residual_proj.weight", "body.levels.0.residual.weight"),
        ],
    ),
    _System(
        "the soft chunker",
        (r"chunker\.", r"body\.levels\.\d+\.(mixer|router\.gate)\."),
        [("chunker.layers.", "body.levels.", _SOFT), *_DENSE.numbered],
        _DENSE.whole,
    ),
    _System(
        "an H-Net",
        (r"(encoder|main|decoder)_stage\.|routing0\.", r"body\.levels\."),
        [(published + "blocks.", ours + "blocks.", _BLOCK) for published, ours in _HNET_STAGES],
        [
            *((published + "skip_weights", ours + "skip_weights") for published, ours in _HNET_STAGES),
            ("routing0.q_proj.weight", "body.levels.0.router.q.weight"),
            ("routing0.k_proj.weight", "body.levels.0.router.k.weight"),
            ("residual_proj0.weight", "body.levels.0.residual.weight"),
        ],
    ),
    _DENSE,
]


WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel, torch.compile and Lightning put before every name."""


def unwrapped(names: Iterable[str]) -> int:
    """How many characters stand before all of these names that only wrappers of a model put there."""
    left = list(names)
    cut = 0
    while left and (found := next((w for w in WRAPPERS if all(name.startswith(w) for name in left)), "")):
        cut += len(found)
        left = [name[len(found) :] for name in left]
    return cut


def nothing(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor holds nothing: published H-Nets with one block outside carry skip weights of shape (0, D)."""
    return name.endswith("skip_weights") and 0 in shape


def from_published(state: Mapping[str, T]) -> dict[str, T]:
    """Return `state` (names of one of the published systems) under our names, without what wrappers put before all.

    Skip weights of shape (0, D) are left out: our stages have none where nothing is skipped. Raises ArtifactError that
    names the first tensor that the system does not have.
    """
    cut = unwrapped(state)
    plain = {name[cut:]: tensor for name, tensor in state.items()}
    return _renamed({name: t for name, t in plain.items() if not nothing(name, getattr(t, "shape", ()))}, 0)


def to_published(state: Mapping[str, T]) -> dict[str, T]:
    """Return `state` (our names, of a model that one of the published systems has too) under the published names.

    Raises ArtifactError that names the first tensor that the published system does not have.
    """
    return _renamed(state, 1)


def _renamed(state: Mapping[str, T], source: int) -> dict[str, T]:
    """Return `state` with names of column `source` (0 published, 1 ours) of the tables as in the other column."""
    system = next(s for s in _SYSTEMS if any(re.match(s.tells[source], name) for name in [*state, ""]))
    renamed = {}
    for name, tensor in state.items():
        new = _rename(name, system, source)
        if new is None:
            side = ("published", "our")[source]
            raise ArtifactError(
                f"the tensor {name!r} has no place among the {side} names of {system.title}; "
                "give weights of one published system, with no others among them"
            )
        renamed[new] = tensor
    return renamed


def _rename(name: str, system: _System, source: int) -> str | None:
    target = 1 - source
    exact = {pair[source]: pair[target] for pair in _ENDS + system.whole}
    if name in exact:
        return exact[name]
    for published, ours, pairs in system.numbered:
        prefixes, inner = (published, ours), {pair[source]: pair[target] for pair in pairs}
        match = re.match(rf"{re.escape(prefixes[source])}(\d+)\.(.+)", name)
        if match and match[2] in inner:
            return f"{prefixes[target]}{match[1]}.{inner[match[2]]}"
    return None
