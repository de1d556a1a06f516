"""Shared between tests: where real data lies."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line does; before torch is imported

ROOT = Path(__file__).parents[1]


def shared_folder() -> Path:
    """The folder of real data beside the repository; skips the test where there is none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder.name}/ beside the repository, which is not distributed with it")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    return shared_folder()


@pytest.fixture(scope="session")
def webmix(shared: Path) -> Path:
    """4,028 real documents; the first 220 are the validation split."""
    return shared / "data" / "webmix" / "docs_selected.jsonl"


@pytest.fixture(scope="session")
def webmix_figures() -> dict[str, Any]:
    """Tokens, hashes and byte counts of those 220 documents."""
    return json.loads((ROOT / "tests" / "reference" / "webmix_val_bytes.json").read_text())
