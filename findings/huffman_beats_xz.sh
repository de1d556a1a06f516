#!/bin/sh
# Most would guess that `xz -9e` makes a smaller file than zlib, of anything. Of low-bit codes of Gaussian
# weights, zlib with its search for matches switched off (Z_HUFFMAN_ONLY) makes a smaller one than xz at its
# best, and a far smaller one than zlib at level 9: there is nothing to match, and both pay for what they find.
#
# Seen with zlib 1.2.13 and liblzma 5.4.1, which Python's standard library is linked with on Debian 12, and numpy
# 2.4.6. Beside others the script says that it could not be tried.
#
# Why it matters here: xz is the baseline that scores of text are quoted beside, and `int8+zlib` the published
# way of packing weights. What a codec gains on one kind of data says nothing of the other.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys
import numpy as np

def codes(bits, rows=1024, columns=1024):
    """Gaussian weights on a grid of 2^bits steps whose ends are the largest of each row, one code a byte."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((rows, columns)) * np.exp(0.3 * random.standard_normal((rows, 1)))
    steps = 2 ** (bits - 1) - 1
    return (np.round(weights / np.abs(weights).max(1, keepdims=True) * steps) + steps).astype(np.uint8)

import ctypes, lzma, zlib
import _lzma

lzma_version = ctypes.CDLL(_lzma.__file__).lzma_version_string
lzma_version.restype = ctypes.c_char_p
here = zlib.ZLIB_RUNTIME_VERSION, lzma_version().decode()
print("zlib", here[0], "and liblzma", here[1])
if here != ("1.2.13", "5.4.1"):
    print("could not be tried: it was seen with zlib 1.2.13 and liblzma 5.4.1")
    sys.exit(2)

def huffman(data):
    encoder = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_HUFFMAN_ONLY)
    return encoder.compress(data) + encoder.flush()

seen = {}
for bits in (4, 5, 6):
    data = codes(bits).tobytes()
    sizes = len(huffman(data)), len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)), len(zlib.compress(data, 9))
    seen[bits] = dict(zip(("zlib, Huffman only", "xz -9e", "zlib -9"), sizes))
print("expected: xz the smallest, Huffman coding alone the largest")
for bits, sizes in seen.items():
    print(f"seen:     {bits} bits:", sizes)
sys.exit(any(list(sizes.values()) != sorted(sizes.values()) for sizes in seen.values()))
PYTHON
