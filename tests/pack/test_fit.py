"""Sensitivities and fits, on a loss whose best answer is known: a sum of weighted squared errors."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from niblick.artifact.container import artifact_bytes
from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ArtifactError
from niblick.pack.export_config import ExportConfig
from niblick.pack.fit import FULL, Telling, allocate, fit, fitted_export
from niblick.pack.quantize import pack
from niblick.pack.sensitivity import sensitivities

CURVATURE = {"a": 1.0, "b": 0.01, "c": 30.0, "d": 0.0}


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (96, 64), "b": (128, 96), "c": (64, 64), "d": (64, 128), "vector": (64,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def loss(state: Mapping[str, torch.Tensor]) -> float:
    original = weights()
    return 1 + sum(k * float((state[n] - original[n]).square().mean()) for n, k in CURVATURE.items())


def measure(encoded: Mapping[str, EncodedTensor]) -> int:
    return len(artifact_bytes({}, encoded, "zstd"))


@pytest.mark.parametrize("cap", [10_000, 30_000, 90_000])
def test_the_cap_is_filled_and_bits_go_where_they_matter(cap: int) -> None:
    heard: list[tuple[int, int]] = []
    found = fit(weights(), cap, loss, measure, told=Telling(count=lambda done, total: heard.append((done, total))))
    assert heard == [(n, len(found.probe)) for n in range(len(found.probe))]
    assert FULL * cap <= found.bytes <= cap
    assert found.bytes == measure(found.encoded)
    assert found.bits["c"] > found.bits["a"] >= found.bits["b"] >= found.bits["d"] or cap == 90_000
    assert found.bits["a"] > found.bits["d"]
    assert list(found.encoded) == list(weights())
    best = min(point.bpb for point in found.frontier if point.cap == cap)
    assert best == loss({name: tensor.dequantize() for name, tensor in found.encoded.items()})


def test_better_than_the_same_bits_for_all() -> None:
    uniform = pack(weights(), ExportConfig("int5"))
    cap = measure(uniform)
    found = fit(weights(), cap, loss, measure)
    assert found.bytes <= cap
    gap = loss({n: t.dequantize() for n, t in found.encoded.items()}) - 1
    assert gap < 0.2 * (loss({n: t.dequantize() for n, t in uniform.items()}) - 1)


def test_more_bytes_never_cost() -> None:
    found = [fit(weights(), cap, loss, measure) for cap in (10_000, 20_000, 40_000)]
    losses = [loss({n: t.dequantize() for n, t in f.encoded.items()}) for f in found]
    assert losses == sorted(losses, reverse=True)
    points = {(p.cap, p.residual_bytes): p for p in found[1].frontier}
    assert sorted({cap for cap, _ in points}) == [12_000, 16_000, 20_000]


def test_lossless_weights_that_fit_stay() -> None:
    found = fit(weights(), 10**6, loss, measure)
    assert all(tensor.scheme == "fp32" for tensor in found.encoded.values())
    assert found.bits == {} and loss({n: t.dequantize() for n, t in found.encoded.items()}) == 1


def test_a_cap_too_small_says_the_smallest() -> None:
    with pytest.raises(ArtifactError, match=r"a cap of 1,000 bytes is too small: the coarsest .* take [34],\d\d\d"):
        fit(weights(), 1_000, loss, measure)


def test_weights_that_fit_alone_need_no_residuals() -> None:
    """Just above the coarsest weights there is room for these, and for nothing else."""
    with pytest.raises(ArtifactError) as refused:
        fit(weights(), 1_000, loss, measure)
    least = int(str(refused.value).split("take ")[1].split(";")[0].replace(",", ""))
    found = fit(weights(), least, loss, measure, ladder=())
    assert found.bytes <= least and found.residual.bytes == 0
    assert [point.residual_bytes for point in found.frontier] == [0]


def test_a_fit_as_an_export_names_what_its_code_must_read() -> None:
    given = ExportConfig("int4", rules=("a=fp16",), prune=0.1, calibration_tokens=7, text=9)
    found = fit(weights(), 30_000, loss, measure, ladder=())
    export = fitted_export(given, "range", False, found)
    assert {tensor.scheme for tensor in found.encoded.values()} == {"grid", "fp16"}
    assert export.scheme == f"ecsq{found.mean_bits():.2f}".rstrip("0").rstrip(".")
    assert (export.codec, export.rules, export.prune, export.gptq) == ("range", (), 0.0, "off")
    assert (export.calibration_tokens, export.text, export.residual) == (7, 9, found.residual)
    before = fitted_export(given, "range", True)
    assert before.scheme.startswith("ecsq") and before.gptq == "float" and before.residual.bytes > 0
    lossless = fitted_export(given, "zlib", True, fit(weights(), 10**6, loss, measure))
    assert (lossless.scheme, lossless.codec, lossless.gptq) == ("fp32", "zlib", "off")


def test_allocation_is_reverse_water_filling() -> None:
    """At the optimum the next bit buys the same everywhere: cost · 4^-bits / elements is one value."""
    cost, elements = {"a": 1e-3, "b": 4e-3, "c": 5e-2}, {"a": 1000, "b": 1000, "c": 50_000}
    bits = allocate(cost, elements, 1.0)
    rates = [cost[n] * 4 ** -(bits[n] - 3) / elements[n] for n in cost]
    assert max(rates) == pytest.approx(min(rates))
    assert allocate(cost, elements, 2.0) == {name: b + 1 for name, b in bits.items()}
    silent = allocate({"a": -1.0, "b": 1e-3}, {"a": 10, "b": 10}, 2.0)
    assert silent["b"] - silent["a"] == pytest.approx(0.5 * torch.tensor(200.0).log2().item())


def test_sensitivities_are_the_curvature() -> None:
    encoded = pack(weights(), ExportConfig("int4"))
    heard: list[int] = []
    table = sensitivities(weights(), encoded, "zstd", loss, lambda done, total: heard.append(done))
    assert heard == [*range(len(table.tensors))], "each is told before it is measured"
    assert table.tensors[0].name == "c"
    assert {row.name for row in table.tensors} == set(CURVATURE)  # the vector is fp16
    for row in table.tensors:
        error = float((encoded[row.name].dequantize() - weights()[row.name]).square().mean())
        assert row.lost == pytest.approx(CURVATURE[row.name] * error, rel=1e-4, abs=1e-9)
        assert row.gained == pytest.approx(row.lost, rel=1e-4, abs=1e-9)  # a sum has no interplay
        assert row.per_kb == pytest.approx(1000 * row.gained / row.more_bytes)
        assert row.bytes < row.elements < row.bytes + row.more_bytes
    assert table.packed_bpb - table.float_bpb == pytest.approx(sum(row.lost for row in table.tensors), rel=1e-3)
