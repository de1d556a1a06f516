#!/bin/sh
# Most would guess that a range coder which is given a table of probabilities, a row for each symbol, reads it
# by its shape, or refuses what it cannot read. Strided arrays are refused. A table in Fortran order, as a
# transposed matrix product leaves it, is taken without a word and read as if it lay in C order: the symbols are
# then coded under other distributions, and a decoder with the same table in C order decodes something else.
#
# Seen with constriction 0.5.0 and numpy 2.4.6.
#
# Why it matters here: proofs by coding hand over a table for each token. A table is made C-contiguous before
# the coder sees it.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check constriction==0.5.0 numpy==2.4.6 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version
import numpy as np
from constriction import stream

random = np.random.default_rng(0)
table = random.dirichlet(np.full(8, 0.3), size=200)
symbols = np.array([random.choice(8, p=row) for row in table], np.int32)
family = stream.model.Categorical(perfect=False)

def words(given):
    encoder = stream.queue.RangeEncoder()
    encoder.encode(symbols, family, given)
    return encoder.get_compressed()

in_c, in_fortran = words(table), words(np.asfortranarray(table))
try:
    back = stream.queue.RangeDecoder(in_fortran).decode(family, table)
    same = bool((back == symbols).all())
except (AssertionError, ValueError):
    same = False
try:
    words(np.repeat(table, 2, axis=1)[:, ::2])
    strided = "taken"
except TypeError:
    strided = "refused"
print("constriction", version("constriction"))
print("expected: the same stream for the same numbers in any order, or a refusal")
print(f"seen:     {32 * len(in_c)} bits in C order, {32 * len(in_fortran)} in Fortran order; "
      f"decoded alike: {same}; strided: {strided}")
sys.exit(not (len(in_fortran) > len(in_c) and not same and strided == "refused"))
PYTHON
