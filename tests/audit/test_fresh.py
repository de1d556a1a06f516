"""Artifacts scored in a fresh process: what they need besides, and whether the real scoring is what they say alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from odd_recipes import CHEATS, HEAD, HONEST, PLAIN
from safetensors.torch import save_file

from niblick.artifact.container import artifact_bytes
from niblick.audit.fresh import Fresh, constants, score_fresh
from niblick.audit.watched import required, strange_packages
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.recipes.presets import load_recipe
from niblick.run.loading import build_model
from niblick.run.packing import artifact_header, packed

SETTINGS = [
    *("model.levels=[]", "model.main.layout=T1z1", "model.width=16", "model.heads=2", "model.kv_heads=1"),
    *("train.dtype=float32", "score.seq_len=64", "score.batch_tokens=1024", "train.device=cpu"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("odd"))


def made(folder: Path) -> Path:
    """A folder with a text, a table in two forms, and an artifact of weights as they are drawn."""
    prepare("pydocs", "byte260", folder / "data", max_docs=6, val_docs=1)
    (folder / "table").write_bytes(b"12345")
    save_file({"t": torch.ones(16)}, folder / "table.safetensors")
    config = load_recipe(written(folder, "plain", PLAIN))
    model = build_model(config.model, 0)
    for p in model.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    dataset = Dataset.open(folder / "data")
    encoded, _ = packed(config, {name: value.detach() for name, value in model.state_dict().items()}, dataset)
    header = artifact_header(config, dataset.tokenizer.spec())
    (folder / "artifact.nib").write_bytes(artifact_bytes(header, encoded, config.export.codec))
    return folder


def written(folder: Path, name: str, body: str) -> Path:
    path = folder / f"{name.replace(' ', '_')}.py"
    own = body.replace("{data!r}", repr(str(folder / "data"))).replace("{table!r}", repr(str(folder / "table")))
    path.write_text(HEAD.format(settings=SETTINGS) + own)
    return path


def scored(folder: Path, name: str, body: str) -> Fresh:
    return score_fresh(folder / "artifact.nib", written(folder, name, body), str(folder / "data"), 1 << 12)


TRIED = (  # all of them are tried for the table of docs/honesty.md
    "a cost of its own",
    "looks ahead in larger batches only",
    "wakes after many tokens",
    "a table in a file",
    "a table in a safetensors file",
    "a table by another process",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIED)
def test_what_shows_only_in_scoring_or_is_not_counted(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIB_ODD_TABLE", "0.5")
    told, body = CHEATS[name]
    found = scored(place, name, body)
    assert (found.windows.status == "fail") == (told == "scored windows"), found
    assert bool(found.foreign) == (told == "files"), found
    assert bool(found.processes) == (told == "processes"), found
    assert bool(found.failure) == (told in ("processes", "failure")), found


@pytest.mark.slow
def test_honest_oddities_pass(place: Path) -> None:
    name = "a state of all before"
    found = scored(place, name, HONEST[name])
    assert found.windows.status == "pass" and not found.failure, found
    assert not (found.foreign or found.strange or found.network or found.processes)


def test_packages_that_nobody_requires() -> None:
    assert strange_packages(["torch", "numpy", "json", "niblick", "mine", "odd_tables"], {"mine"}) == ["odd_tables"]
    assert {"torch", "numpy", "safetensors"} <= required()
    assert not strange_packages([name for name in ("torch", "numpy", "brotli") if name in sys.modules], set())


def test_long_constants_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(
        f'"""{"x" * 5000}"""\nSHORT = [1, 2]\nTABLE = {list(range(3000))}\nT = {"y" * 2001!r}\n'
    )
    assert [(name, line) for name, line, _ in constants(tmp_path / "r.py")] == [("r.py", 3), ("r.py", 4)]
