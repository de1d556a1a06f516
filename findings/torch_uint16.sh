#!/bin/sh
# Most would guess that a dtype which can be read from a file, indexed, sorted and summed can be compared too.
# Of torch.uint16, sort, unique, sum and == work on the CPU, while max, <, + and isin say that they are not
# implemented. What numpy hands over without fault fails at the first check that a token lies inside the
# vocabulary.
#
# Seen with torch 2.13.0 and numpy 2.4.6, where the two meet.
#
# Why it matters here: token shards are uint16. They stay numpy's until they are made int64.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys
import numpy as np
import torch

tokens = torch.from_numpy(np.array([5, 60000, 7, 5], np.uint16))

def works(call):
    try:
        call()
    except NotImplementedError:
        return False
    return True

seen = {
    "sort": works(lambda: tokens.sort()), "unique": works(lambda: tokens.unique()),
    "sum": works(lambda: tokens.sum()), "==": works(lambda: tokens == 5),
    "max": works(lambda: tokens.max()), "<": works(lambda: tokens < 8),
    "+": works(lambda: tokens + 1), "isin": works(lambda: torch.isin(tokens, tokens)),
}
print("torch", torch.__version__, "numpy", np.__version__)
print("expected: all work, or none")
print("seen:    ", seen)
sys.exit(seen != {"sort": True, "unique": True, "sum": True, "==": True, "max": False, "<": False, "+": False, "isin": False})
PYTHON
