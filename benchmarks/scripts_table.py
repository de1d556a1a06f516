"""What the script of each preset weighs and how long it takes to make: the table of docs/submission.md.

    python benchmarks/scripts_table.py [--docs]

Each preset is made in a fresh process on one thread; seconds are CPU seconds of `make_script`, after the imports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from measure import put_into_docs

PAGE = Path(__file__).parents[1] / "docs" / "submission.md"
MAKE = """
import json, sys, time
from niblick.bundle import make_script
from niblick.recipes.presets import get_preset
config = get_preset(sys.argv[1])
started = time.process_time()
made = make_script(config)
seconds = time.process_time() - started
print(json.dumps([len(made.readable.encode()), made.total, len(made.modules), seconds]))
"""


def table() -> str:
    """The table, a row for each preset."""
    from niblick.recipes.presets import PRESETS

    rows = ["| config | modules | readable | packed | seconds |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in PRESETS:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", MAKE, name], env=environment, capture_output=True, check=True)
        readable, packed, modules, seconds = json.loads(done.stdout)
        rows.append(f"| `{name}` | {modules} | {readable:,} | {packed:,} | {seconds:.2f} |")
    return "\n".join(rows)


def main() -> None:
    """Print the table, or put it into the page."""
    made = table()
    if "--docs" in sys.argv:
        put_into_docs("scripts", made, PAGE)
    print(made)


if __name__ == "__main__":
    main()
