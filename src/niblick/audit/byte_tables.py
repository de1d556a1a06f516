"""Reading how a script counts the bytes of tokens: is a leading space counted once, and a byte piece as one byte?"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence

from niblick.audit.flow_calls import called
from niblick.audit.flow_events import Finding

_SPACE = "\u2581"
_BYTE_PIECES = re.compile(
    r"is_?byte|byte_?piece|byte_?fallback|byte_?tok|single_token_bytes|<0x|<bytes?", re.IGNORECASE
)
_PIECES = re.compile(r"id_?to_?piece|id_?to_?token|piece|vocab|" + _SPACE, re.IGNORECASE)
_SPACED = re.compile(r"space|leading|(?:^|_)hls(?:_|$)", re.IGNORECASE)
_STRIPS = ("lstrip", "removeprefix", "strip")


def read_tables(trees: Sequence[ast.Module]) -> tuple[int, list[Finding]]:
    """Return how many tables of token bytes there are, and what is wrong with them."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    by_name = {function.name: function for function in functions}
    summed = any(_adds_space(node) for node in nodes)
    inside = {id(inner) for function in functions for inner in ast.walk(function) if inner is not function}
    loose = [
        ast.Module([n for n in tree.body if not isinstance(n, ast.FunctionDef | ast.ClassDef)], []) for tree in trees
    ]
    tables, found = 0, list[Finding]()
    for unit in [*[f for f in functions if id(f) not in inside], *loose]:
        lengths = list(_lengths(unit))
        if not lengths:
            continue
        helpers = [by_name[called(n)] for n in ast.walk(unit) if called(n) in by_name]
        words = " ".join(_words([unit, *helpers]))
        single = [length for length in lengths if _decodes_one(length, unit)]
        if not single and not _PIECES.search(words):
            continue
        tables += 1
        line = lengths[0].lineno
        made = summed or any(_makes_space_table(node) for node in ast.walk(unit))
        if made and not single and (at := _space_counted(unit, lengths)):
            what = "a piece's bytes are counted with its leading space, which is counted again by itself"
            found.append(Finding(at, f"{what}: texts look about a sixth longer than they are"))
        if not _BYTE_PIECES.search(words):
            what = "byte pieces such as <0xE2> are counted by the letters of their name; each is one byte"
            if single:
                what = "a byte piece that is decoded alone becomes U+FFFD, three bytes; it is one"
            found.append(Finding(line, what))
        found += [Finding(n.lineno, "bytes are counted in another encoding than UTF-8") for n in lengths if _wide(n)]
    return tables, found


def _lengths(unit: ast.AST) -> Iterator[ast.Call]:
    """Calls of `len` on an encoded text; the text may have had a name in between."""
    encoded = {
        target.id
        for node in ast.walk(unit)
        if isinstance(node, ast.Assign) and called(node.value) == "encode"
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(unit):
        if called(node) == "len" and isinstance(node, ast.Call) and node.args:
            inner = node.args[0]
            if called(inner) == "encode" or (isinstance(inner, ast.Name) and inner.id in encoded):
                yield node


def _words(units: Sequence[ast.AST]) -> Iterator[str]:
    """Names and texts of some code, without what documents it."""
    for unit in units:
        defined = [n for n in ast.walk(unit) if isinstance(n, ast.FunctionDef | ast.ClassDef)]
        texts = {id(n.body[0].value) for n in defined if n.body and isinstance(n.body[0], ast.Expr)}
        for node in ast.walk(unit):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
                yield node.value
            elif isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Attribute):
                yield node.attr


def _decodes_one(length: ast.Call, unit: ast.AST) -> bool:
    """Whether the length is that of one token's text by itself."""
    counters = {
        inner.id
        for node in ast.walk(unit)
        if isinstance(node, ast.For | ast.comprehension) and called(node.iter) in ("range", "arange", "enumerate")
        for inner in ast.walk(node.target)
        if isinstance(inner, ast.Name)
    }
    used = {inner.id for inner in ast.walk(length) if isinstance(inner, ast.Name)}
    made = [node for node in ast.walk(unit) if isinstance(node, ast.Assign)]
    for _ in range(2):  # what the names in it were made of, and the names in that
        own = [node.value for node in made if any(isinstance(t, ast.Name) and t.id in used for t in node.targets)]
        used |= {inner.id for value in own for inner in ast.walk(value) if isinstance(inner, ast.Name)}
    for node in [part for whole in (length, *own) for part in ast.walk(whole)]:
        if called(node) in ("decode", "decode_ids", "DecodeIds", "Decode", "convert_ids_to_string"):
            assert isinstance(node, ast.Call)
            first = node.args[0] if node.args else None
            if isinstance(first, ast.List) and len(first.elts) == 1 and not isinstance(first.elts[0], ast.Starred):
                return True
            if isinstance(first, ast.Name) and first.id in counters:
                return True
    return False


def _adds_space(node: ast.AST) -> bool:
    """Whether something about spaces is added where bytes are summed: an entry of a table, under a token."""
    parts: list[ast.expr] = []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [node.left, node.right]
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        parts = [node.value]
    return any(
        isinstance(inner, ast.Subscript) and any(_SPACED.search(word) for word in _words([inner.value]))
        for part in parts
        for inner in ast.walk(part)
    )


def _makes_space_table(node: ast.AST) -> bool:
    """Whether an entry of a table says that a piece begins with a space."""
    for target in node.targets if isinstance(node, ast.Assign) else []:
        listed = isinstance(node, ast.Assign) and isinstance(node.value, ast.ListComp)
        if not (isinstance(target, ast.Subscript) or (isinstance(target, ast.Name) and listed)):
            continue
        owner = target.value if isinstance(target, ast.Subscript) else target
        if any(_SPACED.search(word) for word in _words([owner])):
            return True
    if called(node) != "append" or not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    return any(_SPACED.search(word) for word in _words([node.func.value]))


def _space_counted(unit: ast.AST, lengths: Sequence[ast.Call]) -> int:
    """The line where the bytes of a piece are counted with its space; 0 if they are not."""
    stripped = any(_strips(node) for node in ast.walk(unit))
    replaced = any(_replaces(node) for node in ast.walk(unit))
    if not stripped or replaced:
        return lengths[0].lineno
    for node in ast.walk(unit):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            sides = [node.left, node.right]
            if any(side in lengths for side in sides) and any(_is_one(side) for side in sides):
                return node.lineno
        if isinstance(node, ast.If) and any(_SPACE in word for word in _words([node.test])):
            for inner in node.body:
                if isinstance(inner, ast.AugAssign) and isinstance(inner.op, ast.Add) and _is_one(inner.value):
                    return inner.lineno
    return 0


def _replaces(node: ast.AST) -> bool:
    """Whether something is put in the place of a text, and not merely taken out."""
    if called(node) != "replace" or not isinstance(node, ast.Call) or len(node.args) != 2:
        return False
    return isinstance(node.args[1], ast.Constant) and node.args[1].value != ""


def _is_one(node: ast.expr) -> bool:
    """Whether an expression is 1 where there is a space."""
    if isinstance(node, ast.Constant):
        return node.value == 1
    return any(_SPACED.search(word) or _SPACE in word or word == "startswith" for word in _words([node]))


def _strips(node: ast.AST) -> bool:
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        lower = node.slice.lower
        return (isinstance(lower, ast.Constant) and lower.value == 1) or called(lower or node) == "len"
    if called(node) == "replace" and isinstance(node, ast.Call) and len(node.args) == 2:
        return isinstance(node.args[1], ast.Constant) and node.args[1].value == ""
    return called(node) in _STRIPS


def _wide(length: ast.Call) -> bool:
    """Whether the text is encoded in something that has more bytes than UTF-8."""
    for node in ast.walk(length):
        if called(node) == "encode" and isinstance(node, ast.Call):
            given = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "encoding")]
            for one in given:
                if isinstance(one, ast.Constant) and isinstance(one.value, str):
                    return one.value.lower().replace("_", "-") not in ("utf-8", "utf8", "u8", "ascii", "utf-8-sig")
    return False
