"""Codecs are lossless and deterministic, and others can be added."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from niblick.artifact import codecs
from niblick.artifact.codecs import Codec, Spec, get_codec, register_codec, spec_bytes
from niblick.artifact.container import artifact_bytes, parse_artifact
from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ArtifactError


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(codecs, "_CODECS", dict(codecs._CODECS))


class Plain(Codec):
    """Stores the bytes as they are, and can tell what each array takes."""

    def __init__(self, spoil: bool = False) -> None:
        self.spoil = spoil

    def encode(self, parts: list[np.ndarray]) -> bytes:
        return b"".join(part.tobytes() for part in parts)

    def decode(self, data: bytes, specs: Sequence[Spec]) -> list[np.ndarray]:
        arrays, at = [], 0
        for dtype, shape in specs:
            size = spec_bytes((dtype, shape))
            arrays.append(np.frombuffer(data[at : at + size], dtype).reshape(shape))
            at += size
        return arrays[1:] if self.spoil else arrays

    def part_bytes(self, data: bytes, specs: Sequence[Spec]) -> list[int]:
        return [spec_bytes(spec) for spec in specs]


@pytest.mark.parametrize("name", ["zlib", "zstd", "brotli", "range"])
def test_lossless_to_the_bit(name: str) -> None:
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(-128, 128, (50, 30)).astype(np.int8),
        np.frombuffer(rng.bytes(4000), np.float32),  # NaNs of all kinds among them
        np.array(7, np.uint16),
        np.zeros((3, 0, 2), np.float16),
        np.zeros(100_000, np.int8),
    ]
    codec, specs = get_codec(name), [(array.dtype, array.shape) for array in arrays]
    data = codec.encode(arrays)
    assert data == codec.encode([array.copy() for array in arrays])
    for array, back in zip(arrays, codec.decode(data, specs), strict=True):
        assert (array.dtype, array.shape, array.tobytes()) == (back.dtype, back.shape, back.tobytes())
        assert back.flags.writeable
        assert back.flags.aligned
    assert codec.decode(codec.encode([]), []) == []
    sizes = codec.part_bytes(data, specs)
    assert (sizes is None) == (name != "range")
    assert sizes is None or (len(sizes), sum(sizes)) == (len(arrays), len(data))


def test_registered_codec_reads_and_writes_artifacts() -> None:
    plain = Plain()
    register_codec("plain", plain)
    register_codec("plain", plain)  # the same one again: a recipe may be imported twice
    tensor = EncodedTensor("fp16", (3,), {"values": np.arange(3, dtype=np.float16)})
    artifact = parse_artifact(artifact_bytes({}, {"w": tensor}, "plain"))
    assert artifact.state_dict()["w"].tolist() == [0, 1, 2]
    assert artifact.bytes.tensors[0].stored == 6
    with pytest.raises(ArtifactError, match="codec 'zlib' is taken: choose another name"):
        register_codec("zlib", plain)


def test_codec_that_gives_other_arrays_is_refused() -> None:
    register_codec("spoilt", Plain(spoil=True))
    tensor = EncodedTensor("fp16", (3,), {"values": np.arange(3, dtype=np.float16)})
    with pytest.raises(ArtifactError, match="gave other arrays than the header declares"):
        parse_artifact(artifact_bytes({}, {"w": tensor}, "spoilt"))


def test_unknown_codec_names_the_nearest() -> None:
    with pytest.raises(ArtifactError, match=r"no codec 'ztsd' here \(nearest: zstd"):
        get_codec("ztsd")
