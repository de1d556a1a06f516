"""Links between the documents lead somewhere, and commands in them exist."""

from __future__ import annotations

import ast
import importlib
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
    from typer.main import get_command

    from niblick.cli.app import app, data_app

    known = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    known |= {"data", "sweep", "remote"} | {option for p in get_command(app).params for option in p.opts}
    inner = {c.name for c in data_app.registered_commands}
    for line in re.findall(r"^    niblick (.*)$", document.read_text(), flags=re.MULTILINE):
        verb, *rest = line.split()
        assert verb in known, line
        assert verb != "data" or rest[0] in inner, line


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_names_of_modules(document: Path) -> None:
    """Modules, their functions and files that a page names are there, and so is what its code imports."""
    text = document.read_text()
    names = set(re.findall(r"\bniblick(?:\.[A-Za-z_]\w*)+", text))
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("niblick"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert not [name for name in sorted(names) if not resolves(name)]
    files = set(re.findall(r"`([a-z_]+/[\w/]+\.py)`", text))
    assert not [
        file for file in sorted(files) if not any((ROOT / base / file).exists() for base in (".", "src/niblick"))
    ]


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "reference").glob("*.md")), ids=lambda p: p.name)
def test_names_of_the_reference(page: Path) -> None:
    """What the reference describes is defined where it says: a name that is only imported there has no text."""
    names = re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
    assert names
    for name in names:
        module, _, member = name.rpartition(".")
        found = getattr(importlib.import_module(module), member, None) or importlib.import_module(name)
        assert getattr(found, "__module__", module) == module, f"{name} is defined in {found.__module__}"
