"""The published int8 export, code for code, and what is done with tensors it does not quantize."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from niblick.artifact.container import read_artifact, write_artifact
from niblick.errors import ArtifactError, ConfigError
from niblick.pack import schemes
from niblick.pack.export_config import ExportConfig
from niblick.pack.grid import fit_grid
from niblick.pack.kinds import Int
from niblick.pack.published import CLIP_QUANTILE, clip_values, quantize_int8
from niblick.pack.quantize import pack, quantize
from niblick.pack.rounding import is_rounded, rounding_of
from niblick.pack.schemes import KINDS, PUBLISHED, Scheme, on_a_grid, parse_scheme, register_scheme

REFERENCE = Path(__file__).parents[1] / "reference" / "int8_per_row.npz"
CASES = ["gauss", "wide", "heavy", "zero", "vec"]


@pytest.mark.parametrize("case", CASES)
def test_codes_and_scales_are_the_published_ones(case: str) -> None:
    reference = np.load(REFERENCE)
    weights = torch.from_numpy(reference[f"{case}/w"])
    codes, scale = quantize_int8(weights)
    assert torch.equal(codes, torch.from_numpy(reference[f"{case}/q"]))
    assert np.array_equal(scale.float().numpy(), reference[f"{case}/scale"])
    assert scale.dtype == (torch.float16 if weights.ndim == 2 else torch.float32)
    packed = quantize(case, weights, parse_scheme("int8-published"))
    expected = reference[f"{case}/q"] * reference[f"{case}/scale"].reshape(-1, 1)
    assert np.array_equal(packed.dequantize().numpy(), expected.reshape(weights.shape).astype(np.float32))


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (5, 0), (7, 5), (64, 512), (2, 624_999), (2, 625_002), (1, 3_000_001), (1, 15_999_999)]
)
def test_clip_values_are_those_of_torch_quantile(shape: tuple[int, int]) -> None:
    """Around 625,000 columns the rank crosses from the last value to the one before."""
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = clip_values(weights)
    expected = torch.quantile(weights.abs(), CLIP_QUANTILE, dim=1) if weights.numel() else torch.zeros(shape[0])
    assert torch.equal(found, expected)


def test_rows_longer_than_torch_quantile_takes() -> None:
    weights = torch.zeros(1, 17_000_000)
    weights[0, :40] = torch.arange(40)
    # Rank 0.9999984·(n-1) lies 27.2 values below the largest (give or take the rounding of float32).
    assert abs(clip_values(weights).item() - (39 - 27.2)) < 1.1


def test_strided_and_other_precisions() -> None:
    weights = torch.randn(40, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for odd in (weights.float().t().contiguous().t(), weights, torch.nn.Parameter(weights.float())):
        assert all(map(torch.equal, quantize_int8(odd), quantize_int8(weights.float())))
    assert quantize("w", weights.bfloat16(), parse_scheme("int8-published")).scheme == "int8"


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "embed.weight": torch.randn(300, 256, generator=generator),
        "body.main.skip_weights": torch.randn(2, 8, generator=generator),
        "body.main.blocks.0.attn.q_gain": torch.randn(8, generator=generator),
        "body.main.blocks.0.attn.q.weight": torch.randn(16, 16, generator=generator),
        "big.q_gain": torch.randn(65_537, generator=generator),
        "conv.weight": torch.randn(512, 1, 200, generator=generator),
        "edge.weight": torch.randn(256, 256, generator=generator),
    }


def test_what_is_quantized_and_what_is_kept() -> None:
    packed = pack(state())
    assert {name: tensor.scheme for name, tensor in packed.items()} == {
        "embed.weight": "int8",
        "body.main.skip_weights": "fp32",
        "body.main.blocks.0.attn.q_gain": "fp32",
        "body.main.blocks.0.attn.q.weight": "fp16",
        "big.q_gain": "int8",  # as published: control tensors are kept only while small
        "conv.weight": "int8",
        "edge.weight": "fp16",  # 65,536 elements are not more than 65,536
    }
    assert packed["embed.weight"].parts["scale"].shape == (300,)
    assert packed["conv.weight"].parts["scale"].shape == ()
    ruled = pack(state(), ExportConfig(rules=("edge=fp32", "e[dx]ge*=int6:column")))
    assert ruled["edge.weight"].scheme == "grid" and ruled["edge.weight"].parts["scale"].shape == (1, 256)


@pytest.mark.parametrize(("scheme", "tolerance"), [("fp32", 0), ("fp16", 2**-11), ("int8-published", 0.02)])
def test_roundtrip_through_a_file(scheme: str, tolerance: float, tmp_path: Path) -> None:
    """Errors relative to the largest weight; int8 with one scale for a tensor also clips that."""
    write_artifact(tmp_path / "a.nib", {}, pack(state(), ExportConfig(scheme)), "zlib")
    back = read_artifact(tmp_path / "a.nib").state_dict()
    for name, tensor in state().items():
        assert (back[name] - tensor).abs().max() <= tolerance * tensor.abs().max(), name


def test_packed_tensors_do_not_follow_training() -> None:
    weights = {"w": torch.ones(3), "v": torch.ones(300, 300)}
    packed = {s: pack(weights, ExportConfig(s)) for s in ("int8-published", "fp16", "fp32", "bf16", "int6", "ecsq4")}
    for tensor in weights.values():
        tensor.zero_()
    assert all(torch.all(p.dequantize() > 0.9) for by_name in packed.values() for p in by_name.values())


def test_tied_weights_appear_once() -> None:
    embedding = torch.randn(10, 4)
    tied = {"embed.weight": embedding, "head.weight": embedding, "part": embedding[:5], "twin": embedding.clone()}
    assert list(pack(tied)) == ["embed.weight", "part", "twin"]


@pytest.mark.parametrize(
    ("tensor", "scheme", "message"),
    [
        (
            torch.tensor([1.0, float("nan"), float("inf")]),
            "int8-published",
            "'bad' has 2 values that are infinite or NaN",
        ),
        (torch.full((300, 300), float("-inf")), PUBLISHED, "'bad' has 90,000 values that are infinite or NaN"),
        (torch.arange(3), PUBLISHED, "'bad' is torch.int64, only floating-point"),
        (torch.tensor([7e4]), PUBLISHED, "'bad' has values past what float16 can hold"),
        (torch.full((300, 300), 1e9), PUBLISHED, "'bad' has values past what float16 can hold"),
        (torch.full((300, 300), 7e4), "fp16", "'bad' has values past what float16 can hold"),
    ],
)
def test_unfit_tensors_are_named(tensor: torch.Tensor, scheme: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        pack({"good": torch.ones(3), "bad": tensor}, ExportConfig(scheme))


def test_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no quantization scheme 'int9' \(nearest: int8"):
        ExportConfig("int9")


@pytest.mark.parametrize(
    "use",
    [
        lambda weights, scheme: quantize("w", weights, scheme),
        lambda weights, scheme: rounding_of(weights, scheme),
        lambda weights, scheme: fit_grid(weights, scheme),
        lambda weights, scheme: is_rounded(scheme, weights),
        lambda weights, scheme: on_a_grid(scheme),
    ],
)
def test_no_kind_is_taken_for_another(use: Callable[[torch.Tensor, Scheme], object]) -> None:
    with pytest.raises(ConfigError, match=r"no kind of schemes 'int8-publish' \(nearest: int8-published"):
        use(torch.ones(4, 4), Scheme("int8-publish"))


class Nine(Int):
    """int9, whose codes lie on the grid of any int scheme."""

    def bits(self, name: str) -> float | None:
        return 9.0 if name == "int9" else None


def test_a_kind_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemes, "KINDS", dict(KINDS))
    with pytest.raises(ConfigError, match="scheme 'wide' is taken"):  # it has the names of int
        register_scheme(Nine("wide"))
    kind = Nine("wide")
    kind.names = ("int9",)
    register_scheme(kind)
    register_scheme(kind)
    weights, scheme = torch.randn(8, 400), parse_scheme("int9:column")
    packed = quantize("w", weights, scheme, hessian=torch.eye(400))
    assert packed.scheme == "grid" and packed.parts["codes"].dtype == np.int16
    plain = quantize("w", weights, scheme).dequantize()
    assert torch.equal(rounding_of(weights, scheme).round(weights), plain)
    another = Nine("wide")
    another.names = ("int9",)
    with pytest.raises(ConfigError, match="taken"):
        register_scheme(another)
