"""Memory that a process keeps."""

from __future__ import annotations

import contextlib
import ctypes


def keep_freed_memory() -> None:
    """Let glibc keep what arrays and tensors free for the next ones, up to a gigabyte of it.

    Else it gives large ones back each time, and the kernel makes new pages of zeros: a sixth of a small model's step,
    and of preparing text.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another system's library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD: from here on memory is mapped by itself; the largest that is taken
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: what may lie free at the end of the heap
