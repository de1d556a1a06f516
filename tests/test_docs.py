"""The code in the documents runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(document: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


TOY = ["model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.seq_len=32"]
TOY_RUN = [
    *("train.batch_tokens=256", "train.micro_batch_tokens=256", "train.warmup_steps=0", "train.val_every=0"),
    *("schedule.steps=3", "score.seq_len=64"),
]


@pytest.mark.slow
def test_commands_of_the_data_document(tmp_path: Path) -> None:
    """Every command of docs/data.md, in its order, in one folder; models at toy size."""
    write_checkpoint(tmp_path / "final_model.int8.ptz")
    (tmp_path / "book.txt").write_text("A paragraph of a book.\n\n" * 200)
    ran = commands("docs/data.md")
    assert len(ran) > 8
    for line in ran:
        program, *arguments = shlex.split(line)
        assert program == "niblick"
        if arguments[0] == "train":
            arguments += TOY + TOY_RUN
        if arguments[0] == "import":
            arguments += TOY[:4]
        command = [sys.executable, "-m", "niblick", *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_pages_ask_for_one_folder_in_one_way() -> None:
    """So each page's data can be prepared after every other's, and after `niblick quickstart`."""
    asked: dict[str, dict[tuple[str, ...], str]] = {"data/pydocs": {("--source", "pydocs"): "niblick quickstart"}}
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for line in re.findall(r"^(?:    )?niblick data prepare (.+?)(?: +#.*)?$", page.read_text("utf-8"), re.M):
            words = shlex.split(line)
            if "--out" in words:
                place = words.index("--out")
                rest = (*words[:place], *words[place + 2 :])
                asked.setdefault(words[place + 1], {})[rest] = f"{page.name}: {line}"
    assert len(asked) > 4
    assert {out: list(ways.values()) for out, ways in asked.items() if len(ways) > 1} == {}


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


def write_checkpoint(path: Path) -> None:
    """What a published script would save of the document's model, at toy size."""
    import io
    import zlib

    import torch

    from niblick.artifact.foreign.names import to_published
    from niblick.config.run_config import override
    from niblick.model.lm import LM
    from niblick.recipes.presets import get_preset

    state = to_published(LM(override(get_preset("hnet-byte260"), TOY[:4]).model).state_dict())
    form = {"quantized": {}, "scales": {}, "dtypes": {}, "passthrough": state}
    buffer = io.BytesIO()
    torch.save(form, buffer)
    path.write_bytes(zlib.compress(buffer.getvalue()))


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
