"""How much memory `niblick import hnet` takes on a checkpoint of the paper's size. Linux only.

Usage: python benchmarks/import_memory.py [--dtype bfloat16] [--layers 22] [--width 1536] [--folder DIR]

Writes random weights under the names of the paper's model of one level (680 million parameters), imports them in a
fresh process, and sets the most that it ever had in memory, less what a process has that imported the same modules,
against the bytes of the checkpoint. Mapped pages of the checkpoint count. The run's script is made before, and kept:
that takes some 60 MB, whatever the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from niblick.artifact.foreign.paper_config import read_paper_config
from niblick.artifact.foreign.paper_weights import places
from niblick.run.packing import closure_bytes
from niblick.run.paper_import import model_shapes, paper_run_config

ALLOWED = 1.2
"""Of the checkpoint's own size."""
PEAK = "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])"
IMPORT = """
import sys
from pathlib import Path
import torch._dynamo  # as torch does for weights on the device `meta`
from niblick.run.paper_import import import_hnet
if len(sys.argv) > 1:
    import_hnet(*map(Path, sys.argv[1:4]))
"""


def config(layers: int, width: int) -> dict[str, Any]:
    """The paper's model of one level, or one like it: outer stages of two thirds of the width."""
    outer = 2 * width // 3 // 64 * 64
    return {
        "arch_layout": ["m4", [f"T{layers}"], "m4"],
        "d_model": [outer, width],
        "d_intermediate": [0, 8 * width // 3],
        "vocab_size": 256,
        "ssm_cfg": {"chunk_size": 256, "d_conv": 4, "d_state": 128, "expand": 2},
        "attn_cfg": {"num_heads": [width // 96] * 2, "rotary_emb_dim": [32, 32], "window_size": [1023, -1]},
        "tie_embeddings": False,
    }


def write_checkpoint(folder: Path, layers: int, width: int, dtype: torch.dtype) -> tuple[Path, Path, int]:
    """Write random weights and their config. Returns both paths and the number of weights."""
    weights, path = folder / "hnet.pt", folder / "hnet.json"
    path.write_text(json.dumps(config(layers, width)))
    model = paper_run_config(read_paper_config(path)).model
    shapes = {place.name: place.shape for place in places(model, model_shapes(model)).values()}
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.empty(shape, dtype=dtype).normal_(generator=generator) for name, shape in shapes.items()}
    torch.save(made, weights)
    return weights, path, sum(tensor.numel() for tensor in made.values())


def peak_bytes(*arguments: object) -> int:
    """The most that a process had in memory which imported the modules, and, with arguments, a checkpoint."""
    command = [sys.executable, "-c", IMPORT + PEAK, *map(str, arguments)]
    return 1024 * int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure(folder: Path, layers: int, width: int, dtype: torch.dtype) -> dict[str, Any]:
    """Import such a checkpoint in `folder`. Returns what it took."""
    weights, path, count = write_checkpoint(folder, layers, width, dtype)
    closure_bytes(paper_run_config(read_paper_config(path)), None)
    started = time.perf_counter()
    peak = peak_bytes(weights, path, folder / "runs")
    seconds = time.perf_counter() - started
    size, before = weights.stat().st_size, peak_bytes()
    share = (peak - before) / size
    return {"parameters": count, "bytes": size, "before": before, "peak": peak, "share": share, "seconds": seconds}


def main() -> None:
    """Measure, print, and fail if it is too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--folder", type=Path, help="where some six bytes for each of the checkpoint's are free")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(Path(folder), options.layers, options.width, getattr(torch, options.dtype))
    print(
        f"{found['parameters']:,} weights in {options.dtype}, {found['bytes'] / 1e6:,.0f} MB: at most "
        f"{found['peak'] / 1e6:,.0f} MB in memory, {found['before'] / 1e6:,.0f} of them before it began: "
        f"{found['share']:.1%} of the checkpoint's size, in {found['seconds']:.0f} s"
    )
    if found["share"] > ALLOWED:
        sys.exit(f"that is more than {ALLOWED:.0%}")


if __name__ == "__main__":
    main()
