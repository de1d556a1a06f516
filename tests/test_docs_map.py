"""The map of the code in CONTRIBUTING.md is what `python docs/map.py` makes, and holds every module."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_the_map_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    made = importlib.import_module("map")
    document = tmp_path / "CONTRIBUTING.md"
    shutil.copy(ROOT / "CONTRIBUTING.md", document)
    made.main(document)
    committed = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert document.read_text(encoding="utf-8") == committed, "run `python docs/map.py`"
    for path in made.SRC.rglob("*.py"):
        name = path.relative_to(made.SRC).as_posix().removesuffix("__init__.py")
        if name not in ("", "__main__.py"):
            assert f"| `{name}` |" in committed or f"| **{name}** |" in committed, name
    (tmp_path / "plain.md").write_text("no markers")
    with pytest.raises(SystemExit, match="has no place for the map"):
        made.main(tmp_path / "plain.md")
