"""The benchmarks run at toy size, and both sides do the same work."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from niblick.model.lm import LM
from niblick.pack.quantize import pack
from niblick.recipes.presets import get_preset

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("assoc_scan", reason="the peer h-net-dynamic-chunking is installed by `make dev`")
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def module(name: str) -> ModuleType:
    sys.modules.pop(name, None)
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("chunking", "bench_smooth"),
        ("step", "bench_step"),
        ("routers", "bench_routers"),
        ("hnet", "bench_hnet"),
        ("scoring", "bench_scoring"),
        ("data", "bench_prepare"),
        ("loader", "bench_loader"),
        ("pack", "bench_pack"),
        ("coding", "bench_coding"),
        ("sidecars", "bench_sidecars"),
        ("ledger", "bench_ledger"),
        ("proving", "bench_proving"),
    ],
)
def test_rows(name: str, function: str) -> None:
    rows = getattr(module(name), function)(quick=True)
    for row in rows:
        assert row.ours > 0
        assert row.peer > 0
        assert row.lowest <= row.ratio <= row.highest


def test_another_build_is_checked_out_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mark").write_text("old")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "old"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "src" / "mark").write_text("new")
    against = module("against")
    monkeypatch.setattr(against, "ROOT", tmp_path)
    with against.checked_out("HEAD") as source:
        assert (source / "mark").read_text() == "old"
    assert not source.exists()
    listed = subprocess.run([*git, "worktree", "list"], check=True, capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1


def test_the_plain_step_trains_the_same_model() -> None:
    """In float32, where nothing is rounded differently: the same loss and the same gradients."""
    step = module("step")
    config = get_preset("hnet-small").model
    torch.manual_seed(0)
    model = LM(replace(config, width=32, heads=2, kv_heads=1))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    text = step.batch(2, 64)
    losses, gradients = [], []
    for loss in (step.our_loss, step.plain_loss):
        losses.append(loss(model, *text))
        losses[-1].backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    assert abs(losses[0] - losses[1]) < 1e-4
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-2, atol=1e-4)


def test_both_ways_of_packing_make_the_same_codes() -> None:
    bench = module("pack")
    state = bench.model_weights(blocks=1)
    ours, plain = pack(state), bench.plain_codes(state)
    assert list(ours) == list(plain)
    for name, parts in plain.items():
        for mine, theirs in zip(ours[name].parts.values(), parts, strict=True):
            assert np.array_equal(mine, theirs.numpy()), name


def test_both_ways_of_mixing_give_the_same_score() -> None:
    bench = module("sidecars")
    tokens_N = bench.stream(3000)
    np.testing.assert_allclose(bench.ours(tokens_N), bench.plain(tokens_N), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["study2", "bucketed", "packed", "graphs", "dense"])
def test_gpu_modes_at_toy_size(mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each mode of benchmarks/gpu.py trains on the CPU, and tells what it did, and by what kernels."""
    gpu = module("gpu")
    monkeypatch.setattr(gpu.level_module, "smooth", gpu.level_module.smooth)  # study 2's way puts its own there
    result = gpu.run_mode(mode, replace(gpu.QUICK, seconds=0.2), torch.device("cpu"))
    assert result.bytes_per_second > 0 and result.syncs == -1
    assert 0 < result.utilization < 1 and 3 < result.loss < 5.6
    assert result.chunk_share == 1 if mode == "dense" else result.chunk_share < 1
    assert result.truncated == 0 or mode == "study2"
    assert f"| {mode} |" in gpu.table([result])
    assert f"{mode}: products in " in (said := capsys.readouterr().err)
    assert "packed rows by a dense mask, not compiled" in said


def test_one_scan_is_the_moving_average() -> None:
    gpu = module("gpu")
    z_BCD, p_BC = torch.randn(2, 37, 8), torch.rand(2, 37)
    torch.testing.assert_close(gpu.scan_smooth(z_BCD, p_BC), gpu.level_module.smooth(z_BCD, p_BC))


def test_needed_arithmetic_is_what_torch_counts() -> None:
    """All products with weights; attention's own are left out, as torch does not count those of the CPU's kernel."""
    gpu = module("gpu")
    model, length = LM(gpu.mode_config("dense", quick=True)), 64
    with FlopCounterMode(display=False) as counter:
        model(*torch.randint(4, 260, (2, 2, length)))
    assert gpu.needed_flops(model, 2 * length, 0, 1.0) == 3 * counter.get_total_flops()


@pytest.mark.slow
def test_bounds_at_toy_size() -> None:
    """Nothing is faster than what bounds it."""
    bounds = module("bounds")
    here = bounds.limits(quick=True)
    found = bounds.paths(here, quick=True)
    assert len(found) == 8
    for path in found:
        assert path.bound_seconds > 0 and path.seconds > 0, path
    assert bounds.table(here, found).count("| arithmetic |") == 5


@pytest.mark.slow
def test_the_day_on_a_gpu_at_toy_size(tmp_path: Path) -> None:
    """The card's tests, a speed and a score; called again, none is done again. The rest is more of the same."""
    command = [sys.executable, BENCHMARKS / "gpu_day.py", "--quick", "--out", tmp_path]
    command += ["right", "fast-dense", "good-baseline-sp1024"]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert "fast-dense: done before" in second and "good-baseline-sp1024: done before" in second
    assert "| right | well |" in first and "| good-baseline-sp1024 | well |" in first and "| dense | " in first
    result = json.loads((tmp_path / "runs" / "baseline-sp1024" / "baseline-sp1024-1" / "result.json").read_text())
    assert f"{result['bpb']:.4f} |" in first
