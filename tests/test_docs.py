"""The code in the documents runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


TOY = ["model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.seq_len=32"]
TOY_RUN = [
    *("train.batch_tokens=256", "train.micro_batch_tokens=256", "train.warmup_steps=0", "train.val_every=0"),
    *("schedule.steps=3", "score.seq_len=64"),
]


def test_one_version() -> None:
    """What the package says, what is cited, what is written of, and what the tag of a release is held against."""
    import niblick

    line = f'__version__ = "{niblick.__version__}"'
    assert line in (ROOT / "src" / "niblick" / "__init__.py").read_text().splitlines()
    assert f"version: {niblick.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()
    newest = next(line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## "))
    assert newest.split()[1] == niblick.__version__
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert r"""grep -qx "__version__ = \"${GITHUB_REF_NAME#v}\"" src/niblick/__init__.py""" in release


@pytest.mark.slow
def test_table_of_tokenizers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that makes the table of docs/data.md, at toy size; all else in the document stays."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    table = importlib.import_module("tokenizers_table")
    document = tmp_path / "data.md"
    document.write_text((ROOT / "docs" / "data.md").read_text())
    toy = [a for a in TOY if "seq_len" not in a] + [a for a in TOY_RUN if "batch" not in a]
    toy += ["train.batch_tokens=512", "train.micro_batch_tokens=512"]
    table.main(["--seconds", "5", "--document", str(document), *toy])
    text = document.read_text()
    before, _, rest = text.partition(table.BEGIN)
    made, _, after = rest.partition(table.END)
    original = (ROOT / "docs" / "data.md").read_text()
    assert original.startswith(before + table.BEGIN)
    assert original.endswith(table.END + after)
    assert made.strip() == capsys.readouterr().out.strip()
    for name in ("`byte260`", "`sp1024`", "`sp1024_nmt_nfkc`", "`xz -9e` alone", "`xz -9e`, training text as prefix"):
        assert f"| {name} |" in made
    assert re.search(r"`sp1024_nmt_nfkc` \| \d\.\d{4} \| no: \d+ of \d+ documents \| \d\.\d{4} \| .*% more", made)
    assert str(tmp_path) not in made
    (tmp_path / "plain.md").write_text("no markers")
    with pytest.raises(SystemExit, match="has no place for the table"):
        table.write_between(tmp_path / "plain.md", "table")


@pytest.mark.slow
def test_table_of_penalties(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that makes the table of docs/training.md, at toy size with two of its rows."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    table = importlib.import_module("penalties_table")
    rows = table.variants(8)
    assert {name.split("`")[1] for name in rows if "`" in name} == table.PENALTIES.keys()
    monkeypatch.setattr(table, "variants", lambda steps: {k: rows[k] for k in ("none", "`grid`, weight 1")})
    document = tmp_path / "training.md"
    document.write_text((ROOT / "docs" / "training.md").read_text())
    table.main(["--val-docs", "2", "--steps", "8", "--document", str(document), "train.seq_len=64", "score.seq_len=64"])
    text = document.read_text()
    assert "| none |  | " in text
    assert re.search(r"\| `grid`, weight 1 \| 0\.\d+ → 0\.\d+ \| \d\.\d{4} \| \d\.\d{4} \| .* bytes \|", text)
    assert (
        text.partition(table.MARKERS[1])[2]
        == (ROOT / "docs" / "training.md").read_text().partition(table.MARKERS[1])[2]
    )
    assert text.partition(table.MARKERS[1])[0].endswith(capsys.readouterr().out.split("| trained")[1].strip() + "\n")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_of_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command behind `make memory`, on little."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    measured = importlib.import_module("memory")
    peak, size, _ = measured.measure("byte260", 2e7, tmp_path)
    assert size >= 2e7
    assert 1e7 < peak < measured.LIMIT
