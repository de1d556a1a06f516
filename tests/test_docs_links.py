"""Links between the documents lead somewhere, and commands in them exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_commands(document: Path) -> None:
    from niblick.cli.app import app, data_app

    known = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    known |= {"data", "sweep", "remote"}
    inner = {c.name for c in data_app.registered_commands}
    for line in re.findall(r"^    niblick (.*)$", document.read_text(), flags=re.MULTILINE):
        verb, *rest = line.split()
        assert verb in known, line
        assert verb != "data" or rest[0] in inner, line
