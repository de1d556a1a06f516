"""The notebooks in examples/ run from top to bottom, with few steps, and are notebooks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import score_in_process

from niblick.run import exports, pipeline

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.py"))
SHOWN = {
    "bytes_and_subwords": r"of-bytes: \d\.\d{4} bits per byte.*\nof-subwords: \d\.\d{4} bits per byte",
    "chunks_of_your_text": r"\d+ chunks of \d+\.\d characters",
    "one_megabyte": r"fitted: [\d,]+ bytes, \d+\.\d{4} bits per byte",
    "your_own_router": r"own-router: \d\.\d{4} bits per byte\n  .*\|.*\npublished-router: \d\.\d{4} bits per byte",
}
"""What each prints."""


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(
    notebook: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_script: None,
) -> None:
    """In this process, and scored in it: a fresh one for each score takes most of the time."""
    for module in (pipeline, exports):
        monkeypatch.setattr(module, "official_score", score_in_process)
    monkeypatch.chdir(tmp_path)
    code, steps = re.subn(r"^STEPS = \d+$", "STEPS = 4", notebook.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert steps == 1
    exec(compile(code, str(notebook), "exec"), {"__name__": notebook.stem})
    assert re.search(SHOWN[notebook.stem], capsys.readouterr().out)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_a_notebook(notebook: Path) -> None:
    """With a title, prose and code, and nothing private."""
    jupytext = pytest.importorskip("jupytext", reason="jupytext comes with niblick[examples]")
    read = jupytext.read(notebook)
    kinds = [cell.cell_type for cell in read.cells]
    assert read.cells[0].source.startswith("# ") and kinds.count("markdown") > 1 and kinds.count("code") > 2
    assert "import niblick as nb" in "\n".join(cell.source for cell in read.cells)
    assert notebook.stem in SHOWN
