"""What `niblick audit` says of cheats and of honest oddities, kind by kind: the table of docs/honesty.md.

    python benchmarks/honesty_table.py [--docs]

The inputs are those of the tests (tests/audit): scripts in several ways of writing, packed scripts, functions, changed
copies of validation text, and recipes under which one artifact is scored. Our own scripts of all presets are read too.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from measure import put_into_docs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "honesty.md"
CHEAT, HONEST = "cheat", "honest"

Row = tuple[str, str, str]
"""(cheat or honest, kind, what the audit says)."""


def scripts() -> Iterator[Row]:
    """Scripts as they are written, and packed."""
    from niblick.audit.script_checks import audit_script

    honest, cheating = (importlib.import_module(name) for name in ("honest_scripts", "cheating_scripts"))
    packing = importlib.import_module("test_unpacking")

    def said(source: str, names: str = "") -> str:
        found = [check.status for check in audit_script(source) if check.name in names or not names]
        return "look" if "look" in found else "pass"

    for kind, sources in honest.HONEST.items():
        for source in sources:
            yield HONEST, f"script: {kind}", said(honest.HEAD + source)
    for kind, (names, sources) in cheating.CHEATS.items():
        for source in sources:
            yield CHEAT, f"script: {kind}", said(honest.HEAD + source, names)
    for form in packing.FORMS.values():
        yield CHEAT, "script: packed, learns before the score", said(form(packing.CHEAT.encode()), "score-first")
        yield HONEST, "script: packed", said(form(packing.PLAIN.encode()))


def own_scripts() -> Iterator[Row]:
    """The scripts that `niblick submit` makes of all presets, readable and packed."""
    from niblick.audit.script_checks import audit_script
    from niblick.bundle.maker import make_script
    from niblick.recipes.presets import PRESETS, get_preset

    for name in PRESETS:
        made = make_script(get_preset(name))
        for source in (made.readable, made.packed):
            found = {check.status for check in audit_script(source)}
            yield HONEST, "script: niblick's own, all presets", "look" if "look" in found else "pass"


def functions() -> Iterator[Row]:
    """Functions as they are scored."""
    from niblick.audit.functions import load_function
    from niblick.audit.windows import function_windows
    from niblick.data.dataset import Split

    odd, tests = (importlib.import_module(name) for name in ("odd_functions", "test_functions_scored"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "odd.py"
        path.write_text(odd.FILE)
        kinds = {name: (CHEAT, kind) for name, kind in odd.CHEATS.items()}
        kinds |= dict.fromkeys(odd.HONEST, (HONEST, "odd but honest"))
        for name, (side, kind) in kinds.items():
            split = Split("val", [], [tests.TOKENS])
            found = function_windows(lambda name=name: load_function(str(path), name), split, 1, 260, 1 << 13)
            yield side, f"function: {kind}", found.status


def copies() -> Iterator[Row]:
    """Copies of a validation document in the training text."""
    from niblick.audit.text_checks import hygiene
    from niblick.data.tokenizers import ByteTokenizer

    tests = importlib.import_module("test_text_checks")
    train, val = [*map(tests.words, tests.TRAIN)], [*map(tests.words, tests.VAL)]
    for change in (bytes, *tests.CHANGES.values()):
        split = tests.a_split("train", [*train, change(val[4])])
        found = hygiene(split, tests.a_split("val", val), ByteTokenizer())
        yield CHEAT, "text: validation documents copied with small changes", found.status
    notice = tests.documents(1, 400, 9)[0]
    splits = [tests.a_split(name, some) for name, some in (("train", train), ("val", val))]
    repeated = [
        tests.a_split(name, [text + notice for text in some]) for name, some in (("train", train), ("val", val))
    ]
    for pair in (splits, repeated):
        yield HONEST, "text: clean, or repeating itself", hygiene(*pair, ByteTokenizer()).status


def recipes() -> Iterator[Row]:
    """One artifact, scored in a fresh process under recipes that do other things with its weights."""
    odd, tests = (importlib.import_module(name) for name in ("odd_recipes", "test_fresh"))
    with tempfile.TemporaryDirectory() as name:
        folder = tests.made(Path(name))
        for kind, (_, body) in odd.CHEATS.items():
            found = tests.scored(folder, kind, body)
            caught = found.windows.status == "fail" or found.foreign or found.processes or found.failure
            yield CHEAT, f"recipe: {kind}", "fail" if caught else "pass"
        for kind, body in odd.HONEST.items():
            found = tests.scored(folder, kind, body)
            caught = found.windows.status == "fail" or found.foreign or found.processes or found.failure
            yield HONEST, f"recipe: {kind}", "fail" if caught else "pass"


def table(rows: list[Row]) -> str:
    """The rows, counted."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for side, kind, said in rows:
        counts.setdefault((side, kind), Counter())[said] += 1
    lines = ["| kind | inputs | fail | look | pass |", "| --- | ---: | ---: | ---: | ---: |"]
    for wanted, title in ((CHEAT, "**cheats**"), (HONEST, "**honest oddities**")):
        own = {kind: found for (side, kind), found in counts.items() if side == wanted}
        total = sum(own.values(), Counter())
        lines += [_line(title, total), *(_line(kind, found) for kind, found in own.items())]
    return "\n".join(lines)


def _line(kind: str, found: Counter[str]) -> str:
    return f"| {kind} | {found.total()} | {found['fail'] or ''} | {found['look'] or ''} | {found['pass'] or ''} |"


def main() -> None:
    """Print the table, or put it into the page."""
    sys.path.insert(0, str(ROOT / "tests" / "audit"))
    os.environ["NIB_ODD_TABLE"] = "0.5"  # what a recipe looks for
    made = table([row for some in (scripts, own_scripts, functions, copies, recipes) for row in some()])
    if "--docs" in sys.argv:
        put_into_docs("kinds", made, PAGE)
    print(made)


if __name__ == "__main__":
    main()
