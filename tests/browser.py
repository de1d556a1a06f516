"""A browser for tests and pictures: headless Chromium, installed where that is possible; and the app to look at."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]


def find_chromium() -> str | None:
    """The path of a Chromium; the first time on a Debian without one it is installed. None if that cannot be done."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found or not shutil.which("apt-get"):
        return found
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if rights and not shutil.which("sudo"):
        return None
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"],
    ):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([*rights, *command], check=False, capture_output=True, timeout=600, env=environment)
    return shutil.which("chromium")


@contextlib.contextmanager
def launched(path: str) -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def served(*arguments: object, cwd: Path | None = None) -> Iterator[str]:
    """The address of a `niblick monitor` with these arguments, as long as it runs."""
    command = [sys.executable, "-m", "niblick", "monitor", "--port", "0", "--json", *map(str, arguments)]
    # NiceGUI looks for its own test harness where it finds pytest's.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "NICEGUI_"))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd, env=environment) as process:
        try:
            assert process.stdout
            text = ""
            for line in process.stdout:
                text += line
                if line.startswith("}"):
                    break
            yield json.loads(text)["url"]
        finally:
            process.terminate()
            process.wait(timeout=30)
