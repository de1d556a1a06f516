"""Mamba-2 against its recurrence, one position after the other in float64: values, gradients, packed rows, kernel."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from test_step import assert_steps_equal, rough, text
from torch import Tensor

from niblick.errors import ConfigError
from niblick.model import mamba
from niblick.model.lm import LM
from niblick.model.mamba import CHUNK, Mamba2, MambaBlock, scan
from niblick.model.model_config import BlockConfig, LevelConfig, ModelConfig, StageConfig
from niblick.model.stage import Packing, Stage

SMALL = {"ssm_state": 6, "ssm_head_width": 4}


def recurrence(x: Tensor, step: Tensor, a: Tensor, b: Tensor, c: Tensor, first: list[int]) -> Tensor:
    """What the paper defines, for each row, head and position."""
    rows, length, heads, _ = x.shape
    out = torch.zeros_like(x)
    for r in range(rows):
        for h in range(heads):
            s = torch.zeros(x.shape[3], b.shape[2], dtype=x.dtype)
            for t in range(length):
                s = torch.zeros_like(s) if t in first else s
                s = torch.exp(a[h] * step[r, t, h]) * s + step[r, t, h] * torch.outer(x[r, t, h], b[r, t])
                out[r, t, h] = s @ c[r, t]
    return out


def drawn(length: int, seed: int = 0) -> list[Tensor]:
    """x, Δ, a, b and c; heads that fade within a position, and heads that hardly fade."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    step_BLH = torch.nn.functional.softplus(3 * normal(2, length, 3))
    a_H = torch.tensor([-8.0, -0.3, -1e-3], dtype=torch.float64)
    return [normal(2, length, 3, 4), step_BLH, a_H, normal(2, length, 5), normal(2, length, 5)]


LENGTHS = [1, 7, CHUNK, CHUNK + 1, 3 * CHUNK + 5]


@pytest.mark.parametrize("length", LENGTHS)
def test_scan_is_the_recurrence(length: int) -> None:
    values = drawn(length)
    torch.testing.assert_close(scan(*values), recurrence(*values, first=[]), rtol=1e-10, atol=1e-10)
    float32 = scan(*(v.float() for v in values))
    torch.testing.assert_close(float32.double(), recurrence(*values, first=[]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("first", [[0, 3, 4], [0, CHUNK], [0, CHUNK - 1, 2 * CHUNK + 3, 2 * CHUNK + 9]])
def test_rows_packed_into_one_stay_apart(first: list[int]) -> None:
    length = 3 * CHUNK + 2
    values, first_L = drawn(length, 1), torch.zeros(length, dtype=torch.bool)
    first_L[first] = True
    found = scan(*values, first_L)
    torch.testing.assert_close(found, recurrence(*values, first=first), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(found, scan(*values)), "the states crossed anyway"


@pytest.mark.parametrize("first", [[], [0, 5, CHUNK + 2]])
def test_gradients(first: list[int]) -> None:
    length = CHUNK + 9
    first_L = None
    if first:
        first_L = torch.zeros(length, dtype=torch.bool)
        first_L[first] = True
    ours, theirs = ([v.clone().requires_grad_() for v in drawn(length, 2)] for _ in range(2))
    weight = drawn(length, 3)[0]
    (scan(*ours, first_L) * weight).sum().backward()
    (recurrence(*theirs, first=first) * weight).sum().backward()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-9, atol=1e-9)


def test_no_gradient_is_lost_where_states_fade_at_once() -> None:
    values = [v.float() for v in drawn(2 * CHUNK)]
    values[1] = (values[1] * 1e3).requires_grad_()
    scan(*values).sum().backward()
    assert values[1].grad is not None and torch.isfinite(values[1].grad).all()


def mixer(config: BlockConfig, seed: int = 0) -> Mamba2:
    torch.manual_seed(seed)
    made = Mamba2(config).double()
    for p in made.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return made


def by_hand(ssm: Mamba2, x_LD: Tensor) -> Tensor:
    """The mixer by the paper's equations, one position after the other, from its weights alone."""
    w = {name: p.detach() for name, p in ssm.named_parameters()}
    inner, state, heads = ssm.inner, ssm.state, ssm.heads
    kernel = w["conv.weight"].shape[2]
    seen = torch.zeros(kernel, inner + 2 * state, dtype=x_LD.dtype)
    s = torch.zeros(heads, ssm.head_width, state, dtype=x_LD.dtype)
    out = []
    for x in x_LD:
        gate, mixed, delta = (w["up.weight"] @ x).split([inner, inner + 2 * state, heads])
        seen = torch.cat((seen[1:], mixed[None]))
        mixed = (seen * w["conv.weight"][:, 0].T).sum(0) + w["conv.bias"]
        mixed = mixed * torch.sigmoid(mixed)
        v, b, c = mixed[:inner].view(heads, -1), mixed[inner : inner + state], mixed[inner + state :]
        step = torch.log1p(torch.exp(delta + w["dt_bias"]))
        s = torch.exp(-torch.exp(w["a_log"]) * step)[:, None, None] * s
        s = s + step[:, None, None] * v[:, :, None] * b
        y = ((s * c).sum(-1) + w["skip"][:, None] * v).flatten() * gate * torch.sigmoid(gate)
        y = y / (y.square().mean() + 1e-5).sqrt() * w["norm.weight"]
        out.append(w["out.weight"] @ y)
    return torch.stack(out)


def context_of(length: int) -> Any:
    stage = Stage(StageConfig("m1"), BlockConfig(width=16, heads=2, kv_heads=1, **SMALL))
    return stage._context(torch.zeros(1, length, 16), None, 0)


def test_mixer_is_the_paper_s() -> None:
    ssm = mixer(BlockConfig(width=16, heads=2, kv_heads=1, **SMALL))
    x_BLD = torch.randn(2, CHUNK + 3, 16, dtype=torch.float64)
    found = ssm(x_BLD, context_of(x_BLD.shape[1]))
    for row, own in zip(x_BLD, found, strict=True):
        torch.testing.assert_close(own, by_hand(ssm, row), rtol=1e-9, atol=1e-9)


MODELS: dict[str, dict[str, Any]] = {
    "dense": {"main": StageConfig("m2M1")},
    "mixed": {"main": StageConfig("T1m1C1M1t1")},
    "around": {"levels": (LevelConfig(StageConfig("m2"), StageConfig("m2"), target_length=3.0),)},
    "inside": {"levels": (LevelConfig(StageConfig("c1"), StageConfig("M1")),), "main": StageConfig("M2T1")},
    "packed": {
        "levels": (LevelConfig(StageConfig("c1"), StageConfig("c1"), capacity="packed"),),
        "main": StageConfig("m1M1"),
    },
    "two levels": {
        "levels": (
            LevelConfig(StageConfig("m2"), StageConfig("m2"), target_length=3.0),
            LevelConfig(StageConfig("T1m1"), StageConfig("m1T1"), width=24, target_length=3.0),
        ),
        "main": StageConfig("T2", width=32),
    },
}


def build(name: str) -> LM:
    return rough(ModelConfig(width=16, heads=2, kv_heads=1, **SMALL, **{"main": StageConfig("T2"), **MODELS[name]}))


@pytest.mark.parametrize("name", MODELS)
def test_steps(name: str) -> None:
    assert_steps_equal(build(name), text(3, 2 * CHUNK + 3))


@pytest.mark.parametrize("name", MODELS)
def test_last_positions_alone(name: str) -> None:
    model = build(name).eval()
    with torch.no_grad():
        whole = model.hidden(text(2, 90))[0]
        for last in (1, 5, 90):
            torch.testing.assert_close(model.hidden(text(2, 90), last=last)[0], whole[:, -last:], rtol=0, atol=1e-9)


def test_capacities_agree() -> None:
    """Rows of chunks packed into one sequence give the same losses and gradients as rows side by side."""
    losses, gradients = [], []
    for capacity in ("bucketed", "packed"):
        level = LevelConfig(StageConfig("c1"), StageConfig("c1"), target_length=3.0, capacity=capacity)
        config = ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("m2M1"), **SMALL)
        model, ids_BL = rough(config), text(4, 80)
        terms, routings = model(ids_BL[:, :-1], ids_BL[:, 1:])
        assert len({*routings[0].chunks_B().tolist()}) > 1
        terms.total.backward()
        losses.append(terms.total.detach())
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=1e-12)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradient, gradients[1][name], rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(ConfigError, match=r"ssm_head_width=24 does not divide the inner width 32 .* ssm_head_width=8"):
        MambaBlock(BlockConfig(width=16, heads=2, kv_heads=1, ssm_head_width=24), mlp=False)


def test_starts_as_the_identity_with_the_published_rates() -> None:
    torch.manual_seed(0)
    ssm = Mamba2(BlockConfig(width=512, ssm_head_width=4))
    step_H = torch.nn.functional.softplus(ssm.dt_bias)
    assert 1e-3 <= step_H.min() < 2e-3 and 5e-2 < step_H.max() <= 1e-1 + 1e-6
    rate_H = ssm.a_log.exp()
    assert 1 <= rate_H.min() < 2 and 15 < rate_H.max() <= 16
    assert not ssm.out.weight.any()


class StandIn:
    """In the kernel's place: checks what it is called with, by its documented shapes and types, and computes it."""

    def __init__(self) -> None:
        self.rows: list[Tensor | None] = []

    def __call__(
        self,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        chunk_size: int,
        D: Tensor | None = None,
        z: Tensor | None = None,
        dt_bias: Tensor | None = None,
        initial_states: Tensor | None = None,
        seq_idx: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        dt_softplus: bool = False,
    ) -> Tensor:
        batch, length, heads, _ = x.shape
        assert dt.shape == (batch, length, heads) and A.shape == (heads,) and (A < 0).all()
        assert B.shape == C.shape == (batch, length, 1, B.shape[3])
        assert chunk_size & (chunk_size - 1) == 0 and z is None and dt_softplus
        assert D is not None and D.shape == (heads,) and dt_bias is not None and dt_bias.shape == (heads,)
        assert all(v.is_contiguous() for v in (x, dt, B, C))
        first: list[int] = []
        if seq_idx is not None:
            assert seq_idx.shape == (batch, length) and seq_idx.dtype == torch.int32 and seq_idx.is_contiguous()
            first = [0, *(torch.nonzero(seq_idx[0].diff())[:, 0] + 1).tolist()]
        self.rows.append(seq_idx)
        step = torch.nn.functional.softplus(dt + dt_bias)
        return recurrence(x, step, A, B[:, :, 0], C[:, :, 0], first) + D[:, None] * x


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The path of the kernel on this machine: its package is there, as a module that has nothing else."""
    made = StandIn()
    names = ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.ops.triton.ssd_combined"]
    modules = {name: ModuleType(name) for name in names}
    modules[names[-1]].mamba_chunk_scan_combined = made  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    find = importlib.util.find_spec
    there = {"mamba_ssm": ModuleSpec("mamba_ssm", None)}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: there.get(name) or find(name, *rest))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(mamba.Mamba2, "_has_kernel", lambda self, like: True)
    mamba.find_kernel.cache_clear()
    yield made
    mamba.find_kernel.cache_clear()


def test_kernel_is_called_as_documented(stand_in: StandIn) -> None:
    ssm = mixer(BlockConfig(width=16, heads=2, kv_heads=1, **SMALL))
    x_BLD = torch.randn(2, 21, 16, dtype=torch.float64)
    found = ssm(x_BLD, context_of(21))
    for row, own in zip(x_BLD, found, strict=True):
        torch.testing.assert_close(own, by_hand(ssm, row), rtol=1e-9, atol=1e-9)
    assert stand_in.rows == [None]


def test_kernel_is_told_of_packed_rows(stand_in: StandIn) -> None:
    stage = Stage(StageConfig("m1"), BlockConfig(width=16, heads=2, kv_heads=1, **SMALL)).double()
    x_BLD = torch.randn(1, 12, 16, dtype=torch.float64)
    row_L = torch.tensor([0] * 5 + [1] * 7)
    place_L = torch.tensor([*range(5), *range(7)])
    stage(x_BLD, Packing(row_L, place_L))
    assert stand_in.rows[0] is not None and stand_in.rows[0].tolist() == [row_L.tolist()]


@pytest.mark.usefixtures("stand_in")
def test_a_package_that_does_not_load_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that was built for another torch: it raises whatever it raises, and the model is built."""
    broken = ModuleType("mamba_ssm.ops.triton.ssd_combined")
    broken.__getattr__ = lambda name: (_ for _ in ()).throw(OSError("no libcuda"))  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, broken.__name__, broken)
    assert mixer(BlockConfig(width=16, heads=2, kv_heads=1, **SMALL)).kernel is None


def test_without_the_package_there_is_no_kernel() -> None:
    mamba.find_kernel.cache_clear()
    if importlib.util.find_spec("mamba_ssm") is None:
        assert mamba.find_kernel() is None
    assert not mixer(BlockConfig(width=16, heads=2, kv_heads=1, **SMALL))._has_kernel(torch.zeros(1))


@pytest.mark.skipif(
    not torch.cuda.is_available() or mamba.find_kernel() is None,
    reason="needs a CUDA GPU and the package mamba_ssm, whose kernel is compared",
)
def test_kernel_agrees_in_bfloat16() -> None:
    torch.manual_seed(0)
    config = BlockConfig(width=256, heads=4, kv_heads=4)
    ssm = Mamba2(config).cuda()
    torch.nn.init.normal_(ssm.out.weight, std=0.02)
    x_BLD = torch.randn(2, 700, 256, device="cuda")
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        context = Stage(StageConfig("m1"), config)._context(x_BLD, None, 0)
        found = ssm(x_BLD, context)
        ssm.kernel = None
        expected = ssm(x_BLD, context)
    # Each value is rounded to bfloat16 at its end, to 2e-3 of itself at most: so much even equal kernels may differ.
    apart = (found.float() - expected.float()).abs().mean() / expected.float().square().mean().sqrt()
    assert apart < 1e-3, f"{apart:.1e} apart on average, of the root mean square"


def test_compiles_as_one_graph() -> None:
    torch._dynamo.reset()
    config = BlockConfig(width=16, heads=2, kv_heads=1, **SMALL)
    stage = Stage(StageConfig("m1M1"), config)
    for p in stage.parameters():
        p.data += 0.1 * torch.randn_like(p)
    x_BLD = torch.randn(2, CHUNK + 6, 16)
    compiled = torch.compile(stage, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x_BLD), stage(x_BLD), rtol=1e-4, atol=1e-5)
