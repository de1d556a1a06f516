"""Reading a training script without running it: what it does with validation tokens, targets and bytes.

Values are followed by name through assignments, function by function: what comes from something called `val…`, or from
files of that name, is validation data, and so is what is computed from it. That is a reading, not a proof: names may
lie. Each check gives line numbers, so that a person can look.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from niblick.audit.checks import Check, look, not_applicable, passed
from niblick.errors import ConfigError

_VALIDATION = re.compile(r"(?:^|_)(?:val|valid|validation|heldout|held_out)(?:_|$|\d)", re.IGNORECASE)
_VALIDATION_FILE = re.compile(r"(?:^|[_/])val(?:id|idation)?[_*./]|VAL_FILES", re.IGNORECASE)
_TARGET = re.compile(
    r"^(?:y|ys|y_\w+|\w*_y|tgts?|targets?|labels?|\w*tgt\w*|\w*target\w*|next_(?:tok|token|id)s?)$", re.IGNORECASE
)
_FITS = ("lstsq", "minimize", "curve_fit", "fit", "polyfit", "LBFGS", "solve")
_CHOOSES = ("min", "minimum", "fmin", "amin", "argmin")
_SCORES = ("no_grad", "inference_mode")
_LOSS = re.compile(r"loss|nll|bits|bpb|ce$|cost", re.IGNORECASE)
_SPACE = "\u2581"


class Finding(NamedTuple):
    """A line that matters, and what is on it."""

    line: int
    what: str


def audit_script(source: str, name: str = "the script") -> list[Check]:
    """All checks of a script's source. Raises ConfigError if it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{name} is no Python that can be read: {error}") from None
    flow = _Flow(tree)
    return [
        _validation(flow),
        _learning(flow),
        _keys(tree),
        _corrections(flow),
        _byte_table(tree),
    ]


def names_in(node: ast.AST) -> Iterator[str]:
    """All names and attributes that an expression mentions."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr


def called(node: ast.AST) -> str:
    """The last name in the function of a call; "" for anything that is no call."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


class _Flow:
    """Where validation data goes, in each function and at module level."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.loads: list[Finding] = []
        self.uses: list[Finding] = []
        self.scopes: list[tuple[ast.AST, set[str]]] = []
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        for scope in (tree, *functions):
            self.scopes.append((scope, self._tainted(scope)))

    def _tainted(self, scope: ast.AST) -> set[str]:
        tainted: set[str] = set()
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
            tainted |= {a.arg for a in arguments if _VALIDATION.search(a.arg)}
            if _VALIDATION.search(scope.name) and re.match(r"(?:eval|score|ttt|adapt)", scope.name):
                tainted |= {a.arg for a in arguments if re.search(r"tok|ids|data|loader", a.arg)}
        changed = True
        while changed:
            before = len(tainted)
            for node in own_nodes(scope):
                targets, value = _assigned(node)
                if value is not None and self.touches(value, tainted):
                    tainted |= {name for target in targets for name in _bound(target)}
            changed = len(tainted) > before
        for node in own_nodes(scope):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _VALIDATION_FILE.search(node.value):
                self.loads.append(Finding(node.lineno, "names validation files"))
            if isinstance(node, ast.Call) and self.touches(node, tainted):
                self.uses.append(Finding(node.lineno, f"{called(node) or 'a call'} gets validation data"))
        return tainted

    def touches(self, node: ast.AST, tainted: set[str]) -> bool:
        """Whether an expression has validation data in it."""
        if any(name in tainted or _is_data(name) for name in names_in(node)):
            return True
        return any(
            isinstance(inner, ast.Constant) and isinstance(inner.value, str) and _VALIDATION_FILE.search(inner.value)
            for inner in ast.walk(node)
        )


def _is_data(name: str) -> bool:
    """Whether a name is that of validation data, and no setting or score of it."""
    return bool(_VALIDATION.search(name)) and not re.search(
        r"loss|bpb|every|batch_size|seconds|steps|_ms|time|freq|interval|logits?$", name, re.IGNORECASE
    )


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope in the order of the source, without those of functions inside it."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if isinstance(child, ast.ClassDef):
                yield from own_nodes(child)
            continue
        yield child
        yield from own_nodes(child)


def _assigned(node: ast.AST) -> tuple[list[ast.expr], ast.expr | None]:
    if isinstance(node, ast.Assign):
        return node.targets, node.value
    if isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        return [node.target], node.value
    if isinstance(node, ast.For):
        return [node.target], node.iter
    if isinstance(node, ast.withitem) and node.optional_vars is not None:
        return [node.optional_vars], node.context_expr
    return [], None


def _bound(target: ast.expr) -> Iterator[str]:
    for inner in ast.walk(target):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.id


def _lines(findings: list[Finding], most: int = 12) -> list[dict[str, object]]:
    return [{"line": f.line, "what": f.what} for f in sorted(set(findings))[:most]]


def _validation(flow: _Flow) -> Check:
    """Where validation tokens are loaded and used: shown, not judged."""
    name = "validation tokens"
    if not flow.loads and not flow.uses:
        return not_applicable(name, "the script names no validation data", "look")
    lines = sorted({f.line for f in flow.loads})
    used = sorted({f.line for f in flow.uses})
    return passed(
        name,
        f"loaded near line {', '.join(map(str, lines[:6])) or '?'}; used in lines {', '.join(map(str, used[:12]))}",
        "look",
        loaded=_lines(flow.loads),
        used=_lines(flow.uses),
    )


def _learning(flow: _Flow) -> Check:
    """Backward passes that touch validation data must come after the score of the same data, in the same loop."""
    name, backward, guarded, bad = "score-first", 0, [], []
    for scope, tainted in flow.scopes:
        for node in own_nodes(scope):
            if called(node) not in ("backward", "grad"):
                continue
            backward += 1
            assert isinstance(node, ast.Call)
            source = node.func.value if isinstance(node.func, ast.Attribute) and called(node) == "backward" else node
            if not flow.touches(source, tainted) and not any(flow.touches(a, tainted) for a in node.args):
                continue
            scored = _scored_before(flow, scope, tainted, node.lineno)
            if scored is None:
                bad.append(Finding(node.lineno, "a backward pass through validation data, with no score of it before"))
            else:
                guarded.append(Finding(node.lineno, f"learns from validation data that line {scored} scores before"))
    if bad:
        return look(name, f"line {bad[0].line}: {bad[0].what}", lines=_lines(bad))
    if guarded:
        return passed(name, f"line {guarded[0].line} {guarded[0].what}", "look", lines=_lines(guarded))
    return passed(name, f"none of {backward} backward passes touches validation data", "look")


def _scored_before(flow: _Flow, scope: ast.AST, tainted: set[str], line: int) -> int | None:
    """The line, in the innermost loop around `line` that has one, where validation data is scored without gradients."""
    loops = [
        n for n in own_nodes(scope) if isinstance(n, ast.For | ast.While) and n.lineno < line <= (n.end_lineno or 0)
    ]
    for loop in reversed(loops):
        for node in ast.walk(loop):
            if not isinstance(node, ast.With) or (node.end_lineno or 0) >= line:
                continue
            without_gradients = any(n in _SCORES for item in node.items for n in names_in(item.context_expr))
            sums = any(
                isinstance(inner, ast.AugAssign | ast.Assign)
                and any(
                    _LOSS.search(n)
                    for n in names_in(inner.targets[0] if isinstance(inner, ast.Assign) else inner.target)
                )
                for inner in ast.walk(node)
            )
            if without_gradients and sums and flow.touches(node, tainted):
                return node.lineno
    return None


def _keys(tree: ast.Module) -> Check:
    """A key that has the target in it finds the target: such a table gives no distribution."""
    name, found = "target in keys", []
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor):
            parts = [node.left, node.right]
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitXor):
            parts = [node.target, node.value]
        elif called(node) in ("hash", "bitwise_xor", "crc32", "blake2b", "md5", "sha1", "sha256", "xxhash"):
            parts = list(ast.iter_child_nodes(node))
        targets = [n for part in parts for n in names_in(part) if _TARGET.match(n)]
        if targets:
            what = "XOR" if not isinstance(node, ast.Call) else called(node)
            found.append(Finding(getattr(node, "lineno", 0), f"the target ({targets[0]}) goes into a key by {what}"))
    if found:
        return look(name, f"line {found[0].line}: {found[0].what}", lines=_lines(found))
    return passed(name, "no hash or XOR key has a target in it", "look")


def _corrections(flow: _Flow) -> Check:
    """Nothing is fitted to, or chosen by, the cost of validation data that counts."""
    name, found = "corrections", []
    for scope, tainted in flow.scopes:
        for node in own_nodes(scope):
            if called(node) in _FITS and flow.touches(node, tainted):
                assert isinstance(node, ast.Call)
                found.append(Finding(node.lineno, f"{called(node)} is fitted to validation data"))
            elif called(node) in _CHOOSES and isinstance(node, ast.Call):
                costs = [a for a in node.args if flow.touches(a, tainted) and any(_LOSS.search(n) for n in names_in(a))]
                if len(costs) > 1 or (costs and called(node) in ("amin", "argmin")):
                    found.append(Finding(node.lineno, f"{called(node)} chooses by the cost of validation data"))
    if found:
        return look(name, f"line {found[0].line}: {found[0].what}", lines=_lines(found))
    return passed(name, "nothing is fitted to validation data or chosen by its cost", "look")


def _byte_table(tree: ast.Module) -> Check:
    """A table of token bytes: the space is taken off the piece if it is counted by itself, byte pieces count one."""
    name, tables = "byte table", 0
    functions: list[ast.AST] = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)] or [tree]
    for function in functions:
        text = ast.unparse(function)
        lengths = [
            n for n in ast.walk(function)
            if called(n) == "len" and isinstance(n, ast.Call) and n.args and called(n.args[0]) == "encode"
        ]  # fmt: skip
        if not lengths or ("id_to_piece" not in text and _SPACE not in text and "\\u2581" not in text):
            continue
        tables += 1
        spaced = re.search(
            r"(?:leading|space)\w*(?:\[[^\]]*\])?\s*=\s*(?:True|1)|\+\s*\(?\s*(?:has_)?(?:leading|space)", text
        )
        stripped = re.search(r"\[1:\]|lstrip\(|removeprefix\(|replace\(", text)
        if spaced and not stripped:
            return look(
                name,
                f"line {lengths[0].lineno}: a piece's bytes are counted with its leading space, which is counted "
                "again by itself: texts look about a sixth longer than they are",
                line=lengths[0].lineno,
            )
        if "is_byte" not in text:
            return look(
                name,
                f"line {lengths[0].lineno}: byte pieces such as <0xE2> are counted by the letters of their name; "
                "each is one byte",
                line=lengths[0].lineno,
            )
    if not tables:
        return not_applicable(name, "the script makes no table of token bytes", "look")
    return passed(name, "the table counts a leading space once and a byte piece as one byte", "look")
