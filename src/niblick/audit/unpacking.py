"""Scripts that carry their program packed: unpacked without being run, so that what is inside can be read.

Literals are followed through the decoders that such scripts use (base64 and its kin, zlib, lzma, bz2, brotli, zstd),
nested ones too. Nothing of the script is executed: each decoder is called from here, with bounded output. What cannot
be followed so is counted as not read.
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import codecs
import importlib
import io
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from niblick import files
from niblick.errors import ConfigError

MOST_BYTES = 10_000_000
"""Bytes that may come out of all decoders of a script together."""
MOST_NAMES = 300
"""Names, attributes and calls that one name may stand for in turn."""
_DEEPEST = 8
_SECTION = re.compile(r"^# module (\S+)[^\n]*\n", re.MULTILINE)
_STRING_METHODS = (
    "decode", "encode", "join", "replace", "strip", "lstrip", "rstrip", "split", "rsplit", "partition", "rpartition",
    "translate", "lower", "upper", "removeprefix", "removesuffix", "hex", "splitlines",
)  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One text of Python: the script itself, or what was packed in it."""

    text: str
    tree: ast.Module
    where: str
    """"" for the script itself; else how to find it, for people."""
    modules: dict[str, ast.Module] = field(default_factory=dict)
    """The parts of a script that `niblick submit` made, by module."""


@dataclass(frozen=True)
class Unpacked:
    """All texts of a script, and what of it could not be read."""

    layers: tuple[Layer, ...]
    unread: tuple[tuple[int, str], ...]
    """(line, what is run there without having been read)."""


class _TooMuch(Exception):
    """The decoders gave more than is allowed."""


def decoded(data: bytes, name: str = "the script") -> str:
    """Return the text of a Python file, whatever its encoding and line ends. Raises ConfigError if it is no text."""
    try:
        return _unix(files.decoded(data))
    except UnicodeError as error:
        raise ConfigError(f"{name} is no text that Python could read: {error}") from None


def _unix(text: str) -> str:
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def parsed(text: str, name: str) -> ast.Module:
    """Parse Python. Raises ConfigError if it is none."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{name} is no Python that can be read: {error}") from None


def unpack(source: str | bytes, name: str = "the script") -> Unpacked:
    """Return the script and everything packed in it. Raises ConfigError if the script itself is no Python."""
    text = decoded(source, name) if isinstance(source, bytes) else _unix(source)
    layers: list[Layer] = []
    unread: list[tuple[int, str]] = []
    room = [MOST_BYTES]
    waiting = [(Layer(text, parsed(text, name), ""), 0)]
    while waiting:
        layer, depth = waiting.pop(0)
        layer = sectioned(layer)
        layers.append(layer)
        found, hidden = _inside(layer, room)
        if layer.modules and _own_head(layer.text):
            found, hidden = [], []  # its `exec` is for the modules below it, which are read
        unread += hidden
        for line, inner in found:
            where = f"{layer.where}packed in line {line}, "
            if depth >= _DEEPEST:
                unread.append((line, "a program packed too deep to be read"))
                continue
            try:
                waiting.append((_layer(inner, where), depth + 1))
            except ConfigError:
                unread.append((line, "a packed text that is no Python"))
    return Unpacked(tuple(layers), tuple(dict.fromkeys(unread)))


def _layer(text: str, where: str) -> Layer:
    pieces = _SECTION.split(_unix(text))
    modules = {pieces[at]: parsed(pieces[at + 1], pieces[at]) for at in range(1, len(pieces) - 1, 2)}
    return Layer(text, parsed(pieces[0] if modules else _unix(text), "a packed program"), where, modules)


def _own_head(text: str) -> bool:
    """Whether a script begins as those of `niblick submit` do, readable or minified."""
    from niblick.bundle.maker import PACKAGE, minified  # a script of others needs none of it

    head = (PACKAGE / "submission" / "head.py").read_text(encoding="utf-8")
    return _SECTION.split(text)[0].strip() in (head.strip(), minified(head).strip())


def sectioned(layer: Layer) -> Layer:
    """The script that `niblick submit` wrote in its readable form, cut into its modules; any other as it is."""
    return layer if layer.modules or not _SECTION.search(layer.text) else _layer(layer.text, layer.where)


def _inside(layer: Layer, room: list[int]) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """The texts that a layer runs, as (line, text), and (line, what) for those that cannot be had."""
    folding = _Folding(layer.tree, room)
    found: dict[str, int] = {}
    unread: list[tuple[int, str]] = []
    for node in ast.walk(layer.tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        if _last(node.func) not in ("exec", "eval") and folding.name(node.func) not in ("exec", "eval"):
            continue
        if isinstance(node.func, ast.Attribute) and _last(node.func.value) not in ("builtins", "__builtins__"):
            continue  # a method of that name: model.eval()
        try:
            whole = folding.texts_in(node.args[0])
        except _TooMuch:
            unread.append((node.lineno, f"a packed program of more than {MOST_BYTES:,} bytes"))
            continue
        for text in whole:
            found.setdefault(text, node.lineno)
        if not whole:
            unread.append((node.lineno, f"{_last(node.func)} of something that is made as it runs"))
    for line, text in folding.programs():
        found.setdefault(text, line)
    for node in ast.walk(layer.tree):
        if isinstance(node, ast.Call) and folding.name(node.func) in _HIDES:
            unread.append((node.lineno, f"{folding.name(node.func)} runs what is not in this file"))
    kept = {id(node.value) for node in ast.walk(layer.tree) if isinstance(node, ast.Assign)}
    called = kept | {id(node.func) for node in ast.walk(layer.tree) if isinstance(node, ast.Call)}
    for node in ast.walk(layer.tree):
        if isinstance(node, ast.Name) and node.id == "exec" and id(node) not in called:
            unread.append((node.lineno, "exec is handed on under another name"))
    return [(line, text) for text, line in found.items()], unread


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


class _Folding:
    """Gives the value of expressions that are made of literals and known decoders."""

    def __init__(self, tree: ast.Module, room: list[int]) -> None:
        self.room, self.tree = room, tree
        self.known: dict[str, str] = {}
        """Local name → dotted name of what was imported under it."""
        self.assigned: dict[str, list[ast.expr]] = {}
        self.cache: dict[int, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.known[alias.asname or alias.name] = alias.name
            elif isinstance(node, ast.ImportFrom):
                self.known |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    self._assign(target, node.value)
            elif isinstance(node, ast.NamedExpr | ast.AnnAssign) and node.value is not None:
                self._assign(node.target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self.assigned.setdefault(target.id, []).append(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for own, its in zip(target.elts, value.elts, strict=True):
                self._assign(own, its)

    def name(self, node: ast.expr) -> str:
        """The dotted name of a function, as it was imported."""
        return self._dotted(node)

    def programs(self) -> list[tuple[int, str]]:
        """Programs that come out of a decompressor, whether they are run here or written to a file first."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and self._dotted(node.func) in _DECOMPRESSORS:
                try:
                    text = decoded(self.value(node) or b"")
                    body = parsed(text, "").body
                except (ConfigError, _TooMuch):
                    continue
                if any(isinstance(part, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef) for part in body):
                    found.append((node.lineno, _unix(text)))
        return found

    def texts_in(self, node: ast.expr) -> list[str]:
        """The whole texts that an expression is, or that it is a part of."""
        for inner in [node, *ast.walk(node)]:
            if inner is not node and not isinstance(inner, ast.Name | ast.Call):
                continue
            value = self.value(inner)
            if isinstance(value, bytes):
                try:
                    value = decoded(value)
                except ConfigError:
                    continue
            if isinstance(value, str) and not _is_path(value):
                return [self._whole(inner, value)]
        return []

    def _whole(self, node: ast.AST, text: str) -> str:
        """The text that `node` cuts `text` out of, if it is such a cut: the rest is run by other ways."""
        for inner in ast.walk(node):
            value = self.value(inner) if isinstance(inner, ast.Name | ast.Call) else None
            if isinstance(value, str) and len(value) > len(text) and text in value and _SECTION.search(value):
                return value
        return text

    def value(self, node: ast.AST) -> Any:
        """The value of an expression; None if it cannot be told."""
        if id(node) not in self.cache:
            self.cache[id(node)] = None  # what asks for itself has no value
            try:
                self.cache[id(node)] = self._value(node)
            except _TooMuch:
                raise
            except Exception:  # whatever a decoder says of foreign bytes
                self.cache[id(node)] = None
        return self.cache[id(node)]

    def _value(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                values = self.assigned.get(node.id, [])
                return self.value(values[0]) if len(values) == 1 else None
            case ast.List() | ast.Tuple():
                items = [self.value(item) for item in node.elts]
                return None if any(item is None for item in items) else items
            case ast.Dict():
                return {self.value(k): self.value(v) for k, v in zip(node.keys, node.values, strict=True) if k}
            case ast.Attribute():
                module, _, name = self._dotted(node).rpartition(".")
                return getattr(_CONSTANTS_OF.get(module), name, None) if name.isupper() else None
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(node.operand)
            case ast.BinOp(op=ast.Add()):
                return self._bounded(self.value(node.left) + self.value(node.right))
            case ast.BinOp(op=ast.BitOr()):
                return self.value(node.left) | self.value(node.right)
            case ast.Subscript():
                return self.value(node.value)[self._index(node.slice)]
            case ast.Call():
                return self._call(node)
        return None

    def _index(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Slice):
            return slice(*(self.value(part) if part else None for part in (node.lower, node.upper, node.step)))
        return self.value(node)

    def _bounded(self, value: Any) -> Any:
        if isinstance(value, str | bytes) and len(value) > MOST_BYTES:
            raise _TooMuch
        return value

    def _call(self, node: ast.Call) -> Any:
        name = self._dotted(node.func)
        arguments = [self.value(argument) for argument in node.args]
        words = {word.arg: self.value(word.value) for word in node.keywords if word.arg}
        if name in _TEXT_OF:
            return arguments[0]
        if name in ("bytes", "bytearray", "str") and arguments:
            if isinstance(arguments[0], list):
                return bytes(arguments[0])
            return str(arguments[0], *arguments[1:]) if name == "str" and len(arguments) > 1 else arguments[0]
        if name in _DECODERS and isinstance(arguments[0], str | bytes):
            return _DECODERS[name](*arguments, **words)
        if name in _DECOMPRESSORS and isinstance(arguments[0], bytes):
            out = _DECOMPRESSORS[name](arguments[0], self.room[0], *arguments[1:], **words)
            self.room[0] -= len(out)
            return out
        if isinstance(node.func, ast.Attribute) and node.func.attr in _STRING_METHODS:
            owner = self.value(node.func.value)
            if isinstance(owner, str | bytes) and None not in arguments:
                return self._bounded(getattr(owner, node.func.attr)(*arguments, **words))
        return None

    def _dotted(self, node: ast.AST, asked: frozenset[str] = frozenset(), depth: int = 0) -> str:
        """The dotted name of a function, through `import … as` and `__import__`.

        A name that was `asked` on the way stands for itself, as in `x = x.y`. Raises ConfigError for what is too deep.
        """
        if depth > MOST_NAMES:
            raise ConfigError(f"a name in the script goes through more than {MOST_NAMES} others, so it is not read")
        match node:
            case ast.Name():
                values = self.assigned.get(node.id, [])
                alias = node.id not in self.known and node.id not in asked and len(values) == 1
                if alias and isinstance(values[0], _NAMED):
                    return self._dotted(values[0], asked | {node.id}, depth + 1)
                return self.known.get(node.id, node.id)
            case ast.Attribute():
                return f"{self._dotted(node.value, asked, depth + 1)}.{node.attr}"
            case ast.Call():
                name = self._dotted(node.func, asked, depth + 1)
                first = node.args[0] if node.args else None
                if name in _IMPORTS and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    return first.value
                return f"{name}()"
        return "?"


def _is_path(text: str) -> bool:
    return "\n" not in text and text.endswith((".py", ">"))


_TEXT_OF = ("compile", "memoryview", "io.BytesIO", "io.StringIO", "textwrap.dedent", "builtins.compile", "exec")
_HIDES = ("runpy.run_path", "runpy.run_module", "marshal.loads", "types.FunctionType", "types.CodeType",
          "importlib.util.spec_from_file_location", "execfile")  # fmt: skip
_NAMED = ast.Attribute | ast.Call | ast.Name
_CONSTANTS_OF = {"lzma": lzma, "zlib": zlib}
_IMPORTS = ("__import__", "importlib.import_module", "import_module")


def _inflate(data: bytes, room: int, wbits: int = zlib.MAX_WBITS, bufsize: int = 0) -> bytes:
    engine = zlib.decompressobj(wbits)
    return _ended(engine.decompress(data, room + 1), room)


def _gunzip(data: bytes, room: int) -> bytes:
    return _inflate(data, room, 31)


def _unlzma(
    data: bytes, room: int, format: int = lzma.FORMAT_AUTO, memlimit: int | None = None, filters: Any = None
) -> bytes:
    engine = lzma.LZMADecompressor(format=format, memlimit=None if filters else 1 << 28, filters=filters)
    return _ended(engine.decompress(data, room + 1), room)


def _unbz2(data: bytes, room: int) -> bytes:
    return _ended(bz2.BZ2Decompressor().decompress(data, room + 1), room)


def _unbrotli(data: bytes, room: int) -> bytes:
    engine = importlib.import_module("brotli").Decompressor()
    out = engine.process(data, output_buffer_limit=room + 1)
    while not engine.is_finished() and len(out) <= room:
        more = engine.process(b"", output_buffer_limit=room + 1 - len(out))
        if not more:
            break
        out += more
    return _ended(out, room)


def _unzstd(data: bytes, room: int, *_: Any, **__: Any) -> bytes:
    with importlib.import_module("zstandard").ZstdDecompressor().stream_reader(io.BytesIO(data)) as reader:
        return _ended(reader.read(room + 1), room)


def _ended(out: bytes, room: int) -> bytes:
    if len(out) > room:
        raise _TooMuch
    return out


def _unhex(text: str | bytes) -> bytes:
    return bytes.fromhex(text if isinstance(text, str) else text.decode())


def _coded(data: Any, coding: str = "utf-8", *_: Any) -> Any:
    return codecs.decode(data, coding) if coding.replace("_", "").lower() in ("rot13", "hex", "base64") else None


_DECODERS: dict[str, Callable[..., Any]] = {
    **{f"base64.{name}": getattr(base64, name) for name in (
        "b64decode", "standard_b64decode", "urlsafe_b64decode", "b32decode", "b16decode", "b85decode", "a85decode",
        "decodebytes")},
    "binascii.unhexlify": binascii.unhexlify,
    "binascii.a2b_base64": binascii.a2b_base64,
    "binascii.a2b_hex": binascii.a2b_hex,
    "bytes.fromhex": _unhex,
    "bytearray.fromhex": _unhex,
    "codecs.decode": _coded,
}  # fmt: skip
_DECOMPRESSORS: dict[str, Callable[..., bytes]] = {
    "zlib.decompress": _inflate,
    "gzip.decompress": _gunzip,
    "lzma.decompress": _unlzma,
    "bz2.decompress": _unbz2,
    "brotli.decompress": _unbrotli,
    "zstandard.decompress": _unzstd,
    "zstd.decompress": _unzstd,
    "pyzstd.decompress": _unzstd,
    "zstandard.ZstdDecompressor().decompress": _unzstd,
}
