#!/bin/sh
# Most would guess that destroy_process_group ends what init_process_group began. After DistributedDataParallel it does
# not: the threads of gloo live on, though the wrapped module is deleted and its garbage collected, and stop only when the
# interpreter is taken down. Without DistributedDataParallel they are gone at once.
#
# Seen with torch 2.13.0 on Linux, which lists the threads.
#
# Why it matters here: one of some hundred runs of two ranks was aborted at its very end ("terminate called without an
# active exception"), after all results had been written, and torchrun called the run failed. A rank that has done its
# work therefore leaves without taking the interpreter down.

set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 || exit 2
cd "$work"
cat > rank.py <<'PYTHON'
import gc
import os
import sys
import warnings
import torch
import torch.distributed as dist

warnings.simplefilter("ignore")
kind, rank = sys.argv[1], int(sys.argv[2])


def threads():
    names = (open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task"))
    return sum("gloo" in name for name in names)


dist.init_process_group("gloo", init_method=f"file://{os.getcwd()}/{kind}", rank=rank, world_size=2)
if kind == "wrapped":
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
    model(torch.ones(1, 4)).sum().backward()
    del model
else:
    dist.all_reduce(torch.zeros(4))
before = threads()
dist.destroy_process_group()
gc.collect()
if rank == 0:
    print(kind, before, threads())
PYTHON
for kind in plain wrapped; do
  "$work/env/bin/python" rank.py $kind 1 &
  "$work/env/bin/python" rank.py $kind 0 >> seen
  wait
done
"$work/env/bin/python" - <<'PYTHON'
import sys
import torch

seen = {kind: (int(before), int(after)) for kind, before, after in map(str.split, open("seen"))}
print("torch", torch.__version__)
print("expected: no thread of gloo after destroy_process_group")
for kind, (before, after) in seen.items():
    print(f"seen:     {'all_reduce' if kind == 'plain' else 'DistributedDataParallel'}: {before} before, {after} after")
sys.exit(not (seen["plain"][1] == 0 < seen["wrapped"][1]))
PYTHON
