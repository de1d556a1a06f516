"""Checkpoints that others trained with the challenge's published scripts: `final_model.pt`, `final_model.int8.ptz`.

The first is a state dict, the second zlib over a dictionary: `quantized` int8 codes, their `scales` (fp16 for each row
of a matrix, else one number) and `dtypes`; `passthrough` tensors as they are, with `passthrough_orig_dtypes`; `qmeta`.
Both are written by `torch.save`. They come from strangers, so nothing in them is run (`weights_only`) and nothing is
believed: sizes are bounded before anything of that size is allocated.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import brotli
import numpy as np
import torch
import zstandard

from niblick.artifact.codecs import brotli_decompress
from niblick.artifact.container import FREE_RAW_BYTES, MAX_FILE_BYTES, MAX_RAW_BYTES
from niblick.artifact.dequantize import EncodedTensor
from niblick.artifact.foreign.names import from_published, nothing, to_published, unwrapped
from niblick.artifact.foreign.torch_files import load_dictionary, no_dictionary, other_kind, unreadable
from niblick.errors import ArtifactError, kind_of

MAX_INFLATION = 100
"""A `.ptz` may inflate to FREE_RAW_BYTES, or to so many times its size: weights compress well, a bomb better."""

_STREAMS = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"\x5d\0\0": "xz"}
"""Forms of compression by the bytes that they begin with; zlib has a checksum there, and brotli nothing."""
_LZMA_MEMORY = 1 << 28

_FLOATS = {torch.float16: "fp16", torch.bfloat16: "fp32", torch.float32: "fp32", torch.float64: "fp32"}
_FORM = {"quantized", "scales", "dtypes", "passthrough"}

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class PublishedWeights:
    """Weights under our names, in their stored form; `quantized` where some of it is int8 codes and scales."""

    encoded: dict[str, EncodedTensor]
    quantized: bool

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the float32 tensors by name."""
        return {name: tensor.dequantize() for name, tensor in self.encoded.items()}


def read_published(path: Path, expected: Shapes) -> PublishedWeights:
    """Read a published checkpoint for a model whose tensors (our names) have the `expected` shapes.

    Codes and scales stay as they are: nothing is quantized again. Raises ArtifactError for a file that is no such
    checkpoint, holds code, or inflates too far, and names the first tensor that the model does not have in this shape.
    """
    data = _read(path)
    quantized = path.suffix == ".ptz"
    content = _load(path, _inflate(path, data) if quantized else data)
    quantized = quantized or content.keys() >= _FORM
    codes, scales, kept = _int8_form(path, content) if quantized else ({}, {}, content)
    cut = unwrapped([*codes, *kept])
    codes, scales, kept = ({name[cut:]: value for name, value in part.items()} for part in (codes, scales, kept))
    kept = {name: value for name, value in kept.items() if not nothing(name, getattr(value, "shape", ()))}
    # Compared before anything is copied: many names may share one storage, but they fit the model then.
    tensors = {name: _checked(path, name, value) for name, value in {**codes, **kept}.items()}
    _compare(path, tensors, expected)
    encoded = {name: _int8(path, name, tensors[name], _checked(path, name, scales[name])) for name in codes}
    encoded |= {name: _kept(path, name, tensors[name]) for name in kept}
    return PublishedWeights(from_published(encoded), bool(codes))


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ArtifactError(f"{path} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read")
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def _inflate(path: Path, data: bytes) -> bytes:
    limit = min(MAX_RAW_BYTES, max(FREE_RAW_BYTES, MAX_INFLATION * len(data)))
    kind = next((kind for begin, kind in _STREAMS.items() if data.startswith(begin)), "brotli")
    if data[:1] == b"\x78" and int.from_bytes(data[:2], "big") % 31 == 0:
        kind = "zlib"
    try:
        raw, whole = _opened(kind, data, limit + 1)
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, brotli.error, EOFError) as error:
        if kind == "brotli":
            if other := other_kind(path, data):
                raise ArtifactError(f"{path} is {other}") from None
            raise ArtifactError(
                f"{path} is no stream of zlib, zstd, xz, lzma or brotli, or is damaged; fetch it again"
            ) from None
        raise ArtifactError(f"{path} is a damaged {kind} stream ({error}); fetch it again") from None
    if len(raw) > limit:
        raise ArtifactError(f"{path} has {len(data):,} bytes and inflates to more than {limit:,}; that is refused")
    if not whole:
        raise ArtifactError(f"{path} is cut off, or followed by other bytes; fetch it again")
    return raw


def _opened(kind: str, data: bytes, most: int) -> tuple[bytes, bool]:
    """Inflate to at most about `most` bytes; and whether the stream ended there, with nothing after it."""
    if kind == "zlib":
        stream = zlib.decompressobj()
        raw = stream.decompress(data, most)
        return raw, stream.eof and not stream.unused_data
    if kind == "xz":
        packed = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY)
        raw = packed.decompress(data, most)
        return raw, packed.eof and not packed.unused_data
    if kind == "zstd":
        frame = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        with frame.stream_reader(data, read_across_frames=False) as reader:
            raw = reader.read(most)
            return raw, len(raw) >= most or not reader.read(1)
    return brotli_decompress(data, most), True


def _load(path: Path, data: bytes) -> dict[str, object]:
    content = load_dictionary(path, data)
    if not all(isinstance(key, str) for key in content):
        raise no_dictionary(path, content)
    return content


def _int8_form(path: Path, content: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
    """Return codes, scales and what is kept as floats, each by name."""
    missing = sorted(_FORM - content.keys())
    codes, scales, kept = (content.get(key) for key in ("quantized", "scales", "passthrough"))
    if missing or not (isinstance(codes, dict) and isinstance(scales, dict) and isinstance(kept, dict)):
        what = f"{', '.join(missing)} is missing" if missing else "its parts are no dictionaries"
        raise ArtifactError(f"{path} is not the int8 form of the challenge's baseline ({what}), and no other is read")
    odd = sorted(map(str, (codes.keys() ^ scales.keys()) | (codes.keys() & kept.keys())))
    if odd:
        raise ArtifactError(f"{path}: tensor {odd[0]} has codes without scales, scales without codes, or two values")
    return codes, scales, kept


def _int8(path: Path, name: str, code: torch.Tensor, scale: torch.Tensor) -> EncodedTensor:
    if code.dtype != torch.int8 or scale.dtype not in _FLOATS:
        _unreadable(path, name, f"codes of {code.dtype} with scales of {scale.dtype}")
    exact = scale if scale.dtype == torch.float16 else scale.float()
    tensor = EncodedTensor("int8", tuple(code.shape), {"codes": _array(code), "scale": _array(exact)})
    try:
        tensor.dequantize()
    except ArtifactError as error:
        raise ArtifactError(f"{path}: tensor {name}: {error}") from None
    return tensor


def _kept(path: Path, name: str, tensor: torch.Tensor) -> EncodedTensor:
    """A tensor stored as floats, in the smallest form of ours that holds it exactly."""
    if tensor.dtype not in _FLOATS:
        _unreadable(path, name, f"a tensor of {tensor.dtype}")
    scheme = _FLOATS[tensor.dtype]
    values = tensor if scheme == "fp16" else tensor.float()
    return EncodedTensor(scheme, tuple(tensor.shape), {"values": _array(values)})


def _checked(path: Path, name: str, value: object) -> torch.Tensor:
    """The tensor, if it is plain and as large as its storage says: one of stride 0 is larger than its file."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        _unreadable(path, name, kind_of(value) if not isinstance(value, torch.Tensor) else "no dense tensor")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        _unreadable(path, name, f"a tensor of shape {tuple(value.shape)} over too little storage")
    return value.detach()


def _unreadable(path: Path, name: str, what: str) -> NoReturn:
    raise ArtifactError(f"{path}: {name} is {what}, expected floats or int8 codes; only published models are read")


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().copy()


def _compare(path: Path, found: Mapping[str, torch.Tensor], expected: Shapes) -> None:
    """Name the first tensor that differs, as the file calls it."""
    for name, shape in to_published(expected).items():
        if name not in found:
            raise ArtifactError(f"{path} has no tensor {name}, which the model needs; choose the preset it is of")
        if tuple(found[name].shape) != tuple(shape):
            raise ArtifactError(
                f"{path}: tensor {name} has shape {tuple(found[name].shape)}, the model expects {tuple(shape)}; "
                "choose another preset, or give key=value or --env as it was trained with"
            )
    if extra := sorted(found.keys() - to_published(expected).keys()):
        raise ArtifactError(f"{path}: tensor {extra[0]} is not in the model; choose the preset that the file is of")
