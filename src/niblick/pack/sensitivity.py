"""What the quantization of each tensor costs, and what protecting it would give back.

Every tensor is measured twice on one text: quantized alone among float weights (`lost`), and kept in float alone among
quantized weights (`gained`). The first says how it behaves by itself, the second what a byte spent on it buys now.
Source: the sprint's tensor sensitivity, which protects one tensor at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from niblick.artifact.codecs import get_codec
from niblick.artifact.dequantize import EncodedTensor
from niblick.pack.schemes import FLOATS

Evaluate = Callable[[Mapping[str, Tensor]], float]
"""BPB of the model with these weights, always on the same text."""


@dataclass(frozen=True)
class TensorSensitivity:
    """One tensor's share of the loss of quantization."""

    name: str
    scheme: str
    elements: int
    bytes: int
    """Stored, coded by itself."""
    lost: float
    """BPB lost if only it is quantized."""
    gained: float
    """BPB gained if only it is protected: kept as fp16."""
    more_bytes: int
    """What fp16 would take more."""

    @property
    def per_kb(self) -> float:
        """BPB gained for each 1,000 bytes that protecting it takes."""
        return 1000 * self.gained / max(self.more_bytes, 1)


@dataclass(frozen=True)
class Sensitivities:
    """BPB of float weights and of quantized ones, and each quantized tensor's share, dearest first."""

    float_bpb: float
    packed_bpb: float
    tensors: tuple[TensorSensitivity, ...]


def sensitivities(
    state: Mapping[str, Tensor],
    encoded: Mapping[str, EncodedTensor],
    codec: str,
    evaluate: Evaluate,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivities:
    """Measure every quantized tensor of `encoded` against its float original in `state`: two evaluations for each."""
    packed = {name: tensor.dequantize() for name, tensor in encoded.items()}
    full = {name: state[name].detach().float().cpu() for name in encoded}
    float_bpb, packed_bpb = evaluate(full), evaluate(packed)
    names = [name for name, tensor in encoded.items() if tensor.scheme not in FLOATS]
    rows = []
    for number, name in enumerate(names):
        if progress:
            progress(number, len(names))
        tensor, coder = encoded[name], get_codec(codec)
        size = len(coder.encode(list(tensor.parts.values())))
        lost = evaluate(full | {name: packed[name]}) - float_bpb
        gained = packed_bpb - evaluate(packed | {name: full[name]})
        half = len(coder.encode([full[name].half().numpy()]))
        rows.append(TensorSensitivity(name, tensor.scheme, tensor.elements, size, lost, gained, half - size))
    return Sensitivities(float_bpb, packed_bpb, tuple(sorted(rows, key=lambda row: -row.per_kb)))
