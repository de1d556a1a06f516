"""Shards: the challenge's layout to the byte, and no damage goes unseen."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from niblick.data.shards import HEADER_BYTES, ShardWriter, read_shard
from niblick.errors import DataError


def write(path: Path, pieces: list[list[int]], shard_tokens: int) -> ShardWriter:
    writer = ShardWriter(path, "train", shard_tokens)
    for piece in pieces:
        writer.write(np.array(piece, np.uint16))
    writer.close()
    return writer


def test_layout(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2, 65535], [4]], 100)
    expected = struct.pack("<256i", 20240520, 1, 4, *[0] * 253) + struct.pack("<4H", 1, 2, 65535, 4)
    assert (tmp_path / "fineweb_train_000000.bin").read_bytes() == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(pieces=st.lists(st.lists(st.integers(0, 65535), max_size=20), max_size=8), shard_tokens=st.integers(1, 30))
def test_stream_across_shards(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[list[int]], shard_tokens: int
) -> None:
    path = tmp_path_factory.mktemp("shards")
    writer = write(path, pieces, shard_tokens)
    whole = np.array([token for piece in pieces for token in piece], "<u2")
    shards = [read_shard(path / file["name"]) for file in writer.files]
    assert sorted(p.name for p in path.iterdir()) == [file["name"] for file in writer.files]
    assert all(len(shard) == shard_tokens for shard in shards[:-1])
    assert np.array_equal(np.concatenate([*shards, whole[:0]]), whole)
    assert writer.stream_hash == hashlib.sha256(whole.tobytes()).hexdigest()
    for file in writer.files:
        data = (path / file["name"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_damage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Cut off or grown anywhere, or any bit of the header flipped: an error that names the file."""
    path = tmp_path_factory.mktemp("shards")
    write(path, [[5] * 50], 100)
    file = path / "fineweb_train_000000.bin"
    whole = bytearray(file.read_bytes())
    match data.draw(st.sampled_from(["cut", "grow", "flip"])):
        case "cut":
            del whole[data.draw(st.integers(0, len(whole) - 1)) :]
        case "grow":
            whole += bytes(data.draw(st.integers(1, 3000)))
        case "flip":
            whole[data.draw(st.integers(0, HEADER_BYTES - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(whole)
    with pytest.raises(DataError, match="fineweb_train_000000") as caught:
        read_shard(file)
    assert "\n" not in str(caught.value)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_shard(tmp_path / "fineweb_val_000000.bin")
