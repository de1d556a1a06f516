"""Files that are written tensor by tensor are the same as those that are written at once, and whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from niblick.artifact import container
from niblick.artifact.container import DTYPES, Described, artifact_bytes, read_artifact, stream_artifact
from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ArtifactError, StorageError
from niblick.train.checkpoint import read_tensors, stream_tensors

SHAPES = {"a.weight": (3, 5), "b": (7,), "none": (0, 4), "scalar": ()}


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: np.asarray(generator.normal(size=shape), np.float16) for name, shape in SHAPES.items()}


def described() -> list[Described]:
    return [(name, "fp16", shape, {"values": (DTYPES["f2"], shape)}) for name, shape in SHAPES.items()]


def test_a_streamed_artifact_reads_like_any_other(tmp_path: Path) -> None:
    made, config = arrays(), {"model": {"width": 3}}
    size = stream_artifact(tmp_path / "a.nib", config, described(), iter(made.values()))
    assert size == (tmp_path / "a.nib").stat().st_size
    streamed = read_artifact(tmp_path / "a.nib")
    tensors = {name: EncodedTensor("fp16", SHAPES[name], {"values": array}) for name, array in made.items()}
    (tmp_path / "b.nib").write_bytes(artifact_bytes(config, tensors, "zlib"))
    whole = read_artifact(tmp_path / "b.nib")
    assert (streamed.config, streamed.codec) == (whole.config, whole.codec)
    for name, tensor in streamed.encoded.items():
        assert tensor.shape == SHAPES[name]
        np.testing.assert_array_equal(tensor.parts["values"], whole.encoded[name].parts["values"])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_nothing_is_left_of_a_stream_that_fails(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from list(arrays().values())[:2]
        raise ArtifactError("the source is damaged")

    other_shape = [np.zeros((5, 3), np.float16), *list(arrays().values())[1:]]
    for source, error in ((broken(), "damaged"), (iter(other_shape), r"shape \[5, 3\] came where \[3, 5\]")):
        with pytest.raises(ArtifactError, match=error):
            stream_artifact(tmp_path / "a.nib", {}, described(), source)
        assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_read_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MAX_FILE_BYTES", 100)
    with pytest.raises(ArtifactError, match="past the limits of the format"):
        stream_artifact(tmp_path / "a.nib", {}, described(), iter(()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("payload", "fits"), [(1_000, False), (10_000, True)])
def test_a_large_payload_may_stand_for_more(payload: int, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limits that hold for small files, but not for more than eight times its bytes."""
    monkeypatch.setattr(container, "MAX_ELEMENTS", 10)
    monkeypatch.setattr(container, "MAX_RAW_BYTES", 1 << 20)
    monkeypatch.setattr(container, "FREE_RAW_BYTES", 10)
    monkeypatch.setattr(container, "MAX_RATIO", 1)
    tensors: list[Any] = [("w", "fp16", (10_000,), {"values": (DTYPES["f2"], (10_000,))})]
    if fits:
        container._check_sizes(tensors, payload)
        return
    with pytest.raises(ArtifactError, match=r"past the limits \(8,000 and 8,000\)"):
        container._check_sizes(tensors, payload)


def test_streamed_tensors_are_a_safetensors_file(tmp_path: Path) -> None:
    made = [torch.randn(shape) for shape in SHAPES.values()]
    stream_tensors(tmp_path / "w.safetensors", SHAPES, (t.bfloat16() for t in made), {"clocks": "{}"})
    found, metadata = read_tensors(tmp_path / "w.safetensors")
    assert metadata == {"clocks": "{}"} and found.keys() == SHAPES.keys()
    for tensor, name in zip(made, SHAPES, strict=True):
        torch.testing.assert_close(found[name], tensor.bfloat16().float(), rtol=0, atol=0)


def test_a_full_disk_leaves_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("niblick.train.checkpoint.os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        stream_tensors(tmp_path / "w.safetensors", {"b": (2,)}, [torch.ones(2)], {})
    assert list(tmp_path.iterdir()) == []
