"""Counts where a host would wait for a GPU, on the CPU: numbers read off tensors, and shapes that depend on values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

READERS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "_linalg_check_errors"}
"""Operations that cannot go on before the host has seen a value."""
COPIES = {"tolist", "numpy", "cpu"}
"""What copies to the host without an operation of its own, on tensors that lie there already."""


class _Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        masks = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype is torch.bool for i in args[1]
        )
        self.count += name in READERS or masks or (name, func._overloadname) == ("repeat_interleave", "Tensor")
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in COPIES
        return func(*args, **(kwargs or {}))


def count_waits(work: Callable[[], object]) -> int:
    """How often the host would wait for a GPU if this work were done on one."""
    with _Copies() as copies, _Operations() as operations:
        work()
    return copies.count + operations.count
