#!/bin/sh
# Most would guess that a task on a Ray cluster of one's own machine gets as much of a busy processor as the
# same function in a pool of processes. Ray starts its workers with niceness +15: beside anything else that
# computes, they get a small part of its share. Nothing in `ray.init` tells; the environment variable
# RAY_worker_niceness, read where the node is started, changes it.
#
# Seen with ray 2.60.0.
#
# Why it matters here: runs with a budget in seconds did fewer steps under `--executor ray` than in the local
# pool. niblick gives its jobs the niceness of the process that started the sweep.

set -eu
code=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" || exit 2
"$work/env/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0 || exit 2
cd "$work"
RAY_USAGE_STATS_ENABLED=0 "$work/env/bin/python" - > "$work/said" 2>&1 <<'PYTHON' || code=$?
import logging, os, sys
import ray


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)

@ray.remote
def niceness():
    return os.getpriority(os.PRIO_PROCESS, 0)

own, theirs = os.getpriority(os.PRIO_PROCESS, 0), ray.get(niceness.remote())
print("ray", ray.__version__)
print(f"expected: niceness {own}, as the driver has")
print(f"seen:     niceness {theirs}")
ray.shutdown()
sys.exit(theirs != min(19, own + 15))
PYTHON
grep -v raylet "$work/said"
exit $code
