"""The container gives back what went in, and refuses whatever else it is given, in bounded memory and time."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import pytest
import torch
import zstandard
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from niblick.artifact import container
from niblick.artifact.container import Artifact, artifact_bytes, parse_artifact, read_artifact, write_artifact
from niblick.artifact.dequantize import EncodedTensor
from niblick.artifact.range_coding import PLANES, RAW, SPREADS, _segments
from niblick.errors import ArtifactError

_spec = importlib.util.spec_from_file_location("golden", Path(__file__).parent / "golden.py")
golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden)

STREAMS = ["zlib", "zstd", "brotli"]
CODECS = [*STREAMS, "range"]
FIXED = struct.Struct("<4sHIIQ")


def same(a: EncodedTensor, b: EncodedTensor) -> bool:
    return (a.scheme, a.shape, a.parts.keys()) == (b.scheme, b.shape, b.parts.keys()) and all(
        (part.dtype, part.shape, part.tobytes()) == (b.parts[name].dtype, b.parts[name].shape, b.parts[name].tobytes())
        for name, part in a.parts.items()
    )


def assemble(header: Any, payload: bytes, *, raw_size: int | None = None, version: int = 1) -> bytes:
    """A file with a right digest around any header and payload: what a stranger could make."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    packed = zlib.compress(raw, 9)
    size = len(raw) if raw_size is None else raw_size
    body = FIXED.pack(b"nib\x1a", version, size, len(packed), len(payload)) + packed + payload
    return body + hashlib.sha256(body).digest()


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    _, _, _, packed, _ = FIXED.unpack_from(data)
    return json.loads(zlib.decompress(data[FIXED.size : FIXED.size + packed])), data[FIXED.size + packed : -32]


def one(scheme: str = "fp16", shape: tuple[int, ...] = (2, 3)) -> dict[str, EncodedTensor]:
    return {"w": EncodedTensor(scheme, shape, {"values": np.ones(shape, np.float16)})}


# What goes in comes out


def test_golden_file_stays_readable() -> None:
    artifact = read_artifact(golden.PATH)
    assert artifact.config == golden.CONFIG
    expected, stored = golden.golden_weights(), golden.golden_tensors()
    state = artifact.state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], tensor), name
        assert torch.equal(torch.signbit(state[name]), torch.signbit(tensor)), name
        assert same(artifact.encoded[name], stored[name])


def test_golden_range_file_stays_readable() -> None:
    """What it decodes to rests on integers alone, so it is the same on every machine."""
    artifact, stored = read_artifact(golden.RANGE_PATH), golden.range_tensors()
    assert (artifact.config, artifact.codec, list(artifact.encoded)) == (golden.CONFIG, "range", list(stored))
    for name, tensor in stored.items():
        assert same(artifact.encoded[name], tensor), name
    payload = header_of(golden.RANGE_PATH.read_bytes())[1]
    specs = [(part.dtype, part.shape) for tensor in stored.values() for part in tensor.parts.values()]
    assert {part[0] for part in _segments(payload, len(specs)) if len(part)} == {RAW, PLANES, SPREADS}


def test_golden_file_is_what_is_written_today() -> None:
    """zlib's output may differ between its builds, so only the raw header and payload are compared."""
    new = artifact_bytes(golden.CONFIG, golden.golden_tensors(), "zlib")
    old = golden.PATH.read_bytes()
    assert header_of(new)[0] == header_of(old)[0]
    assert zlib.decompress(header_of(new)[1]) == zlib.decompress(header_of(old)[1])


names = st.text(st.characters(categories=["L", "N"], include_characters="._"), min_size=1, max_size=20)
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)


@st.composite
def tensors(draw: st.DrawFn) -> EncodedTensor:
    shape = draw(shapes)
    scheme = draw(st.sampled_from(["int8", "fp16", "fp32"]))
    if scheme != "int8":
        dtype = np.float16 if scheme == "fp16" else np.float32
        return EncodedTensor(scheme, shape, {"values": draw(hnp.arrays(dtype, shape))})
    scale_dtype = draw(st.sampled_from([np.float16, np.float32]))
    scale_shape = draw(st.sampled_from([(), shape[:1]])) if len(shape) == 2 else ()
    parts = {"codes": draw(hnp.arrays(np.int8, shape)), "scale": draw(hnp.arrays(scale_dtype, scale_shape))}
    return EncodedTensor("int8", shape, parts)


@given(
    st.dictionaries(names, tensors(), max_size=5),
    st.sampled_from(CODECS),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"))),
)
@settings(max_examples=150, deadline=None)
def test_roundtrip(state: dict[str, EncodedTensor], codec: str, config: dict[str, Any]) -> None:
    data = artifact_bytes(config, state, codec)
    assert data == artifact_bytes(dict(reversed(config.items())), state, codec)
    artifact = parse_artifact(data)
    assert (artifact.config, artifact.codec, list(artifact.encoded)) == (config, codec, list(state))
    weights = artifact.state_dict()
    for name, tensor in state.items():
        assert same(artifact.encoded[name], tensor)
        assert weights[name].shape == tensor.shape
        assert weights[name].dtype == torch.float32
        if tensor.scheme == "int8":
            scale = torch.tensor(tensor.parts["scale"].astype(np.float32))
            expected = torch.tensor(tensor.parts["codes"]).float() * (scale[:, None] if scale.ndim else scale)
        else:
            expected = torch.tensor(tensor.parts["values"].astype(np.float32))
        torch.testing.assert_close(weights[name], expected, rtol=0, atol=0, equal_nan=True)
    breakdown = artifact.bytes
    assert breakdown.file == breakdown.header + breakdown.payload + breakdown.frame == len(data)
    assert breakdown.raw == sum(tensor.nbytes for tensor in state.values())


def test_weights_have_their_own_memory() -> None:
    artifact = parse_artifact(artifact_bytes({}, {"w": golden.golden_tensors()["scalar"]}, "zlib"))
    artifact.state_dict()["w"].add_(1)
    assert artifact.state_dict()["w"].item() == -3


def test_big_endian_and_strided_arrays_are_stored_alike() -> None:
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    odd = np.asfortranarray(plain.astype(">f4"))
    files = [artifact_bytes({}, {"w": EncodedTensor("fp32", (2, 3), {"values": a})}, "zlib") for a in (plain, odd)]
    assert files[0] == files[1]


def test_header_is_compact() -> None:
    state = {}
    for block in range(9):
        for name in ("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down"):
            parts = {"codes": np.zeros((8, 8), np.int8), "scale": np.zeros(8, np.float16)}
            state[f"body.main.blocks.{block}.{name}.weight"] = EncodedTensor("int8", (8, 8), parts)
        for name in ("attn_scale", "mlp_scale", "resid_mix", "attn.q_gain"):
            state[f"body.main.blocks.{block}.{name}"] = EncodedTensor("fp32", (8,), {"values": np.zeros(8, np.float32)})
    assert len(state) == 90
    assert parse_artifact(artifact_bytes({}, state, "zlib")).bytes.header < 600


# Writing


def test_write_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "artifact.nib"
    path.write_bytes(b"old")
    assert write_artifact(path, {"a": (1, 2)}, one(), "zstd") == path.stat().st_size
    assert read_artifact(path).config == {"a": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["artifact.nib"]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "artifact.nib"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(container.os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"artifact\.nib cannot be written \(No space left on device\)"):
        write_artifact(path, {}, one(), "zlib")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["artifact.nib"]


@pytest.mark.parametrize(
    ("config", "state", "codec", "message"),
    [
        ({}, one(), "zlob", r"no codec 'zlob' here \(nearest: zlib"),
        ({}, one("fp61"), "zlib", r"no scheme 'fp61' here \(nearest: fp16"),
        ({"lr": float("nan")}, one(), "zlib", "config is not plain JSON"),
        ({"path": Path("a")}, one(), "zlib", "config is not plain JSON"),
        ({"bad": "\ud800"}, one(), "zlib", "could not be read again"),
        ({}, {"": one()["w"]}, "zlib", "entry 0 of its list of tensors"),
        ({}, {"w\x1b[2J": one()["w"]}, "zlib", "entry 0 of its list of tensors"),
        ({}, {"w": EncodedTensor("fp32", (1,), {"values": np.zeros(1)})}, "zlib", "is float64, which an artifact"),
        ({}, {"w": EncodedTensor("fp32", (1,), {"values": np.array([{}])})}, "zlib", "is object, which an artifact"),
    ],
)
def test_unfit_input_is_refused(config: dict, state: dict, codec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        write_artifact(tmp_path / "a.nib", config, state, codec)
    assert not list(tmp_path.iterdir())


# Reading what others made

GOOD = {"config": {}, "codec": "zlib", "kinds": [["fp16", [3], [["values", "f2", [3]]]]], "tensors": [["w", 0]]}
SIX = zlib.compress(bytes(6))


def kind(scheme: Any = "fp16", shape: Any = (3,), parts: Any = (("values", "f2", (3,)),)) -> dict[str, Any]:
    return GOOD | {"kinds": [[scheme, shape, parts]]}


def test_assembled_file_is_right() -> None:
    assert parse_artifact(assemble(GOOD, SIX)).state_dict()["w"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "begins with b''"),
        (b"PK\x03\x04 a zip", "give the path of a .nib file"),
        (b"nib\x1a\x01", "ends after 5 bytes"),
        (assemble(GOOD, SIX, version=7), "format version 7, this niblick reads 1"),
        (assemble(GOOD, SIX)[:-1], "where its first lines declare"),
        (assemble(GOOD, SIX) + b"\0", "where its first lines declare"),
        (assemble(GOOD, SIX)[:-1] + b"\0", "SHA-256"),
        (assemble(GOOD, SIX, raw_size=2**32 - 1), "past the limits of the format"),
        (assemble(GOOD, SIX, raw_size=3), "does not unpack to the declared 3 bytes"),
        (assemble(b"\xff{}", SIX), "is no JSON"),
        (assemble(b"[" * 1_000_000, SIX), "is no JSON"),
        (assemble(b'{"config": NaN}', SIX), "NaN is no JSON number"),
        (assemble(b'{"config": {}, "config": {}}', SIX), "a key stands twice"),
        (assemble(b'{"config": ' + b"9" * 5000 + b"}", SIX), "is no JSON"),
        (assemble([], SIX), "exactly config, codec"),
        (assemble(GOOD | {"more": 1}, SIX), "exactly config, codec"),
        (assemble(GOOD | {"config": []}, SIX), "no config"),
        (assemble(GOOD | {"codec": ["zlib"]}, SIX), "no codec"),
        (assemble(GOOD | {"codec": "pickle"}, SIX), r"no codec 'pickle' here \(known: zlib"),
        (assemble(GOOD | {"tensors": {}}, SIX), "no list of tensors"),
        (assemble(GOOD | {"tensors": [["w", 0]] * 70_000}, SIX), "lists 70,000 tensors"),
        (assemble(GOOD | {"tensors": [["w", 0], ["w", 0]]}, SIX), "'w' stands in it twice"),
        (assemble(GOOD | {"tensors": [["w", -1]]}, SIX), "entry 0"),
        (assemble(GOOD | {"tensors": [["w", True]]}, SIX), "entry 0"),
        (assemble(GOOD | {"tensors": [["w", 1]]}, SIX), "entry 0"),
        (assemble(GOOD | {"tensors": [["\ud800", 0]]}, SIX), "entry 0"),
        (assemble(kind(shape=[-3]), SIX), "not .scheme, shape, parts"),
        (assemble(kind(shape=[3.0]), SIX), "not .scheme, shape, parts"),
        (assemble(kind(shape=[1] * 9), SIX), "not .scheme, shape, parts"),
        (assemble(kind(shape=[2**62, 2**62]), SIX), "not .scheme, shape, parts"),
        (assemble(kind(parts=[["values", "f2", [0, 2**30, 2**30]]]), SIX), "not .name, dtype, shape"),
        (assemble(kind(parts=[["values", "O", [3]]]), SIX), "not .name, dtype, shape"),
        (assemble(kind(parts=[["values", "f2", [3]], ["values", "f2", [0]]]), SIX), "'values' of a tensor stands"),
        (assemble(kind(parts=[["values", "f2", [4]]]), SIX), "holds 6 bytes where the header declares 8"),
        (assemble(kind(parts=[["values", "f2", [2]]]), SIX), "holds more than 4 bytes"),
        (assemble(kind(shape=[2**30]), SIX), "past the limits"),
        (assemble(kind(parts=[["values", "f2", [2**29]]]), SIX), "past the limits"),
        (assemble(GOOD | {"kinds": GOOD["kinds"] * 70_000}, SIX), "tensors, the limit"),
        (assemble(GOOD, SIX[:-1]), "zlib stream is damaged"),
        (assemble(GOOD, SIX + b"\0"), "zlib stream is damaged"),
        (assemble(GOOD | {"codec": "zstd"}, SIX), "zstd stream is damaged"),
        (assemble(GOOD | {"codec": "brotli"}, SIX), "brotli stream is damaged"),
        (assemble(GOOD | {"codec": "brotli"}, b""), "brotli stream is damaged"),
    ],
)
def test_unfit_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        parse_artifact(data)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (kind(scheme="int3"), "tensor 'w': there is no scheme 'int3' here"),
        (kind(scheme="int8"), r"tensor 'w': .* has the parts \['values'\], expected \['codes', 'scale'\]"),
        (kind(scheme="fp32"), "part values of a tensor of scheme fp32 is float16"),
        (kind(shape=[1, 3]), r"is float16 \[3\], expected float16 of shape \[1, 3\]"),
        (kind(parts=[["values", "f2", [3]], ["more", "i1", [0]]]), "has the parts"),
    ],
)
def test_unfit_tensors_are_refused(header: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        parse_artifact(assemble(header, SIX)).state_dict()


def test_unreadable_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path, tmp_path / "missing.nib"):
        with pytest.raises(ArtifactError, match="cannot be read"):
            read_artifact(path)
    path = tmp_path / "a.nib"
    path.write_bytes(b"no artifact")
    with pytest.raises(ArtifactError, match=r"a\.nib: it begins with b'no a'"):
        read_artifact(path)
    monkeypatch.setattr(container, "MAX_FILE_BYTES", 10)
    with pytest.raises(ArtifactError, match="has 11 bytes, more than the 10"):
        read_artifact(path)


def bomb(codec: str) -> bytes:
    zeros = bytes(2**28)
    if codec == "zlib":
        return zlib.compress(zeros, 9)
    return brotli.compress(zeros, quality=1) if codec == "brotli" else zstandard.compress(zeros)


@pytest.mark.parametrize("codec", STREAMS)
def test_decompression_bombs_are_refused(codec: str) -> None:
    """256 MiB of zeros, once declared and once behind a declaration of 6 bytes; neither is ever unpacked."""
    payload = bomb(codec)
    honest = assemble(kind(shape=[2**27], parts=[["values", "f2", [2**27]]]) | {"codec": codec}, payload[:20_000])
    lying = assemble(GOOD | {"codec": codec}, payload)
    tracemalloc.start()
    for data in (honest, lying):
        with pytest.raises(ArtifactError):
            parse_artifact(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_zstd_frames_without_a_size_are_refused() -> None:
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(6))
    with pytest.raises(ArtifactError, match="zstd stream is damaged"):
        parse_artifact(assemble(GOOD | {"codec": "zstd"}, unsized))


def test_header_bomb_is_refused() -> None:
    raw = b"[" + b" " * 2**27 + b"]"
    tracemalloc.start()
    data = assemble(b"{}", SIX)
    packed = zlib.compress(raw, 9)
    body = FIXED.pack(b"nib\x1a", 1, 100, len(packed), 0) + packed
    data = body + hashlib.sha256(body).digest()
    tracemalloc.reset_peak()
    with pytest.raises(ArtifactError, match="does not unpack to the declared 100 bytes"):
        parse_artifact(data)
    assert tracemalloc.get_traced_memory()[1] < 2**21
    tracemalloc.stop()


# Any bytes

place = st.integers(0, 2**20)
edits = st.one_of(
    st.tuples(st.just("flip"), place, st.integers(0, 7)),
    st.tuples(st.just("set"), place, st.integers(0, 255) | st.sampled_from(list(b'0129[]{}",-e'))),
    st.tuples(st.just("cut"), place, st.sampled_from([1, 4, 2**20])),
    st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=40)),
)
values = st.one_of(
    st.integers(-1, 5),
    st.sampled_from([2**16, 2**20, 2**24, 2**27, 2**30, 2**31, 2**63, -(2**31), 1e308, True, None, "", [], {}]),
    st.sampled_from([*CODECS, "int8", "fp16", "fp32", "codes", "scale", "values", "embed.weight"]),
    st.sampled_from(list(container.DTYPES)),
)


def edited(data: bytes, changes: list[tuple[str, int, Any]]) -> bytes:
    """`data` after bit flips, byte edits, deletions and insertions."""
    copy = bytearray(data)
    for kind, where, what in changes:
        at = where % (len(copy) + 1)
        match kind:
            case "insert":
                copy[at:at] = what
            case "cut":
                del copy[at : at + what]
            case "flip" if at < len(copy):
                copy[at] ^= 1 << what
            case "set" if at < len(copy):
                copy[at] = what
    return bytes(copy)


def with_field(header: dict[str, Any], path: list[int], value: Any) -> dict[str, Any]:
    """A copy of `header` in which the field at `path` (which child, at each depth) is `value`."""
    copy = json.loads(json.dumps(header))
    node = copy
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = keys[path[0] % len(keys)]
        path = path[1:]
        if not path or not isinstance(node[key], dict | list) or not node[key]:
            node[key] = value
            return copy
        node = node[key]


@st.composite
def mutants(draw: st.DrawFn, good: bytes, level: str) -> bytes:
    """A mutant of the file; or with a right digest: of its body, of its header, of a field of that, of the payload.

    The last three have right lengths too, so that the mutation reaches the parsers behind them.
    """
    header, payload = header_of(good)
    if level == "fields":
        return assemble(with_field(header, draw(st.lists(place, min_size=1, max_size=6)), draw(values)), payload)
    changes = draw(st.lists(edits, min_size=1, max_size=4))
    if level == "file":
        return edited(good, changes)
    if level == "body":
        body = edited(good[:-32], changes)
        return body + hashlib.sha256(body).digest()
    if level == "header":
        return assemble(edited(json.dumps(header).encode(), changes), payload)
    return assemble(header, edited(payload, changes))


def weights(artifact: Artifact) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in artifact.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("level", ["file", "body", "header", "fields", "payload"])
def test_mutants_are_refused_or_harmless(codec: str, level: str) -> None:
    """500 mutants each, 10,000 in all. Where the digest was not made anew, nothing but the same weights may come out.

    Where it was, the file is another file, and may hold other weights; it must still be refused or read in peace.
    """
    tensors = golden.range_tensors() if codec == "range" else golden.golden_tensors()
    good = artifact_bytes(golden.CONFIG, tensors, codec)
    expected = weights(parse_artifact(good))
    outcomes = {"read": 0, "refused": 0}
    peak = 0

    @given(mutants(good, level))
    @settings(max_examples=500, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def check(mutant: bytes) -> None:
        nonlocal peak
        tracemalloc.start()
        try:
            found = weights(parse_artifact(mutant))
        except ArtifactError as error:
            outcomes["refused"] += 1
            assert str(error)
        else:
            outcomes["read"] += 1
            assert level != "file" or found == expected
        finally:
            peak = max(peak, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    check()
    assert sum(outcomes.values()) >= 500
    assert outcomes["refused"] > 100
    assert peak < 2**28


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_payload(payload: bytes) -> None:
    for codec in CODECS:
        with pytest.raises(ArtifactError):
            parse_artifact(assemble(GOOD | {"codec": codec}, b"\x01" + payload))
