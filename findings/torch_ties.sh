#!/bin/sh
# Most would guess that among equal numbers argmax, max, topk and sort agree on which comes first, or at least
# that topk takes them in some order of their places. Of a hundred equal numbers argmax and max name place 0,
# and topk names places in the middle, others than sort does. Up to sixteen elements, sort keeps their order.
#
# Seen with torch 2.13.0 on the CPU.
#
# Why it matters here: rows and heads are sorted by size before they are packed, and rows that were never
# trained are equal. An unstable sort would make other artifacts of the same weights; niblick sorts stably.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys
import torch

same = torch.zeros(100)
first = {
    "argmax": same.argmax().item(),
    "max": same.max(0).indices.item(),
    "topk": same.topk(5).indices[0].item(),
    "stable sort": same.sort(descending=True, stable=True).indices[0].item(),
}
few, many = torch.zeros(16).argsort(), torch.zeros(4096).argsort(descending=True)
kept = torch.equal(few, torch.arange(16)), torch.equal(many, torch.arange(4096))
print("torch", torch.__version__)
print("expected: place 0 for all, and order kept at any length or at none")
print("seen:    ", first, f"order kept by argsort of 16: {kept[0]}, of 4096: {kept[1]}")
sys.exit(not (first["argmax"] == first["max"] == first["stable sort"] == 0 and first["topk"] != 0 and kept == (True, False)))
PYTHON
