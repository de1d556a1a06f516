"""Scripts are read, not run: what they do with validation tokens, targets and bytes, by line."""

from __future__ import annotations

import textwrap

import pytest
from cheating_scripts import CHEATS
from honest_scripts import HEAD, HONEST

from niblick.audit.checks import Check
from niblick.audit.script_checks import audit_script
from niblick.errors import ConfigError

PLAIN = """
import glob, torch, numpy as np
def load_tokens(pattern):
    return torch.cat([torch.from_numpy(np.fromfile(f, np.uint16)) for f in sorted(glob.glob(pattern))])
def build_luts(sp, n):
    base_bytes = np.zeros(n); has_leading_space = np.zeros(n, bool)
    for i in range(n):
        if sp.is_byte(i):
            base_bytes[i] = 1
            continue
        piece = sp.id_to_piece(i)
        if piece.startswith("\u2581"):
            has_leading_space[i] = True
            piece = piece[1:]
        base_bytes[i] = len(piece.encode("utf-8"))
    return base_bytes, has_leading_space
def eval_val(model, val_tokens):
    total = 0.0
    with torch.inference_mode():
        for at in range(0, len(val_tokens), 1024):
            x, y = val_tokens[at:at+1024], val_tokens[at+1:at+1025]
            total += model(x, y).item()
    return total
def main():
    train_tokens = load_tokens("data/fineweb_train_*.bin")
    val_tokens = load_tokens("data/fineweb_val_*.bin")
    model, optimizer = make()
    for step in range(100):
        loss = model(train_tokens[:1024], train_tokens[1:1025])
        loss.backward()
        optimizer.step()
    print(eval_val(model, val_tokens))
"""
TTT = """
def eval_val_ttt(model, val_tokens, optimizer):
    total_loss = 0.0
    for start in range(0, len(val_tokens), 32768):
        chunk = val_tokens[start:start + 32769]
        with torch.no_grad():
            total_loss += model(chunk[:-1], chunk[1:]).sum()
        loss = model(chunk[:-1], chunk[1:]).mean()
        loss.backward()
        optimizer.step()
    return total_loss
"""
SCORED = """\
        with torch.no_grad():
            total_loss += model(chunk[:-1], chunk[1:]).sum()
"""
BYTES = """\
        if sp.is_byte(i):
            base_bytes[i] = 1
            continue
"""


def checks(source: str | bytes) -> dict[str, Check]:
    return {check.name: check for check in audit_script(source)}


def looks(source: str | bytes) -> list[str]:
    return [check.name for check in audit_script(source) if check.status == "look"]


@pytest.mark.parametrize("kind", HONEST)
def test_honest_oddities_raise_no_alarm(kind: str) -> None:
    for source in HONEST[kind]:
        found = audit_script(HEAD + source)
        assert [check for check in found if check.status == "look"] == [], source
        assert any(check.status == "pass" for check in found)


@pytest.mark.parametrize("kind", CHEATS)
def test_cheats_of_every_kind_are_looked_at(kind: str) -> None:
    names, sources = CHEATS[kind]
    for source in sources:
        found = [check for check in audit_script(HEAD + source) if check.status == "look" and check.name in names]
        assert found, source
        line = found[0].facts["lines"][0]["line"]
        assert f"line {line}: " in found[0].detail and HEAD.count("\n") < line <= (HEAD + source).count("\n")


def test_an_honest_script_passes() -> None:
    found = checks(PLAIN)
    changed = {name: check.status for name, check in found.items()}
    assert changed == dict.fromkeys(found, "pass")
    loaded = [row["line"] for row in found["validation tokens"].facts["loaded"]]
    assert loaded == [26]
    used = [row["line"] for row in found["validation tokens"].facts["used"]]
    assert {22, 26, 32} <= set(used) and 29 not in used


def test_learning_after_scoring_is_legal_and_shown() -> None:
    check = checks(TTT)["score-first"]
    assert check.status == "pass" and check.facts["lines"][0]["line"] == 9 and "line 7 scores before" in check.detail


@pytest.mark.parametrize(
    ("source", "name", "line"),
    [
        (TTT.replace(SCORED, ""),
         "score-first", 7),
        ("val_tokens = load('fineweb_val_000.bin')\nloss = model(val_tokens)\nloss.backward()", "score-first", 3),
        ("key = (ctx * 31) ^ (target * 17)\np = table[key]", "target in keys", 1),
        ("def f(x, y):\n    return hash((x[-2], x[-1], y))", "target in keys", 2),
        ("k = context\nk ^= tgt", "target in keys", 2),
        ("val_loss_a = score(a, val_tokens)\nval_loss_b = score(b, val_tokens)\n"
         "total = torch.minimum(val_loss_a * val_tokens, val_loss_b * val_tokens)", "corrections", 3),
        ("bias = np.linalg.lstsq(features(val_tokens), targets)[0]", "corrections", 1),
        (PLAIN.replace("            piece = piece[1:]\n", ""), "byte table", 14),
        (PLAIN.replace(BYTES, ""), "byte table", 12),
    ],
)  # fmt: skip
def test_cheats_are_found_with_their_line(source: str, name: str, line: int) -> None:
    check = checks(textwrap.dedent(source))[name]
    assert check.status == "look" and f"line {line}:" in check.detail


def test_what_cannot_be_followed_is_no_pass() -> None:
    """Validation data that goes into a module nobody has; a program made as it runs."""
    found = checks("from their_code import run\nval_tokens = load('fineweb_val_0.bin')\nrun(val_tokens)\n")
    assert found["validation tokens"].status == "look" and "line 3" in found["validation tokens"].detail
    found = checks(PLAIN + "exec(open('more.py').read())\n")
    assert found["program"].status == "look" and {check.status for check in found.values()} == {
        "look",
        "not applicable",
    }


def test_no_python_is_refused() -> None:
    with pytest.raises(ConfigError, match="no Python that can be read"):
        audit_script("def f(:\n")
