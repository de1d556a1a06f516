"""`make readme`: run the quickstart and put its real output and pictures into README.md."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 118


def main() -> None:
    """Train in a fresh folder, so that everything happens as on a new machine."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "niblick", "quickstart"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        [run] = Path(folder, "runs").glob("*-1")
        shutil.copy(run / "bpb.png", ROOT / "docs" / "images" / "quickstart.png")
        words = ("plot", run.name, "--compressors", "--kind", "png")
        subprocess.run([sys.executable, "-m", "niblick", *words], cwd=folder, check=True)
        shutil.copy(Path(folder, "plots", "cap.png"), ROOT / "docs" / "images" / "cap.png")
        facts = json.loads((run / "quickstart.json").read_text())
    shown = done.stderr.rstrip().splitlines() + done.stdout.rstrip().splitlines()
    shown = [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in shown]
    block = "```text\n$ make quickstart\n" + "\n".join(shown) + "\n```"
    readme = ROOT / "README.md"
    text = re.sub(
        r"(<!-- quickstart:.*? -->\n).*?(\n<!-- /quickstart -->)",
        lambda match: match[1] + block + match[2],
        readme.read_text(),
        flags=re.DOTALL,
    )
    readme.write_text(text)
    print(f"README.md shows {facts['bpb']:.4f} BPB after {facts['steps']} steps")


if __name__ == "__main__":
    main()
