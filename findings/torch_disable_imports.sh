#!/bin/sh
# Most would guess that torch's compiler is imported by those who compile. Three things import it that compile nothing:
# putting `torch.compiler.disable` on a function, making any optimizer, and drawing numbers for a tensor on the device
# `meta`, which has none. Each loads torch._dynamo with sympy and all the rest. `torch.compiler.is_compiling` does not.
#
# Seen with torch 2.13.0.
#
# Why it matters here: such a decorator stood in one module of the model, so every process that loaded a model, to score
# or to sample, took twice as long to start. Once it was gone, training did so for the other two.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cd "$work"
cat > each.py <<'PYTHON'
import resource
import sys
import time

import torch

before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(sys.modules)
exec(sys.argv[1])
seconds, memory = time.process_time() - before[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[1]
loaded = all(name in sys.modules for name in ("torch._dynamo", "sympy"))
print(f"          {sys.argv[1]:46} {seconds:4.1f} s {memory / 1024:4.0f} MB {len(sys.modules) - before[2]:4} modules")
sys.exit(not loaded)
PYTHON
python="$work/env/bin/python"
"$python" -c "import torch; print('torch', torch.__version__)"
echo "expected: no module more"
echo "seen:"
changed=0
"$python" each.py "torch.compiler.disable(lambda x: x)" || changed=1
"$python" each.py "torch.optim.SGD([torch.zeros(2)], lr=0.1)" || changed=1
"$python" each.py "torch.empty(2, device='meta').normal_()" || changed=1
"$python" each.py "torch.compiler.is_compiling()" && changed=1
exit "$changed"
