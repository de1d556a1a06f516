"""A folder as a notebook's, with runs in it, for all tests of the Python face."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook import TEXT, TOY
from tiny import score_in_process

import niblick as nb
from niblick.run import exports, pipeline


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as a notebook's: book.txt, data, and two runs of one recipe that differ in their seed."""
    here = tmp_path_factory.mktemp("first day")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(pipeline, "official_score", score_in_process)
        patch.setattr(exports, "official_score", score_in_process)
        Path("book.txt").write_text(TEXT)
        data = nb.prepare("book.txt", "data/book")
        for seed in (1, 2):
            nb.train("hnet-small", data, name=f"toy-{seed}", overrides=TOY, seed=seed)
        yield here


@pytest.fixture
def run(folder: Path) -> nb.Run:
    return nb.open_run("toy-1")
