"""The smallest form of a script: no docstrings, comments and annotations, compressed, in a line that unpacks itself.

As the challenge's record scripts do it. It says the same and does the same; it only cannot be read.
"""

from __future__ import annotations

import ast
import base64
import lzma

_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
_STUB = (
    "import lzma,base64\n"
    'exec(compile(lzma.decompress(base64.b85decode("{data}"),3,None,[{{"id":33}}]),__file__,"exec"))\n'
)


def smallest(text: str) -> str:
    """Return the smallest form of a script."""
    code = ast.unparse(_Bare().visit(ast.parse(text)))
    data = lzma.compress(code.encode(), lzma.FORMAT_RAW, filters=_FILTERS)
    return _STUB.format(data=base64.b85encode(data).decode())


class _Bare(ast.NodeTransformer):
    """Takes out what only people read."""

    def _body(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        body = node.body  # type: ignore[attr-defined]
        body[:] = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))] or [
            ast.Pass()
        ]
        return node

    visit_Module = visit_ClassDef = _body

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._body(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(0)  # a dataclass needs one, whatever it says
        self.generic_visit(node)
        return node
