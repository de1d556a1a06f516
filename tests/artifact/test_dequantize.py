"""Each scheme's arithmetic, and schemes that users add."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from niblick.artifact import dequantize
from niblick.artifact.dequantize import EncodedTensor, get_dequantizer, register_dequantizer
from niblick.errors import ArtifactError


def test_int8_per_row_and_for_the_whole() -> None:
    codes = np.array([[1, -2], [127, -128]], np.int8)
    rows = EncodedTensor("int8", (2, 2), {"codes": codes, "scale": np.array([0.5, 2], np.float16)})
    assert rows.dequantize().tolist() == [[0.5, -1], [254, -256]]
    whole = EncodedTensor("int8", (2, 2), {"codes": codes, "scale": np.array(0.5, np.float32)})
    assert whole.dequantize().tolist() == [[0.5, -1], [63.5, -64]]
    assert (whole.elements, whole.nbytes) == (4, 8)


def test_scales_that_are_not_finite_come_through() -> None:
    parts = {"codes": np.array([0, 1], np.int8), "scale": np.array(np.inf, np.float32)}
    values = EncodedTensor("int8", (2,), parts).dequantize()
    assert torch.isnan(values[0])
    assert torch.isinf(values[1])


def test_scale_per_row_is_for_matrices() -> None:
    parts = {"codes": np.zeros((2, 3, 4), np.int8), "scale": np.zeros(2, np.float16)}
    with pytest.raises(ArtifactError, match="part scale of a tensor of scheme int8 is float16"):
        EncodedTensor("int8", (2, 3, 4), parts).dequantize()


def test_registered_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dequantize, "_DEQUANTIZERS", dict(dequantize._DEQUANTIZERS))  # forgotten after the test
    register_dequantizer("double", lambda shape, parts: (parts["values"] * np.float32(2)).reshape(shape))
    assert EncodedTensor("double", (2,), {"values": np.ones(2, np.float32)}).dequantize().tolist() == [2, 2]
    with pytest.raises(ArtifactError, match="scheme 'int8' is taken"):
        register_dequantizer("int8", lambda shape, parts: parts["values"])
    register_dequantizer("wrong", lambda shape, parts: parts["values"])
    with pytest.raises(ArtifactError, match=r"made float64 \[3\] where float32 \[2\] was stored"):
        EncodedTensor("wrong", (2,), {"values": np.ones(3)}).dequantize()
    with pytest.raises(ArtifactError, match=r"no scheme 'int88' here \(nearest: int8"):
        get_dequantizer("int88")
