"""Bubblewrap for tests: installed where root may, so that both kinds of cages are tried."""

from __future__ import annotations

import os
import shutil
import subprocess


def install_bubblewrap() -> None:
    """Install `bwrap` with apt-get, if it is not here and that is possible."""
    if shutil.which("bwrap") or os.name != "posix" or os.geteuid() or not shutil.which("apt-get"):
        return
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "bubblewrap"],
    ):
        subprocess.run(command, capture_output=True, check=False, timeout=300)
