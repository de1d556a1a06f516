"""The house stays a place that fits in a head: names that say one thing, functions that fit on a screen."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "niblick"
LINES, PARAMETERS = 60, 8
FLAGS = "the flags of a verb are its parameters"
EXCEPTIONS = {
    ("cli/data_verbs.py", "data_prepare"): FLAGS,
    ("cli/ledger_verbs.py", "list_runs"): FLAGS,
    ("cli/ledger_verbs.py", "leaderboard"): FLAGS,
    ("cli/packing_verbs.py", "fit_"): FLAGS,
    ("cli/remote_verbs.py", "up"): FLAGS,
    ("cli/remote_verbs.py", "launch"): FLAGS,
    ("cli/scoring_verbs.py", "evaluate"): FLAGS,
    ("cli/studying_verbs.py", "boundaries"): FLAGS,
    ("cli/audit_verbs.py", "audit"): FLAGS,
    ("cli/submitting_verbs.py", "submit"): FLAGS,
    ("cli/sweep_verbs.py", "study"): FLAGS,
    ("cli/text_verbs.py", "generate"): FLAGS,
    ("cli/training_verbs.py", "train"): FLAGS,
    ("data/loader.py", "__init__"): "what a loader reads, in what order, and for which rank",
    ("run/exports.py", "fit_run"): "each is a flag of `niblick fit`",
    ("score/scorers.py", "score_losses"): "what is scored, how, who learns, who watches and who shares the work",
    ("studies/study.py", "run"): "a point of a study: what it is called and how it differs",
    ("data/prepare.py", "prepare"): "each is a flag of `niblick data prepare`, and most calls give three",
}
"""Functions that are longer, or take more, and why."""
FREE_FORM, IGNORED = 60, 15
"""How often the package may say `dict[str, Any]`, and how often mypy may be told to look away."""


def test_no_file_name_twice() -> None:
    names = Counter(path.name for path in SRC.rglob("*.py") if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []


def test_functions_fit_on_a_screen() -> None:
    found = {}
    for path in SRC.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                count = len(taken) - (taken[:1] in (["self"], ["cls"]))
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LINES or count > PARAMETERS:
                    found[path.relative_to(SRC).as_posix(), node.name] = (length, count)
    assert {name: size for name, size in found.items() if name not in EXCEPTIONS} == {}
    assert set(EXCEPTIONS) <= set(found), "an exception that none needs any more"


def test_facts_are_typed() -> None:
    """What has known keys is a dataclass, or a TypedDict where it is JSON: not a dictionary of anything."""
    texts = [path.read_text(encoding="utf-8") for path in SRC.rglob("*.py")]
    assert sum(text.count("dict[str, Any]") for text in texts) <= FREE_FORM
    assert sum(text.count("type: ignore") for text in texts) <= IGNORED
