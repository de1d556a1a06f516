"""The loss in slices against softmax over all logits at once."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from niblick.model import loss
from niblick.model.loss import Halves, nats, nats_gradient, softcapped_nats

N, V, D, CAP = 53, 31, 12, 3.0


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden_ND, weight_VD = (torch.randn(n, D, generator=random, dtype=dtype).requires_grad_() for n in (N, V))
    return hidden_ND, weight_VD, torch.randint(V, (N,), generator=random), torch.rand(N, generator=random, dtype=dtype)


def plain(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float = CAP) -> Tensor:
    z_NV = F.linear(hidden_ND, weight_VD)
    z_NV = z_NV.to(torch.promote_types(z_NV.dtype, torch.float32))
    return F.cross_entropy(cap * torch.tanh(z_NV / cap) if cap else z_NV, targets_N, reduction="none")


@pytest.mark.parametrize("cap", [CAP, 0.0])
@pytest.mark.parametrize("elements", [1 << 24, 7 * V, 1])
def test_values_and_gradients(elements: int, cap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGIT_ELEMENTS", elements)
    hidden_ND, weight_VD, targets_N, grad_N = inputs()
    ours, theirs = (way(hidden_ND, weight_VD, targets_N, cap) for way in (softcapped_nats, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    grads = [torch.autograd.grad((x * grad_N).sum(), (hidden_ND, weight_VD)) for x in (ours, theirs)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_in_bfloat16_the_loss_is_float32_and_as_exact_as_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGIT_ELEMENTS", 7 * V)
    hidden_ND, weight_VD, targets_N, grad_N = inputs()
    exact = plain(hidden_ND, weight_VD, targets_N)
    exact_grads = torch.autograd.grad((exact * grad_N).sum(), (hidden_ND, weight_VD))
    narrow = [x.detach().float().requires_grad_() for x in (hidden_ND, weight_VD)]
    with torch.autocast("cpu", torch.bfloat16):
        ours = softcapped_nats(*narrow, targets_N, CAP)
        theirs = plain(*narrow, targets_N)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    grads = torch.autograd.grad((ours * grad_N.float()).sum(), narrow)
    their_grads = torch.autograd.grad((theirs * grad_N.float()).sum(), narrow)
    for exact_grad, a, b in zip(exact_grads, grads, their_grads, strict=True):
        assert a.dtype == torch.float32
        assert (a - exact_grad).norm() < 1.2 * (b - exact_grad).norm()


def test_only_slices_of_logits_are_ever_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "LOGIT_ELEMENTS", 5 * V)
    seen: list[int] = []

    def noting(half):  # type: ignore[no-untyped-def]
        return lambda z_NV, *rest: seen.append(z_NV.numel()) or half(z_NV, *rest)

    hidden_ND, weight_VD, targets_N, _ = inputs()
    softcapped_nats(hidden_ND, weight_VD, targets_N, CAP, Halves(noting(nats), noting(nats_gradient))).sum().backward()
    assert len(seen) == 2 * -(-N // 5) and max(seen) == 5 * V


@pytest.mark.slow
def test_compiled_halves_give_the_same() -> None:
    halves = Halves(*(torch.compile(half, dynamic=False) for half in Halves()))
    results = []
    for way in (halves, Halves()):
        hidden_ND, weight_VD, targets_N, grad_N = inputs(torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            nats_N = softcapped_nats(hidden_ND, weight_VD, targets_N, CAP, way)
        results.append((nats_N, *torch.autograd.grad((nats_N * grad_N).sum(), (hidden_ND, weight_VD))))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-3)
