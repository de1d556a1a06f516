#!/bin/sh
# Most would guess that torch keeps the memory of freed tensors for the next ones on a CPU too, as its allocator does
# on a GPU. It does not: a CPU tensor is an allocation of the C library's. glibc gives a large one back to the kernel
# when it is freed, and the next one of its size is made of new pages, each zeroed at its first touch. A loop that
# makes and drops the same tensors pays that for every page in every round. Two thresholds of glibc's mallopt end it.
#
# Seen with torch 2.13.0 and glibc 2.36.
#
# Why it matters here: a training step of a small model on two cores makes and drops its activations and gradients
# each time, and had some 20,000 page faults in a step.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cd "$work"
cat > rounds.py <<'PYTHON'
import ctypes
import resource
import sys
import torch

torch.set_num_threads(1)
if "keep" in sys.argv:
    library = ctypes.CDLL(None)
    library.mallopt(-3, 1 << 25)  # M_MMAP_THRESHOLD
    library.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def step() -> None:
    """Eight tensors of four megabytes that live at once, then none."""
    kept = [torch.ones(1 << 20)]
    for _ in range(7):
        kept.append(kept[-1] + 1)


for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 20)
PYTHON
"$work/env/bin/python" - <<'PYTHON'
import platform
import subprocess
import sys
import torch

usual, kept = (
    int(subprocess.run([sys.executable, "rounds.py", *how], capture_output=True, text=True, check=True).stdout)
    for how in ([], ["keep"])
)
print("torch", torch.__version__, "with", *platform.libc_ver())
print("expected: after some rounds, next to no page faults in a round of 32 MB of tensors")
print(f"seen:     {usual:,} page faults in a round; {kept:,} after two calls of mallopt")
sys.exit(not (usual > 100 and kept * 20 < usual))
PYTHON
