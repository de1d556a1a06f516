"""How far scoring, GPTQ, generation and data preparation, and a training step, are from what bounds them here.

The machine's own limits are measured in the same run: the fastest of a few large matrix products, of copies of a large
tensor, and of writes to the disk. Arithmetic that a path needs is counted, not guessed.

Usage: python benchmarks/bounds.py [--quick] [--docs]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data import text_lines
from hnet import CPU, DTYPE, batch
from measure import put_into_docs
from niblick.data.prepare import prepare
from niblick.data.tokenizers import ByteTokenizer
from niblick.model.lm import LM
from niblick.pack.gptq import gptq_codes
from niblick.pack.grid import fit_grid
from niblick.pack.schemes import parse_scheme
from niblick.recipes.presets import get_preset
from niblick.run.directory import environment, machine
from niblick.run.generate import GenerateConfig, Loaded, draw
from niblick.score.operations import multiply_adds
from niblick.train.precision import DTYPES, autocast
from pack import model_weights, random_hessian
from scoring import trained_like
from step import our_loss, stepper


@dataclass(frozen=True)
class Limits:
    """What the machine can do: operations a second, bytes a second."""

    arithmetic: float
    memory: float
    disk: float


@dataclass(frozen=True)
class HotPath:
    """One hot path: how long it took, what bounds it, and how long that alone would take."""

    name: str
    speed: str
    seconds: float
    bound: str
    bound_seconds: float


def best(action: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of a few runs, after one that is not counted."""
    action()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return min(found)


def limits(quick: bool) -> Limits:
    """Measure the machine; products in the dtype that training would take here."""
    side, size = (256, 1 << 22) if quick else (2048, 1 << 28)
    a, b = (torch.randn(side, side).to(DTYPES[DTYPE]) for _ in range(2))
    source, target = torch.zeros(size, dtype=torch.uint8), torch.ones(size, dtype=torch.uint8)
    with tempfile.TemporaryFile() as file:

        def write() -> None:
            file.seek(0)
            file.write(memoryview(source.numpy()))
            file.flush()
            os.fsync(file.fileno())

        disk = size / best(write, 3)
    return Limits(2 * side**3 / best(lambda: a @ b, 5), 2 * size / best(lambda: target.copy_(source), 5), disk)


def training(name: str, shape: tuple[int, int], here: Limits, quick: bool) -> HotPath:
    """A whole step; backward takes twice the products of forward."""
    config = get_preset(name)
    model = small(trained_like(config.model), quick)
    text = batch(*shape)
    step = stepper(model, config.optim, our_loss, DTYPE, text)
    seconds = best(step, 1 if quick else 3)
    needed = 3 * 2 * multiply_adds(lambda: our_loss(model, *text))
    speed = f"{shape[0] * shape[1] / seconds / 1000:.1f} kB/s"
    return HotPath(f"training step, {name}", speed, seconds, "arithmetic", needed / here.arithmetic)


def scoring(name: str, shape: tuple[int, int], here: Limits, quick: bool) -> HotPath:
    """Contiguous windows, in the dtype of training."""
    model = small(trained_like(get_preset(name).model), quick)
    text = batch(*shape)

    @torch.no_grad()
    def score() -> None:
        with autocast(CPU, DTYPE):
            our_loss(model, *text)

    seconds = best(score, 1 if quick else 3)
    speed = f"{shape[0] * shape[1] / seconds / 1000:.1f} kB/s"
    return HotPath(f"eval, {name}", speed, seconds, "arithmetic", 2 * multiply_adds(score) / here.arithmetic)


def small(model: LM, quick: bool) -> LM:
    """A narrow model of the same kind for quick runs."""
    return trained_like(replace(model.config, width=32, heads=2, kv_heads=1)) if quick else model


def gptq(here: Limits, quick: bool) -> HotPath:
    """Round all matrices of a block to int6: R·C² operations a matrix move the columns, C³ each of two factors."""
    state = model_weights(blocks=1, width=64 if quick else 512)
    matrices = [w for name, w in state.items() if w.ndim == 2 and "blocks" in name and "resid" not in name]
    hessians = {columns: random_hessian(columns) for columns in {w.shape[1] for w in matrices}}
    jobs = [(w, fit_grid(w, parse_scheme("int6")), hessians[w.shape[1]]) for w in matrices]
    seconds = best(lambda: [gptq_codes(*job) for job in jobs], 1 if quick else 3)
    needed = sum(5 * len(w) * w.shape[1] ** 2 + w.shape[1] ** 3 / 3 for w in matrices)
    millions = sum(w.numel() for w in matrices) / 1e6
    return HotPath(
        "GPTQ int6, given Hessians",
        f"{millions / seconds:.2f} M weights/s",
        seconds,
        "arithmetic",
        needed / here.arithmetic,
    )


def generation(name: str, here: Limits, quick: bool) -> HotPath:
    """A step and a draw for each byte of a text: all weights are read, the main stage's only where a chunk starts."""
    config = get_preset(name)
    loaded = Loaded(small(trained_like(config.model), quick), ByteTokenizer(), 256)
    allowed_V, settings, random = torch.ones(260, dtype=torch.bool), GenerateConfig(), torch.Generator()
    tokens = batch(1, 8 if quick else 100)[0][0]

    @torch.no_grad()
    def follow() -> None:
        state = loaded.model.new_state(1, loaded.context)
        for token in tokens:
            draw(loaded.model.step(token[None], state)[0].double(), allowed_V, settings, random)

    seconds = best(follow, 1) / len(tokens)
    main = sum(p.numel() for p in loaded.model.body.main.parameters())
    total = sum(p.numel() for p in loaded.model.parameters())
    read = 4 * (total - main + main / config.model.levels[0].target_length)
    return HotPath(f"generate, {name}", f"{1 / seconds:.0f} bytes/s", seconds, "memory", read / here.memory)


def preparation(here: Limits, quick: bool) -> HotPath:
    """JSONL to shards: the source is read, two bytes a token are written."""
    with tempfile.TemporaryDirectory() as folder:
        source = text_lines(Path(folder), 5e6 if quick else 200e6)
        size, fresh = source.stat().st_size, iter(range(9))
        seconds = best(lambda: prepare(str(source), "byte260", Path(folder, f"out{next(fresh)}")), 1)
        return HotPath("data prepare, bytes", f"{size / seconds / 1e6:.0f} MB/s", seconds, "disk", 3 * size / here.disk)


def paths(here: Limits, quick: bool) -> list[HotPath]:
    """All hot paths."""
    shapes = ((2, 64), (2, 64)) if quick else ((32, 256), (4, 1024))
    presets = list(zip(("hnet-small", "hnet-byte260"), shapes, strict=True))
    return [
        *(training(*p, here, quick) for p in presets),
        *(scoring(*p, here, quick) for p in presets),
        gptq(here, quick),
        *(generation(name, here, quick) for name, _ in presets),
        preparation(here, quick),
    ]


def table(here: Limits, found: list[HotPath]) -> str:
    """The limits as a sentence and the paths as a Markdown table."""
    lines = [
        f"{machine().processor}, {machine().threads} threads, torch {environment()['packages']['torch']}: "
        f"{here.arithmetic / 1e9:.0f} Gflop/s in {DTYPE}, {here.memory / 1e9:.1f} GB/s of memory, "
        f"{here.disk / 1e9:.2f} GB/s to the disk.",
        "",
        "| path | speed | bound by | at the bound | of the bound |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for p in found:
        lines.append(
            f"| {p.name} | {p.speed} | {p.bound} | {1000 * p.bound_seconds:,.2f} of {1000 * p.seconds:,.1f} ms "
            f"| {p.bound_seconds / p.seconds:.0%} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure, print, and with --docs put the table into docs/performance.md."""
    if unknown := set(arguments) - {"--quick", "--docs"}:
        sys.exit(f"there is no option {', '.join(sorted(unknown))} (there are: --quick, --docs)")
    here = limits("--quick" in arguments)
    text = table(here, paths(here, "--quick" in arguments))
    print(text)
    if "--docs" in arguments:
        put_into_docs("bounds", text)


if __name__ == "__main__":
    main(sys.argv[1:])
