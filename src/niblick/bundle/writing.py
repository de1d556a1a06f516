"""A program as one script: what is alive of each module, in the order in which Python would have run it.

Statements that nothing changed stand as they were written, with their comments; others are written anew, in lines of at
most 120 characters. Names of different modules that are the same are told apart by the module's name in front.
"""

from __future__ import annotations

import ast
import builtins
import copy
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

from niblick.bundle.live import Live
from niblick.bundle.program import FUNCTIONS, Context, Definition, Function, Module, Outside, Program, bound, walk

WIDTH = 120
_QUIET = re.compile(r"\s+# (type: ignore|noqa).*$")


def write(program: Program, live: Live, scripts: list[Module]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parts of the script by name, in order ("imports", then modules), and what classes are called in it."""
    order = _ordered(program, [*{d.module: None for d in live.definitions}, *scripts])
    names = _named(program, live, order, scripts)
    parts: dict[str, str] = {}
    used: set[Outside] = set()
    written = _Writer(program, live, names)
    bodies: list[tuple[Module, str]] = []
    for module in order:
        pieces = written.module(module, module in scripts)
        if pieces:
            bodies.append((module, pieces))
    text = "".join(piece for _, piece in bodies)
    named = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    for module in order:
        used |= {item for item in module.outside.values() if item.bound in named}
    parts["imports"] = "from __future__ import annotations\n\n" + _imports(used) + "\n"
    for module, piece in bodies:
        parts[module.name] = piece
    classes = {":".join(d.key): name for d, name in names.items() if isinstance(d.node, ast.ClassDef)}
    return parts, classes


def _ordered(program: Program, modules: list[Module]) -> list[Module]:
    """Modules after those they import."""
    done: dict[Module, None] = {}
    running: set[Module] = set()

    def visit(module: Module) -> None:
        if module in done or module in running:
            return
        running.add(module)
        for other, _ in module.own.values():
            if other in program.modules:
                visit(program.modules[other])
        done[module] = None

    for module in sorted(modules, key=lambda module: module.name):
        visit(module)
    return [module for module in done if module in modules]


def _named(program: Program, live: Live, order: list[Module], scripts: list[Module]) -> dict[Definition, str]:
    """A name for every definition: its own where that is free, else with the module's in front."""
    taken = {item.bound for module in order for item in module.outside.values()} | set(dir(builtins))
    names: dict[Definition, str] = {}
    by_module: dict[Module, list[Definition]] = {}
    for definition in live.definitions:
        by_module.setdefault(definition.module, []).append(definition)
    locals_ = _captured(program, live, scripts)
    for module in order:
        for definition in sorted(by_module.get(module, []), key=lambda d: d.node.lineno):
            base, stem = definition.name, module.name.rpartition(".")[2].removesuffix(".py")
            several = isinstance(definition.node, ast.Assign) and not isinstance(definition.node.targets[0], ast.Name)
            candidates = [base] if several else [base, f"{stem}_{base.lstrip('_')}", f"{stem}_{base.lstrip('_')}_"]
            for name in candidates:
                if name not in taken and name not in locals_.get(definition, ()):
                    break
            names[definition] = name
            taken.add(name)
    return names


def _captured(program: Program, live: Live, scripts: list[Module]) -> dict[Definition, set[str]]:
    """Names that are bound around a place that names a definition otherwise: it cannot have those."""
    found: dict[Definition, set[str]] = {}
    for node, context in _everything(live, scripts):
        if isinstance(node, ast.Name | ast.Attribute) and context.functions:
            target = program.meaning(node, context)
            if isinstance(target, Definition):
                names = set().union(*(bound(function) for function in context.functions))
                found.setdefault(target, set()).update(names)
    return found


def _everything(live: Live, scripts: list[Module]) -> Iterator[tuple[ast.AST, Context]]:
    """All live code with its contexts."""
    for module in scripts:
        for node in module.effects:
            yield from walk(node, Context(module))
    for definition in live.definitions:
        node, context = definition.node, Context(definition.module)
        if not isinstance(node, ast.ClassDef):
            yield from walk(node, context)
            continue
        for part in (*node.bases, *node.keywords, *node.decorator_list):
            yield from walk(part, context)
        for part in node.body:
            if part in live.methods or not isinstance(part, FUNCTIONS):
                yield from walk(part, Context(definition.module, definition))


def _imports(items: set[Outside]) -> str:
    """Imports from outside, one line a module: those of whole modules first, then names."""
    plain = sorted({(i.module, i.alias or "") for i in items if i.name is None})
    lines = [f"import {module}" + (f" as {alias}" if alias else "") for module, alias in plain]
    modules = sorted({i.module for i in items if i.name is not None and i.module != "__future__"})
    for module in modules:
        named = sorted(
            {f"{i.name} as {i.alias}" if i.alias else str(i.name) for i in items if i.name and i.module == module}
        )
        lines += wrapped(
            f"from {module} import ({', '.join(named)})"
            if len(named) > 8
            else f"from {module} import {', '.join(named)}",
            0,
        )
    return "\n".join(lines) + "\n"


class _Writer:
    def __init__(self, program: Program, live: Live, names: dict[Definition, str]) -> None:
        self.program, self.live, self.names = program, live, names

    def module(self, module: Module, script: bool) -> str:
        """The text of what is alive of a module."""
        alive = {d.node: d for d in self.live.definitions if d.module is module}
        self.source = module.text.splitlines()
        self.here = module
        pieces: list[str] = []
        after_block = False
        for node in module.tree.body:
            definition = alive.get(node)
            if definition is None and not (script and node in module.effects):
                continue
            context = Context(module)
            self._rename(node, context, definition)
            if isinstance(node, ast.AnnAssign) and node.value is not None:
                node = ast.copy_location(ast.Assign([node.target], node.value), node)
            lines = self.statement(node, 0)
            block = isinstance(node, ast.ClassDef | ast.FunctionDef)
            apart = "\n\n" if block or after_block else "" if pieces else "\n"
            pieces.append(apart + "\n".join(lines) + "\n")
            after_block = block
        if not pieces:
            return ""
        return f"\n\n# {module.name}\n" + "".join(pieces)

    def _rename(self, node: ast.AST, context: Context, definition: Definition | None) -> None:
        """Give every definition its name in the script, and take annotations out that name nothing there."""
        inner = Context(context.module, definition) if isinstance(node, ast.ClassDef) else context
        methods = set(definition.methods().values()) if definition and isinstance(node, ast.ClassDef) else set()
        if isinstance(node, ast.ClassDef):
            node.body = [p for p in node.body if p not in methods or p in self.live.methods] or [ast.Pass()]
            for statement in node.body:
                self._rename_in(statement, inner)
            for outer in (*node.bases, *node.keywords, *node.decorator_list):
                self._rename_in(outer, context)
        else:
            self._rename_in(node, context)
        if definition and self.names[definition] != definition.name:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                node.name = self.names[definition]
            else:
                for part in ast.walk(node):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store) and part.id == definition.name:
                        part.id = self.names[definition]

    def _rename_in(self, node: ast.AST, context: Context) -> None:
        changes: list[tuple[ast.AST, str]] = []
        for part, where in walk(node, context):
            if isinstance(part, ast.Name | ast.Attribute):
                target = self.program.meaning(part, where)
                if isinstance(target, Definition) and target in self.names:
                    changes.append((part, self.names[target]))
                elif isinstance(part, ast.Attribute) and isinstance(target, Outside):
                    changes.append((part, target.bound))
            if isinstance(part, FUNCTIONS) and not isinstance(part, ast.Lambda):
                self._annotations(part, where)
            if isinstance(part, ast.AnnAssign):
                self._annotation(part, where)
        for part, name in changes:
            if isinstance(part, ast.Name):
                part.id = name
            else:
                part.__class__ = ast.Name
                part.id, part._fields = name, ast.Name._fields  # type: ignore[attr-defined, misc]

    def _annotations(self, function: Function, context: Context) -> None:
        """Shape suffixes and docstrings say what the annotations say, in fewer bytes."""
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in every:
            if argument is not None and argument.annotation is not None:
                argument.annotation = None
        function.returns = None

    def _annotation(self, node: ast.AnnAssign, context: Context) -> None:
        node.annotation = self._known(node.annotation, context) or ast.Name("object", ast.Load())

    def _known(self, annotation: ast.expr, context: Context) -> ast.expr | None:
        """An annotation in names of the script; None if it names something that is not there."""
        plain = Context(context.module)
        annotation = ast.parse(ast.unparse(annotation), mode="eval").body
        for part in ast.walk(annotation):
            if isinstance(part, ast.Name | ast.Attribute):
                target = self.program.meaning(part, plain)
                if isinstance(target, Definition):
                    if target not in self.names:
                        return None
                    if isinstance(part, ast.Name):
                        part.id = self.names[target]
        return annotation

    # Text

    def statement(self, node: ast.stmt, indent: int) -> list[str]:
        """The lines of a statement."""
        before = self._comments(node)
        lines = self._raw(node, indent) or self._anew(node, indent)
        return [" " * indent + line for line in before] + lines

    def _comments(self, node: ast.stmt) -> list[str]:
        """Comment lines right above a statement."""
        first = (
            min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            if hasattr(node, "lineno")
            else 0
        )
        found: list[str] = []
        line = first - 2
        while first and line >= 0 and self.source[line].strip().startswith("#"):
            found.insert(0, self.source[line].strip())
            line -= 1
        return found

    def _raw(self, node: ast.stmt, indent: int) -> list[str] | None:
        """The statement as it was written, if nothing in it has changed."""
        if not hasattr(node, "lineno") or isinstance(node, ast.ClassDef | ast.FunctionDef):
            return None
        old = self.here.pristine.get((node.lineno, node.col_offset, type(node).__name__))
        if old is None or not _same(old, node):
            return None
        last = node.end_lineno or node.lineno
        text = self.source[node.lineno - 1 : last]
        if self.source[node.lineno - 1][: node.col_offset].strip():
            return None
        shift = indent - node.col_offset
        if shift and any(
            isinstance(n, ast.Constant | ast.JoinedStr) and n.end_lineno != n.lineno
            for n in ast.walk(node)
            if isinstance(n, ast.expr)
        ):
            return None
        lines = [_QUIET.sub("", line) for line in text]
        return [line[-shift:] if shift < 0 else " " * shift + line if line.strip() else "" for line in lines]

    def _anew(self, node: ast.stmt, indent: int) -> list[str]:
        pad = " " * indent
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            return self._definition(node, indent)
        if isinstance(node, ast.If):
            lines = wrapped(f"if {ast.unparse(node.test)}:", indent) + self.body(node.body, indent + 4)
            orelse = node.orelse
            if len(orelse) == 1 and isinstance(orelse[0], ast.If):
                inner = self._anew(orelse[0], indent)
                return [*lines, pad + "el" + inner[0].lstrip(), *inner[1:]]
            return lines + self._more("else:", orelse, indent)
        if isinstance(node, ast.For | ast.While | ast.With):
            head = copy.copy(node)
            head.body = [ast.Pass()]
            if not isinstance(head, ast.With):
                head.orelse = []
            lines = wrapped(ast.unparse(head).rpartition("\n")[0], indent) + self.body(node.body, indent + 4)
            return lines + self._more("else:", getattr(node, "orelse", []), indent)
        if isinstance(node, ast.Try):
            lines = [pad + "try:", *self.body(node.body, indent + 4)]
            for handler in node.handlers:
                kind = f" {ast.unparse(handler.type)}" if handler.type else ""
                name = f" as {handler.name}" if handler.name else ""
                lines += [f"{pad}except{kind}{name}:", *self.body(handler.body, indent + 4)]
            lines += self._more("else:", node.orelse, indent)
            return lines + self._more("finally:", node.finalbody, indent)
        text = ast.unparse(ast.fix_missing_locations(node))
        if "\n" in text:  # match
            return [pad + line for line in text.split("\n")]
        return wrapped(text, indent)

    def _more(self, head: str, body: list[ast.stmt], indent: int) -> list[str]:
        return [" " * indent + head, *self.body(body, indent + 4)] if body else []

    def _definition(self, node: ast.ClassDef | ast.FunctionDef, indent: int) -> list[str]:
        head = copy.copy(node)
        head.body, head.decorator_list = [ast.Pass()], []
        pad = " " * indent
        lines = []
        for decorator in node.decorator_list:
            lines += wrapped(f"@{ast.unparse(decorator)}", indent)
        lines += wrapped(ast.unparse(head).rpartition("\n")[0], indent)
        body = list(node.body)
        about = first_sentence(ast.get_docstring(node) or "") if ast.get_docstring(node) else ""
        about = "" if indent or node.name.startswith("_") else about
        if about:
            body = body[1:]
            lines += _text(about, indent + 4)
        if isinstance(node, ast.ClassDef):
            inner = self._class_body(body, indent + 4)
            return (
                [*lines, *([""] if about and inner else []), *inner] if inner or about else [*lines, pad + "    pass"]
            )
        return lines + (self.body(body, indent + 4) if (body and not _only_pass(body)) or not about else [])

    def _class_body(self, body: list[ast.stmt], indent: int) -> list[str]:
        lines: list[str] = []
        for node in body:
            if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                continue
            if isinstance(node, FUNCTIONS) and lines:
                lines.append("")
            lines += self.statement(node, indent)
        return lines

    def body(self, body: list[ast.stmt], indent: int) -> list[str]:
        """The lines of a block."""
        lines: list[str] = []
        for node in body:
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                continue
            if isinstance(node, ast.FunctionDef) and lines:
                lines.append("")
            lines += self.statement(node, indent)
            if isinstance(node, ast.FunctionDef) and node is not body[-1]:
                lines.append("")
        return lines or [" " * indent + "pass"]


def _same(old: Any, new: Any) -> bool:
    """Whether two trees say the same."""
    if isinstance(old, ast.AST):
        return type(old) is type(new) and all(
            _same(getattr(old, name, None), getattr(new, name, None)) for name in old._fields
        )
    if isinstance(old, list):
        return isinstance(new, list) and len(old) == len(new) and all(map(_same, old, new))
    return type(old) is type(new) and bool(old == new)


def _only_pass(body: list[ast.stmt]) -> bool:
    return all(isinstance(node, ast.Pass) for node in body)


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, without what it raises."""
    paragraph = re.split(r"\n\s*\n", text.strip())[0]
    flat = " ".join(paragraph.split())
    found = re.match(r"(.+?[.:])(?=\s+[A-Z`(]|$)", flat)
    sentence = (found[1] if found else flat).rstrip(":")
    return re.sub(r"[;,] raises? .*", ".", sentence)  # checks are left out


def _text(text: str, indent: int) -> list[str]:
    """A docstring in lines."""

    pad = " " * indent
    text = text.replace("\\", "\\\\")
    lines = textwrap.wrap(text, WIDTH - indent - 6, break_long_words=False, break_on_hyphens=False)
    if len(lines) == 1:
        return [f'{pad}"""{lines[0]}"""']
    return [f'{pad}"""{lines[0]}', *(pad + line for line in lines[1:-1]), f'{pad}{lines[-1]}"""']


# Lines of at most WIDTH characters


def wrapped(code: str, indent: int) -> list[str]:
    """A line of code, broken at its brackets where it is too long."""
    code = _neat(_quoted(code))
    pad = " " * indent
    if len(pad + code) <= WIDTH:
        return [pad + code]
    spans = _brackets(code)
    # The last bracket that is worth breaking: what remains outside must fit.
    for opening, closing in spans:
        head, inner, tail = code[: opening + 1], code[opening + 1 : closing], code[closing:]
        if len(pad + head) > WIDTH or len(pad + tail) > WIDTH or not inner.strip():
            continue
        items = _items(inner)
        step = pad + "    "
        if len(items) == 1 or len(step + inner) <= WIDTH:
            body = wrapped(inner.strip().rstrip(","), indent + 4)
            if head.startswith("from ") or inner.rstrip().endswith(","):
                body[-1] += ","
            return [pad + head, *body, pad + tail]
        lines = [pad + head]
        for item in items:
            lines += wrapped(item, indent + 4)
            lines[-1] += ","
        return [*lines, pad + tail]
    return [pad + code]


def _neat(code: str) -> str:
    """Without the parentheses that ast.unparse puts around generators and tuples, with spaces around defaults."""
    if code.startswith("def "):
        depth, annotated, out, at = 0, False, [], 0
        for place, text in _tokens(code):
            depth += (text in "([{") - (text in ")]}")
            annotated = (annotated or text == ":") if depth == 1 and text != "," else annotated and depth > 1
            if text == "=" and depth == 1 and annotated:
                out.append(code[at:place].rstrip() + " = ")
                at = place + 1
        code = "".join(out) + code[at:].lstrip() if out else code
    pairs = _pairs(code)
    drop: set[int] = set()
    for start, end in pairs.items():
        doubled = code[start] == "(" and pairs.get(start + 1) == end - 1 and code[start + 1] == "("
        if doubled and _top_level_for(code[start + 2 : end - 1]):
            drop |= {start + 1, end - 1}
    for word in ("return ", " = "):
        start = code.find(word) + len(word)
        whole = word in code and pairs.get(start) == len(code) - 1 and code[start] == "("
        if whole and len(_items(code[start + 1 : -1])) > 1 and not _top_level_for(code[start + 1 : -1]):
            drop |= {start, len(code) - 1}
        if word in code:
            break
    return "".join(c for i, c in enumerate(code) if i not in drop)


def _pairs(code: str) -> dict[int, int]:
    """Where each bracket is closed."""
    stack: list[int] = []
    found = {}
    for at, text in _tokens(code):
        if text in "([{":
            stack.append(at)
        elif text in ")]}" and stack:
            found[stack.pop()] = at
    return found


def _quoted(code: str) -> str:
    """Strings in double quotes, where that needs no escapes."""
    if "'" not in code:
        return code
    lines = code.split("\n")
    if len(lines) > 1:
        return code
    try:
        tokens = list(
            tokenize.generate_tokens(io.StringIO(code + ("\n    pass\n" if code.endswith(":") else "\n")).readline)
        )
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return code
    out, at = [], 0
    for token in tokens:
        if token.type != tokenize.STRING or token.start[0] != 1:
            continue
        text = token.string
        match = re.fullmatch(r"([A-Za-z]*)'([^'\"\\]*)'", text)
        if match and not text.startswith(("'''",)):
            out.append(code[at : token.start[1]] + f'{match[1]}"{match[2]}"')
            at = token.end[1]
    return "".join(out) + code[at:]


def _tokens(code: str) -> list[tuple[int, str]]:
    """Operators of a line with their places; brackets and commas inside strings are none."""
    found = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(code + "\n").readline):
            if token.type == tokenize.OP and token.start[0] == 1:
                found.append((token.start[1], token.string))
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass
    return found


def _brackets(code: str) -> list[tuple[int, int]]:
    """Outermost brackets, the longest first."""
    depth, start, spans = 0, 0, []
    for at, text in _tokens(code):
        if text in "([{":
            if not depth:
                start = at
            depth += 1
        elif text in ")]}":
            depth -= 1
            if not depth:
                spans.append((start, at))
    return sorted(spans, key=lambda span: span[0] - span[1])


def _items(code: str) -> list[str]:
    """The parts between commas outside all brackets (and lambdas)."""
    depth, start, items = 0, 0, []
    if _top_level_for(code):
        return [code.strip()]
    lambdas = [m.start() for m in re.finditer(r"\blambda\b", code)]
    colons = [at for at, text in _tokens(code) if text == ":"]
    heads = [(at, next((c for c in colons if c > at), at)) for at in lambdas]
    for at, text in _tokens(code):
        if text in "([{":
            depth += 1
        elif text in ")]}":
            depth -= 1
        elif text == "," and not depth and not any(a < at < b for a, b in heads):
            items.append(code[start:at].strip())
            start = at + 1
    items.append(code[start:].strip())
    return [item for item in items if item]


def _top_level_for(code: str) -> bool:
    depth = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(code + "\n").readline):
            if token.type == tokenize.OP and token.string in "([{":
                depth += 1
            elif token.type == tokenize.OP and token.string in ")]}":
                depth -= 1
            elif token.type == tokenize.NAME and token.string == "for" and not depth:
                return True
    except (tokenize.TokenError, IndentationError, SyntaxError):
        return False
    return False
