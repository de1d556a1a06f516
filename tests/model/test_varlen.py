"""Packed rows by the variable-length kernel: what it is told of the rows, held to attention under a dense mask."""

from __future__ import annotations

import importlib
import inspect
import itertools
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from niblick.model import level as level_module
from niblick.model import varlen
from niblick.model.lm import LM
from niblick.model.model_config import BLOCK_LETTERS, BlockConfig, LevelConfig, ModelConfig, StageConfig
from niblick.model.stage import Packing, Stage
from niblick.model.varlen import make_segments

TEXT = torch.randint(4, 260, (3, 49), generator=torch.Generator().manual_seed(0))
NEEDS_OPERATOR = pytest.mark.skipif(
    not varlen.has_kernel(), reason="this torch has no torch.nn.attention.varlen with windows (2.11 and newer do)"
)
NEEDS_KERNEL = pytest.mark.skipif(
    not torch.cuda.is_available() or not varlen.available(torch.empty(0, dtype=torch.bfloat16, device="cuda")),
    reason="needs a CUDA GPU of compute capability 8.0 or newer and a torch that has FlashAttention for it",
)


class Loop:
    """What the kernel computes, segment by segment and head by head; positions outside of all segments are NaN."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor | None,
        max_q: int,
        max_k: int,
        *,
        window_size: tuple[int, int] = (-1, -1),
    ) -> Tensor:
        assert cu_seq_k is cu_seq_q and cu_seq_q.dtype == torch.int32 and window_size[1] == 0
        assert query.shape == key.shape == value.shape and query.is_contiguous()
        edges = cu_seq_q.tolist()
        longest = max(b - a for a, b in itertools.pairwise(edges))
        assert longest <= max_q == max_k
        self.calls.append({"edges": edges, "longest": max_q, "window": window_size[0], "size": len(query)})
        parts = [query.new_full((edges[0], *query.shape[1:]), torch.nan)]
        for a, b in itertools.pairwise(edges):
            score_HLL = torch.einsum("ihk,jhk->hij", query[a:b], key[a:b]) / query.shape[-1] ** 0.5
            back_LL = torch.arange(b - a)[:, None] - torch.arange(b - a)
            hidden_LL = (back_LL < 0) | ((back_LL > window_size[0]) if window_size[0] >= 0 else (back_LL < 0))
            score_HLL = score_HLL.masked_fill(hidden_LL, float("-inf"))
            parts.append(torch.einsum("hij,jhk->ihk", score_HLL.softmax(-1), value[a:b]))
        return torch.cat([*parts, query.new_full((len(query) - edges[-1], *query.shape[1:]), torch.nan)])


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """The path of the kernel on this machine, with a loop in the kernel's place."""
    loop = Loop()
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", SimpleNamespace(varlen_attn=loop))
    monkeypatch.setattr(level_module, "available", lambda like: True)
    return loop


def test_segments() -> None:
    for ends, size, longest, expected in (
        ([3, 4, 9], 16, 10, [0, 3, 4, 9, 16, 16, 16]),
        ([3, 4, 9], 16, 6, [0, 3, 4, 9, 15, 16, 16]),
        ([2, 4], 4, 2, [0, 2, 4, 4, 4]),
        ([1, 2], 12, 6, [0, 1, 2, 8, 12]),
    ):
        segments = make_segments(torch.tensor(ends), size, longest)
        assert segments.edge_N.tolist() == expected and segments.edge_N.dtype == torch.int32
        assert segments.edge_N.diff().max() <= segments.longest == min(longest, size)


@NEEDS_OPERATOR
def test_the_loop_is_called_as_the_operator_is() -> None:
    operator = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    theirs = inspect.signature(operator).parameters
    for name, ours in inspect.signature(Loop()).parameters.items():
        assert (theirs[name].kind, theirs[name].default) == (ours.kind, ours.default)


def model_of(layout: str, window: int, kv_heads: int, levels: int, heads: int = 4) -> LM:
    inner = LevelConfig(StageConfig("T1"), StageConfig("T1"), capacity="packed", bucket=8)
    outer = LevelConfig(StageConfig("c1"), StageConfig("c1"), target_length=2.0)
    torch.manual_seed(0)
    model = LM(
        ModelConfig(
            width=32,
            heads=heads,
            kv_heads=kv_heads,
            levels=(outer, inner)[2 - levels :],
            main=StageConfig(layout, window=window),
        )
    ).double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model


def results(model: LM) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    losses, _ = model(TEXT[:, :-1], TEXT[:, 1:])
    losses.total.backward()
    return losses.total, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("few_shapes", [False, True])
@pytest.mark.parametrize(
    ("layout", "window", "kv_heads", "levels"),
    [("T2", 0, 1, 1), ("T2", 3, 2, 1), ("t1c1T1", 1, 4, 2), ("C1t2", 0, 1, 2)],
)
def test_equal_to_the_dense_mask(
    layout: str, window: int, kv_heads: int, levels: int, few_shapes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and every gradient, with grouped keys and values, windows, fillers, and shapes of compiled stages."""
    model = model_of(layout, window, kv_heads, levels)
    model.body.few_shapes = few_shapes
    loss, gradients = results(model)
    loop = Loop()
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", SimpleNamespace(varlen_attn=loop))
    monkeypatch.setattr(level_module, "available", lambda like: True)
    loss_by_segments, gradients_by_segments = results(model)
    assert len(loop.calls) == sum(letter in "Tt" for letter in model.body.main.layout)
    assert {call["window"] for call in loop.calls} == {window - 1 if window else -1}
    assert loop.calls[0]["edges"][-1] == loop.calls[0]["size"]
    assert torch.allclose(loss_by_segments, loss, rtol=1e-12)
    assert gradients.keys() == gradients_by_segments.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradients_by_segments[name], gradient, rtol=1e-8, atol=1e-12), name


def test_the_bound_does_not_follow_the_batch(loop: Loop) -> None:
    """A compiled stage is compiled anew for each number it is given: shapes may change it, chunk counts not."""
    model = model_of("T1", 0, 1, 1)
    model.body.few_shapes = True
    for seed in range(6):
        ids_BL = torch.randint(4, 260, (3, 48), generator=torch.Generator().manual_seed(seed))
        model(ids_BL)
    assert len({tuple(call["edges"]) for call in loop.calls}) == 6
    assert all(call["longest"] == 48 for call in loop.calls)


def test_stages_that_need_the_mask_keep_it(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    model_of("T1", 0, 1, 1, heads=8)(TEXT)  # heads of width 4
    assert not loop.calls
    monkeypatch.setitem(level_module.Stage.__init__.__globals__["BLOCKS"], "X", _Own)
    monkeypatch.setattr("niblick.model.model_config.BLOCK_LETTERS", {*BLOCK_LETTERS, "X"})
    model = model_of("X1", 0, 1, 1)
    model(TEXT)
    assert not loop.calls and model.body.main.blocks[0].mask_LL is not None


class _Own(torch.nn.Module):
    """A block of a user, which knows of masks alone."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()

    def forward(self, x_BLD: Tensor, x0_BLD: Tensor, context: Any) -> Tensor:
        self.mask_LL = context.mask_LL
        return x_BLD


def test_no_kernel_on_the_cpu() -> None:
    assert not varlen.available(torch.empty(0, dtype=torch.bfloat16))
    assert [varlen.fits(width) for width in (8, 64, 256, 4, 12, 264)] == [True, True, True, False, False, False]


@NEEDS_OPERATOR
def test_the_operator_takes_what_it_is_given_and_compiles_whole() -> None:
    """Shapes and gradients only, on the meta device: no kernel runs here. One graph, as compiled stages need it."""
    torch._dynamo.reset()
    stage = Stage(StageConfig("T2", window=5), BlockConfig(width=32, heads=4, kv_heads=2)).to("meta", torch.bfloat16)
    place_L = torch.zeros(24, dtype=torch.long, device="meta")
    segments = make_segments(torch.zeros(3, dtype=torch.long, device="meta"), 24, 10)
    x_1LD = torch.empty(1, 24, 32, device="meta", dtype=torch.bfloat16, requires_grad=True)
    for run in (stage, torch.compile(stage, fullgraph=True, dynamic=False, backend="eager")):
        y_1LD = run(x_1LD, Packing(place_L, place_L, segments))
        assert (y_1LD.shape, y_1LD.dtype) == (x_1LD.shape, x_1LD.dtype)
        y_1LD.sum().backward()
        assert x_1LD.grad is not None and x_1LD.grad.shape == x_1LD.shape
        x_1LD.grad = None


@NEEDS_KERNEL
@pytest.mark.parametrize(("window", "kv_heads"), [(0, 4), (0, 1), (7, 2)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_is_the_mask(window: int, kv_heads: int, dtype: torch.dtype) -> None:
    """On a GPU: output and gradients of the real kernel are as near to float32 as those under the dense mask."""
    torch.manual_seed(0)
    config = BlockConfig(width=128, heads=4, kv_heads=kv_heads, window=window)
    stage = Stage(StageConfig("T2"), config).cuda()
    for p in stage.parameters():
        p.data += 0.1 * torch.randn_like(p)
    end_B = torch.tensor([60, 61, 200], device="cuda")
    index_L = torch.arange(256, device="cuda")
    row_L = torch.searchsorted(end_B, index_L, right=True)
    first_B = torch.nn.functional.pad(end_B, (1, 0))
    packing = Packing(row_L, index_L - first_B[row_L], make_segments(end_B, 256, 150))
    x_1LD, weight_1LD = torch.randn(2, 1, 256, 128, device="cuda")

    def outcome(packing: Packing, dtype: torch.dtype) -> list[Tensor]:
        stage.zero_grad()
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            y_1LD = stage(x_1LD.to(dtype), packing)
        (y_1LD.float() * weight_1LD).sum().backward()
        return [y_1LD.detach().float(), *(p.grad.clone() for p in stage.parameters() if p.grad is not None)]

    dense = packing._replace(segments=None)
    for exact, masked, ours in zip(
        outcome(dense, torch.float32), outcome(dense, dtype), outcome(packing, dtype), strict=True
    ):
        assert (ours - exact).norm() <= 2 * (masked - exact).norm() + 1e-3 * exact.norm()
