#!/bin/sh
# Most would guess that a reader of compressed files gives the whole file, as gzip's does of a file that was
# written in two parts. zstandard's `stream_reader`, `open` and `decompress` stop after the first frame of a .zst
# file, and say nothing of the rest. Such files are valid: `cat a.zst b.zst` makes one, and so do pzstd and every
# writer that appends. `stream_reader(…, read_across_frames=True)` reads all of it.
#
# Seen with zstandard 0.25.0.
#
# Why it matters here: a data set would silently be its first part, with a hash of its own. niblick drives the
# frames itself, one after another.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check zstandard==0.25.0 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import gzip, io, sys
import zstandard

one, two = b"".join(b"line %d\n" % number for number in range(1000)), b"the second part\n" * 500
whole = zstandard.compress(one) + zstandard.compress(two)
with open("parts.zst", "wb") as file:
    file.write(whole)
with zstandard.open("parts.zst", "rb") as file:
    opened = file.read()
new = zstandard.ZstdDecompressor
seen = {
    "stream_reader": new().stream_reader(io.BytesIO(whole)).read(),
    "open": opened,
    "decompress": zstandard.decompress(whole),
    "read_across_frames=True": new().stream_reader(io.BytesIO(whole), read_across_frames=True).read(),
    "gzip of the same": gzip.decompress(gzip.compress(one) + gzip.compress(two)),
}
print("zstandard", zstandard.__version__)
print(f"expected: {len(one + two)} bytes from each")
print("seen:    ", {how: len(data) for how, data in seen.items()})
first, last = list(seen.values())[:3], list(seen.values())[3:]
sys.exit(not (first == [one] * 3 and last == [one + two] * 2))
PYTHON
