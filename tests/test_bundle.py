"""A config's own code: what falls away, what stays, and that it says the same."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from niblick.bundle import build, join, modules_of
from niblick.bundle.facts import Facts
from niblick.bundle.smallest import smallest
from niblick.errors import ConfigError

FILES = {
    "__init__.py": "",
    "base.py": '''"""Base. More of it."""

from __future__ import annotations

import json
import math

UNUSED = json.dumps({})
NAMES = {"a": "first", "b": "second"}


def area(radius: float, digits: int | None = None, unit: str = "m") -> str:
    """The area of a circle. In words."""
    value = math.pi * radius**2
    if digits is not None:
        value = round(value, digits)
    assert value >= 0
    return f"{value:.3f} {unit}"


def _same(x):
    for _ in range(3):
        x += 1
    return x


def add(items: list, word: str) -> None:
    found = []
    found.append(word)
    if found:  # a list that is changed is no constant
        items += found
''',
    "top.py": '''"""The program."""

from fake import base
from fake.base import NAMES as KNOWN, add, area
from fake.shapes import Square, Circle


def _same(x):
    for _ in range(3):
        x *= 2
    return x


def main():
    """Run."""
    add_me = None
    words = []
    add(words, "list")
    for shape in (Square(2.0), Circle(1.0)):
        if isinstance(shape, Circle) or add_me:
            print("circle", shape.size())
        else:
            print("square", shape.size())
    print(area(2.0, unit="cm"), KNOWN["a"], _same(3), base._same(3), words)
    add_all = 0
    for i in range(3):
        add_all += i
    print(add_all)
''',
    "shapes.py": '''from __future__ import annotations

from abc import ABC, abstractmethod


class Shape(ABC):
    def __init__(self, side: float, name: str = "", deep: bool = False) -> None:
        self.side, self.name, self.deep = side, name, deep

    @abstractmethod
    def size(self) -> float:
        """How large."""

    def never(self) -> None:
        """Nobody asks."""
        print("never")


class Square(Shape):
    def size(self) -> float:
        if self.deep:
            return self.side**3
        # why it is so
        return self.side**2


class Circle(Shape):
    def size(self) -> float:
        return 3 * self.side**2
''',
}


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    (tmp_path / "fake").mkdir()
    for name, text in FILES.items():
        (tmp_path / "fake" / name).write_text(text, encoding="utf-8")
    return tmp_path / "fake"


def run(text: str, folder: Path) -> str:
    (folder / "made.py").write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "made.py"], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_script_of_a_small_program(fake: Path) -> None:
    program = "from fake.top import main; main()"
    said = subprocess.run([sys.executable, "-c", program], cwd=fake.parent, capture_output=True, text=True, check=True)
    size = join(build(modules_of(fake), "fake.top", Facts(registries={("fake.base", "NAMES"): frozenset("a")}), {})[0])
    text = size.text
    assert run(text, fake.parent) == said.stdout
    assert size.total == len(text.encode()) == sum(size.modules.values())
    # What nothing reaches, what no call asks for, what is the same wherever it is called.
    for gone in ("json", "UNUSED", "never", "digits", "assert", "second", "deep", "add_me", "radius: float"):
        assert gone not in text, gone
    for kept in ('"""The area of a circle."""', "# why it is so", "# a list that is changed is no constant"):
        assert kept in text, kept
    assert text.count("def _same") == 1 and "top_same" in text  # two of one name
    assert run(smallest(text), fake.parent) == said.stdout


def test_the_same_sources_give_the_same_bytes(fake: Path) -> None:
    one, two = (join(build(modules_of(fake), "fake.top", Facts(), {})[0]) for _ in range(2))
    assert one == two


@dataclass(frozen=True)
class Config:
    """A config of the test's own."""

    depth: int = 1
    kind: str = "plain"


def test_what_a_config_settles_and_what_it_leaves_open(fake: Path, tmp_path: Path) -> None:
    (fake / "top.py").write_text(
        "from tests_config import Config\n\nCONFIG = Config()\n\n\n"
        "def main():\n    config = CONFIG\n    if config.kind == 'fancy':\n        print('fancy')\n"
        "    if config.depth > 3:\n        print('deep')\n    print(config.depth)\n"
    )
    (fake / "tests_config.py").write_text(
        "from dataclasses import dataclass\n\n\n@dataclass(frozen=True)\nclass Config:\n"
        "    depth: int = 1\n    kind: str = 'plain'\n"
    )
    sys.path.insert(0, str(fake))
    try:
        import tests_config

        configs = {("tests_config", "Config"): (tests_config.Config(depth=2),)}
        files = modules_of(fake) | {"tests_config": fake / "tests_config.py"}
        settled = join(build(files, "fake.top", Facts(configs), {"CONFIG": tests_config.Config(depth=2)})[0]).text
        open_ = Facts(configs, frozenset({(("tests_config", "Config"), "depth")}))
        left = join(build(files, "fake.top", open_, {"CONFIG": tests_config.Config(depth=2)})[0]).text
    finally:
        sys.path.remove(str(fake))
    assert "fancy" not in settled and "deep" not in settled and run(settled, tmp_path) == "2\n"
    assert "fancy" not in left and "deep" in left and run(left, tmp_path) == "2\n"


def test_a_recipe_and_what_lies_beside_it(fake: Path, tmp_path: Path) -> None:
    (fake / "top.py").write_text(
        "KINDS = {}\n\n\ndef register(name, kind):\n    KINDS[name] = kind\n\n\n"
        "def main():\n    print({name: kind() for name, kind in KINDS.items()})\n"
    )
    folder = tmp_path / "mine"
    folder.mkdir()
    recipe = folder / "recipe.py"
    recipe.write_text(
        "import helper\nfrom helper import H\nfrom fake.top import register\n\n\nclass Own(H):\n    pass\n\n\n"
        "register('own', lambda: Own.word + helper.more)\n\n\ndef recipe():\n    return 'never in the script'\n"
    )
    (folder / "helper.py").write_text("more = '!'\n\n\nclass H:\n    word = 'hello'\n")
    (folder / "unrelated.py").write_text("import fake.top\n")
    size = join(build(modules_of(fake), "fake.top", Facts(), {}, recipe)[0])
    assert run(size.text, tmp_path) == "{'own': 'hello!'}\n"
    assert "never in the script" not in size.text
    assert {"helper", "recipe.py", "fake.top"} <= set(size.modules)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def main(", "top.py cannot be weighed"),
        ("x = '\0'", "top.py cannot be weighed"),
        ("from . import base\n\n\ndef main():\n    pass\n", "line 1: imports are absolute"),
        ("import fake.base\n\n\ndef main():\n    pass\n", "take what is needed by name: from fake.base import"),
        ("from fake.base import nothing\n\n\ndef main():\n    nothing()\n", "has no such name"),
    ],
)
def test_mistakes_are_named(fake: Path, text: str, message: str) -> None:
    (fake / "top.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        build(modules_of(fake), "fake.top", Facts(), {})


def test_a_missing_module_is_named(fake: Path) -> None:
    with pytest.raises(ConfigError, match=r"no module 'fake.tpo' \(nearest: fake.top"):
        build(modules_of(fake), "fake.tpo", Facts(), {})


def test_smallest_leaves_dataclasses_alone(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n\n@dataclass\nclass A:\n"
        '    """Doc."""\n\n    x: int = 3\n\n\ndef f(a: A) -> int:\n    """Doc."""\n    return a.x\n\n\n'
        "print(f(A()), f(A(4)))\n"
    )
    ast.parse(smallest(text))
    assert run(smallest(text), tmp_path) == "3 4\n"


LEANER = {
    "__init__.py": "",
    "parts.py": '''from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

LIMIT = 7


class Part(ABC):
    """Base."""

    @abstractmethod
    def work(self, x: int) -> int:
        """Do it."""


class Double(Part):
    fast = True

    def __init__(self, name: str) -> None:
        self.name, self.kind = name, "double"

    def work(self, x: int) -> int:
        """Twice."""
        twice = x * 2
        return twice


class Triple(Part):
    def work(self, x: int) -> int:
        return x * 3


PARTS = {"double": Double, "triple": Triple}


@dataclass(frozen=True)
class Place:
    x: int
    name: str = "nowhere"


def build(kind: str) -> Part:
    """Make a part."""
    return PARTS[kind]("mine")


def least(x: int, limit: int = LIMIT) -> int:
    """The least of both."""
    return min(x, limit)


def told(event: dict) -> list:
    return [event["step"]] if event["event"] == "step" else []
''',
    "top.py": """from fake.parts import Place, build, least, told


def emit(event):
    print(told(event))


def main():
    part = build("double")
    same = part
    place = Place(least(9), name="here")
    emit({"event": "step", "step": same.work(place.x), "speed": place.x * 2})
    emit({"event": "silence", "seconds": 3})
    path = "unread"
    print([path for path in ("a", "b")], f"{'x'}{place.x + 0}")
""",
}


def test_what_stands_for_one_thing_alone_gives_way_to_it(tmp_path: Path) -> None:
    (tmp_path / "fake").mkdir()
    for name, text in LEANER.items():
        (tmp_path / "fake" / name).write_text(text, encoding="utf-8")
    registries = {("fake.parts", "PARTS"): frozenset({"double"})}
    facts = Facts(registries=registries, told=frozenset({"emit"}), trusted=frozenset({"fake.top", "fake.parts"}))
    text = join(build(modules_of(tmp_path / "fake"), "fake.top", facts, {})[0]).text
    assert run(text, tmp_path) == "[14]\n['a', 'b'] x7\n"
    gone = ("Part", "ABC", "PARTS", "Triple", "kind", "mine", "fast", "def build", "def least", "nowhere", "here")
    for word in (*gone, "speed", "silence", "same", "unread", "twice = ", "+ 0"):
        assert word not in text.replace("parts", ""), word
    assert "min(9, LIMIT)" in text and "class Double:\n" in text
