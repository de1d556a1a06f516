"""The chunking operations against slow float64 loops that say the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from niblick.model import chunking


def draw(seed: int, B: int, L: int, D: int, rate: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Random states, probabilities and boundaries in float64; position 0 is always a boundary."""
    generator = torch.Generator().manual_seed(seed)
    x_BLD = torch.randn(B, L, D, dtype=torch.float64, generator=generator)
    p_BL = torch.rand(B, L, dtype=torch.float64, generator=generator)
    boundary_BL = torch.rand(B, L, generator=generator) < rate
    boundary_BL[:, 0] = True
    return x_BLD, p_BL, boundary_BL


shapes = given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 90), st.integers(1, 5))


def slow_smooth(z_BCD: Tensor, p_BC: Tensor) -> Tensor:
    p_BC = p_BC.clamp(1e-4, 1 - 1e-4)
    states = [z_BCD[:, 0]]
    for t in range(1, z_BCD.shape[1]):
        states.append(p_BC[:, t, None] * z_BCD[:, t] + (1 - p_BC[:, t, None]) * states[-1])
    return torch.stack(states, 1)


@shapes
@settings(max_examples=60, deadline=None)
def test_smooth_and_its_gradients(seed: int, B: int, C: int, D: int) -> None:
    z, p, _ = draw(seed, B, C, D)
    results = []
    for smooth in (chunking.smooth, slow_smooth):
        z_, p_ = z.clone().requires_grad_(), p.clone().requires_grad_()
        s = smooth(z_, p_)
        (s * torch.linspace(-1, 2, s.numel(), dtype=s.dtype).view_as(s)).sum().backward()
        results.append((s, z_.grad, p_.grad if C > 1 else torch.zeros_like(p)))
    for ours, slow in zip(*results, strict=True):
        torch.testing.assert_close(ours if ours is not None else torch.zeros_like(slow), slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunks", [1, 2, 31, 32, 33, 300, 1100])
def test_smooth_crosses_blocks_of_blocks(chunks: int) -> None:
    """Long rows, and probabilities at the clamp: decays that would underflow as products."""
    z, p, _ = draw(1, 2, chunks, 3)
    p[:, ::3], p[:, 1::5] = 0.0, 1.0
    torch.testing.assert_close(chunking.smooth(z, p), slow_smooth(z, p), rtol=1e-9, atol=1e-9)
    single = chunking.smooth(z.float(), p.float())
    torch.testing.assert_close(single.double(), slow_smooth(z, p), rtol=1e-4, atol=1e-4)


def test_smooth_gradient_numerically() -> None:
    z, p, _ = draw(2, 2, 70, 2)
    p = p.clamp(0.05, 0.95)
    assert torch.autograd.gradcheck(chunking.smooth, (z.requires_grad_(), p.requires_grad_()))


def test_smooth_in_bfloat16_stays_float32() -> None:
    z, p, _ = draw(3, 2, 40, 8)
    with torch.autocast("cpu", torch.bfloat16):
        s = chunking.smooth(z.bfloat16(), p.float())
    assert s.dtype == torch.float32
    torch.testing.assert_close(s.double(), slow_smooth(z.bfloat16().double(), p), rtol=1e-4, atol=1e-4)


@shapes
@settings(max_examples=60, deadline=None)
def test_select_and_expand(seed: int, B: int, L: int, D: int) -> None:
    x, _, boundary = draw(seed, B, L, D)
    longest = int(boundary.sum(1).max())
    chunks, starts = chunking.select(x, boundary, longest + seed % 3)
    spread = chunking.expand(chunks, boundary)
    for b in range(B):
        where = [t for t in range(L) if boundary[b, t]]
        assert starts[b, : len(where)].tolist() == where
        assert torch.equal(chunks[b, : len(where)], x[b, where])
        last = 0
        for t in range(L):
            last = t if boundary[b, t] else last
            assert torch.equal(spread[b, t], x[b, last])


@shapes
@settings(max_examples=40, deadline=None)
def test_ratio_loss(seed: int, B: int, L: int, D: int) -> None:
    _, p, boundary = draw(seed, B, L, D)
    n = 2.0 + seed % 7
    length = torch.randint(1, L + 1, (B,), generator=torch.Generator().manual_seed(seed))
    for lengths in (None, length):
        total = 0.0
        for b in range(B):
            m = L if lengths is None else int(lengths[b])
            f = sum(float(boundary[b, t]) for t in range(m)) / m
            g = sum(float(p[b, t]) for t in range(m)) / m
            total += n / (n - 1) * ((n - 1) * f * g + (1 - f) * (1 - g))
        assert float(chunking.ratio_loss(p, boundary, n, lengths)) == pytest.approx(total / B, rel=1e-9)


def test_ratio_loss_is_one_at_the_target() -> None:
    p = torch.full((1, 12), 0.25)
    boundary = torch.arange(12)[None] % 4 == 0
    assert float(chunking.ratio_loss(p, boundary, 4.0)) == pytest.approx(1.0)


def test_cosine_probability() -> None:
    q, k, _ = draw(4, 2, 9, 6)[0], draw(5, 2, 9, 6)[0], None
    p = chunking.cosine_probability(q, k)
    for b in range(2):
        assert p[b, 0] == 1
        for t in range(1, 9):
            cosine = q[b, t] @ k[b, t - 1] / (q[b, t].norm() * k[b, t - 1].norm())
            assert float(p[b, t]) == pytest.approx(float((1 - cosine) / 2))


def test_straight_through_is_one_with_the_gradient_of_c() -> None:
    c = torch.rand(3, dtype=torch.float64, requires_grad=True)
    value = chunking.straight_through(c)
    (value * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).sum().backward()
    assert torch.equal(value.detach(), torch.ones(3, dtype=torch.float64))
    assert c.grad is not None
    assert c.grad.tolist() == [1, 2, 3]


def test_scale_gradient() -> None:
    x = torch.ones(2, requires_grad=True)
    y = chunking.scale_gradient(x, 0.75)
    y.sum().backward()
    assert torch.equal(y, x)
    assert x.grad is not None
    assert x.grad.tolist() == [0.75, 0.75]
