"""Functions as they are really scored: whole windows, whole batches, after many tokens, against rows alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from odd_functions import CHEATS, FILE, HONEST

from niblick.audit.function_checks import Function
from niblick.audit.functions import load_function
from niblick.audit.watched import listening
from niblick.audit.windows import function_windows
from niblick.data.dataset import Split

TOKENS = np.random.default_rng(0).integers(4, 260, 7 * 1024 + 100).astype(np.uint16)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Callable[[], Function]]:
    path = tmp_path_factory.mktemp("functions") / "odd.py"
    path.write_text(FILE)
    return lambda name: lambda: load_function(str(path), name)


def asked(load: Callable[[], Function]) -> str:
    return function_windows(load, Split("val", [], [TOKENS]), 1, 260, 1 << 13).status


@pytest.mark.parametrize("name", CHEATS)
def test_what_shows_only_in_scoring_is_caught(name: str, load: Callable[[str], Callable[[], Function]]) -> None:
    assert asked(load(name)) == "fail"


@pytest.mark.parametrize("name", HONEST)
def test_honest_oddities_pass(name: str, load: Callable[[str], Callable[[], Function]]) -> None:
    assert asked(load(name)) == "pass"


def test_files_are_heard(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"12")
    with listening() as files:
        np.fromfile(tmp_path / "one", np.uint8)
    assert {Path(path).name for path in files} == {"one"}
    with listening() as later:
        pass
    assert not later
