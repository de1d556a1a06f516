"""`make findings` tells a change from what could not be tried; every script is written for that. None is run here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "findings").glob("*.sh"))
OUTSIDE_OF_MAKE = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
"""A make within `make test` would speak of the folders that it enters."""


@pytest.mark.parametrize(
    ("codes", "ends", "says"),
    [
        ((0, 0), 0, "none has changed"),
        ((0, 2), 2, "could not be tried: findings/b.sh"),
        ((1, 2), 2, "could not be tried: findings/b.sh\nchanged: findings/a.sh"),
        ((3, 0), 2, "changed: findings/a.sh"),
    ],
)
def test_three_ends(tmp_path: Path, codes: tuple[int, int], ends: int, says: str) -> None:
    """make itself ends with 2 for any code of a command, and names that code."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "findings").mkdir()
    for name, code in zip("ab", codes, strict=True):
        (tmp_path / "findings" / f"{name}.sh").write_text(f"exit {code}\n")
    done = subprocess.run(["make", "findings"], cwd=tmp_path, capture_output=True, text=True, env=OUTSIDE_OF_MAKE)
    assert done.returncode == ends
    assert done.stdout.endswith(says + "\n")
    if ends:
        assert f"Error {1 if 'changed:' in says else 2}" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert "expected:" in text
    assert "seen:" in text
    installs = re.findall(r'^.*(?:-m venv|/bin/pip" install).*$', text, re.M)
    assert len(installs) >= 2
    assert all(line.endswith("|| exit 2") for line in installs)
    assert all(re.search(r"==[\w.$]", line) for line in installs if "install" in line), "versions are pinned"
    assert f"| `{script.stem}` |" in (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
