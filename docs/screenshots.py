"""Make the pictures of README.md and docs/monitor.md: train two small runs, look at them while the second one trains.

    python docs/screenshots.py [--seconds 150] [--logs train.log]

Everything it needs comes to lie in build/screenshots; a finished run that is there is used again.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "screenshots"
IMAGES = ROOT / "docs" / "images"
WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 800}
NIBLICK = [sys.executable, "-m", "niblick"]

sys.path.insert(0, str(ROOT / "tests" / "monitor"))
from browser import find_chromium, launched, served  # noqa: E402


def main() -> None:
    """Train, look, write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150, help="of training, of each run")
    parser.add_argument("--logs", type=Path, nargs="*", default=[], help="training logs to show beside the runs")
    options = parser.parse_args()
    path = find_chromium()
    if path is None:
        sys.exit("there is no Chromium, and apt-get cannot install one here")
    if not list(FOLDER.glob("runs/*/result.json")):
        command = [*NIBLICK, "quickstart", "--folder", str(FOLDER), "--seconds", str(options.seconds)]
        subprocess.run(command, check=True)
    finished = sorted(p.parent.name for p in FOLDER.glob("runs/*/result.json"))[0]
    logs = [word for log in options.logs for word in ("--logs", log)]
    app = served("--runs", FOLDER / "runs", *logs)
    with training(options.seconds) as live, app as address, launched(path) as browser:
        look(browser, address, live(browser, address), finished)
    print("\n".join(str(p.relative_to(ROOT)) for p in sorted(IMAGES.glob("monitor-*.png"))))


@contextlib.contextmanager
def training(seconds: float) -> Iterator[Any]:
    """Train another run; gives a function that waits until half of it is done and returns its name."""
    before = {p.name for p in (FOLDER / "runs").iterdir()}
    command = [*NIBLICK, "train", "quickstart", "--data", "data/pydocs", "seed=7", f"schedule.max_seconds={seconds}"]
    command += ["train.log_every=5", "train.val_every=0"]
    with subprocess.Popen(command, cwd=FOLDER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:

        def half(browser: Any, address: str) -> str:
            page = browser.new_page()
            page.goto(address)
            card = page.locator(".run-card").first
            card.wait_for(timeout=120_000)
            name = card.locator(".name").inner_text()
            assert name not in before, f"{name} is still at work: wait for it, or stop it"
            done = (
                "parseFloat(document.querySelector('.run-card [role=progressbar]').getAttribute('aria-valuenow')) > 50"
            )
            page.wait_for_function(
                f"document.querySelector('.run-card .badge[data-phase=training]') && {done}", timeout=0
            )
            page.close()
            return name

        try:
            yield half
        finally:
            process.terminate()


def look(browser: Any, address: str, live: str, finished: str) -> None:
    """Write all pictures."""
    artifact = next((FOLDER / "runs" / finished).glob("artifacts/*/artifact.nib")).parent.name
    pages = {
        "live": ("/", "dark", WIDE, ".run-card"),
        "run": (f"/run?id={live}", "light", WIDE | {"height": 1180}, "#norm .main-svg"),
        "compare": (f"/compare?run={live}&run={finished}", "dark", WIDE, "#curve .main-svg"),
        "chunks": (f"/chunks?artifact={finished}:{artifact}", "light", WIDE | {"height": 420}, ".chunk"),
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
