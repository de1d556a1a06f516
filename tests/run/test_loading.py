"""Memory that tensors free is kept for the next ones."""

from __future__ import annotations

import platform
import sys

import pytest
import torch

from niblick.recipes.presets import get_preset
from niblick.run.loading import build_model


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc's own settings")
def test_large_tensors_need_no_new_pages() -> None:
    """A tensor of 8 MB in new pages is 2,048 page faults; from the heap it is none."""
    import resource

    with torch.device("meta"):
        build_model(get_preset("hnet-small").model, 0)
    torch.zeros(1 << 21)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(1 << 21).add_(1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 2 * 2048
