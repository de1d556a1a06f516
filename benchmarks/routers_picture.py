"""How each method of the study `routers2026` cuts one sentence, as one picture: docs/images/routers2026.svg.

    python benchmarks/routers_picture.py runs/routers2026-prose-4 [--out FILE.svg]

A row for each method, in the study's order, by the first seed that is done. Bars are p.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from niblick.boundaries.cuts import Reader, Row
from niblick.boundaries.pictures import stacked
from niblick.data.tokenizers import ByteTokenizer
from niblick.run.directory import Run
from niblick.run.loading import load_artifact

SENTENCE = "Natural language processing has made remarkable progress in recent years."
OUT = Path(__file__).parents[1] / "docs" / "images" / "routers2026.svg"


def cuts(sweep: Path) -> dict[str, Row]:
    """The sentence as each method of the study cuts it; methods of which no run is done are left out."""
    facts, found = json.loads((sweep / "sweep.json").read_text()), {}
    for point in facts["points"]:
        for seed in facts["seeds"]:
            run = Run(sweep / f"{point['name']}-s{seed}")
            if (result := run.result()) and point["branch"] not in found:
                reader = Reader(load_artifact(run.artifact(result.artifact))[0], ByteTokenizer())
                [found[point["branch"]]] = reader.read([reader.encode(SENTENCE)])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="How the methods of routers2026 cut one sentence.")
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    rows = cuts(arguments.sweep)
    arguments.out.write_text(stacked(rows, len(SENTENCE) + 1))
    print(f"{len(rows)} methods in {arguments.out}")


if __name__ == "__main__":
    main()
