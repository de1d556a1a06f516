"""What a script keeps of sources: all that may be reached, as it stands; and what it says of code it cannot carry."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from niblick.bundle import make_script
from niblick.bundle.maker import minified
from niblick.bundle.parts import registries
from niblick.bundle.pieces import dotted_name, without
from niblick.bundle.reach import Reach
from niblick.config.run_config import RunConfig, as_code, for_submission
from niblick.errors import ConfigError
from niblick.recipes.presets import get_preset, load_recipe
from niblick.score.score_config import SidecarConfig
from niblick.submission.folder import files_read

FILES = {
    "fake/__init__.py": "",
    "fake/base.py": '''"""Base."""

from __future__ import annotations

import json
import math

RAW, CODED, LAST = range(3)
UNUSED = json.dumps({})
"""Says something of what is not used."""

SHAPES = {
    "square": lambda size: size**2,
    "round": lambda size: math.pi * size**2,
}
TABLE = []


def register(function):
    TABLE.append(function.__name__)
    return function


@register
def seen():
    """A decorator of the program's own has it."""


def area(size: float, shape: str) -> float:
    """The area."""
    value = SHAPES[shape](size)
    return value


# This comment belongs to `unused`.
def unused():
    return UNUSED


def hidden():
    """Asked for by name alone."""
    return "hidden"


def visit_early():
    return "early"


class Walker:
    """Methods are asked for by computed names."""

    def __len__(self):
        return LAST

    def visit_left(self):
        return "left"

    def go(self, where):
        return getattr(self, f"visit_{where}")()

    def never(self):
        return unused()


class Stream(json.JSONEncoder):
    def default(self, o):
        return "encoded"

    def other(self):
        return unused()
''',
    "fake/top.py": '''"""The program."""

import json

import fake.base
from fake import base as lower
from fake.base import Stream, Walker, area as surface


def main():
    area = lambda x: x
    print(surface(2.0, "square"), area(lower.RAW), Walker().go("left"), len(Walker()))
    print(fake.base.LAST, json.dumps(object(), cls=Stream), lower.TABLE)
    print(getattr(lower, "hidden")())
''',
}


@pytest.fixture
def program(tmp_path: Path) -> dict[str, Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return {dotted_name(name): tmp_path / name for name in FILES}


def shaken(files: dict[str, Path], place: Path) -> dict[str, str]:
    """The program with only what `main` may reach, written to a place; texts by module."""
    reach = Reach(files, {("fake.base", "SHAPES"): frozenset({"square"})}, "fake", {})
    reach.run({"fake.top": ["main"]})
    texts = {}
    for name, module in reach.modules.items():
        texts[name] = without(module, reach.kept, reach.entries, reach.names(module))
        path = place / module.path.relative_to(module.path.parents[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[name])
    return texts


def test_what_is_left_says_the_same(program: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    texts = shaken(program, tmp_path / "small")
    run = [sys.executable, "-c", "from fake.top import main; main()"]
    said = [
        subprocess.run(run, cwd=folder, capture_output=True, text=True, check=True).stdout
        for folder in (tmp_path, tmp_path / "small")
    ]
    assert said[0] == said[1] and "hidden" in said[0] and "['seen']" in said[0]
    base = texts["fake.base"]
    for gone in ("UNUSED", "Says something", "This comment", "def unused", '"round"', "math", "def never", "def other"):
        assert gone not in base
    for kept in ("RAW, CODED, LAST = range(3)", "def seen", "def hidden", "def visit_left", "def default"):
        assert kept in base


def test_names_of_locals_keep_nothing(program: dict[str, Path], tmp_path: Path) -> None:
    program["fake.top"].write_text("from fake import base\n\ndef main():\n    unused = 1\n    print(unused)\n")
    reach = Reach(program, {}, "fake", {})
    reach.run({"fake.top": ["main"]})
    assert "fake.base" not in reach.modules


def test_minified_code_keeps_fields_and_names() -> None:
    text = minified(
        'class A:\n    """Doc."""\n    size: int = 3\n\n    def f(self, value: int) -> int:\n        return value\n'
    )
    scope: dict[str, type] = {}
    exec(text, scope)
    assert scope["A"].__annotations__ == {"size": "int"} and "Doc" not in text
    assert scope["A"]().f(value=2) == 2


def test_a_config_is_written_as_what_differs() -> None:
    classes: dict[str, tuple[str, str]] = {}
    text = as_code(get_preset("hnet-byte260"), classes)
    scope: dict[str, object] = {}
    for own, (module, name) in classes.items():
        exec(f"from {module} import {name} as {own}", scope)
    assert eval(text, scope) == get_preset("hnet-byte260")
    assert "seq_len" not in as_code(RunConfig("x"), {})
    with pytest.raises(ConfigError, match="cannot be written down: give numbers, texts and tuples"):
        as_code({1: 2}, {})


RECIPE = """from niblick.recipes.presets import get_preset
import niblick.model.layers
from niblick.train import optim as rates
{more}

def recipe():
    return get_preset("hnet-byte260")


USED = niblick.model.layers.rotate, rates.Muon
"""


def test_what_cannot_be_shipped(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RECIPE.format(more=""))
    assert "def rotate" in make_script(load_recipe(path), path).readable
    path.write_text(RECIPE.format(more="def late():\n    import no_such_package\n\nlate"))
    with pytest.raises(ConfigError, match=r"mine.py:5 imports no_such_package, which is no Python file beside it"):
        make_script(load_recipe(path), path)
    path.write_text(RECIPE.format(more="def late():\n    from niblick.nothing import x\n\nlate"))
    with pytest.raises(ConfigError, match=r"mine.py:5 imports niblick.nothing, which is no module of niblick"):
        make_script(load_recipe(path), path)
    path.write_text(RECIPE.format(more='def late():\n    return open("table.bin")\n\nlate'))
    assert files_read(path) == [f"{path}:5 calls open: the file that it reads is not shipped"]


def test_modules_beside_a_recipe_come_along(tmp_path: Path) -> None:
    path, helper = tmp_path / "mine.py", tmp_path / "helper.py"
    helper.write_text("from niblick.model.layers import rotate as turned\n\n\ndef gone():\n    pass\n")
    path.write_text(RECIPE.format(more="import helper\n\nhelper.turned"))
    made = make_script(load_recipe(path), path)
    assert "\n# module helper annotated\n" in made.readable and "def gone" in made.readable  # whole
    helper.write_text(helper.read_text().replace("def gone", "def other"))
    assert "def other" in make_script(load_recipe(path), path).readable  # nothing is kept of a file that has changed


def test_a_line_that_looks_like_a_section(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RECIPE.format(more='TEXT = """\n# module niblick.submission.program\n"""'))
    with pytest.raises(ConfigError, match="begins with `# module `"):
        make_script(load_recipe(path), path)


def test_registries_hold_what_the_config_asks_for_and_no_more() -> None:
    config = for_submission(get_preset("hnet-byte260"))
    made = make_script(config)
    sections = dict(
        section.partition("\n")[::2] for section in re.split(r"^# module ", made.readable, flags=re.MULTILINE)[1:]
    )
    found = 0
    for (module, name), asked in registries(config).items():
        if module in made.modules:
            tree = ast.parse(next(text for title, text in sections.items() if title.split()[0] == module))
            tables = [n.value for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == name]
            for table in tables:  # none where the registry itself is not reached
                assert isinstance(table, ast.Dict)
                assert {ast.literal_eval(key) for key in table.keys if key} <= asked, (module, name)
            found += len(tables)
    assert found > 4 and "niblick.model.mamba" not in made.modules


def test_a_script_with_the_mixture_asks_for_numba() -> None:
    """It could do without, in plain Python, but not in the time that a score has."""
    quick = get_preset("quickstart")
    mixed = make_script(replace(quick, score=replace(quick.score, sidecar=SidecarConfig("mixture"))))
    assert set(mixed.requires) == {*make_script(quick).requires, "numba"}
    assert any("mixing_kernels" in name for name in mixed.modules)
    assert not any("mixing_coder" in name for name in mixed.modules)
