"""One big GPU: whole training steps of `hnet-byte260-12l` in five modes, each for a while in a process of its own.

- `study2`: study 2's way: room for a chunk every 4 bytes and no more, one associative scan, the whole model compiled;
- `bucketed` and `packed`: nothing is truncated, every stage is compiled by itself;
- `graphs`: `bucketed`, its inner stage replayed as CUDA graphs, one for each number of chunks; on trial here alone;
- `dense`: the same twelve blocks, all at full resolution, the whole model compiled.

Prints bytes a second, milliseconds per 65,536 bytes, peak memory, graphs compiled, host synchronizations of a step, and
utilization: the arithmetic that the mode needs (chunks that exist, not the room for them; attention's causal half) over
the fastest of a few large bfloat16 products in the same process; and what the milliseconds of a step are spent on, by
torch's profiler. Steps that compile are not timed. Writes build/gpu.json beside the machine.

Usage: python benchmarks/gpu.py [--seconds 60] [--quick] [--out FILE] [MODE …]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from niblick.data.embedded import embedded_documents
from niblick.files import write_json
from niblick.model import level as level_module
from niblick.model import varlen
from niblick.model.chunking import P_EPS
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.model.plain_routers import Routing
from niblick.model.stage import Stage
from niblick.recipes.presets import get_preset
from niblick.run.directory import environment, machine
from niblick.train.optim import Optimizers
from niblick.train.precision import DTYPES, autocast, pick_device, pick_dtype
from niblick.train.step import compile_stages

MODES = ("study2", "bucketed", "packed", "graphs", "dense")
OUT = Path(__file__).parents[1] / "build" / "gpu.json"
PARTS = {
    "attention": ("flash", "fmha", "attention"),
    "products": ("gemm", "nvjet", "cutlass", "cublas", "gemv", "splitk", "::mm", "::addmm", "::bmm", "::baddbmm"),
    "compiled": ("triton",),
    "optimizer": ("multi_tensor", "adam"),
    "copies": ("memcpy", "memset", "copy_"),
    "other": ("",),
}
"""What a kernel of a GPU, or an operation on the CPU, belongs to: the first whose words are in its name."""
GROUP = 8
"""Steps between two looks at the clock: the host should not run seconds ahead of it."""


@dataclass(frozen=True)
class Size:
    """How much the benchmark does."""

    rows: int
    length: int
    seconds: float
    product: int
    """Side of the matrices whose product shows what the device can do."""


FULL = Size(rows=32, length=2048, seconds=60.0, product=8192)
QUICK = Size(rows=2, length=64, seconds=0.5, product=256)


@dataclass(frozen=True)
class Result:
    """What one mode did."""

    mode: str
    bytes_per_second: float
    ms_per_65536: float
    peak_gib: float
    """Most memory of the device in use; 0 on the CPU."""
    graphs: int
    compile_seconds: float
    """Seconds of the steps before the clock ran."""
    syncs: int
    """Times that the host waited for the device in one step; -1 where nobody counts."""
    utilization: float
    chunk_share: float
    """Chunks that the main stage saw, by positions, at the end."""
    truncated: float
    """Share of boundaries that found no room, at the end."""
    loss: float
    """Nats per byte, at the end."""
    parts: dict[str, float]
    """Milliseconds of a step, by PARTS."""


def scan_smooth(z_BCD: Tensor, p_BC: Tensor) -> Tensor:
    """The moving average as one associative scan over all chunks, by doubling: log2(C) passes over (B, C, D)."""
    p_BC1 = p_BC.float().clamp(P_EPS, 1 - P_EPS)[..., None]
    keep_BC1 = torch.cat((torch.zeros_like(p_BC1[:, :1]), 1 - p_BC1[:, 1:]), 1)
    state_BCD = torch.cat((z_BCD[:, :1].float(), (p_BC1 * z_BCD)[:, 1:]), 1)
    step = 1
    while step < z_BCD.shape[1]:
        joined_BCD = state_BCD[:, step:] + keep_BC1[:, step:] * state_BCD[:, :-step]
        state_BCD = torch.cat((state_BCD[:, :step], joined_BCD), 1)
        keep_BC1 = torch.cat((keep_BC1[:, :step], keep_BC1[:, step:] * keep_BC1[:, :-step]), 1)
        step *= 2
    return state_BCD.to(z_BCD.dtype)


def mode_config(mode: str, quick: bool) -> ModelConfig:
    """The model of a mode. Only the dense one has other weights: no router and no residual projection."""
    model = get_preset("hnet-byte260-12l").model
    if quick:
        model = replace(model, width=32, heads=2, kv_heads=1)
    if mode == "dense":
        return replace(model, levels=(), main=StageConfig("T12"))
    capacity = {"study2": "divisor:4", "graphs": "bucketed"}.get(mode, mode)
    return replace(model, levels=(replace(model.levels[0], capacity=capacity),))


def windows(size: Size, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of this Python's own documentation as byte260 tokens, at random places, sent while a step runs."""
    few = 40 if size.length == QUICK.length else None
    text = "".join(text for text, _ in embedded_documents("pydocs")[:few]).encode()
    tokens = torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64) + 4)
    random = torch.Generator().manual_seed(0)
    while True:
        starts_B1 = torch.randint(len(tokens) - size.length - 1, (size.rows, 1), generator=random)
        window = tokens[starts_B1 + torch.arange(size.length + 1)]
        window = (window.pin_memory() if device.type == "cuda" else window).to(device, non_blocking=True)
        yield window[:, :-1], window[:, 1:]


def stage_flops(stage: Stage, positions: float, context: float) -> float:
    """Multiplications and additions of one forward pass; a query looks at half the context on average."""
    weights = sum(m.weight.numel() for m in stage.modules() if isinstance(m, torch.nn.Linear))
    weights *= len(stage.layout) / len(stage.blocks)
    width = next(m.weight.shape[1] for m in stage.modules() if isinstance(m, torch.nn.Linear))
    return 2 * positions * (weights + len(stage.layout) * width * context)


def needed_flops(model: LM, positions: int, length: int, chunk_share: float) -> float:
    """Arithmetic of one training step: forward once, backward twice that."""
    body = model.body
    total = 2.0 * positions * model.embed.weight.numel()
    if body.levels:
        level = body.levels[0]
        maps = sum(p.numel() for m in (level.router, level.residual) for p in m.parameters())
        total += 2.0 * positions * maps
        total += sum(stage_flops(stage, positions, length) for stage in (level.encoder, level.decoder))
    return 3 * (total + stage_flops(body.main, chunk_share * positions, chunk_share * length))


def fastest_product(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations a second of the best of a few square products."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        started = time.perf_counter()
        c = a @ b
        float(c[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def run_mode(mode: str, size: Size, device: torch.device) -> Result:
    """Train for `size.seconds` and tell how fast it went."""
    quick = size.length == QUICK.length
    torch.manual_seed(0)
    config = get_preset("hnet-byte260-12l")
    model = LM(mode_config(mode, quick)).to(device)
    dtype = pick_dtype("auto", device)
    optimizers = Optimizers(model, config.optim, dtype=DTYPES[dtype])
    run = model
    if mode == "study2":
        level_module.smooth = scan_smooth  # type: ignore[assignment]
    if mode in ("study2", "dense"):
        if not quick:
            run = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    else:
        compile_stages(model, "never" if quick else "always", device, lambda event: None)
        if mode == "graphs" and not quick:
            model.body.main.compile(dynamic=False, mode="reduce-overhead")
    print(f"{mode}: {kernels(device, dtype, compiled=not quick)}", file=sys.stderr, flush=True)
    batches = windows(size, device)
    done = 0

    def step() -> tuple[Tensor, list[Routing]]:
        nonlocal done
        if mode == "graphs":
            torch.compiler.cudagraph_mark_step_begin()
        with autocast(device, dtype):
            losses, routings = run(*next(batches))
        losses.total.backward()
        optimizers.step(done, 1.0)
        model.zero_grad(set_to_none=True)
        done += 1
        return losses.lm.detach(), routings

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    started = time.perf_counter()
    for _ in range(2 if quick else 20):
        step()
    wait()
    compiling = time.perf_counter() - started
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    shares: list[Tensor] = []
    positions = size.rows * size.length
    seconds = 0.0
    while seconds < size.seconds:
        before, started, group = compiled(), time.perf_counter(), []
        for _ in range(GROUP):
            lm, routings = step()
            group.append(level_module.kept(routings[0]).float().mean() if routings else torch.ones((), device=device))
        wait()
        if compiled() == before:  # a new number of chunks is compiled once, however long the run is
            seconds += time.perf_counter() - started
            shares += group
    share, steps = torch.stack(shares).tolist(), len(shares)
    flops = sum(needed_flops(model, positions, size.length, s) for s in share)
    boundary = routings[0].boundary_BL.float().mean().item() if routings else 1.0
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return Result(
        mode=mode,
        bytes_per_second=steps * positions / seconds,
        ms_per_65536=1000 * seconds / (steps * positions) * 65_536,
        peak_gib=peak,
        graphs=compiled(),
        compile_seconds=compiling,
        syncs=min(_syncs(step) for _ in range(3)) if device.type == "cuda" else -1,  # one that compiles waits more
        utilization=flops / seconds / fastest_product(device, DTYPES[dtype], size.product),
        chunk_share=share[-1],
        truncated=1 - share[-1] / boundary if boundary else 0.0,
        loss=float(lm),
        parts=parts(step, wait, device),
    )


def compiled() -> int:
    """Graphs compiled so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def parts(step: Callable[[], object], wait: Callable[[], None], device: torch.device) -> dict[str, float]:
    """Milliseconds of one step by PARTS: of the GPU's kernels, or of the operations where there is none."""
    cuda, steps = device.type == "cuda", 3
    wait()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as seen:
        for _ in range(steps):
            step()
        wait()
    spent = dict.fromkeys(PARTS, 0.0)
    for row in seen.key_averages():
        if row.is_user_annotation or (cuda and row.device_type != DeviceType.CUDA):
            continue  # spans around kernels, and the host's side of them
        name = row.key.lower()
        part = next(part for part, words in PARTS.items() if any(word in name for word in words))
        spent[part] += (row.self_device_time_total if cuda else row.self_cpu_time_total) / 1000 / steps
    return spent


def kernels(device: torch.device, dtype: str, compiled: bool) -> str:
    """What computes here: the choices that depend on the machine."""
    with autocast(device, dtype):
        segments = varlen.available(torch.empty(0, device=device))
    return ", ".join(
        (
            f"products in {dtype}",
            f"packed rows by {'the variable-length kernel' if segments else 'a dense mask'}",
            "compiled" if compiled else "not compiled",
            f"scaled_dot_product_attention of torch {torch.__version__}",
        )
    )


def _syncs(step: Callable[[], object]) -> int:
    """Count the times that torch makes the host wait in one step."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(w.message) for w in caught)


def table(results: list[Result]) -> str:
    """The results as a Markdown table, each mode against study 2's way."""
    base = next((r.bytes_per_second for r in results if r.mode == "study2"), None)
    lines = [
        "| mode | bytes/s | × study 2 | ms per 65,536 | peak GiB | graphs | first steps | syncs/step | utilization "
        "| chunks/bytes | truncated | loss |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in results:
        against = f"{r.bytes_per_second / base:.2f}" if base else "–"
        syncs = str(r.syncs) if r.syncs >= 0 else "–"
        lines.append(
            f"| {r.mode} | {r.bytes_per_second:,.0f} | {against} | {r.ms_per_65536:.1f} | {r.peak_gib:.2f} "
            f"| {r.graphs} | {r.compile_seconds:.0f} s | {syncs} | {r.utilization:.1%} "
            f"| {r.chunk_share:.3f} | {r.truncated:.1%} | {r.loss:.3f} |"
        )
    lines += ["", f"| ms a step | {' | '.join(PARTS)} |", f"| --- |{' ---: |' * len(PARTS)}"]
    for r in results:
        lines.append(f"| {r.mode} | {' | '.join(f'{r.parts[part]:.2f}' for part in PARTS)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Run each mode in a fresh process, so that no one inherits another's graphs and memory."""
    parser = argparse.ArgumentParser(description="Training steps of hnet-byte260-12l on one GPU, in five modes.")
    parser.add_argument("modes", nargs="*", metavar="MODE", help=f"of {', '.join(MODES)}; all without any")
    parser.add_argument("--seconds", type=float, help="training time of each mode; 60 without it")
    parser.add_argument("--quick", action="store_true", help="toy size, not compiled, for tests")
    parser.add_argument("--out", type=Path, help="where the figures go; build/gpu.json without it")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.seconds is not None and options.seconds <= 0:
        parser.error(f"--seconds {options.seconds} must be positive")
    if unknown := set(options.modes) - set(MODES):
        parser.error(f"there is no mode {', '.join(sorted(unknown))} (there are: {', '.join(MODES)})")
    size = QUICK if options.quick else FULL
    size = replace(size, seconds=options.seconds or size.seconds)
    device = pick_device("auto")
    if device.type != "cuda" and not options.quick:
        sys.exit("there is no GPU here: --quick shows that the benchmark runs, at toy size")
    if options.one:
        print(json.dumps(asdict(run_mode(options.one, size, device))))
        return
    results = []
    for mode in options.modes or MODES:
        print(f"{mode} …", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--one", mode, *(["--quick"] if options.quick else [])]
        command += ["--seconds", str(options.seconds)] if options.seconds else []
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{mode} failed, see above")
        results.append(Result(**json.loads(done.stdout.splitlines()[-1])))
        print(table(results[-1:]), file=sys.stderr, flush=True)
    print(f"\n{machine().processor}, {device.type}, torch {torch.__version__}\n\n{table(results)}")
    if options.out or not options.quick:
        out = options.out or OUT
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {"environment": environment(), "results": [asdict(r) for r in results]})


if __name__ == "__main__":
    main(sys.argv[1:])
