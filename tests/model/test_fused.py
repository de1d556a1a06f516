"""Gradients that are written out against autograd's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from niblick.model.fused import relu_squared, rms_norm

Map = Callable[[Tensor], Tensor]


def plain_norm(x_D: Tensor) -> Tensor:
    return F.rms_norm(x_D, (x_D.shape[-1],))


@pytest.mark.parametrize(
    ("ours", "plain"), [(relu_squared, lambda x: F.relu(x).square()), (rms_norm, plain_norm)], ids=["relu²", "norm"]
)
@pytest.mark.parametrize(
    ("dtype", "close"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str
)
def test_values_and_gradients(ours: Map, plain: Map, dtype: torch.dtype, close: float) -> None:
    random = torch.Generator().manual_seed(0)
    x_BLD, grad_BLD = (torch.randn(3, 5, 48, generator=random).to(dtype) for _ in range(2))
    x_BLD[0, 0] = 0  # a norm of nothing
    results = []
    for way in (ours, plain):
        x = x_BLD.detach().transpose(0, 1).requires_grad_()  # not contiguous
        y = way(x)
        y.backward(grad_BLD.transpose(0, 1))
        results.append((y, x.grad))
    for a, b in zip(*results, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, rtol=close, atol=close)


def test_numerical_gradients() -> None:
    x = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(rms_norm, (x,))
    assert torch.autograd.gradcheck(lambda x: rms_norm(x, 0.3), (x,))
    assert torch.autograd.gradcheck(relu_squared, (x,))
