"""Memory that a process keeps, and how much of it a pass through a model takes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PROCESSOR_NUMBERS = 1 << 21
"""Numbers of the largest residual stream on a processor. An MLP makes four times as many, which in float32 is the
largest block that glibc keeps; with larger ones a pass took up to four times as long."""


def tokens_at_once(tokens: int, width: int, device: torch.device) -> int:
    """Return how many of `tokens` go through a model together: all on a GPU, on a processor a few thousand.

    A processor is no faster with more, and they take memory: 7.6 GB for 65,536 tokens of `niblick-byte`.
    """
    return min(tokens, max(1, PROCESSOR_NUMBERS // width)) if device.type == "cpu" else tokens


def keep_freed_memory() -> None:
    """Let glibc keep what arrays and tensors free for the next ones, up to a gigabyte of it.

    Else it gives large ones back each time, and the kernel makes new pages of zeros: a sixth of a small model's step,
    and of preparing text.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another system's library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD: from here on memory is mapped by itself; the largest that is taken
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: what may lie free at the end of the heap


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Hold the garbage collector while syntax trees are read: it would walk them again and again, and find nothing."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
