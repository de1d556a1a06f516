#!/bin/sh
# Most would guess that a Ray task that ends with `sys.exit(0)` has ended: without a result, perhaps with an
# error. It is run four times, because an exit counts as the death of the worker, whatever its code; only then
# an error comes, which says that the worker died unexpectedly. A task that raises an exception is run once.
#
# Seen with ray 2.60.0.
#
# Why it matters here: a trial that gives up by itself would be trained four times over. In niblick a trial is a
# process of its own inside the task, so that its exit is a number, and is not repeated.

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
def leave(how, path):
    with open(path, "a") as file:
        file.write("x")
    if how == "exit":
        sys.exit(0)
    raise ValueError("no")

seen = {}
for how in ("exit", "raise"):
    try:
        ray.get(leave.remote(how, os.path.abspath(how)))
        said = "nothing"
    except Exception as error:
        said = type(error).__name__.partition("(")[0]
    with open(how) as file:
        seen[how] = (len(file.read()), said)
print("ray", ray.__version__)
print("expected: both are run once")
print("seen:    ", {how: f"run {times} times, then {said}" for how, (times, said) in seen.items()})
ray.shutdown()
sys.exit(seen["exit"] != (4, "WorkerCrashedError") or seen["raise"][0] != 1)
PYTHON
# Ray tells of each retry by itself.
grep -v raylet "$work/said"
exit $code
