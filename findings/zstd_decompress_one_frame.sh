#!/bin/sh
# Most would guess that `zstandard.decompress` gives the whole of a .zst file, as `gzip.decompress` does of a file
# that was written in two parts. It gives the first frame, and says nothing of the rest; `stream_reader` and `open`
# of the same package give both. Such files are valid: `cat a.zst b.zst` makes one, and so do pzstd and every writer
# that appends.
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
seen = {
    "stream_reader": zstandard.ZstdDecompressor().stream_reader(io.BytesIO(whole)).read(),
    "open": opened,
    "decompress": zstandard.decompress(whole),
    "gzip of the same": gzip.decompress(gzip.compress(one) + gzip.compress(two)),
}
print("zstandard", zstandard.__version__)
print(f"expected: {len(one + two)} bytes from each")
print("seen:    ", {how: len(data) for how, data in seen.items()})
sys.exit({how for how, data in seen.items() if data != one + two} != {"decompress"} or seen["decompress"] != one)
PYTHON
