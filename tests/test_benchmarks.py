"""The benchmarks run at toy size, and both sides do the same work."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from niblick.model import blocked
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
        ("attention", "bench_attention"),
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
    rows = gpu.table([result]).splitlines()
    assert sum(row.startswith(f"| {mode} |") for row in rows) == 2
    assert result.parts["products"] > 0 and result.parts["attention"] > 0
    assert f"{mode}: products in " in (said := capsys.readouterr().err)
    assert "packed rows by a dense mask, not compiled" in said


def test_steps_that_compile_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new number of chunks stops the clock for the steps around it."""
    gpu = module("gpu")
    taken, graphs = [], iter([0, 1])
    batches = gpu.windows(gpu.QUICK, torch.device("cpu"))
    monkeypatch.setattr(gpu, "windows", lambda *_: (taken.append(batch) or batch for batch in batches))
    monkeypatch.setattr(gpu, "compiled", lambda: next(graphs, 1))
    monkeypatch.setattr(gpu, "parts", lambda *_: {})
    result = gpu.run_mode("dense", replace(gpu.QUICK, seconds=1e-9), torch.device("cpu"))
    assert len(taken) == 2 + 2 * gpu.GROUP and result.graphs == 1


def test_time_by_part_is_that_of_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU neither the host's side of a kernel nor the span around it counts again."""
    gpu = module("gpu")

    def row(key: str, cuda: bool = True, span: bool = False) -> SimpleNamespace:
        device = gpu.DeviceType.CUDA if cuda else gpu.DeviceType.CPU
        return SimpleNamespace(key=key, device_type=device, is_user_annotation=span, self_device_time_total=3000)

    names = ["nvjet_tst_128", "void flash::flash_fwd_kernel<cutlass::bfloat16_t>", "Memcpy HtoD", "index_elementwise"]
    rows = [*map(row, names), row("aten::mm", cuda=False), row("Optimizer.step#Muon.step", span=True)]

    @contextmanager
    def seen(activities: list[object]) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(key_averages=lambda: rows)

    monkeypatch.setattr(gpu, "profile", seen)
    found = gpu.parts(lambda: None, lambda: None, torch.device("cuda"))
    assert found == dict.fromkeys(gpu.PARTS, 0.0) | dict.fromkeys(["products", "attention", "copies", "other"], 1.0)


def test_one_scan_is_the_moving_average() -> None:
    gpu = module("gpu")
    z_BCD, p_BC = torch.randn(2, 37, 8), torch.rand(2, 37)
    torch.testing.assert_close(gpu.scan_smooth(z_BCD, p_BC), gpu.level_module.smooth(z_BCD, p_BC))


def test_needed_arithmetic_is_what_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All products with weights; attention's own are left out, as torch does not count those of the CPU's kernel."""
    gpu = module("gpu")
    monkeypatch.setattr(blocked, "LONGEST", 0)
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


def alive(pid: int) -> bool:
    """Whether a process runs: one that ended and that nobody has asked for does not."""
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks at processes as Linux shows them")
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_block_ends_with_all_that_it_started(
    interrupted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whether its time is over or someone breaks off: nothing is left on the card, and no result if broken off."""
    day = module("gpu_day")
    monkeypatch.setattr(day, "GRACE_SECONDS", 10)
    monkeypatch.setattr(day, "MOST_SECONDS", 600 if interrupted else 11)
    pid = tmp_path / "pid"
    inner = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    block = day.Block("one", [sys.executable, "-c", outer])

    def break_off() -> None:
        while not (pid.is_file() and pid.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    if interrupted:
        threading.Thread(target=break_off).start()
        with pytest.raises(KeyboardInterrupt):
            day.run(block, tmp_path)
        assert day.before("one", tmp_path) is None
    else:
        monkeypatch.setattr(day.subprocess.Popen, "wait", waits_for(pid, day.subprocess.Popen.wait))
        assert day.run(block, tmp_path).code == 124
        assert "| one | out of time |" in day.tables([block], tmp_path)
    assert not alive(int(pid.read_text()))


def waits_for(path: Path, wait: Any) -> Any:
    """A wait that begins when the file is there: a slow machine has not even started by then."""

    def begun(process: Any, timeout: float | None = None) -> int:
        while not (path.is_file() and path.read_text()):
            time.sleep(0.01)
        return wait(process, timeout)

    return begun


def test_what_a_block_left_is_gone_on_with(tmp_path: Path) -> None:
    """A run that was cut off is resumed; one that is finished only shown; half a result is none; another's neither."""
    day = module("gpu_day")
    run = tmp_path / "runs" / "p-1"
    block = day.Block("good-p", ["echo", "-m", "niblick", "train", "p"], run)
    assert day.run(block, tmp_path).said == "-m niblick train p"
    run.mkdir(parents=True)
    (run / "config.json").touch()
    assert day.run(block, tmp_path).said == f"-m niblick train --resume {run} --runs {run.parent}"
    (run / "result.json").touch()
    assert day.run(block, tmp_path).said == f"-m niblick show {run}"
    known = day.before("good-p", tmp_path)
    assert known is not None and known.command == block.command
    (tmp_path / "good-p.json").write_text('{"name": "good-p", "co')
    assert day.before("good-p", tmp_path) is None and "good-p" not in day.tables([block], tmp_path)
    assert not day.work(block, tmp_path)
    other = replace(block, command=["false"], run=None)  # as if asked for with other options
    assert day.work(other, tmp_path) and day.work(other, tmp_path)


def test_trouble_is_told_before_the_first_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No data, toy figures for the docs, an unknown block, two at once; and each card has a folder of its own."""
    day = module("gpu_day")
    monkeypatch.setattr(day.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(day.torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(day, "run", lambda block, out: pytest.fail(f"{block.name} was begun"))
    monkeypatch.setattr(day.signal, "signal", lambda *_: None)  # this process keeps what it does at SIGTERM
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["gpu_day.py", "--out", "here", *arguments])
        with pytest.raises(SystemExit) as ended:
            day.main()
        return str(ended.value.code)

    assert f"there is no dataset in {tmp_path / 'data' / 'webmix'}:" in said()
    assert "--subwords" in said("good-dense-sp1024", "--bytes", "b")
    assert said("--quick", "--docs") == said("fast") == "2"
    with day.locked(day.place(tmp_path / "here") / "lock", "it"):
        assert "is being written by process" in said("right")
    monkeypatch.setattr(day.torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert day.place(tmp_path / "here") != next((tmp_path / "here").glob("NVIDIA-H100-torch-*"))


def test_a_far_machine_is_looked_at_first() -> None:
    """Another Python is told before anything is unpacked; the right one says where torch lies, and what it lacks."""
    check = module("gpu_bundle").CHECK
    here = f"{sys.version_info.major}.{sys.version_info.minor}"

    def run(wanted: str, **there: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", f"WANTED = {wanted!r}\n{check}"]
        return subprocess.run(command, capture_output=True, text=True, env={"PATH": "/nowhere"} | there)

    other, bare, compiler = run("3.7"), run(here), run(here, CC="cc")
    assert other.returncode == 1 and "the wheels are for 3.7" in other.stderr and not other.stdout
    assert bare.stdout.splitlines() == sorted({str(Path(m.__file__).parents[1]) for m in (torch, np)})
    assert "there is no C compiler" in bare.stderr and "C compiler" not in compiler.stderr


@pytest.mark.slow
def test_the_day_on_a_gpu_at_toy_size(tmp_path: Path) -> None:
    """The card's tests, a speed and a score; called again, none is done again. The rest is more of the same."""
    command = [sys.executable, BENCHMARKS / "gpu_day.py", "--quick", "--out", tmp_path]
    command += ["right", "fast-dense", "good-baseline-sp1024"]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert "fast-dense: done before" in second and "good-baseline-sp1024: done before" in second
    assert "| right | well |" in first and "| good-baseline-sp1024 | well |" in first and "| dense | " in first
    [path] = tmp_path.rglob("baseline-sp1024-1/result.json")
    result = json.loads(path.read_text())
    assert f"{result['bpb']:.4f} |" in first
