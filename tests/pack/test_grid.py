"""Schemes and grids: names, blocks of scales, clips, logarithms, the even grid of ecsq, and what is stored."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ArtifactError, ConfigError
from niblick.pack.export_config import ExportConfig
from niblick.pack.grid import code_entropy, fit_grid, scale_values, weighted_error
from niblick.pack.quantize import pack, pruned, quantize
from niblick.pack.schemes import parse_rules, parse_scheme


def heavy(*shape: int, seed: int = 0) -> torch.Tensor:
    """Weights with the tails of trained ones, rows of different spread."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=generator) + 0.2
    return torch.randn(shape, generator=generator) * spread * (1 + 2 * torch.rand(shape, generator=generator) ** 8)


SCHEMES = [
    *("int2", "int3", "int6", "int8", "int6:column", "int6:tensor", "int6:auto", "int4:g16", "int4:column:g7"),
    *(
        "ternary:g32",
        "int6:log",
        "int4:g16:log",
        "ecsq2",
        "ecsq4.5",
        "ecsq4:row",
        "ecsq4:column",
        "ecsq8:log",
        "ecsq11",
    ),
]


@pytest.mark.parametrize("text", SCHEMES)
def test_names_come_back(text: str) -> None:
    assert str(parse_scheme(text)) == text.replace("ternary", "int2")
    assert parse_scheme(str(parse_scheme(text))) == parse_scheme(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int9", r"no quantization scheme 'int9' \(nearest: int8"),
        ("int1", "no quantization scheme"),
        ("ecsq0.1", "no quantization scheme"),
        ("fp16:row", "fp16 takes no options"),
        ("int6:rows", r"unknown option 'rows' \(nearest: row"),
        ("int6:g0", "unknown option 'g0'"),
        ("int6:tensor:g8", "groups lie inside a row"),
        ("ecsq4:g8", "ecsq has no groups"),
    ],
)
def test_schemes_that_are_none(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_scheme(text)


def test_rules() -> None:
    rules = parse_rules(["embed*=int8", "mlp=int4:g64"])
    assert [str(rule.scheme) for rule in rules] == ["int8", "int4:g64"]
    assert rules[1].fits("body.main.blocks.0.mlp.up.weight") and not rules[0].fits("un.embed")
    with pytest.raises(ConfigError, match="not PATTERN=SCHEME"):
        ExportConfig(rules=("embed",))
    with pytest.raises(ConfigError, match=r"no tensor is named like 'embd\*'.*embed.weight"):
        pack({"embed.weight": torch.ones(2, 2)}, ExportConfig("int6", ("embd*=int8",)))


@pytest.mark.parametrize("text", SCHEMES)
@pytest.mark.parametrize("shape", [(37, 50), (1, 1), (3, 1, 4), (64,)])
def test_what_is_stored_is_the_grid(text: str, shape: tuple[int, ...]) -> None:
    """The reader gives exactly what rounding to the grid gives, for every scheme and shape."""
    weights, scheme = heavy(*shape), parse_scheme(text)
    stored = quantize("w", weights, scheme)
    matrix = weights.reshape(shape[0], -1)
    grid = fit_grid(matrix, scheme)
    assert torch.equal(stored.dequantize(), grid.round(matrix).reshape(shape))


def slow_step(parts: dict[str, np.ndarray], row: int, column: int, shape: tuple[int, int]) -> float:
    """The scale of one weight, by the definition of blocks."""
    scale = scale_values(parts)
    i = row // math.ceil(shape[0] / scale.shape[0])
    return float(scale[i, column // math.ceil(shape[1] / scale.shape[1])])


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 24), st.sampled_from(["", ":column", ":log"]))
def test_every_weight_has_the_scale_of_its_block(rows: int, columns: int, group: int, option: str) -> None:
    weights = heavy(rows, columns)
    stored = quantize("w", weights, parse_scheme(f"int8:g{group}{option}"))
    values = stored.dequantize()
    blocks = scale_values(stored.parts).shape
    assert math.ceil(rows / blocks[0]) * math.ceil(columns / blocks[1]) <= group
    for row in range(rows):
        for column in range(columns):
            step = slow_step(stored.parts, row, column, (rows, columns))
            assert values[row, column] == np.float32(stored.parts["codes"][row, column]) * np.float32(step)
            ladder = 0.05 if "log" in option else 0.001  # scales of single weights span decades
            assert abs(values[row, column] - weights[row, column]) <= 0.5 * step + ladder * abs(weights[row, column])


def error(weights: torch.Tensor, text: str) -> float:
    return float((quantize("w", weights, parse_scheme(text)).dequantize() - weights).square().sum())


def test_more_bits_smaller_groups_and_the_clip_search_all_help() -> None:
    weights = heavy(64, 512)
    by_bits = [error(weights, f"int{n}") for n in range(2, 9)]
    assert by_bits == sorted(by_bits, reverse=True) and by_bits[0] > 100 * by_bits[-1]
    assert error(weights, "int4:g32") < error(weights, "int4:g128") < error(weights, "int4")
    largest = weights.abs().amax(1, keepdim=True) / 7
    assert error(weights, "int4") < 0.8 * float(((weights / largest).round() * largest - weights).square().sum())
    assert error(weights, "int6:log") < 1.05 * error(weights, "int6")
    weights = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)) * torch.logspace(-1, 1, 64)[:, None]
    wide = weights.t().contiguous()  # where columns differ in spread
    assert error(wide, "int6:auto") == error(wide, "int6:column") < error(wide, "int6")
    assert error(weights, "int6:auto") == error(weights, "int6") < error(weights, "int6:column")


@pytest.mark.parametrize("bits", [1.0, 2.5, 4.0, 6.3, 9.0])
@pytest.mark.parametrize("axis", ["", ":row", ":column"])
def test_ecsq_holds_so_many_bits(bits: float, axis: str) -> None:
    weights = heavy(256, 512)
    codes = quantize("w", weights, parse_scheme(f"ecsq{bits}{axis}")).parts["codes"]
    assert abs(code_entropy(torch.from_numpy(codes.astype(np.float32)).flatten()) - bits) < 0.02
    assert codes.dtype == (np.int16 if np.abs(codes).max() > 127 else np.int8)


def test_ecsq_goes_as_fine_as_floats() -> None:
    weights = heavy(64, 64)
    errors = [error(weights, f"ecsq{bits}") for bits in (9, 12, 15, 18)]
    assert all(50 < a / b < 80 for a, b in itertools.pairwise(errors))  # 4^3 for three bits
    assert quantize("w", weights, parse_scheme("ecsq18")).parts["codes"].dtype == np.int32


def test_ecsq_beats_rounding_at_the_same_entropy() -> None:
    """The even grid gives less error than a clipped one whose codes hold as many bits."""
    weights = heavy(256, 512)
    clipped = quantize("w", weights, parse_scheme("int5"))
    bits = code_entropy(torch.from_numpy(clipped.parts["codes"].astype(np.float32)).flatten())
    assert error(weights, f"ecsq{bits:.3f}") < 0.8 * error(weights, "int5")


def test_clips_and_axes_weigh_errors() -> None:
    weights = heavy(64, 64)
    matter = torch.rand(64) ** 4
    scheme = parse_scheme("int3")
    weighed, plain = fit_grid(weights, scheme, matter), fit_grid(weights, scheme)
    cost = [weighted_error(grid.round(weights) - weights, matter) for grid in (weighed, plain)]
    assert cost[0] < cost[1]


def test_zero_rows_and_extreme_scales() -> None:
    weights = heavy(4, 32)
    weights[1] = 0
    weights[2] *= 1e-9  # below what fp16 scales hold
    weights[3] *= 1e9
    for text in ("int8", "int8:log", "int8:g8"):
        stored = quantize("w", weights, parse_scheme(text))
        back = stored.dequantize()
        assert not back[1].any()
        for row in (0, 2, 3):
            assert (back[row] - weights[row]).abs().max() < 0.12 * weights[row].abs().max(), (text, row)
    assert quantize("w", weights, parse_scheme("int8")).parts["scale"].dtype == np.float32


def test_pruning_takes_the_smallest() -> None:
    weights = heavy(32, 32)
    kept = pruned(weights, 0.25)
    assert int((kept == 0).sum()) == 256
    assert weights[kept == 0].abs().max() <= weights[kept != 0].abs().min()
    codes = quantize("w", weights, parse_scheme("int8"), prune=0.25).parts["codes"]
    assert int((codes == 0).sum()) >= 256
    with pytest.raises(ConfigError, match="prune=1"):
        ExportConfig(prune=1)


def test_low_rank_residuals_are_added() -> None:
    weights = heavy(6, 10)
    stored = quantize("w", weights, parse_scheme("int2"))
    left, right = heavy(6, 2).numpy().astype(np.float16), heavy(2, 10).numpy().astype(np.float16)
    corrected = EncodedTensor("grid", (6, 10), {**stored.parts, "left": left, "right": right}).dequantize()
    expected = stored.dequantize().double() + torch.from_numpy(left).double() @ torch.from_numpy(right).double()
    assert torch.allclose(corrected.double(), expected, atol=1e-6)
    codes = {"left": (left * 20).astype(np.int8), "right": (right * 20).astype(np.int8)}
    scales = {"left_scale": np.full(2, 0.05, np.float16), "right_scale": np.array([0.05, 0.1], np.float16)}
    short = EncodedTensor("grid", (6, 10), {**stored.parts, **codes, **scales}).dequantize()
    factors = [torch.from_numpy(codes[n].astype(np.float64)) for n in ("left", "right")]
    factors[0] *= torch.from_numpy(scales["left_scale"].astype(np.float64))
    factors[1] *= torch.from_numpy(scales["right_scale"].astype(np.float64))[:, None]
    assert torch.allclose(short.double(), stored.dequantize().double() + factors[0] @ factors[1], atol=1e-6)


@pytest.mark.parametrize(
    "parts",
    [
        {"scale": np.ones((5, 1), np.float16)},
        {"scale": np.ones(4, np.float16)},
        {"scale": np.ones((0, 1), np.float16)},
        {"scale": np.ones((4, 1), np.uint8)},
        {"scale": np.ones((4, 5), np.float16)},
        {"scale": np.ones((4, 1), np.uint8), "scale_range": np.zeros(3, np.float32)},
        {"scale": np.ones((4, 1), np.float16), "left": np.ones((4, 2), np.float16)},
        {"scale": np.ones((4, 1), np.float16), "left": np.ones(4, np.float16), "right": np.ones((1, 6), np.float16)},
        {},
    ],
)
def test_parts_that_do_not_fit(parts: dict[str, np.ndarray]) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        EncodedTensor("grid", (4, 6), {"codes": np.zeros((4, 6), np.int8), **parts}).dequantize()


def test_empty_tensors_stay_empty() -> None:
    for text in SCHEMES:
        assert quantize("w", torch.empty(0, 5), parse_scheme(text)).dequantize().shape == (0, 5)


def test_bf16_is_torchs() -> None:
    weights = heavy(10, 10)
    assert torch.equal(quantize("w", weights, parse_scheme("bf16")).dequantize(), weights.bfloat16().float())
