"""Make the pictures of README.md and docs/monitor.md: train two small runs, look at them while the second one trains.

    python docs/screenshots.py [--seconds 150] [--runs FOLDER] [--logs train.log]

Everything it needs comes to lie in build/screenshots. The best finished run of all folders is the one that is compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from niblick.monitor.watcher import Watcher

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "screenshots"
IMAGES = ROOT / "docs" / "images"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 800}
SMALL = [
    *("model.width=64", "model.main.layout=T2", "model.levels.0.width=64"),
    *("train.seq_len=128", "train.batch_tokens=2048", "train.micro_batch_tokens=2048"),
]
"""Many steps a second, for a curve that is worth a picture."""
NIBLICK = [sys.executable, "-m", "niblick"]

sys.path.insert(0, str(ROOT / "tests"))
from browser import find_chromium, launched, served  # noqa: E402


def main() -> None:
    """Train, look, write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150, help="of training, of each run")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="folders of more runs to show")
    parser.add_argument("--logs", type=Path, nargs="*", default=[], help="training logs to show beside the runs")
    options = parser.parse_args()
    path = find_chromium()
    if path is None:
        sys.exit("there is no Chromium, and apt-get cannot install one here")
    if not (FOLDER / "data").is_dir():
        command = [*NIBLICK, "quickstart", "--folder", str(FOLDER), "--seconds", str(options.seconds)]
        subprocess.run(command, check=True)
    folders = [FOLDER / "runs", *options.runs]
    shown = [w for f in folders for w in ("--runs", f)] + [w for log in options.logs for w in ("--logs", log)]
    with training(options.seconds) as live, served(*shown) as address, launched(path) as browser:
        look(browser, address, live(), best(folders))
    print("\n".join(str(p.relative_to(ROOT)) for p in sorted(IMAGES.glob("monitor-*.png"))))


@contextlib.contextmanager
def training(seconds: float) -> Iterator[Any]:
    """Train another run; gives a function that waits until half of it is done and returns its name."""
    before = {p.name for p in (FOLDER / "runs").iterdir()}
    command = [*NIBLICK, "train", "hnet-small", "--data", "data/pydocs", "seed=7", f"schedule.max_seconds={seconds}"]
    command += ["train.log_every=5", "train.val_every=50", "score.seq_len=256", "score.batch_tokens=16384", *SMALL]
    with subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def half() -> str:
            watcher = Watcher([FOLDER / "runs"])
            while process.poll() is None:
                time.sleep(0.5)
                watcher.poll()
                new = [view for name, view in watcher.views.items() if name not in before]
                if new and new[0].timing.working == "training" and (new[0].timing.share or 0) > 0.5:
                    return new[0].id
            sys.exit("the training ended too early: see `niblick watch`")

        try:
            yield half
        finally:
            process.terminate()


def best(folders: list[Path]) -> list[tuple[str, str]]:
    """The finished H-Nets over bytes with the lowest BPB, and their artifacts."""
    found = []
    for path in (p for folder in folders for p in folder.glob("*/result.json")):
        result = json.loads(path.read_text())
        config = json.loads((path.parent / "config.json").read_text())
        if "bpb" in result and config["model"]["levels"] and config["model"]["vocab_size"] == 260:
            found.append((result["bpb"], path.parent.name, result["artifact"]))
    return [(name, artifact) for _, name, artifact in sorted(found)]


def look(browser: Any, address: str, live: str, finished: list[tuple[str, str]]) -> None:
    """Write all pictures: of the run that trains, and of finished ones, best first."""
    (first, artifact), others = finished[0], [name for name, _ in finished[1:3]] or [live]
    together = "&".join(f"run={quote(name)}" for name in (first, *others))
    pages = {
        "live": ("/", "dark", WIDE, ".run-card"),
        "run": (f"/run?id={quote(first)}", "light", WIDE | {"height": 1180}, "#norm .main-svg"),
        "compare": (f"/compare?{together}", "dark", WIDE, "#curve .main-svg"),
        "chunks": (f"/chunks?artifact={quote(f'{first}:{artifact}')}", "light", WIDE | {"height": 420}, ".chunk"),
        "phone": (f"/run?id={live}", "dark", PHONE, "#curve .main-svg"),
    }
    for name, (url, theme, size, wanted) in pages.items():
        context = browser.new_context(base_url=address, viewport=size, color_scheme=theme, device_scale_factor=1.5)
        page = context.new_page()
        page.goto(url)
        page.locator(wanted).first.wait_for(timeout=120_000)
        page.wait_for_timeout(1500)
        page.screenshot(path=IMAGES / f"monitor-{name}.png")
        context.close()


if __name__ == "__main__":
    main()
