"""Arrays that lie in files: mapped as they are, and never believed in what they declare."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from niblick.data.index import RECORD, map_array, read_index
from niblick.errors import DataError
from niblick.score.costs import COST, read_costs


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("dtype", [RECORD, COST, np.dtype("<u2"), np.dtype(">f8")])
def test_arrays_come_back(dtype: npt.DTypeLike, count: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(np.dtype(dtype).itemsize * count)
    array = np.frombuffer(data, dtype, count)
    np.save(tmp_path / "a.npy", array)
    assert map_array(tmp_path / "a.npy").tobytes() == array.tobytes()
    table = np.asfortranarray(np.arange(12).reshape(3, 4))
    np.save(tmp_path / "b.npy", table)
    assert np.array_equal(map_array(tmp_path / "b.npy"), table)


@pytest.mark.parametrize("there", [0, 16, 5000])
def test_declared_sizes_are_not_believed(there: int, tmp_path: Path) -> None:
    for dtype, name in ((RECORD, "index.npy"), (COST, "costs.npy")):
        with open(tmp_path / name, "wb") as file:
            described = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, described | {"shape": (2**33,)})
            file.write(bytes(there))
    tracemalloc.start()
    with pytest.raises(DataError, match="declares 429,496,729,600 bytes"):
        read_index(tmp_path / "index.npy")
    with pytest.raises(DataError, match="declares 137,438,953,472 bytes"):
        read_costs(tmp_path, "costs.npy")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_objects_and_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("objects.npy", "text.npy", "empty.npy", "absent.npy"):
        with pytest.raises(DataError, match="cannot be read"):
            read_index(tmp_path / name)
