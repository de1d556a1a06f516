"""Checkpoints of the H-Net paper's authors: a state dict that `torch.save` wrote, read without ever holding it.

Their modules hold the same numbers as ours in other places. What differs besides names: queries, keys and values are
one map; a head's rotary channels are turned the other way round, so that halves change places; gate and value of
SwiGLU change places; the router's `q` looks at the position before and `k` at this one, and ours the other way round.

A file comes from a stranger: nothing in it is run (`weights_only`), and tensors are mapped, not read, until they are
asked for one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from niblick.artifact.dequantize import EncodedTensor
from niblick.artifact.foreign.torch_files import load_dictionary, no_dictionary
from niblick.errors import ArtifactError, kind_of
from niblick.model.model_config import ModelConfig, StageConfig

SCHEMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
"""The stored form of each dtype that their weights may have."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where one of our tensors is found: the name of one of theirs, its shape, and what to do with it."""

    name: str
    shape: Shape
    take: Callable[[Tensor], Tensor] = lambda tensor: tensor


def open_checkpoint(path: Path) -> dict[str, Tensor]:
    """Map the tensors of a checkpoint into memory, by their names.

    Raises ArtifactError for what is no such file, is damaged, or holds more than tensors.
    """
    content = load_dictionary(path)
    if not content:
        raise no_dictionary(path, content)
    return {str(name): _checked(path, str(name), value) for name, value in content.items()}


def _checked(path: Path, name: str, value: Any) -> Tensor:
    """The tensor, if it is plain floats and as large as its storage says."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        what = "no dense tensor" if isinstance(value, Tensor) else kind_of(value)
        raise ArtifactError(f"{path}: {name} is {what}, expected the weights of a model, by name")
    if value.dtype not in SCHEMES:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in SCHEMES)
        raise ArtifactError(f"{path}: tensor {name} is {value.dtype}, expected one of {known}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ArtifactError(f"{path}: tensor {name} of shape {tuple(value.shape)} lies over too little storage")
    return value.detach()


def has_residual_bias(weights: Mapping[str, Tensor]) -> bool:
    """Whether the residual projections have a bias: the config does not say."""
    return any(name.endswith("residual_proj.bias") for name in weights)


def places(config: ModelConfig, shapes: Mapping[str, Shape]) -> dict[str, Place]:
    """Return where each tensor of our model is found, in the order of `shapes`, which are ours by name."""
    stages: dict[str, tuple[str, StageConfig]] = {}
    module, exact = "backbone", {"embed.weight": "embeddings.weight", "unembed.weight": "lm_head.weight"}
    for i, level in enumerate(config.levels):
        own = f"body.levels.{i}."
        for name, stage in (("encoder", level.encoder), ("decoder", level.decoder)):
            assert stage is not None
            stages[f"{own}{name}."] = (f"{module}.{name}.", stage)
        exact[f"{own}router.q.weight"] = f"{module}.routing_module.k_proj_layer.weight"
        exact[f"{own}router.k.weight"] = f"{module}.routing_module.q_proj_layer.weight"
        exact[f"{own}residual.weight"] = f"{module}.residual_proj.weight"
        exact[f"{own}residual.bias"] = f"{module}.residual_proj.bias"
        module = f"{module}.main_network"
        exact[f"{own}pad"] = f"{module}.pad_dimension"
    stages["body.main."] = (f"{module}.main_network.", config.main)
    found = {}
    for name, shape in shapes.items():
        if name in exact:
            found[name] = Place(exact[name], shape)
            continue
        ours, (theirs, stage) = next((o, s) for o, s in stages.items() if name.startswith(o))
        found[name] = _in_stage(name.removeprefix(ours), shape, theirs, stage)
    return found


_IN_LAYER = {
    "attn_norm.weight": "norm1.weight",
    "ssm_norm.weight": "norm1.weight",
    "mlp_norm.weight": "norm2.weight",
    "mlp.up.weight": "mlp.fc1.weight",
    "mlp.down.weight": "mlp.fc2.weight",
    **{f"attn.{part}.weight": "mixer.Wqkv.weight" for part in "qkv"},
    "attn.out.weight": "mixer.out_proj.weight",
    "ssm.up.weight": "mixer.in_proj.weight",
    "ssm.conv.weight": "mixer.conv1d.weight",
    "ssm.conv.bias": "mixer.conv1d.bias",
    "ssm.dt_bias": "mixer.dt_bias",
    "ssm.a_log": "mixer.A_log",
    "ssm.skip": "mixer.D",
    "ssm.norm.weight": "mixer.norm.weight",
    "ssm.out.weight": "mixer.out_proj.weight",
}


def _in_stage(name: str, shape: Shape, theirs: str, stage: StageConfig) -> Place:
    if name == "norm_out.weight":
        return Place(f"{theirs}rmsnorm.weight", shape)
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    assert match, name
    source = f"{theirs}layers.{match[1]}.{_IN_LAYER[match[2]]}"
    if match[2] == "mlp.up.weight":
        return Place(source, shape, lambda t: torch.cat(t.chunk(2)[::-1]))
    if match[2] in ("attn.q.weight", "attn.k.weight", "attn.v.weight"):
        part = "qkv".index(match[2][5])
        heads, fraction = stage.heads or 1, stage.rope_fraction or 0.0
        turned = round(shape[0] // heads * fraction) if part < 2 else 0
        return Place(source, (3 * shape[0], shape[1]), lambda t: _turned(t.chunk(3)[part], heads, turned))
    return Place(source, shape)


def _turned(map_ED: Tensor, heads: int, turned: int) -> Tensor:
    """Let the halves of the `turned` channels at the front of each head change places."""
    if not turned:
        return map_ED
    first, second, rest = map_ED.unflatten(0, (heads, -1)).split(
        [turned // 2, turned // 2, map_ED.shape[0] // heads - turned], 1
    )
    return torch.cat((second, first, rest), 1).flatten(0, 1)


def expect_weights(path: Path, weights: Mapping[str, Tensor], wanted: Mapping[str, Place], config: ModelConfig) -> None:
    """Raise ArtifactError that names the first tensor which is missing, of another shape, or not in the model."""
    shapes = {place.name: place.shape for place in wanted.values()}
    for name, shape in shapes.items():
        if name not in weights:
            raise ArtifactError(f"{path} has no tensor {name}, which the model of this config needs")
        if tuple(weights[name].shape) != shape:
            found = tuple(weights[name].shape)
            raise ArtifactError(f"{path}: tensor {name} has shape {found}, the model of this config expects {shape}")
    for name in sorted(weights.keys() - shapes.keys()):
        tied = name == "lm_head.weight" and config.tie_embeddings
        if tied and torch.equal(weights[name], weights["embeddings.weight"]):
            continue
        why = "the config ties it to the embeddings, and it differs" if tied else "the model of this config has none"
        raise ArtifactError(f"{path}: tensor {name} has no place: {why}")


def taken(weights: Mapping[str, Tensor], place: Place) -> Tensor:
    """Return one of our tensors in the dtype of the file. Raises ArtifactError for infinities and NaN."""
    tensor = place.take(weights[place.name]).contiguous()
    if not bool(torch.isfinite(tensor).all()):
        raise ArtifactError(f"tensor {place.name} has values that are infinite or NaN; fetch the checkpoint again")
    return tensor


def stored(tensor: Tensor) -> EncodedTensor:
    """Return a tensor in the stored form that holds it exactly."""
    scheme = SCHEMES[tensor.dtype]
    bits = tensor.view(torch.uint16) if scheme == "bf16" else tensor
    return EncodedTensor(scheme, tuple(tensor.shape), {"values": bits.numpy()})
