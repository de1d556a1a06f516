#!/bin/sh
# Most would guess that `ParquetFile.iter_batches(batch_size=256)` holds about a batch, at most a row group. It
# holds every row group that it has read until the file is closed, so at its end the whole column is in memory:
# since pre_buffer is on by default. `buffer_size`, which is described as what bounds reading, changes nothing
# by itself; only together with `pre_buffer=False` does it.
#
# Seen with pyarrow 26.0.1.
#
# Why it matters here: preparing data promises memory that does not grow with the input, and text columns of
# public Parquet files are gigabytes.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import os, sys
import pyarrow
from pyarrow import parquet

table = pyarrow.table({"text": [os.urandom(1000).hex() for _ in range(20_000)]})
parquet.write_table(table, "text.parquet", row_group_size=1000, compression="none", use_dictionary=False)
del table
size = os.path.getsize("text.parquet") >> 20

def held(**options):
    most = 0
    with parquet.ParquetFile("text.parquet", **options) as file:
        for batch in file.iter_batches(batch_size=256):
            most = max(most, pyarrow.total_allocated_bytes() >> 20)
    return most

seen = {
    "as it is": held(),
    "buffer_size": held(buffer_size=1 << 20),
    "buffer_size, pre_buffer=False": held(buffer_size=1 << 20, pre_buffer=False),
}
print("pyarrow", pyarrow.__version__)
print(f"expected: about a row group of 2 MiB is held of {size} MiB in 20 row groups, less with buffer_size")
print("seen:    ", {name: f"{most} MiB" for name, most in seen.items()})
all_of_it = seen["as it is"] >= size - 2 and seen["buffer_size"] >= size - 2
sys.exit(not (all_of_it and seen["buffer_size, pre_buffer=False"] < size / 4))
PYTHON
