"""The card that these tests run on. NIBLICK_CARD=cpu runs them where there is none, to see that they run at all."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def card() -> torch.device:
    """The device under test; skips where there is no GPU, unless another device is named."""
    named = os.environ.get("NIBLICK_CARD", "")
    if not named and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here (NIBLICK_CARD=cpu runs these tests on the processor)")
    return torch.device(named or "cuda")
