"""What is kept of scripts between processes: the same script comes of it, and nothing hangs on it."""

from __future__ import annotations

import math
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from niblick.bundle import maker, recalled
from niblick.config.run_config import override
from niblick.recipes.presets import get_preset


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "niblick" / "scripts"


class Finder:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> Any:
        self.asked += 1
        return {"text": "π\n", "numbers": [1, 2.5]}


def test_found_once(place: Path) -> None:
    find = Finder()
    assert [recalled.recall(["a"], find) for _ in range(3)] == [{"text": "π\n", "numbers": [1, 2.5]}] * 3
    assert find.asked == 1
    recalled.recall(["b"], find)
    assert find.asked == 2 and len([*place.iterdir()]) == 2


@pytest.mark.parametrize("harm", ["empty", "cut", "flipped", "folder"])
def test_a_damaged_file_is_as_good_as_none(harm: str, place: Path) -> None:
    find = Finder()
    good = recalled.recall(["a"], find)
    [path] = place.iterdir()
    data = path.read_bytes()
    path.unlink()
    if harm == "folder":
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "cut": data[:-1], "flipped": data[:-1] + bytes([data[-1] ^ 1])}[harm])
    assert recalled.recall(["a"], find) == good
    assert find.asked == 2
    assert harm == "folder" or path.read_bytes() == data


def test_other_sources_and_versions_are_another_question(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find, real, before = Finder(), metadata.version, recalled._sources()
    recalled.recall(["a"], find)
    monkeypatch.setattr(metadata, "version", lambda name: "0" if name == "torch" else real(name))
    recalled._sources.cache_clear()
    try:
        assert recalled._sources() != before
        recalled.recall(["a"], find)
        copied = {"niblick": place.parent / "one.py"}
        copied["niblick"].write_text("x = 1\n")
        monkeypatch.setattr(recalled, "STARTED", math.inf)
        monkeypatch.setattr(recalled, "modules_of", lambda package: copied)
        recalled._sources.cache_clear()
        recalled.recall(["a"], find)
        copied["niblick"].write_text("x = 2\n")
        recalled._sources.cache_clear()
        recalled.recall(["a"], find)
    finally:
        recalled._sources.cache_clear()
    assert find.asked == 4


def test_a_process_older_than_a_source_neither_keeps_nor_recalls(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it runs is not what the sources say."""
    find, real = Finder(), recalled.modules_of(recalled.PACKAGE)
    edited = place.parents[1].parent / "edited.py"
    monkeypatch.setattr(recalled, "modules_of", lambda package: real | ({"edited": edited} if edited.exists() else {}))
    edited.touch()
    recalled.recall(["a"], find)
    assert not place.exists()
    edited.unlink()
    recalled.recall(["a"], find)
    recalled.recall(["a"], find)
    assert find.asked == 2
    edited.touch()
    recalled.recall(["a"], find)
    assert find.asked == 3

    def while_edited() -> Any:
        edited.touch()
        return find()

    edited.unlink()
    recalled.recall(["b"], while_edited)
    edited.unlink()
    recalled.recall(["b"], find)
    assert find.asked == 5


def test_nothing_hangs_on_a_place_to_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    find = Finder()
    assert recalled.recall(["a"], find) == recalled.recall(["a"], find)
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    recalled.recall(["a"], find)

    def not_installed(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(metadata, "requires", not_installed)
    recalled._sources.cache_clear()
    recalled.recall(["a"], find)
    assert find.asked == 4 and not (tmp_path / "cache").exists()


def test_the_oldest_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalled, "MOST_FILES", 2)
    find = Finder()
    for asked in "abc":
        recalled.recall([asked], find)
    assert len([*place.iterdir()]) == 2
    recalled.recall(["c"], find)
    assert find.asked == 3
    recalled.recall(["a"], find)
    assert find.asked == 4


def test_the_same_script_comes_of_it(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For other numbers too; other parts and recipes are found anew."""
    config = get_preset("baseline-sp1024")
    other = override(config, ["schedule.steps=7", "seed=3"])

    def scripts() -> list[maker.Script]:
        for remembered in (maker._parts, maker.minified, maker.compressed):
            remembered.cache_clear()
        return [maker.make_script(each) for each in (config, other)]

    first = scripts()
    assert first[0] != first[1] and len([*place.iterdir()]) == 1
    with monkeypatch.context() as patched:
        patched.setattr(maker, "Reach", None)
        assert scripts() == first
        with pytest.raises(TypeError):
            maker.make_script(override(config, ["export.codec=brotli"]))
        recipe = tmp_path / "recipe.py"
        recipe.write_text("def recipe():\n    return 1\n")
        with pytest.raises(TypeError):
            maker.make_script(config, recipe)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "anew"))
    assert scripts() == first
    maker.make_script(config, recipe)
    assert len([*(tmp_path / "anew" / "niblick" / "scripts").iterdir()]) == 1
