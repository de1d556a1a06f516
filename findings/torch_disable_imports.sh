#!/bin/sh
# Most would guess that `torch.compiler.disable` only marks a function, for a compiler that may come later. It loads
# that compiler: putting it on a function imports torch._dynamo with sympy and all the rest. So does
# `torch.compiler.assume_constant_result`. `torch.compiler.is_compiling` does not.
#
# Seen with torch 2.13.0.
#
# Why it matters here: such a decorator stood in one module of the model, and so every process that loaded a model,
# to score or to sample, took twice as long to start, though nothing was ever compiled.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cd "$work"
"$work/env/bin/python" - <<'PYTHON'
import resource
import sys
import time

start = time.process_time()
import torch

before = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(sys.modules)
torch.compiler.is_compiling()
asked = "torch._dynamo" in sys.modules
start = time.process_time()


@torch.compiler.disable
def untouched(x):
    return x


after = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(sys.modules)
loaded = {name for name in ("torch._dynamo", "sympy") if name in sys.modules}
print("torch", torch.__version__)
print("expected: a mark on a function, and no module more")
print(f"seen:     {after[2] - before[2]:,} modules more, among them {', '.join(sorted(loaded))};")
print(f"          {after[0]:.1f} s of CPU after {before[0]:.1f} s for torch, and {(after[1] - before[1]) / 1024:.0f} MB")
sys.exit(asked or len(loaded) < 2)
PYTHON
