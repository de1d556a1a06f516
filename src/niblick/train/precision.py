"""The arithmetic that a model runs in: bfloat16 where the machine multiplies it faster, else float32.

That is measured. A processor without instructions for bfloat16 emulates its products, and one that has them may still
be slower with them (docs/performance.md). Weights, optimizer state and losses are float32 in any case.
"""

from __future__ import annotations

import contextlib
import time
from functools import cache
from typing import Any

import torch

from niblick.errors import ConfigError

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""What autocast may run in, by name."""


@cache
def native_bfloat16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this device: on a CPU by a quarter at least."""
    if device.type != "cpu":
        return True
    seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # other processes do not count, nor do threads that wait for each other beside them
    with torch.no_grad():
        for _ in range(5):
            for dtype, found in seconds.items():
                square = torch.ones(384, 384, dtype=dtype)
                started = time.process_time()
                square @ square
                found.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return min(seconds[torch.float32]) > 1.25 * min(seconds[torch.bfloat16])


def pick_dtype(name: str, device: torch.device) -> str:
    """Return the name of a dtype; `auto` is what is fast on this device."""
    if name == "auto":
        return "bfloat16" if native_bfloat16(device) else "float32"
    return name


def autocast(device: torch.device, dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context for a dtype: auto, bfloat16 or float32."""
    dtype = pick_dtype(dtype, device)
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32")


def pick_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA, else MPS, else the CPU. Raises ConfigError if it is not here."""
    fastest = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(fastest if name == "auto" else name)
        torch.empty(0, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: choose auto, cpu, cuda or mps") from error
