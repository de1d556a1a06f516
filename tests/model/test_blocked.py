"""Attention in blocks against torch's own, and where it is used."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from niblick.model import blocked
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.score.operations import multiply_adds

SHAPES = [
    (1, 1, 1, 1, 8),
    (2, 4, 2, 63, 8),
    (3, 2, 1, 64, 12),
    (2, 6, 3, 65, 8),
    (20, 4, 4, 131, 4),
    (1, 33, 11, 70, 2),
]
"""B, H, G, L, K: one position, blocks that are full, one more than full, and rows in several groups."""


def drawn(shape: tuple[int, int, int, int, int], dtype: torch.dtype) -> list[Tensor]:
    """Queries, keys, values and a gradient, with heads side by side in memory as linear maps give them."""
    batch, heads, groups, length, width = shape
    random = torch.Generator().manual_seed(0)
    sizes = (heads, groups, groups, heads)
    made = [torch.randn(batch, length, n, width, generator=random).to(dtype).transpose(1, 2) for n in sizes]
    return [*(x.requires_grad_() for x in made[:3]), made[3]]


def torchs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def outcome(way: object, given: list[Tensor]) -> list[Tensor]:
    assert callable(way)
    mixed = way(*given[:3])
    return [mixed.detach(), *torch.autograd.grad(mixed, given[:3], given[3])]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_values_and_gradients(shape: tuple[int, int, int, int, int], dtype: torch.dtype, close: float) -> None:
    given = drawn(shape, dtype)
    for ours, theirs in zip(outcome(blocked.attend, given), outcome(torchs, given), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs, rtol=close, atol=close)


@pytest.mark.parametrize("gain", [1.0, 4.0])
def test_bfloat16_is_as_exact_as_torchs(gain: float) -> None:
    """Both beside float64; autocast changes nothing. Scores in bfloat16 would make 2.4 to 4.7 times torch's error."""
    given = drawn((4, 4, 2, 150, 32), torch.bfloat16)
    given[0] = (gain * given[0]).detach().requires_grad_()
    exact = outcome(torchs, [x.detach().double().requires_grad_() for x in given[:3]] + [given[3].double()])
    with torch.autocast("cpu", torch.bfloat16):
        ours = outcome(blocked.attend, given)
    for own, theirs, right in zip(ours, outcome(torchs, given), exact, strict=True):
        assert own.dtype == torch.bfloat16
        error, usual = ((x.double() - right).norm() / right.norm() for x in (own, theirs))
        assert error < 2 * usual


def test_numerical_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked, "BLOCK", 3)
    monkeypatch.setattr(blocked, "TOGETHER", 2)
    assert torch.autograd.gradcheck(blocked.attend, drawn((2, 2, 1, 7, 3), torch.float64)[:3])


def test_nothing_comes_from_later() -> None:
    given = drawn((2, 2, 1, 100, 8), torch.float32)
    before = blocked.attend(*given[:3])
    later = [x.detach().clone() for x in given[:3]]
    for x in later:
        x[:, :, 77:] = 9.0
    assert torch.equal(before[:, :, :77], blocked.attend(*later)[:, :, :77])


def test_without_gradients_nothing_is_kept() -> None:
    """Shares of long sequences are far larger than all else."""

    class Context:
        needs_input_grad = (False, False, False)
        kept = 0

        def save_for_backward(self, *tensors: Tensor) -> None:
            self.kept = len(tensors)

    q, k, v, _ = drawn((1, 2, 1, 200, 8), torch.float32)
    context = Context()
    blocked._Attention.forward(context, q, k, v)
    assert context.kept == 4  # q, k, v and what was mixed, which are there anyway


def test_where_it_fits() -> None:
    q, k, *_ = drawn((1, 2, 1, 90, 8), torch.float32)
    assert blocked.fits(q, k)
    assert not blocked.fits(q[:, :, -1:], k)  # a step, or the end of a sequence
    long = torch.empty(1, 1, blocked.LONGEST + 1, 1)
    assert not blocked.fits(long, long)
    assert not blocked.fits(q.to("meta"), k.to("meta"))


def test_whoever_counts_sees_pairs() -> None:
    q, k, v, _ = drawn((2, 4, 2, 100, 8), torch.float32)
    assert multiply_adds(lambda: blocked.attend(q, k, v)) == multiply_adds(lambda: torchs(q, k, v))
    assert multiply_adds(lambda: blocked.attend(q, k, v)) == 2 * 2 * 4 * 8 * (100 * 101 // 2)


def test_models_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same losses and gradients as without, over windows of several blocks."""
    config = ModelConfig(width=32, heads=4, kv_heads=2, levels=(), main=StageConfig("T2"))
    random = torch.Generator().manual_seed(0)
    ids_BL = torch.randint(0, config.vocab_size, (3, 130), generator=random)
    found, calls = [], 0

    def counted(*given: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return real(*given)

    real = blocked.attend
    monkeypatch.setattr(blocked, "attend", counted)
    for longest in (blocked.LONGEST, 0):
        monkeypatch.setattr(blocked, "LONGEST", longest)
        torch.manual_seed(0)
        model = LM(config).double()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
        losses, _ = model(ids_BL, ids_BL.roll(-1, 1))
        losses.total.backward()
        found.append([losses.total.detach(), *(p.grad for p in model.parameters())])
    assert calls == 2
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
