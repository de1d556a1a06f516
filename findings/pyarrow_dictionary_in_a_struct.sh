#!/bin/sh
# Most would guess that a table which pyarrow wrote to Parquet, and which `read_table` gives back, can be read
# in batches too. A dictionary-encoded column inside a struct cannot, as soon as a batch reaches across two row
# groups: the reader says that it is not implemented. Batches that are asked for one row group at a time are
# read without fault.
#
# Seen with pyarrow 26.0.1.
#
# Why it matters here: `--text-key meta.text` names a text inside a struct, and such columns are often
# dictionaries. niblick reads row group by row group.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys
import pyarrow
from pyarrow import parquet

words = pyarrow.array(["a", "b", "a", "c"] * 3).cast(pyarrow.dictionary(pyarrow.int32(), pyarrow.string()))
inside = pyarrow.StructArray.from_arrays([words], ["text"])
parquet.write_table(pyarrow.table({"meta": inside}), "nested.parquet", row_group_size=5)

def rows(**which):
    try:
        with parquet.ParquetFile("nested.parquet") as file:
            return sum(batch.num_rows for group in which["groups"] for batch in file.iter_batches(7, row_groups=group))
    except pyarrow.ArrowNotImplementedError as error:
        return str(error)

seen = [parquet.read_table("nested.parquet").num_rows, rows(groups=[[0], [1], [2]]), rows(groups=[[0, 1, 2]])]
print("pyarrow", pyarrow.__version__)
print("expected: 12 rows from read_table, by row groups, and in batches")
print("seen:    ", seen)
sys.exit(not (seen[:2] == [12, 12] and isinstance(seen[2], str)))
PYTHON
