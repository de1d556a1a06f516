"""The H-Net paper authors' model configs, and the same model as a config of ours (Hwang, Wang, Gu 2025).

    {"arch_layout": ["m4", ["T1m4", ["T26"], "m4T1"], "m4"], "d_model": [1024, 1024, 1536], "d_intermediate": [0, …],
     "vocab_size": 256, "tie_embeddings": false, "ssm_cfg": {"d_conv", "expand", "d_state", "chunk_size"},
     "attn_cfg": {"num_heads", "rotary_emb_dim", "window_size"}}

Lists have an entry for each depth, outermost first; a number in place of a list of `ssm_cfg` or `attn_cfg` holds for
all. What the config leaves unsaid is fixed in their code: blocks are pre-norm with learned norm weights, attention has
plain queries and keys, MLPs are SwiGLU of a width rounded up to a multiple of 128, nothing has a bias but the
convolution (and the residual projection, where the weights have one).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from niblick.errors import ConfigError, nearest
from niblick.files import parse_json
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig

MLP_MULTIPLE, NORM_EPS, HEAD_WIDTH = 128, 1e-5, 64
"""Fixed in the authors' code: of SwiGLU, of all norms, and of Mamba-2."""
BOS = 254
MAX_CONFIG_BYTES = MAX_NUMBER = 1 << 20
_KEYS = {"arch_layout", "d_model", "d_intermediate", "vocab_size", "tie_embeddings", "ssm_cfg", "attn_cfg"}
_SSM = {"d_conv": 4, "expand": 2, "d_state": 128, "chunk_size": 256}
"""Of these the last sets how the scan is computed, and nothing else."""
_ATTENTION = ("num_heads", "rotary_emb_dim", "window_size")


@dataclass(frozen=True)
class PaperConfig:
    """A config of theirs, read and checked."""

    source: str
    layouts: tuple[tuple[str, str], ...]
    """Encoder and decoder of each level, outermost first."""
    main: str
    widths: tuple[int, ...]
    hidden: tuple[int | None, ...]
    vocab_size: int
    tied: bool
    ssm: dict[str, tuple[int, ...]]
    attention: dict[str, tuple[int, ...]]

    def model(self, *, residual_bias: bool = True) -> ModelConfig:
        """Return the same model as a config of ours. Raises ConfigError for sizes that do not fit each other.

        `residual_bias`: their code gives the residual projection a bias, which the config does not say.
        """
        target = 6.0 if len(self.layouts) == 1 else 3.0  # N of the paper's models of one and two levels
        main = self._stage(self.main, len(self.layouts), self.widths[-1])
        levels = tuple(
            LevelConfig(
                self._stage(encoder, depth),
                self._stage(decoder, depth),
                width=self.widths[depth] if depth else None,
                target_length=target,
                residual_bias=residual_bias,
                lr_diff=1.0,
            )
            for depth, (encoder, decoder) in enumerate(self.layouts)
        )
        try:
            return ModelConfig(
                width=self.widths[0],
                heads=1,
                kv_heads=1,
                mlp="swiglu",
                mlp_multiple=MLP_MULTIPLE,
                qk_norm=False,
                qk_gain=0.0,
                residual_mix=False,
                branch_scale=False,
                norm_weights=True,
                norm_eps=NORM_EPS,
                ssm_head_width=HEAD_WIDTH,
                vocab_size=self.vocab_size,
                levels=levels,
                main=main,
                tie_embeddings=self.tied,
                bos_id=BOS,
                embed_norm=False,
                softcap=0.0,
            )
        except ConfigError as error:
            raise ConfigError(f"{self.source} describes a model that cannot be: {error}") from None

    def _stage(self, layout: str, depth: int, width: int | None = None) -> StageConfig:
        stage = StageConfig(
            layout,
            width=width,
            skips=False,
            norm_in=False,
            conv_kernel=self.ssm["d_conv"][depth],
            ssm_state=self.ssm["d_state"][depth],
            ssm_expand=self.ssm["expand"][depth],
            heads=1,
            kv_heads=1,
            rope_fraction=0.0,
        )
        if set(layout) & set("tT"):
            heads, rotary, window = (self.attention[name][depth] for name in _ATTENTION)
            if heads < 1 or self.widths[depth] % (2 * heads):
                _refuse(self.source, f"num_heads={heads} do not divide d_model={self.widths[depth]} into even widths")
            if not 0 <= rotary <= self.widths[depth] // heads or rotary % 2:
                _refuse(
                    self.source, f"rotary_emb_dim={rotary} is no even part of heads of {self.widths[depth] // heads}"
                )
            if window < -1:
                _refuse(self.source, f"window_size={window} is neither -1 (all) nor a number of positions before")
            share = rotary / (self.widths[depth] // heads)
            stage = replace(stage, heads=heads, kv_heads=heads, rope_fraction=share, window=window + 1)
        if set(layout) & set("TM"):
            hidden = self.hidden[depth]
            hidden = 8 * self.widths[depth] // 3 if hidden is None else hidden
            if hidden < 1:
                _refuse(self.source, f"d_intermediate={hidden} leaves the MLPs of {layout!r} without hidden units")
            stage = replace(stage, mlp_mult=hidden / self.widths[depth])
        return stage


def read_paper_config(path: Path) -> PaperConfig:
    """Read a config of theirs. Raises ConfigError, naming the file and what is wrong with it."""
    source = str(path)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            _refuse(source, f"it has more than {MAX_CONFIG_BYTES:,} bytes")
        data = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{source} cannot be read ({error.strerror}): give the model's JSON config") from None
    except ValueError as error:
        _refuse(source, f"it is no JSON ({error})")
    if not isinstance(data, dict) or not {"arch_layout", "d_model"} <= data.keys():
        _refuse(source, "it has no arch_layout and d_model")
    for key in data:
        if key not in _KEYS:
            _refuse(source, f"it has a key {key!r} that theirs have not{nearest(key, sorted(_KEYS))}")
    layouts, main = _layouts(source, data["arch_layout"])
    depths = len(layouts) + 1
    widths = _numbers(source, "d_model", data["d_model"], depths)
    hidden = data.get("d_intermediate", [None] * depths)
    if not isinstance(hidden, list) or len(hidden) != depths or not all(map(_is_hidden, hidden)):
        _refuse(source, f"d_intermediate={str(hidden)[:80]} is no list of {depths} whole numbers")
    tied = data.get("tie_embeddings", False)
    if type(tied) is not bool:
        _refuse(source, f"tie_embeddings={tied!r} is neither true nor false")
    [vocab_size] = _numbers(source, "vocab_size", [data.get("vocab_size", 256)], 1)
    ssm = _part(source, "ssm_cfg", data, depths, _SSM)
    attention = _part(source, "attn_cfg", data, depths, dict.fromkeys(_ATTENTION, -1))
    return PaperConfig(source, layouts, main, widths, tuple(hidden), vocab_size, tied, ssm, attention)


def _is_hidden(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value <= MAX_NUMBER)


def _refuse(source: str, what: str) -> NoReturn:
    raise ConfigError(f"{source} is no config of the paper's H-Nets: {what}; give the JSON that came with the weights")


def _layouts(source: str, nested: Any) -> tuple[tuple[tuple[str, str], ...], str]:
    """Read [encoder, [inside], decoder] down to [main]."""
    found = []
    while isinstance(nested, list) and len(nested) == 3:
        encoder, nested, decoder = nested
        found.append((_layout(source, encoder), _layout(source, decoder)))
        if len(found) > 16:
            _refuse(source, "its arch_layout is more than 16 levels deep")
    if not isinstance(nested, list) or len(nested) != 1:
        _refuse(
            source, f"its arch_layout has {str(nested)[:60]!r} where [encoder, [inside], decoder] or [main] is expected"
        )
    return tuple(found), _layout(source, nested[0])


def _layout(source: str, layout: Any) -> str:
    if not isinstance(layout, str) or not layout:
        _refuse(source, f"its arch_layout has {str(layout)[:60]!r} where a layout such as 'm4' is expected")
    for match in re.finditer(r"([A-Za-z])(\d*)|(.)", layout, re.DOTALL):
        if match[1] is None or not re.fullmatch(r"[1-9]\d{0,3}", match[2]):
            _refuse(source, f"its layout {layout!r} cannot be read at {layout[match.start() :]!r}")
        if match[1] not in "mMtT":
            _refuse(source, f"its layout {layout!r} has the unknown letter {match[1]!r} (known: m, M, t, T)")
    return layout


def _part(
    source: str, name: str, data: Mapping[str, object], depths: int, known: dict[str, int]
) -> dict[str, tuple[int, ...]]:
    """Read `ssm_cfg` or `attn_cfg`: numbers for each depth, with what they are where nobody says."""
    part = data.get(name, {})
    if not isinstance(part, dict):
        _refuse(source, f"its {name} is no object")
    for key in part:
        if key not in known:
            _refuse(source, f"its {name} has a key {key!r} that theirs have not{nearest(key, known)}")
    found = {}
    for key, usual in known.items():
        value = part.get(key, usual)
        found[key] = _numbers(source, f"{name}.{key}", value if isinstance(value, list) else [value] * depths, depths)
    return found


def _numbers(source: str, name: str, value: Any, count: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != count or any(type(v) is not int for v in value):
        _refuse(source, f"{name}={str(value)[:80]} is no list of {count} whole numbers, one for each depth")
    if name not in ("attn_cfg.num_heads", "attn_cfg.rotary_emb_dim", "attn_cfg.window_size") and min(value) < 1:
        _refuse(source, f"{name}={str(value)[:80]} has a number below 1")
    if max(value) > MAX_NUMBER:
        _refuse(source, f"{name}={str(value)[:80]} has a number above {MAX_NUMBER:,}")
    return tuple(value)
