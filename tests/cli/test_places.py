"""Where results are to go is looked at before anything is made, so that no work is lost to a place that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Niblick


@pytest.mark.parametrize("verb", ["compress", "decompress"])
def test_places_that_are_none(niblick: Niblick, tmp_path: Path, verb: str) -> None:
    """`nobody` is never looked for: a model takes seconds to open, and a file hours to code."""
    text, link = tmp_path / "text.txt", tmp_path / "link.txt"
    text.write_text("the only copy")
    link.symlink_to(text)
    for out, words in (
        (tmp_path, "is a folder: name a file in it"),
        (tmp_path / "no" / "out", "there is no folder"),
        (text / "out", "there is no folder"),
        (text, "is the file that is read"),
        (link, "is the file that is read"),
    ):
        assert words in niblick.refused(verb, text, "-o", out, "--model", "nobody")
    assert text.read_text() == "the only copy"
    assert "there is no run 'nobody'" in niblick.refused(
        verb, text, "-o", tmp_path / "new", "--model", "nobody", "--runs", tmp_path
    )
