#!/bin/sh
# Most would guess that under autocast to bfloat16 the cross entropy is the same number, whether by
# cross_entropy or by log_softmax and a gather: in half precision on a GPU, both are computed in float32. On the
# CPU only cross_entropy is: log_softmax, softmax and logsumexp stay in bfloat16, so that a loss written out by
# hand has two or three digits.
#
# Seen with torch 2.13.0.
#
# Why it matters here: a score in bits per byte is quoted to four digits, and some published scripts compute the
# loss by hand. Costs of tokens are computed from float32 logits outside autocast.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import sys
import torch
from torch.nn import functional

logits = torch.randn(4096, 256, generator=torch.Generator().manual_seed(0))
head = torch.eye(256)
targets = torch.arange(4096) % 256
with torch.autocast("cpu", dtype=torch.bfloat16):
    made = logits @ head
    whole = functional.cross_entropy(made, targets)
    by_hand = -made.log_softmax(-1).gather(1, targets[:, None])
    kinds = [made.dtype, whole.dtype, by_hand.dtype, made.softmax(-1).dtype, made.logsumexp(-1).dtype]
exact = functional.cross_entropy(made.double(), targets)
errors = abs(float(whole) - float(exact)), abs(float(by_hand.double().mean()) - float(exact))
worst = float((by_hand.double() + made.double().log_softmax(-1).gather(1, targets[:, None])).abs().max())
print("torch", torch.__version__)
print("expected: float32 for all that is computed of the logits")
print("seen:     logits, cross_entropy, log_softmax, softmax, logsumexp:", *(str(kind).removeprefix("torch.") for kind in kinds))
print(f"          error of the mean {errors[0]:.1e} and by hand {errors[1]:.1e}; of one token by hand up to {worst:.1e} nats")
low = torch.bfloat16
sys.exit(not (kinds == [low, torch.float32, low, low, low] and worst > 1e-2))
PYTHON
