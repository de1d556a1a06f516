"""Scripts are read, not run: what they do with validation tokens, targets and bytes, by line."""

from __future__ import annotations

import textwrap

import pytest

from niblick.audit.checks import Check
from niblick.audit.script_checks import audit_script
from niblick.errors import ConfigError

HONEST = """
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


def checks(source: str) -> dict[str, Check]:
    return {check.name: check for check in audit_script(textwrap.dedent(source))}


def test_an_honest_script_passes() -> None:
    found = checks(HONEST)
    assert {name: check.status for name, check in found.items()} == dict.fromkeys(found, "pass")
    assert [row["line"] for row in found["validation tokens"].facts["loaded"]] == [26]
    used = [row["line"] for row in found["validation tokens"].facts["used"]]
    assert {26, 32} <= set(used) and 29 not in used


def test_learning_after_scoring_is_legal_and_shown() -> None:
    check = checks(TTT)["score-first"]
    assert check.status == "pass" and check.facts["lines"][0]["line"] == 9 and "line 6 scores before" in check.detail


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
        (HONEST.replace("            piece = piece[1:]\n", ""), "byte table", 14),
        (HONEST.replace(BYTES, ""), "byte table", 12),
    ],
)  # fmt: skip
def test_cheats_are_found_with_their_line(source: str, name: str, line: int) -> None:
    check = checks(source)[name]
    assert (check.status, check.strength) == ("look", "look") and f"line {line}:" in check.detail


def test_no_python_is_refused() -> None:
    with pytest.raises(ConfigError, match="no Python that can be read"):
        audit_script("def f(:\n")
