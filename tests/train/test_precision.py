"""Arithmetic by machine: what `auto` stands for, and bfloat16 products where they are emulated."""

from __future__ import annotations

import pytest
import torch

from niblick.train import precision
from niblick.train.optim import orthogonalize

CPU = torch.device("cpu")


def test_auto_is_what_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, name in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "native_bfloat16", lambda device, native=native: native)
        assert precision.pick_dtype("auto", CPU) == name
        with precision.autocast(CPU, "auto"):
            assert torch.is_autocast_enabled("cpu") is native
    assert precision.pick_dtype("bfloat16", CPU) == "bfloat16"  # what was asked for is what one gets


def test_a_gpu_multiplies_bfloat16() -> None:
    assert precision.native_bfloat16(torch.device("cuda"))


def test_muon_in_either_arithmetic() -> None:
    update_NRC = torch.randn(3, 32, 48, generator=torch.Generator().manual_seed(0))
    published, exact = (orthogonalize(update_NRC, 5, dtype).float() for dtype in precision.DTYPES.values())
    assert torch.linalg.svdvals(exact).min() > 0.5
    assert 0 < (published - exact).abs().max() <= 0.05 * exact.abs().max()
