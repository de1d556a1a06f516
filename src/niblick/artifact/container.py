"""The `.nib` container: configuration and weights in one file that is safe to open whoever sent it.

All integers are little-endian:

    magic      4 bytes  b"nib\\x1a"
    version    u16      1, or 2 where the file holds text
    raw        u32      bytes of the header's JSON
    packed     u32      bytes of the header as stored (zlib)
    size       u64      bytes of the payload
    header     JSON, zlib: {"config", "codec", "kinds": [[scheme, shape, [[part, dtype, shape], …]], …],
                            "tensors": [[name, index of its kind], …]}
                        in version 2 "text" too: see `packed_text`
    payload    what the codec made of all parts of all tensors, in this order; then the packed text
    digest     32 bytes SHA-256 of everything before it

Nothing in a file is trusted: the digest stops accidents, not people, so every length is checked against the file and
against the limits below before anything of that size is allocated. A written file can always be read: the writer keeps
to the same limits. The same input gives the same bytes. Tensors that look alike share one entry in `kinds`: the header
of a model of 90 tensors takes about 600 bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from niblick.artifact.codecs import Spec, get_codec, spec_bytes
from niblick.artifact.dequantize import EncodedTensor, get_dequantizer
from niblick.artifact.packed_text import PackedText, check_entry
from niblick.challenge.rules import Config
from niblick.errors import ArtifactError, StorageError
from niblick.files import temporary_for

MAGIC = b"nib\x1a"
VERSION, TEXT_VERSION = 1, 2
"""Of files without and with text."""
_FIXED = struct.Struct("<4sHIIQ")
_DIGEST_BYTES = 32

MAX_FILE_BYTES = 2**32
MAX_HEADER_BYTES = 2**24
"""Of the header's JSON; it holds the model's and the tokenizer's configuration."""
MAX_RAW_BYTES = 2**30
"""Of all parts of all tensors together, unless the payload is large itself."""
MAX_ELEMENTS = 2**28
"""Weights of all tensors together, 1 GiB as float32, unless the payload is large itself."""
LARGE_RATIO = 8
"""A large payload may stand for so many times its bytes: who sends gigabytes may have gigabytes allocated."""
MAX_RATIO = 1000
FREE_RAW_BYTES = 2**27
"""The parts may take this much, plus `MAX_RATIO` times the payload: zeros compress well, a bomb compresses better."""
MAX_TENSORS = 2**16
MAX_PARTS = 2**18
MAX_DIMENSIONS = 8
MAX_NAME = 512
"""Printable characters of the name of a tensor, scheme or part."""

DTYPES = {name: np.dtype("<" + name) for name in ("i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4")}
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorBytes:
    """The bytes that one tensor takes: `raw` before the codec, `stored` in the payload where the codec can tell."""

    name: str
    scheme: str
    elements: int
    raw: int
    stored: int | None


@dataclass(frozen=True)
class ByteBreakdown:
    """Where the bytes of a file are; `file` = `header` + `payload` + `text` + `frame` (lengths and digest)."""

    file: int
    header: int
    payload: int
    """Of the tensors."""
    frame: int
    tensors: tuple[TensorBytes, ...]
    text: int = 0

    @property
    def raw(self) -> int:
        """Bytes of all tensors before the codec."""
        return sum(tensor.raw for tensor in self.tensors)


@dataclass(frozen=True)
class Artifact:
    """An artifact as read from its file; the weights are still in their stored form."""

    config: Config
    codec: str
    encoded: dict[str, EncodedTensor]
    bytes: ByteBreakdown
    text: PackedText | None = None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the dequantized float32 tensors by name; raise ArtifactError naming a tensor that cannot be read."""
        state = {}
        for name, tensor in self.encoded.items():
            try:
                state[name] = tensor.dequantize()
            except ArtifactError as error:
                raise ArtifactError(f"tensor {name!r}: {error}") from None
        return state


def write_artifact(
    path: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, EncodedTensor],
    codec: str,
    text: PackedText | None = None,
) -> int:
    """Write an artifact to `path` in one step (it is whole or not there) and return the bytes written.

    `config` must be plain JSON: it comes back as JSON gives it (tuples as lists). Raises ArtifactError if something is
    past the limits above, a dtype cannot be stored, the scheme or codec is unknown; StorageError if the file cannot be
    written.
    """
    data = artifact_bytes(config, tensors, codec, text)
    save_artifact(path, data)
    return len(data)


def save_artifact(path: str | os.PathLike[str], data: bytes) -> None:
    """Write what `artifact_bytes` gave, in one step. Raises StorageError if it cannot be written."""
    with _appearing(Path(path)) as file:
        file.write(data)


def artifact_bytes(
    config: Mapping[str, Any], tensors: Mapping[str, EncodedTensor], codec: str, text: PackedText | None = None
) -> bytes:
    """Return the whole artifact as bytes: what `write_artifact` writes; raises as it does."""
    described: list[Described] = []
    for name, tensor in tensors.items():
        specs = {part: (array.dtype.newbyteorder("<"), array.shape) for part, array in tensor.parts.items()}
        described.append((name, tensor.scheme, tensor.shape, specs))
    raw = _make_header(config, described, codec, text)
    arrays = [np.asarray(array, order="C") for tensor in tensors.values() for array in tensor.parts.values()]
    payload = get_codec(codec).encode([array.astype(array.dtype.newbyteorder("<"), copy=False) for array in arrays])
    payload += text.data if text else b""
    packed = zlib.compress(raw, 9)
    version = TEXT_VERSION if text else VERSION
    body = _FIXED.pack(MAGIC, version, len(raw), len(packed), len(payload)) + packed + payload
    data = body + hashlib.sha256(body).digest()
    _check_readable(raw, len(packed), len(payload))
    return data


def stream_artifact(
    path: str | os.PathLike[str], config: Mapping[str, Any], described: list[Described], arrays: Iterable[np.ndarray]
) -> int:
    """Write an artifact without ever holding it, for models that fill the memory; return the bytes written.

    `described` are the tensors, `arrays` all their parts in that order; they are stored as they are, as a zlib stream
    that compresses nothing. Raises as `write_artifact` does, for what is past the limits before anything is written.
    """
    raw = _make_header(config, described, "zlib")
    packed = zlib.compress(raw, 9)
    specs = [spec for *_, parts in described for spec in parts.values()]
    _check_readable(raw, len(packed), sum(map(spec_bytes, specs)))  # the stream is hardly longer
    stream, size = zlib.compressobj(0), 0
    with _appearing(Path(path)) as file:
        file.write(bytes(_FIXED.size) + packed)
        for array, (dtype, shape) in zip(arrays, specs, strict=True):
            if array.shape != shape:
                raise ArtifactError(f"an array of shape {list(array.shape)} came where {list(shape)} was declared")
            size += file.write(stream.compress(np.asarray(array, dtype, order="C").data))
        size += file.write(stream.flush())
        file.seek(0)
        file.write(_FIXED.pack(MAGIC, VERSION, len(raw), len(packed), size))
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(digest)
    return _FIXED.size + len(packed) + size + _DIGEST_BYTES


def _make_header(
    config: Mapping[str, Any], described: list[Described], codec: str, text: PackedText | None = None
) -> bytes:
    """Return the header's JSON; tensors that look alike share one entry."""
    kinds: dict[str, int] = {}
    entries = []
    for name, scheme, shape, parts in described:
        get_dequantizer(scheme)  # what nobody can read is not written
        for part, (dtype, _) in parts.items():
            if dtype not in _DTYPE_NAMES:
                raise ArtifactError(
                    f"part {part!r} of tensor {name!r} is {dtype.name}, which an artifact cannot hold; "
                    f"store it as one of {', '.join(dtype.name for dtype in DTYPES.values())}"
                )
        own = [[part_name, _DTYPE_NAMES[dtype], list(size)] for part_name, (dtype, size) in parts.items()]
        entries.append([name, kinds.setdefault(_to_json([scheme, list(shape), own]), len(kinds))])
    header = {"config": config, "codec": codec, "kinds": [json.loads(kind) for kind in kinds], "tensors": entries}
    header |= {"text": text.entry()} if text else {}
    return _to_json(header).encode("utf-8", "surrogatepass")  # which the check below refuses


def _check_readable(raw: bytes, packed_size: int, payload_size: int) -> None:
    """Raise ArtifactError unless the reader's own checks let the header pass: what is written can be read."""
    _check_limits(_FIXED.size + packed_size + payload_size + _DIGEST_BYTES, len(raw))
    try:
        _parse_header(raw, payload_size)
    except ArtifactError as error:
        raise ArtifactError(f"nothing was written, because it could not be read again: {error}") from None


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read and check the artifact at `path`; raise ArtifactError that says what was found if anything is not right."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ArtifactError(f"{path} has {size:,} bytes, more than the {MAX_FILE_BYTES:,} an artifact may have")
            start = file.read(_FIXED.size)
            try:
                _check_start(start, size)  # whatever is no artifact is not read to its end
            except ArtifactError as error:
                raise ArtifactError(f"{path}: {error}") from None
            data = start + file.read(size - len(start))
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); give the path of a .nib file") from None
    try:
        return parse_artifact(data)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None


def parse_artifact(data: bytes) -> Artifact:
    """Return the artifact that `data`, the bytes of a whole file, holds; raises as `read_artifact` does."""
    config, codec, tensors, payload, text = _opened(data)
    encoded = _decoded(codec, tensors, payload)
    stored = get_codec(codec).part_bytes(payload, _specs(tensors))
    rows, at = [], 0
    for name, tensor in encoded.items():
        own = slice(at, at := at + len(tensor.parts))
        packed = sum(stored[own]) if stored else None
        rows.append(TensorBytes(name, tensor.scheme, tensor.elements, tensor.nbytes, packed))
    frame = _FIXED.size + _DIGEST_BYTES
    words = len(text.data) if text else 0
    header = len(data) - len(payload) - words - frame
    sizes = ByteBreakdown(len(data), header, len(payload), frame, tuple(rows), words)
    return Artifact(config, codec, encoded, sizes, text)


def parse_tensors(data: bytes) -> dict[str, EncodedTensor]:
    """Return the stored tensors of an artifact alone; raises as `read_artifact` does."""
    _, codec, tensors, payload, _ = _opened(data)
    return _decoded(codec, tensors, payload)


def parse_text(data: bytes) -> PackedText | None:
    """Return the packed text of an artifact alone; raises as `read_artifact` does."""
    return _opened(data)[-1]


def _opened(data: bytes) -> tuple[Config, str, list[Described], bytes, PackedText | None]:
    """Return config, codec, what the header says of the tensors, the payload of these, and the text."""
    raw_size, packed_size, payload_size = _check_frame(data)
    packed = data[_FIXED.size : _FIXED.size + packed_size]
    payload = data[_FIXED.size + packed_size : -_DIGEST_BYTES]
    config, codec, tensors, entry = _parse_header(_inflate_header(packed, raw_size), payload_size)
    if (entry is not None) != (_FIXED.unpack_from(data)[1] == TEXT_VERSION):
        _damaged("its version does not say whether it holds text")
    if entry is None:
        return config, codec, tensors, payload, None
    end = len(payload) - entry["size"]
    own = {key: value for key, value in entry.items() if key != "size"}
    return config, codec, tensors, payload[:end], PackedText(payload[end:], **own)


def _specs(tensors: list[Described]) -> list[Spec]:
    return [spec for *_, parts in tensors for spec in parts.values()]


def _decoded(codec: str, tensors: list[Described], payload: bytes) -> dict[str, EncodedTensor]:
    specs = _specs(tensors)
    arrays = get_codec(codec).decode(payload, specs)
    if [(array.dtype, array.shape) for array in arrays] != specs:
        raise ArtifactError(f"the codec {codec!r} gave other arrays than the header declares; correct its decode")
    encoded, at = {}, 0
    for name, scheme, shape, parts in tensors:
        own = slice(at, at := at + len(parts))
        encoded[name] = EncodedTensor(scheme, shape, dict(zip(parts, arrays[own], strict=True)))
    return encoded


def _damaged(what: str) -> NoReturn:
    raise ArtifactError(f"{what}; the file was not made by niblick, or is damaged: copy or export it again")


def _check_limits(file_bytes: int, header_bytes: int) -> None:
    if file_bytes > MAX_FILE_BYTES or header_bytes > MAX_HEADER_BYTES:
        raise ArtifactError(
            f"an artifact of {file_bytes:,} bytes with a header of {header_bytes:,} is past the limits of the format "
            f"({MAX_FILE_BYTES:,} and {MAX_HEADER_BYTES:,}); make the model or its config smaller"
        )


def _check_frame(data: bytes) -> tuple[int, int, int]:
    """Return the lengths of the raw header, packed header and payload, once magic, version, size, digest are right."""
    lengths = _check_start(data, len(data))
    if hashlib.sha256(memoryview(data)[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        _damaged("its SHA-256 digest does not fit its bytes")
    _check_limits(len(data), lengths[0])
    return lengths


def _check_start(data: bytes, size: int) -> tuple[int, int, int]:
    """Return those lengths as the first bytes of a file of `size` bytes say them, once they add up to it."""
    if not data.startswith(MAGIC):
        raise ArtifactError(f"it begins with {data[:4]!r}, a .nib file with {MAGIC!r}; give the path of a .nib file")
    if len(data) < _FIXED.size:
        _damaged(f"it ends after {len(data)} bytes, inside its first {_FIXED.size}")
    _, version, raw_size, packed_size, payload_size = _FIXED.unpack_from(data)
    if version not in (VERSION, TEXT_VERSION):  # before all else: other versions may differ in all that follows
        raise ArtifactError(
            f"it has format version {version}, this niblick reads {VERSION} and {TEXT_VERSION}; use the niblick that "
            "wrote it"
        )
    declared = _FIXED.size + packed_size + payload_size + _DIGEST_BYTES
    if size != declared:
        _damaged(f"it has {size:,} bytes where its first lines declare {declared:,}")
    return raw_size, packed_size, payload_size


def _inflate_header(packed: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(packed, size + 1)
    except zlib.error as error:
        _damaged(f"its header is no zlib stream ({error})")
    if len(raw) != size or not stream.eof or stream.unused_data:
        _damaged(f"its header does not unpack to the declared {size:,} bytes")
    return raw


def _to_json(value: Any) -> str:
    """Canonical JSON: the same text for the same value."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"the config is not plain JSON ({error}); give strings, finite numbers, lists") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(keys := dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return keys


_Kind = tuple[str, tuple[int, ...], dict[str, Spec]]
"""(scheme, shape, parts) of tensors whose arrays are still in the payload."""
Described = tuple[str, str, tuple[int, ...], dict[str, Spec]]
"""The same of one tensor, with its name in front: what the header says of it."""


def _parse_header(raw: bytes, payload_size: int) -> tuple[Config, str, list[Described], dict[str, Any] | None]:
    """Return config, codec name, tensors and the text's entry; all is of the right type and within the limits."""
    _check_header(raw)
    header = json.loads(raw)
    kinds: list[_Kind] = []
    for scheme, shape, described in header["kinds"]:
        parts = {name: (DTYPES[dtype], tuple(size)) for name, dtype, size in described}
        kinds.append((scheme, tuple(shape), parts))
    tensors: list[Described] = [(name, *kinds[index]) for name, index in header["tensors"]]
    text = header.get("text")
    _check_sizes(tensors, payload_size - (check_entry(text, payload_size) if "text" in header else 0))
    return header["config"], header["codec"], tensors, text


def _check_header(raw: bytes) -> None:
    """Raise ArtifactError unless the header is JSON of the right form, of the right types and within the limits."""
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        _damaged(f"its header is no JSON ({error})")
    if not isinstance(header, dict) or header.keys() - {"text"} != {"config", "codec", "kinds", "tensors"}:
        _damaged("its header does not have exactly config, codec, kinds and tensors")
    if not isinstance(header["config"], dict) or not _is_name(header["codec"]):
        _damaged("its header has no config or no codec")
    if not isinstance(header["kinds"], list) or not isinstance(header["tensors"], list):
        _damaged("its header has no list of tensors")
    if len(header["tensors"]) > MAX_TENSORS or len(header["kinds"]) > MAX_TENSORS:
        _damaged(f"its header lists {len(header['tensors']):,} tensors, the limit is {MAX_TENSORS:,}")
    for kind in header["kinds"]:
        _check_kind(kind)
    _check_tensors(header["tensors"], len(header["kinds"]))


def _check_tensors(entries: list[Any], kinds: int) -> None:
    seen = set()
    for number, entry in enumerate(entries):
        match entry:
            case [name, int(index)] if _is_name(name) and type(index) is int and 0 <= index < kinds:
                if name in seen:
                    _damaged(f"the tensor {name!r} stands in it twice")
                seen.add(name)
            case _:
                _damaged(f"entry {number} of its list of tensors is not [name, kind]")


def _check_kind(kind: Any) -> None:
    match kind:
        case [scheme, shape, [*described]] if _is_name(scheme) and _is_shape(shape):
            parts = set()
            for entry in described:
                match entry:
                    case [name, str(dtype), part_shape] if _is_name(name) and dtype in DTYPES and _is_shape(part_shape):
                        if name in parts:
                            _damaged(f"the part {name!r} of a tensor stands in it twice")
                        parts.add(name)
                    case _:
                        _damaged(f"a part of a tensor of scheme {scheme!r} is not [name, dtype, shape]")
        case _:
            _damaged("one of its kinds of tensors is not [scheme, shape, parts]")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _is_shape(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > MAX_DIMENSIONS:
        return False
    if not all(type(n) is int and 0 <= n <= MAX_RAW_BYTES for n in value):  # `type`, as True is an int too
        return False
    return math.prod(n or 1 for n in value) <= MAX_RAW_BYTES  # numpy minds large dimensions even beside a zero


def _check_sizes(tensors: list[Described], payload_size: int) -> None:
    parts_count = sum(len(parts) for _, _, _, parts in tensors)
    if parts_count > MAX_PARTS:
        _damaged(f"its tensors have {parts_count:,} parts, the limit is {MAX_PARTS:,}")
    elements = sum(math.prod(shape) for _, _, shape, _ in tensors)
    raw = sum(spec_bytes(spec) for _, _, _, parts in tensors for spec in parts.values())
    large = LARGE_RATIO * payload_size
    most, limit = max(large, MAX_ELEMENTS), max(large, min(MAX_RAW_BYTES, FREE_RAW_BYTES + MAX_RATIO * payload_size))
    if elements > most or raw > limit:
        raise ArtifactError(
            f"its tensors declare {elements:,} weights in {raw:,} bytes for a payload of {payload_size:,}, past the "
            f"limits ({most:,} and {limit:,}); it is damaged, a decompression bomb, or too large for niblick"
        )


@contextlib.contextmanager
def _appearing(path: Path) -> Iterator[io.BufferedRandom]:
    """A new file that is at `path` once it is whole, or not at all."""
    temporary = temporary_for(path)
    try:
        with temporary.open("xb+") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror})") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    with contextlib.suppress(OSError):  # the new name too should outlive a power cut; Windows has no such call
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
