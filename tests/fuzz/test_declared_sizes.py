"""Sizes that a file declares are not believed: it takes at most four times its own bytes in memory, and the model."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from niblick.data.index import RECORD
from niblick.score.coding import CHECK_BYTES

MOST = 4
"""Times its own bytes that a file may take, beside ROOM."""
ROOM = 8 << 20
"""What reading anything takes the first time: modules, code, buffers."""
FILE = 4 << 20
"""Bytes of each of these files."""
LIE = 2**36

READ = """
import json, resource, sys
from pathlib import Path
import torch
from niblick.data.dataset import Dataset, read_manifest
from niblick.data.index import read_index
from niblick.data.shards import read_shard
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import NiblickError
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.score.coded_file import Model, decompress
from niblick.train.checkpoint import read_tensors

model = LM(ModelConfig(vocab_size=260, width=8, heads=1, kv_heads=1, main=StageConfig("T1")))
coder = Model(model, ByteTokenizer(), "m", "0" * 64)
readers = {
    "stream": lambda path: decompress(path.read_bytes(), coder),
    "shard": read_shard, "index": read_index, "manifest": read_manifest, "dataset": Dataset.open,
    "checkpoint": read_tensors,
}

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

path = Path(sys.argv[2])
before = peak()
try:
    readers[sys.argv[1]](path)
    said = "read"
except NiblickError as error:
    said = str(error)
print(json.dumps([peak() - before, said]))
"""


def stream(path: Path) -> None:
    """A stream of one block that declares LIE tokens."""
    head = {"model": {"name": "m", "sha256": "0" * 64}, "tokens": LIE, "bytes": LIE, "sha256": "0" * 64, "patch": ""}
    head["scorer"] = {"scorer": "contiguous", "seq_len": 64, "stride": 0, "capacity": ""}
    head["machine"] = {"threads": 1}
    coded = json.dumps(head).encode()
    out = b"niblick text 1\n" + len(coded).to_bytes(4, "little") + coded
    out += hashlib.sha256(out).digest()
    record = (FILE).to_bytes(4, "little") + bytes(CHECK_BYTES) + bytes(FILE)
    path.write_bytes(out + record + hashlib.sha256(record).digest()[:CHECK_BYTES])


def shard(path: Path) -> None:
    header = np.zeros(256, "<i4")
    header[:3] = 20240520, 1, 2**31 - 1
    path.write_bytes(header.tobytes() + bytes(FILE))


def index(path: Path) -> None:
    described = f"{{'descr': {np.lib.format.dtype_to_descr(RECORD)!r}, 'fortran_order': False, 'shape': ({LIE},), }}"
    body = described.encode().ljust(245) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + bytes(FILE))


def manifest(path: Path) -> None:
    """Of a great many small lists: plain data takes more room than its text."""
    path.write_text(json.dumps({"datasets": [{}], "num_docs": LIE, "names": ["a name of some length" * 8] * 25_000}))


def checkpoint(path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [LIE], "data_offsets": [0, 4 * LIE]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(FILE))


@pytest.mark.parametrize("make", [stream, shard, index, manifest, checkpoint], ids=lambda make: make.__name__)
def test_what_a_file_declares_is_not_allocated(make: object, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the most that a process had in memory is counted in other units elsewhere")
    assert callable(make)
    path = tmp_path / "file"
    make(path)
    command = [sys.executable, "-c", READ, make.__name__, str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    grown, said = json.loads(done.stdout)
    assert grown < MOST * path.stat().st_size + ROOM, said
    assert make is manifest or said != "read"
