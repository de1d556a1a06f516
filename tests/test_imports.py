"""Who may import whom, and what the core may import: the layout of the design, held by reading the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from layers import LAYERS
from tiny import TINY

SRC = Path(__file__).parents[1] / "src" / "niblick"

CORE = {"errors", "challenge", "data", "model", "artifact", "score", "pack", "train"}
CORE_PACKAGES = {"torch", "numpy", "safetensors", "sentencepiece", "zstandard", "brotli", "constriction"}
# Inside a function: to read or fetch a user's files, which is no part of a submission; or where it happens to be
# installed, and something else does the same where it is not.
LAZY = {
    "data/columns.py": {"pyarrow"},
    "data/arrow_batches.py": {"pyarrow"},
    "data/download.py": {"huggingface_hub"},
    "data/hub.py": {"huggingface_hub"},
    "data/hub_text.py": {"datasets"},
    "data/json_tokenizers.py": {"tokenizers"},
    "data/json_lines.py": {"pydantic_core"},
    "model/mamba.py": {"mamba_ssm"},
    "score/baselines.py": {"pyppmd"},
    "score/mixing_kernels.py": {"numba"},
}


def part(path: Path) -> str:
    relative = path.relative_to(SRC)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Absolute names of all modules that `path` imports, and whether at module level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports inside niblick are absolute"
            if node.module == "niblick":
                found += [(f"niblick.{alias.name}", id(node) in top) for alias in node.names]
            else:
                found.append((node.module or "", id(node) in top))
    return found


SOURCES = sorted(p for p in SRC.rglob("*.py") if p.relative_to(SRC).as_posix() not in ("__init__.py", "__main__.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(SRC).as_posix())
def test_import_order(path: Path) -> None:
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    own = part(path)
    assert own in rank, f"{own} has no place in tests/layers.py"
    for name, _ in imports(path):
        pieces = name.split(".")
        if pieces[0] != "niblick" or len(pieces) == 1 or pieces[1] == own or pieces[1].startswith("__"):
            continue
        assert rank[pieces[1]] < rank[own], f"{own} may not import {name}"


@pytest.mark.parametrize("path", [p for p in SOURCES if part(p) in CORE], ids=lambda p: p.relative_to(SRC).as_posix())
def test_core_imports(path: Path) -> None:
    lazy = LAZY.get(path.relative_to(SRC).as_posix(), set())
    for name, top in imports(path):
        root = name.split(".")[0]
        if root in sys.stdlib_module_names or root == "niblick" or root in CORE_PACKAGES:
            continue
        assert root in lazy, f"{path.name} imports {root}: the core keeps to {sorted(CORE_PACKAGES)}"
        assert not top, f"{path.name} imports {root} at module level"


COMPILED = {
    *("pack/chosen_text.py", "score/known_text.py", "score/mixed_coding.py"),
    *("score/mixing_coder.py", "score/mixing_kernels.py", "score/mixture.py"),
}
"""Numba loads scipy; nothing loads these but the sidecar that needs them, when it is made."""


def test_core_runs_without_the_rest() -> None:
    """Importing every core module loads none of the packages that only the edges need, and no compiler of torch's."""
    places = [p.relative_to(SRC) for p in SOURCES if part(p) in CORE]
    names = [
        "niblick." + place.with_suffix("").as_posix().replace("/", ".")
        for place in places
        if place.as_posix() not in COMPILED
    ]
    code = f"import sys, importlib\nfor n in {names!r}: importlib.import_module(n.removesuffix('.__init__'))\n" + (
        "edges = {'pydantic', 'typer', 'rich', 'matplotlib', 'pyarrow', 'scipy', 'numba', 'torch._dynamo', 'sympy'}\n"
        "bad = edges & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_training_on_a_processor_loads_no_compiler(toy_data: Path, tmp_path: Path) -> None:
    """Optimizers, and models without memory, would: a second of CPU and 70 MB each time."""
    command = ["niblick", "train", "hnet-small", "--data", str(toy_data), "--runs", str(tmp_path), *TINY]
    code = (
        f"import contextlib, sys\nsys.argv = {command!r}\n"
        "from niblick.cli import main\n"
        "with contextlib.suppress(SystemExit): main()\n"
        "assert 'torch' in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    [run] = tmp_path.glob("hnet-small-*")
    assert (run / "result.json").is_file()


LOG = "step:1/1 val_loss:2.0 val_bpb:1.2 train_time:10ms step_avg:10.0ms\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["presets"],
        ["show", "hnet-byte260"],
        ["show", "hnet-byte260", "model.width=256"],
        ["audit", "a.log"],
    ],
    ids=" ".join,
)
def test_what_only_looks_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    """These commands answer from configs and text, and importing torch would be most of their time."""
    (tmp_path / "a.log").write_text(LOG)
    command = [sys.executable, "-X", "importtime", "-m", "niblick", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "niblick.cli" in imported and not {"torch", "torch._C"} & imported
