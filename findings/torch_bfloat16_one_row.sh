#!/bin/sh
# Most would guess that torch.nn.functional.linear takes the faster of the ways it has. On a processor with AVX-512
# it gives every product in bfloat16 to oneDNN. For one row, which is reading the weights once, torch has a loop of its
# own that is two to three times as fast. It runs only while oneDNN is switched off. For 32 rows it is the other way
# around: without oneDNN a product takes several times as long, so the switch cannot stay off.
#
# Seen with torch 2.13.0 on an AMD EPYC with AVX-512 BF16. Without AVX-512 oneDNN is not asked, and there is no difference.
#
# Why it matters here: a model that writes one text reads all its weights for each token. Half of the bytes brought
# hardly any speed, until oneDNN was off: so 16 bits look useless there if one tries nothing else.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cd "$work"
"$work/env/bin/python" -W ignore - <<'PYTHON'
import sys
import time

import torch
from torch.nn.functional import linear

print("torch", torch.__version__)
if "avx512" not in torch.backends.cpu.get_cpu_capability().lower():
    print("not to be seen on this processor: it has no AVX-512")
    sys.exit(2)
torch.set_num_threads(1)
single = [torch.randn(1536, 512) for _ in range(32)]  # 100 MB, more than caches hold
half = [weight.bfloat16() for weight in single]


def milliseconds(weights, rows):
    x, times = torch.randn(rows, 512).to(weights[0].dtype), []
    for _ in range(12):
        start = time.process_time()
        for weight in weights:
            linear(x, weight)
        times.append(time.process_time() - start)
    return 1e3 * min(times)


seen = {}
with torch.inference_mode():
    for rows in (1, 32):
        seen[rows] = [milliseconds(single, rows), milliseconds(half, rows)]
        with torch.backends.mkldnn.flags(enabled=False):
            seen[rows].append(milliseconds(half, rows))
print("expected: the switch for oneDNN makes no product faster")
print("seen:     float32, bfloat16, bfloat16 without oneDNN:")
for rows, found in seen.items():
    print(f"          {rows:2} row{'s' if rows > 1 else ' '}: {found[0]:6.1f}, {found[1]:6.1f}, {found[2]:6.1f} ms")
sys.exit(not (seen[1][1] > 1.4 * seen[1][2] and seen[32][2] > 1.4 * seen[32][1]))
PYTHON
