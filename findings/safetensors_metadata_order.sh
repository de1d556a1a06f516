#!/bin/sh
# Most would guess that saving the same tensors with the same metadata twice gives the same bytes: the tensors
# are laid out in a fixed order, and the format has no time stamps. With several metadata entries, each save
# writes them in another order, even inside one process. With one entry or none the bytes repeat.
#
# Seen with safetensors 0.8.0.
#
# Why it matters here: finished runs hold digests of their files, and a rerun that computes the same weights
# should be seen to. A digest of such a file says nothing unless its metadata is a single entry.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import hashlib, sys
import numpy as np
import safetensors
from safetensors.numpy import save

def digests(entries):
    metadata = {f"key{number}": str(number) for number in range(entries)}
    return len({hashlib.sha256(save({"a": np.zeros(3, np.float32)}, metadata)).hexdigest() for _ in range(40)})

seen = {entries: digests(entries) for entries in (0, 1, 8)}
print("safetensors", safetensors.__version__)
print("expected: one digest, however often it is saved")
print("seen:    ", {f"{entries} entries": f"{count} digests of 40 saves" for entries, count in seen.items()})
sys.exit(not (seen[0] == seen[1] == 1 and seen[8] > 1))
PYTHON
