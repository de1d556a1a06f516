"""`python docs/map.py`: the map of the code in CONTRIBUTING.md, made of the list that the import test holds.

Each line is the first sentence of a docstring.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "niblick"
BEGIN, END = "<!-- map: made by `python docs/map.py` -->", "<!-- /map -->"

sys.path.insert(0, str(ROOT / "tests"))
from layers import LAYERS  # noqa: E402


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line. Raises SystemExit where there is none."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise SystemExit(f"{path.relative_to(ROOT)} has no docstring: give it one sentence that says what it holds")
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[.?!])(?<!al\.) (?=[A-Z`])", paragraph)[0]


def lines_of(room: str) -> list[tuple[str, str]]:
    """A room and its modules, each with its sentence. A room may be a single file."""
    if not (SRC / room).is_dir():
        return [(f"**{room}.py**", first_sentence(SRC / f"{room}.py"))]
    lines = [(f"**{room}/**", first_sentence(SRC / room / "__init__.py"))]
    for path in sorted((SRC / room).rglob("*.py"), key=lambda p: (p.parent, p.name != "__init__.py", p.name)):
        name = path.relative_to(SRC).as_posix().removesuffix("__init__.py")
        if name != f"{room}/":
            lines.append((f"`{name}`", first_sentence(path)))
    return lines


def table() -> str:
    """The map as a Markdown table: layers from the lowest up, their rooms, the modules of each."""
    rows = ["| layer | where | what it holds |", "| ---: | --- | --- |"]
    for number, layer in enumerate(LAYERS, 1):
        for room in layer:
            for i, (name, sentence) in enumerate(lines_of(room)):
                rows.append(f"| {'' if i else number} | {name} | {sentence.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def main(document: Path = ROOT / "CONTRIBUTING.md") -> None:
    """Rewrite the table between its markers."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{document} has no place for the map: put {BEGIN} and {END} where it shall stand")
    document.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
