"""A submission folder run again as a stranger would: a fresh environment, its requirements, no network.

The environment is a new one (`python -m venv`) with what requirements.txt lists, fetched by pip. Then the network goes
away: in a namespace of its own where the system permits that (`unshare`), else by a guard in the interpreter that
refuses connections; which it was is said. The folder is copied, so that nothing in it changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from niblick.challenge.log_reader import read_log
from niblick.errors import ConfigError, NiblickError

ENOUGH = 1e-4
"""BPB by which the score may differ from what submission.json says."""

_GUARD = """\
import sys


def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise OSError("the network is off: " + event)


sys.addaudithook(refuse)
"""


def environment(folder: Path, place: Path) -> Path:
    """Make a fresh environment at `place` with a folder's requirements. Returns its Python.

    Raises ConfigError if the folder has no requirements, NiblickError with pip's last line if they cannot be had.
    """
    needed = folder / "requirements.txt"
    if not needed.is_file():
        raise ConfigError(f"{folder} has no requirements.txt: a fresh environment cannot be made")
    done = subprocess.run([sys.executable, "-m", "venv", str(place)], capture_output=True, text=True, check=False)
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    if done.returncode == 0:
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(needed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = ((done.stderr or done.stdout).strip().splitlines() or ["nothing"])[-1]
        raise NiblickError(f"the requirements of {folder} cannot be installed: {last}")
    return python


def no_network() -> tuple[list[str], str]:
    """A way to run a process without network here: a prefix of its command, and its description."""
    unshare = shutil.which("unshare")
    if unshare:
        for options in (["-n"], ["-r", "-n"]):
            tried = subprocess.run([unshare, *options, "true"], capture_output=True, check=False)
            if tried.returncode == 0:
                return [unshare, *options], "in a network namespace of its own"
    return [], "with a guard in the interpreter that refuses connections (no namespaces here)"


def rerun(folder: Path, data: str, python: Path | None = None) -> dict[str, Any]:
    """Score a folder's artifact with its own script, in a fresh environment without network.

    `python` is that of an environment made before. Returns `bpb`, `loss` and `network`, how it was kept away. Raises
    NiblickError with what the script said if it failed.
    """
    prefix, how = no_network()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        python = python or environment(folder, place / "environment")
        copy = place / "submission"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("logs", "__pycache__"))
        guard = place / "guard"
        guard.mkdir()
        (guard / "sitecustomize.py").write_text(_GUARD)
        variables = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(place),
            "DATA_PATH": os.path.abspath(data),
            "PYTHONDONTWRITEBYTECODE": "1",
            **({} if prefix else {"PYTHONPATH": str(guard)}),
            **{k: os.environ[k] for k in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT") if k in os.environ},
        }
        command = [*prefix, str(python), "train_gpt.py", "--eval"]
        done = subprocess.run(command, cwd=copy, env=variables, capture_output=True, text=True, check=False)
    claims = [claim for claim in read_log(done.stdout).claims if claim.name.endswith("_exact")]
    if done.returncode or not claims:
        last = ((done.stderr or done.stdout).strip().splitlines() or ["nothing"])[-1]
        raise NiblickError(f"`python train_gpt.py --eval` of {folder} failed: {last}")
    return {"bpb": float(claims[-1].bpb), "loss": float(claims[-1].loss or "nan"), "network": how}
