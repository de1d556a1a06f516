"""Arithmetic by machine: what `auto` stands for, and bfloat16 products where they are emulated."""

from __future__ import annotations

import pytest
import torch

from niblick.errors import ConfigError
from niblick.train import optim, precision
from niblick.train.optim import Muon, orthogonalize
from niblick.train.settings import OptimConfig

CPU = torch.device("cpu")


def test_auto_is_what_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "native_bfloat16", lambda device, native=native: native)
        assert precision.pick_dtype("auto", CPU) == name
        with precision.autocast(CPU, "auto"):
            assert torch.is_autocast_enabled("cpu") is native
    assert precision.pick_dtype("bfloat16", CPU) == "bfloat16"  # what was asked for is what one gets


def test_a_gpu_multiplies_bfloat16() -> None:
    assert precision.native_bfloat16(torch.device("cuda"))


@pytest.mark.parametrize(("float32", "bfloat16", "native"), [(2.0, 1.0, True), (2.0, 1.9, False), (1.0, 20.0, False)])
def test_a_processor_is_measured(
    float32: float, bfloat16: float, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that products move: neither instructions nor other work decide, but what products take."""
    costs, now = {torch.float32: float32, torch.bfloat16: bfloat16}, [0.0]

    class Product:
        def __init__(self, dtype: torch.dtype) -> None:
            self.dtype = dtype

        def __matmul__(self, other: Product) -> None:
            now[0] += costs[self.dtype]

    monkeypatch.setattr(precision.torch, "ones", lambda *shape, dtype: Product(dtype))
    monkeypatch.setattr(precision.time, "process_time", lambda: now[0])
    assert precision.native_bfloat16.__wrapped__(CPU) is native


def test_muon_in_either_arithmetic() -> None:
    update_NRC = torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(0))
    published, exact = (orthogonalize(update_NRC, 5, dtype).float() for dtype in precision.DTYPES.values())
    assert torch.linalg.svdvals(exact).min() > 0.5
    assert 0 < (published - exact).abs().max() <= 0.05 * exact.abs().max()


@pytest.mark.parametrize("shape", [(2, 512, 512), (1, 530, 700), (2, 900, 520), (1, 511, 520)])
def test_symmetric_products_are_the_plain_ones(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    update_NRC = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rows = []
    monkeypatch.setattr(optim, "_by_symmetry", lambda x, n, made=optim._by_symmetry: rows.append(len(x)) or made(x, n))
    found = {dtype: orthogonalize(update_NRC, 5, dtype).double() for dtype in precision.DTYPES.values()}
    assert rows == ([] if 511 in shape else 2 * shape[0] * [min(shape[1:])])
    a, b, c = optim.NEWTON_SCHULZ
    x = update_NRC.double()
    x /= x.norm(dim=(1, 2), keepdim=True)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    torch.testing.assert_close(found[torch.float32], x, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[torch.bfloat16], x, atol=0.02, rtol=0)


def test_weight_decay_takes_off_a_share_of_the_rate() -> None:
    """As decoupled decay does: first (1 − lr·wd) of the weights, then the same update."""
    weights, gradient = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0)).unbind()
    moved = {}
    for decay in (0.0, 0.1):
        p = torch.nn.Parameter(weights.clone())
        p.grad = gradient.clone()
        Muon([{"params": [p], "lr": 0.5}], 0.5, 0.9, 5, decay).step()
        moved[decay] = p.detach()
    torch.testing.assert_close(moved[0.1], moved[0.0] - 0.5 * 0.1 * weights)
    with pytest.raises(ConfigError, match=r"optim.weight_decay=-0.1 must not be negative"):
        OptimConfig(weight_decay=-0.1)
