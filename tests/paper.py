"""The H-Net paper's models as their authors name them: random weights, and the equations of the paper in float64.

Nothing here knows of ours. One position, head and chunk after the other, as the paper writes it.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

ONE_LEVEL: dict[str, Any] = {
    "arch_layout": ["m2", ["T2"], "m2"],
    "d_model": [32, 48],
    "d_intermediate": [0, 100],
    "vocab_size": 256,
    "ssm_cfg": {"chunk_size": 256, "d_conv": 4, "d_state": 8, "expand": 2},
    "attn_cfg": {"num_heads": [2, 4], "rotary_emb_dim": [8, 8], "window_size": [7, -1]},
    "tie_embeddings": False,
}
TWO_LEVELS: dict[str, Any] = {
    "arch_layout": ["m1t1", ["T1m1", ["T1M1"], "m1T1"], "m1"],
    "d_model": [32, 32, 64],
    "d_intermediate": [0, 60, None],
    "vocab_size": 256,
    "ssm_cfg": {"chunk_size": 256, "d_conv": [4, 3, 4], "d_state": [8, 4, 6], "expand": 2},
    "attn_cfg": {"num_heads": [4, 2, 2], "rotary_emb_dim": [4, 16, 32], "window_size": [5, 3, -1]},
    "tie_embeddings": True,
}
ISOTROPIC: dict[str, Any] = ONE_LEVEL | {
    "arch_layout": ["m1T1"],
    "d_model": [32],
    "d_intermediate": [128],
    "attn_cfg": {"num_heads": 2, "rotary_emb_dim": 0, "window_size": -1},
}
CONFIGS = {"one level": ONE_LEVEL, "two levels": TWO_LEVELS, "no levels": ISOTROPIC}


def at(config: dict[str, Any], part: str, key: str, depth: int) -> int:
    value = config[part][key]
    return value[depth] if isinstance(value, list) else value


def letters(layout: str) -> str:
    return "".join(letter * int(count) for letter, count in re.findall(r"([a-zA-Z])(\d+)", layout))


def hidden_units(config: dict[str, Any], depth: int) -> int:
    asked = config["d_intermediate"][depth]
    asked = int(8 * config["d_model"][depth] / 3) if asked is None else asked
    return (asked + 127) // 128 * 128


def shapes(config: dict[str, Any], residual_bias: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint of theirs."""
    found: dict[str, tuple[int, ...]] = {"embeddings.weight": (256, config["d_model"][0])}

    def stack(prefix: str, layout: str, depth: int) -> None:
        width = config["d_model"][depth]
        for i, letter in enumerate(letters(layout)):
            layer = f"{prefix}.layers.{i}"
            found[f"{layer}.norm1.weight"] = (width,)
            if letter in "mM":
                inner, state = width * at(config, "ssm_cfg", "expand", depth), at(config, "ssm_cfg", "d_state", depth)
                heads, mixed = inner // 64, inner + 2 * state
                for name, shape in (
                    *(("dt_bias", (heads,)), ("A_log", (heads,)), ("D", (heads,))),
                    ("in_proj.weight", (inner + mixed + heads, width)),
                    ("conv1d.weight", (mixed, 1, at(config, "ssm_cfg", "d_conv", depth))),
                    *(("conv1d.bias", (mixed,)), ("norm.weight", (inner,)), ("out_proj.weight", (width, inner))),
                ):
                    found[f"{layer}.mixer.{name}"] = shape
            else:
                found[f"{layer}.mixer.Wqkv.weight"] = (3 * width, width)
                found[f"{layer}.mixer.out_proj.weight"] = (width, width)
            if letter in "MT":
                units = hidden_units(config, depth)
                found[f"{layer}.norm2.weight"] = (width,)
                found[f"{layer}.mlp.fc1.weight"] = (2 * units, width)
                found[f"{layer}.mlp.fc2.weight"] = (width, units)
        found[f"{prefix}.rmsnorm.weight"] = (width,)

    def net(prefix: str, layout: list[Any], depth: int) -> None:
        width = config["d_model"][depth]
        if depth and width > config["d_model"][depth - 1]:
            found[f"{prefix}.pad_dimension"] = (width - config["d_model"][depth - 1],)
        if len(layout) == 1:
            return stack(f"{prefix}.main_network", layout[0], depth)
        stack(f"{prefix}.encoder", layout[0], depth)
        net(f"{prefix}.main_network", layout[1], depth + 1)
        stack(f"{prefix}.decoder", layout[2], depth)
        found[f"{prefix}.routing_module.q_proj_layer.weight"] = (width, width)
        found[f"{prefix}.routing_module.k_proj_layer.weight"] = (width, width)
        found[f"{prefix}.residual_proj.weight"] = (width, width)
        if residual_bias:
            found[f"{prefix}.residual_proj.bias"] = (width,)
        return None

    net("backbone", config["arch_layout"], 0)
    found["lm_head.weight"] = (256, config["d_model"][0])
    return found


def checkpoint(
    config: dict[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32, residual_bias: bool = True
) -> dict[str, Tensor]:
    """Random weights in which every part has a say."""
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for name, shape in shapes(config, residual_bias).items():
        tensor = torch.randn(shape, generator=generator)
        if name.endswith("A_log"):
            tensor = (1 + 15 * torch.rand(shape, generator=generator)).log()
        elif name.endswith("dt_bias"):
            tensor = tensor - 2
        elif len(shape) == 1:
            tensor = 0.2 * tensor + (0 if name.endswith("bias") else 1)
        elif "conv1d" not in name and not name.startswith("embeddings"):
            tensor = 1.5 * tensor / shape[-1] ** 0.5
        made[name] = tensor.to(dtype)
    if config["tie_embeddings"]:
        made["embeddings.weight"] *= 0.3
        made["lm_head.weight"] = made["embeddings.weight"]
    return made


class Paper:
    """A model of theirs, forward, for one text."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        self.config, self.w = config, {name: tensor.double() for name, tensor in weights.items()}
        self.boundaries: list[list[int]] = []
        """Where chunks start, as positions of the sequence outside, by level."""

    def logits(self, ids: list[int]) -> Tensor:
        self.boundaries = []
        x = self._net("backbone", self.config["arch_layout"], 0, self.w["embeddings.weight"][ids])
        return x @ self.w["lm_head.weight"].T

    def _net(self, prefix: str, layout: list[Any], depth: int, x: Tensor) -> Tensor:
        outer = x.shape[1]
        if f"{prefix}.pad_dimension" in self.w:
            x = torch.cat((x, self.w[f"{prefix}.pad_dimension"].expand(len(x), -1)), 1)
        if len(layout) == 1:
            return self._stack(f"{prefix}.main_network", layout[0], depth, x)[:, :outer]
        x = self._stack(f"{prefix}.encoder", layout[0], depth, x)
        residual = x @ self.w[f"{prefix}.residual_proj.weight"].T
        residual = residual + self.w.get(f"{prefix}.residual_proj.bias", torch.zeros(x.shape[1], dtype=x.dtype))
        q = x @ self.w[f"{prefix}.routing_module.q_proj_layer.weight"].T
        k = x @ self.w[f"{prefix}.routing_module.k_proj_layer.weight"].T
        p = [1.0]
        for t in range(1, len(x)):
            p.append(float(0.5 * (1 - q[t - 1] @ k[t] / (q[t - 1].norm() * k[t].norm()))))
        starts = [t for t in range(len(x)) if p[t] >= 0.5]
        self.boundaries.append(starts)
        inside = self._net(f"{prefix}.main_network", layout[1], depth + 1, x[starts])
        smoothed: list[Tensor] = []
        for chunk, t in enumerate(starts):
            before = smoothed[-1] if smoothed else torch.zeros_like(inside[0])
            smoothed.append(p[t] * inside[chunk] + (1 - p[t]) * before)
        out = torch.stack([smoothed[sum(s <= t for s in starts) - 1] for t in range(len(x))]) + residual
        return self._stack(f"{prefix}.decoder", layout[2], depth, out)[:, :outer]

    def _norm(self, name: str, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * self.w[f"{name}.weight"]

    def _stack(self, prefix: str, layout: str, depth: int, x: Tensor) -> Tensor:
        for i, letter in enumerate(letters(layout)):
            layer = f"{prefix}.layers.{i}"
            mixer = self._mamba if letter in "mM" else self._attention
            x = x + mixer(f"{layer}.mixer", depth, self._norm(f"{layer}.norm1", x))
            if letter in "MT":
                y = self._norm(f"{layer}.norm2", x) @ self.w[f"{layer}.mlp.fc1.weight"].T
                value, gate = y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]
                x = x + (gate * torch.sigmoid(gate) * value) @ self.w[f"{layer}.mlp.fc2.weight"].T
        return self._norm(f"{prefix}.rmsnorm", x)

    def _attention(self, name: str, depth: int, x: Tensor) -> Tensor:
        heads = at(self.config, "attn_cfg", "num_heads", depth)
        turned, window = (at(self.config, "attn_cfg", key, depth) for key in ("rotary_emb_dim", "window_size"))
        width = x.shape[1] // heads
        q, k, v = (x @ self.w[f"{name}.Wqkv.weight"].T).view(len(x), 3, heads, width).unbind(1)
        q, k = self._turn(q, turned), self._turn(k, turned)
        out = torch.zeros_like(q)
        for h in range(heads):
            for t in range(len(x)):
                first = 0 if window < 0 else max(0, t - window)
                score = k[first : t + 1, h] @ q[t, h] / width**0.5
                out[t, h] = score.softmax(0) @ v[first : t + 1, h]
        return out.flatten(1) @ self.w[f"{name}.out_proj.weight"].T

    @staticmethod
    def _turn(x: Tensor, turned: int) -> Tensor:
        out = x.clone()
        for t in range(len(x)):
            for i in range(turned // 2):
                angle = torch.tensor(t * 10_000.0 ** (-2 * i / turned), dtype=x.dtype)
                a, b = x[t, :, i], x[t, :, i + turned // 2]
                out[t, :, i] = a * angle.cos() - b * angle.sin()
                out[t, :, i + turned // 2] = a * angle.sin() + b * angle.cos()
        return out

    def _mamba(self, name: str, depth: int, x: Tensor) -> Tensor:
        w = {key.removeprefix(f"{name}."): value for key, value in self.w.items() if key.startswith(f"{name}.")}
        inner, state, heads = len(w["norm.weight"]), at(self.config, "ssm_cfg", "d_state", depth), len(w["D"])
        seen = torch.zeros(w["conv1d.weight"].shape[2], inner + 2 * state, dtype=x.dtype)
        s, out = torch.zeros(heads, inner // heads, state, dtype=x.dtype), []
        for row in x:
            z, mixed, dt = (w["in_proj.weight"] @ row).split([inner, inner + 2 * state, heads])
            seen = torch.cat((seen[1:], mixed[None]))
            mixed = (seen * w["conv1d.weight"][:, 0].T).sum(0) + w["conv1d.bias"]
            v, b, c = (mixed * torch.sigmoid(mixed)).split([inner, state, state])
            v, dt = v.view(heads, -1), torch.log1p(torch.exp(dt + w["dt_bias"]))
            s = torch.exp(-torch.exp(w["A_log"]) * dt)[:, None, None] * s + (dt[:, None] * v)[..., None] * b
            y = (s @ c + w["D"][:, None] * v).flatten() * z * torch.sigmoid(z)
            out.append(w["out_proj.weight"] @ (y / (y.square().mean() + 1e-5).sqrt() * w["norm.weight"]))
        return torch.stack(out)
