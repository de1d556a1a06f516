#!/bin/sh
# Most would guess that a reader of compressed files raises when a file is cut off, as gzip's does. zstandard's
# `stream_reader` gives what can be decoded and then says that the file has ended, so that half a file reads as
# a shorter file. (`zstandard.decompress` of the same bytes does raise.)
#
# Seen with zstandard 0.25.0.
#
# Why it matters here: a download that broke off would become a smaller data set with a hash of its own. niblick
# drives the frames itself, and calls such a file damaged.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check zstandard==0.25.0
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import gzip, io, sys
import zstandard

text = b"".join(b"line %d of many\n" % number for number in range(50_000))
whole = zstandard.ZstdCompressor().compress(text)
cut = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(whole[: len(whole) // 2])).read()
try:
    zstandard.decompress(whole[: len(whole) // 2])
    at_once = "nothing"
except zstandard.ZstdError:
    at_once = "ZstdError"
try:
    packed = gzip.compress(text)
    gzip.GzipFile(fileobj=io.BytesIO(packed[: len(packed) // 2])).read()
    theirs = "nothing"
except EOFError:
    theirs = "EOFError"
print("zstandard", zstandard.__version__)
print(f"expected: an error for half a file, as from gzip ({theirs}) and from decompress ({at_once})")
print(f"seen:     {len(cut)} of {len(text)} bytes and no error")
sys.exit(not (0 < len(cut) < len(text) and text.startswith(cut) and (theirs, at_once) == ("EOFError", "ZstdError")))
PYTHON
