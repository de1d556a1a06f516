"""Code is weighed by really joining it: what is counted, what falls away, and that it stays Python."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from niblick.bundle import code_bytes
from niblick.errors import ConfigError

FILES = {
    "__init__.py": '"""The package."""\n',
    "base.py": '"""Base."""\n\nfrom __future__ import annotations\n\n'
    "import math  # why\nimport os.path as p\n\nX = math.pi\n",
    "deep/__init__.py": "",
    "deep/leaf.py": "from __future__ import annotations\nfrom math import cos, sin as s\nfrom fake.base import (\n"
    "    X,  # a name\n    Y,\n)\n\nA = 'é'; from fake import base\n",
    "top.py": "import math\nfrom math import cos, tan\nimport fake.deep.leaf\nfrom typing import TYPE_CHECKING\n\n"
    "if TYPE_CHECKING:\n    from fake.unused import U\n\n# a comment stays\n"
    "def f():\n    from fake.lazy import L\n\n\ndef g():\n"
    "    import json\n    from fake import lazy\n    return json, lazy\n"
    "try:\n    import fast\nexcept ImportError:\n    from fake import base as fast\n",
    "lazy.py": "L = 1",
    "unused.py": "U = 1\n",
}


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "fake" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "fake"


SCRIPT = '''\
from __future__ import annotations
import math
import os.path as p
from math import cos, sin as s, tan
from typing import TYPE_CHECKING
"""The package."""
"""Base."""



X = math.pi

A = 'é'; pass
L = 1

if TYPE_CHECKING:
    pass

# a comment stays
def f():
    pass


def g():
    import json
    return json, lazy
try:
    import fast
except ImportError:
    pass
'''


def test_the_script_of_a_small_package(fake: Path) -> None:
    size = code_bytes(["fake.top"], package=fake)
    assert size.text == SCRIPT
    assert size.total == len(SCRIPT.encode()) == sum(size.modules.values())
    assert list(size.modules) == ["imports", "fake", "fake.base", "fake.deep.leaf", "fake.lazy", "fake.top"]
    assert size.modules["fake.lazy"] == 6
    ast.parse(size.text)


def test_each_module_counts_once_and_order_of_roots_does_not_change_the_total(fake: Path) -> None:
    one = code_bytes(["fake.top", "fake.base", "fake.top"], package=fake)
    two = code_bytes(["fake.base", "fake.top"], package=fake)
    assert one.total == two.total == len(SCRIPT.encode())


def test_cycles_end(fake: Path) -> None:
    (fake / "lazy.py").write_text("import fake.top\nL = 1\n")
    assert set(code_bytes(["fake.lazy"], package=fake).modules) >= {"fake.lazy", "fake.top"}


def test_a_recipe_and_what_lies_beside_it_count(fake: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "kit").mkdir(parents=True)
    recipe = folder / "recipe.py"
    recipe.write_text("import torch\nimport helper\nfrom kit.part import P\nfrom fake.lazy import L\n\nR = L\n")
    (folder / "helper.py").write_text("H = 1\n")
    (folder / "unrelated.py").write_text("import fake.top\n")
    (folder / "kit" / "__init__.py").write_text("")
    (folder / "kit" / "part.py").write_text("P = 1\n")
    size = code_bytes([], [recipe], package=fake)
    assert list(size.modules) == ["imports", "helper", "kit.part", "fake", "fake.lazy", "recipe.py"]
    assert size.text == 'import torch\nH = 1\nP = 1\n"""The package."""\nL = 1\n\nR = L\n'
    assert code_bytes(["fake.lazy"], [recipe], package=fake).total == size.total


def test_niblicks_own_modules() -> None:
    size = code_bytes(["niblick.artifact.container", "niblick.pack.published"])
    assert set(size.modules) == {
        "imports",
        "niblick",
        "niblick.errors",
        "niblick.artifact.codec",
        "niblick.artifact.range_models",
        "niblick.artifact.range_coding",
        "niblick.artifact.codecs",
        "niblick.artifact.dequantize",
        "niblick.artifact.container",
        "niblick.pack",
        "niblick.pack.published",
    }
    tree = ast.parse(size.text)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "niblick" in str(node.module)]
    assert size.text.count("from __future__ import annotations") == 1
    root = Path(__file__).parents[1] / "src" / "niblick"
    whole = sum((root / name).stat().st_size for name in ("artifact/container.py", "pack/published.py"))
    assert size.modules["niblick.artifact.container"] + size.modules["niblick.pack.published"] > 0.9 * whole
    assert code_bytes(["niblick.artifact.container", "niblick.pack.published"]) == size


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("fake.tpo", "", r"no module 'fake.tpo' \(nearest: fake.top"),
        ("fake.top", "def", "top.py cannot be weighed"),
        ("fake.top", "x = '\0'", "top.py cannot be weighed"),
        ("fake.top", "from . import base", "line 1: imports are absolute"),
    ],
)
def test_mistakes_are_named(fake: Path, name: str, text: str, message: str) -> None:
    (fake / "top.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        code_bytes([name], package=fake)


def test_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.py cannot be weighed"):
        code_bytes([], [tmp_path / "recipe.py"])
