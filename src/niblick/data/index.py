"""The document index beside the shards: where each document lies in its split's token stream, and what text it was.

A NumPy file of fixed-size records, so that it can be written as a stream and mapped however long it is.
"""

from __future__ import annotations

import hashlib
import math
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.data.beginnings import HEAD_BYTES, refuse_pointer
from niblick.errors import DataError
from niblick.files import regular, why

RECORD = np.dtype(
    [
        ("offset", "<u8"),  # of its BOS in the split's stream
        ("tokens", "<u4"),  # BOS included
        ("bytes", "<u4"),  # of the text in UTF-8
        ("sha256", "u1", (32,)),  # of the text in UTF-8
        ("source", "<u2"),  # place in the manifest's `sources`
    ]
)
OTHER_SOURCE = 0xFFFF
"""The `source` of documents that came after 65,535 different sources had been seen."""

_HEADER_BYTES = 256


def index_name(split: str) -> str:
    """Return the file name of the index of `split` ("train" or "val")."""
    return f"fineweb_{split}.documents.npy"


def read_index(path: Path) -> npt.NDArray[Any]:
    """Map an index, shape (documents,), of dtype RECORD. Raises DataError if it is damaged or something else."""
    try:
        index = map_array(path)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the document index {path} cannot be read ({why(error)}); prepare the data again") from error
    if index.dtype != RECORD or index.ndim != 1:
        raise DataError(f"{path} is no document index (its records are {index.dtype}); prepare the data again")
    return index


def map_array(path: Path) -> npt.NDArray[Any]:
    """Map an array that numpy wrote; nothing is allocated by what its header says. Raises OSError or ValueError.

    A pointer of Git LFS is a DataError.
    """
    with regular(path) as file:
        refuse_pointer(file.read(HEAD_BYTES), str(path))
        file.seek(0)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        if length > path.stat().st_size:
            raise ValueError(f"its header is cut off: {length:,} bytes are declared")
        file.seek(8)  # behind magic and version
        try:
            shape, fortran, dtype = read(file)
        except (SyntaxError, ValueError, tokenize.TokenError) as error:  # numpy reads Python there
            raise ValueError("its header is none that numpy writes") from error
        start = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size > path.stat().st_size - start:
        raise ValueError(f"it declares {size:,} bytes of {dtype}, and {path.stat().st_size - start:,} are there")
    if not size:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")


class IndexWriter:
    """Writes the index of one split; `text_hash` is the SHA-256 over the documents' digests in their order."""

    def __init__(self, path: Path) -> None:
        self.documents = 0
        self.bytes = 0
        self._texts = hashlib.sha256()
        self._file = open(path, "wb")  # noqa: SIM115 (stays open between calls)
        self._file.write(_header(0))

    def write(self, records: npt.NDArray[Any]) -> None:
        """Append records of dtype RECORD."""
        self._file.write(records.tobytes())
        self._texts.update(np.ascontiguousarray(records["sha256"]).data)
        self.documents += len(records)
        self.bytes += int(records["bytes"].sum(dtype=np.int64))

    def close(self) -> None:
        """Write the final header."""
        self._file.seek(0)
        self._file.write(_header(self.documents))
        self._file.close()

    def abandon(self) -> None:
        """Close the file without finishing it."""
        self._file.close()

    @property
    def text_hash(self) -> str:
        """SHA-256 (hex) over the digests of the documents written so far."""
        return self._texts.hexdigest()


def text_hash(index: npt.NDArray[Any]) -> str:
    """Compute the text hash from an index alone."""
    return hashlib.sha256(np.ascontiguousarray(index["sha256"]).data).hexdigest()


def _header(documents: int) -> bytes:
    # Our own instead of numpy's, for a length that does not depend on the number in it.
    described = (
        f"{{'descr': {np.lib.format.dtype_to_descr(RECORD)!r}, 'fortran_order': False, 'shape': ({documents},), }}"
    )
    body = described.encode("ascii").ljust(_HEADER_BYTES - 11) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body
