"""This build beside another one: the same work in two processes that take turns, on one thread each.

Usage: python benchmarks/against.py REV [--rounds N] [--docs] [NAME …]

REV is checked out into a worktree of its own, and its `src` is put before what is installed: niblick is pure Python, so
one environment serves both. What counts is the CPU time of a process at its best of several rounds: on a machine with
other work, that is what differs least. Peak memory is that of the whole process, Python and torch included.

Models are not trained, but their routers are drawn so that they cut as often as the preset aims at.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from measure import put_into_docs

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The `src` folder of a revision, in a worktree that is gone afterwards."""
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        tree = str(Path(folder, "tree"))
        subprocess.run([*git, "add", "--quiet", "--detach", tree, revision], check=True)
        try:
            yield Path(tree, "src")
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True)


def untrained(preset: str) -> tuple[Any, Any]:
    """The config of a preset and its model; two modules have moved since the first builds."""
    presets, loading = (moved(*names) for names in (("recipes.presets", "presets"), ("run.loading", "loading")))
    config = presets.get_preset(preset)
    model = loading.build_model(config.model, 0)
    text, _ = batch(2, 1024)
    for depth, level in enumerate(config.model.levels):
        if level.router == "cosine":
            cut_often(model, depth, 1 / level.target_length, text)
    return config, model


def cut_often(model: Any, depth: int, share: float, text: Any) -> None:
    """Mix noise into a cosine router's keys until it cuts at `share` of the positions of a text."""
    import torch

    key = model.body.levels[depth].router.k.weight.data
    same, low, high = key.clone(), 0.0, 1.0
    noise = torch.randn(key.shape, generator=torch.Generator().manual_seed(0)) / len(key) ** 0.5
    for _ in range(10):
        middle = (low + high) / 2
        key.copy_((1 - middle) * same + middle * noise)
        with torch.no_grad():
            cut = float(model(text, text)[1][depth].boundary_BL.float().mean())
        low, high = (middle, high) if cut < share else (low, middle)


def moved(*names: str) -> Any:
    """The first module of niblick, by its names from today's on, that this build has."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(f"niblick.{name}")
    raise ImportError(f"this build of niblick has none of {', '.join(names)}")


def batch(rows: int, length: int) -> tuple[Any, Any]:
    """Windows of this project's own pages, as byte260 tokens and the targets after them, (B, L) both."""
    import torch

    pages = b"".join(path.read_bytes() for path in sorted(Path(ROOT, "docs").glob("*.md")))[: rows * length + 1]
    tokens = torch.tensor(list(pages)) + 4
    return tokens[:-1].view(rows, length), tokens[1:].view(rows, length)


def in_passes(config: Any, tokens: int) -> int:
    """How many passes this build makes of a micro-batch, or of a batch that is scored, on a processor."""
    import torch

    at_once = getattr(moved("memory", "errors"), "tokens_at_once", lambda tokens, width, device: tokens)
    return -(-tokens // at_once(tokens, config.model.width, torch.device("cpu")))


def training(preset: str, rows: int, length: int, steps: int = 6) -> Callable[[], float]:
    """Steps of training, in as many passes as this build makes of them on a processor; returns the loss of the last."""
    import torch

    from niblick.train.optim import Optimizers
    from niblick.train.precision import DTYPES, autocast, pick_dtype

    cpu = torch.device("cpu")
    config, model = untrained(preset)
    optimizers = Optimizers(model, config.optim, dtype=DTYPES[pick_dtype("auto", cpu)])
    passes = in_passes(config, rows * length)
    text = [part.chunk(passes) for part in batch(rows, length)]

    def train() -> float:
        for _ in range(steps):
            total = 0.0
            for ids_BL, targets_BL in zip(*text, strict=True):
                with autocast(cpu, "auto"):
                    losses, _ = model(ids_BL, targets_BL)
                (losses.total / passes).backward()
                total += float(losses.lm.detach()) / passes
            optimizers.clip()
            optimizers.step(0, 1.0)
            model.zero_grad(set_to_none=True)
        return total

    return train


def evaluation(preset: str, rows: int, length: int) -> Callable[[], float]:
    """Contiguous windows, as validation reads them; returns their mean loss."""
    import torch

    from niblick.train.precision import autocast

    cpu = torch.device("cpu")
    config, model = untrained(preset)
    passes = in_passes(config, rows * length)
    text = [part.chunk(passes) for part in batch(rows, length)]
    model.eval()

    @torch.no_grad()
    def score() -> float:
        total = 0.0
        for ids_BL, targets_BL in zip(*text, strict=True):
            with autocast(cpu, "auto"):
                total += float(model.token_losses(model.hidden(ids_BL)[0], targets_BL).mean()) / passes
        return total

    return score


def generation(preset: str, rows: int, length: int) -> Callable[[], float]:
    """`length` tokens of `rows` rows, one after the other; returns the log-sum of the last logits."""
    import torch

    model, (ids_BL, _) = untrained(preset)[1].eval(), batch(rows, length)

    @torch.no_grad()
    def follow() -> float:
        state = model.new_state(rows, 1024)
        for token_B in ids_BL.t():
            logits_BV = model.step(token_B, state)
        return float(logits_BV.logsumexp(1).mean())

    return follow


def rounding(preset: str, width: int, inner: int) -> Callable[[], float]:
    """GPTQ of a block to int6, three of whose maps read one input; returns the mean size of all weights."""
    import torch

    pack, config = moved("pack.quantize").pack, moved("pack.export_config", "pack.quantize").ExportConfig
    shapes = {"q": (width, width), "k": (width // 2, width), "v": (width // 2, width), "out": (width, width)}
    shapes |= {"up": (inner, width), "down": (width, inner)}
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    seen = {name: torch.randn(4 * shapes[name][1], shapes[name][1], generator=generator) for name in shapes}
    seen["k"] = seen["v"] = seen["q"]
    products = {name: x_NC.t() @ x_NC / len(x_NC) for name, x_NC in seen.items()}

    def pack_all() -> float:
        hessians = {name: product.clone() for name, product in products.items()}  # as new, so nothing is remembered
        hessians["k"] = hessians["v"] = hessians["q"]
        encoded = pack(state, config(scheme="int6", gptq="float"), hessians=hessians)
        return sum(float(tensor.dequantize().abs().mean()) for tensor in encoded.values())

    return pack_all


WORK: dict[str, tuple[Callable[..., Callable[[], float]], str, int, int]] = {
    "step-byte-small": (training, "niblick-byte-small", 16, 256),
    "step-quickstart": (training, "quickstart", 16, 256),
    "step-hnet-small": (training, "hnet-small", 32, 256),
    "step-hnet-byte260": (training, "hnet-byte260", 1, 1024),
    "pass-niblick-byte": (partial(training, steps=1), "niblick-byte", 64, 1024),
    "pass-hnet-byte260": (partial(training, steps=1), "hnet-byte260", 64, 1024),
    "eval-byte-small": (evaluation, "niblick-byte-small", 16, 256),
    "eval-hnet-small": (evaluation, "hnet-small", 32, 256),
    "eval-niblick-byte": (evaluation, "niblick-byte", 32, 1024),
    "generate-1": (generation, "hnet-byte260", 1, 16),
    "generate-32": (generation, "hnet-byte260", 32, 16),
    "gptq": (rounding, "", 512, 1024),
}
"""What is timed: how, of which preset, and the shape of its batch. A `pass` is a micro-batch as the preset has it."""


def work(name: str) -> None:
    """Do the work once for each line that comes in, and say what it took and gave."""
    make, preset, rows, length = WORK[name]
    action = make(preset, rows, length)
    for _ in sys.stdin:
        started = time.process_time()
        value = action()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(time.process_time() - started, peak, value, flush=True)


def started(name: str, source: Path) -> subprocess.Popen[str]:
    """A process of one build that is ready to work; leaving it ends it."""
    here = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--work", name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here)


def pair(name: str, sources: list[Path], rounds: int) -> list[list[tuple[float, ...]]]:
    """Seconds, peak memory and values of both builds in each round, after one that is not counted."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(started(name, source)) for source in sources]
        found: list[list[tuple[float, ...]]] = [[] for _ in workers]
        for _ in range(rounds + 1):
            for worker, own in zip(workers, found, strict=True):
                assert worker.stdin and worker.stdout
                worker.stdin.write("\n")
                worker.stdin.flush()
                own.append(tuple(map(float, worker.stdout.readline().split())))
        for worker in workers:
            assert worker.stdin
            worker.stdin.close()
    return [own[1:] for own in found]


def main(arguments: list[str]) -> None:
    """Print a table of both builds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("revision")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(WORK))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/performance.md")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(WORK):
        parser.error(f"there is no {', '.join(sorted(unknown))} (there are: {', '.join(WORK)})")
    lines = [
        f"Against {options.revision}, one thread, CPU time, best of {options.rounds} in turns:",
        "",
        "| work | this build | that build | ratio | peak memory | ratio | values differ by |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    with checked_out(options.revision) as source:
        for name in options.names or WORK:
            own, other = pair(name, [ROOT / "src", source], options.rounds)
            best, theirs = (1000 * min(seconds for seconds, *_ in found) for found in (own, other))
            peak, peaks = own[-1][1], other[-1][1]
            apart = max(abs(a - b) for (*_, a), (*_, b) in zip(own, other, strict=True))
            memory = f"{peak:,.0f} of {peaks:,.0f} MB | {peak / peaks:.2f}×"
            lines.append(
                f"| {name} | {best:.0f} ms | {theirs:.0f} ms | {theirs / best:.2f}× | {memory} | {apart:.1e} |"
            )
            print(lines[-1], flush=True)
    if options.docs:
        put_into_docs("against", "\n".join(lines))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2])
    else:
        main(sys.argv[1:])
