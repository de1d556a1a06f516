"""The arithmetic that training uses instead of the export: the same values, bit for bit."""

from __future__ import annotations

import pytest
import torch

from niblick.errors import ConfigError
from niblick.pack.quantize import quantize
from niblick.pack.rounding import rounding_of
from niblick.pack.schemes import parse_scheme

SCHEMES = ["int8-published", "int2", "ternary", "int4", "int6:column", "int5:auto", "int8:tensor", "int3:g16"]
SCHEMES += ["int4:g48:log", "int4:column:g7", "int6:log", "ecsq3", "ecsq4.5:row", "ecsq2:column:log"]


def weights_of(*shape: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(4)
    weights = torch.randn(shape, generator=draw) * torch.rand(shape[0], *[1] * (len(shape) - 1), generator=draw)
    weights[3] = 0
    return weights


@pytest.mark.parametrize("prune", [0.0, 0.1])
@pytest.mark.parametrize("text", SCHEMES)
def test_it_rounds_as_the_artifact_does(text: str, prune: float) -> None:
    scheme = parse_scheme(text)
    for shape, scale in (((40, 100), 1.0), ((40, 100), 0.02), ((24, 1, 9), 1.0), ((24, 3, 5), 0.1)):
        weights = weights_of(*shape) * scale
        weights[5] += torch.arange(weights[5].numel()).view_as(weights[5]) * 1e-6  # no two magnitudes alike
        stored = quantize("w", weights, scheme, prune).dequantize()
        rounding = rounding_of(weights, scheme, prune)
        assert torch.equal(rounding.round(weights), stored)
        into = torch.full_like(weights, 7.0)
        assert rounding.round(weights, out=into) is into
        assert torch.equal(into, stored)


def test_weights_that_move_are_rounded_on_the_same_scales() -> None:
    weights = weights_of(16, 64)
    rounding = rounding_of(weights, parse_scheme("int4"))
    moved = rounding.round(weights + 0.01)
    steps = moved / torch.where(rounding.step_RC > 0, rounding.step_RC, 1.0)
    assert torch.allclose(steps, steps.round(), atol=1e-5)
    assert steps.abs().max() <= 7


def test_a_scheme_of_floats_rounds_nothing() -> None:
    with pytest.raises(ConfigError, match="fp16 keeps floats"):
        rounding_of(torch.zeros(2, 2), parse_scheme("fp16"))
