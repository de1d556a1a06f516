"""Text that every Python installation carries, so that niblick has real English and real code without a download.

`pydocs` is documentation: the topics of `help()`, the docstrings of the standard library (one document a module, with
the signatures that `help()` would show), the docstrings of modules written in C, and the text files beside them.
`pysource` is the standard library's source code, one document a file. Tests, installed packages and files that the
build of Python wrote (they name paths of one machine) are left out of both.

Both are sorted by the SHA-256 of the document: the first N documents are a random sample by hash, the same on every
machine with the same Python. Libraries repeat themselves, so what also stands in held-out documents is dropped from
training documents paragraph by paragraph (`without_paragraphs`).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from niblick.errors import DataError

EMBEDDED = ("pydocs", "pysource")
MIN_PARAGRAPH = 32
"""Characters. Shorter paragraphs stay: headings and set phrases ("Return True.") are language, not copied text."""

_SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib-dynload"}
_SKIPPED_MODULES = re.compile(r"_?xx.*|_test.*|_ctypes_test|readline|_tkinter")  # for tests, or felt by the terminal
_BLANK_LINES = re.compile(r"(\n(?:[ \t]*\n)+)")


@functools.cache
def embedded_documents(name: str) -> tuple[tuple[str, str], ...]:
    """Return (text, source) of every document of `pydocs` or `pysource`, distinct and sorted by SHA-256 of the text.

    A process reads them once.

    Raises DataError if this Python came without them.
    """
    pairs = _documentation() if name == "pydocs" else _source_code()
    by_hash = {hashlib.sha256(text.encode()).digest(): (text, origin) for text, origin in pairs if text.strip()}
    if not by_hash:
        raise DataError(f"this Python ({sys.version.split()[0]}) came without what {name} is made of; give a file")
    return tuple(pair for _, pair in sorted(by_hash.items()))


def held_out_count(name: str, texts: list[str]) -> int:
    """How many first documents to hold out by default: 200,000 bytes of `pydocs`, 5% of `pysource`."""
    sizes = [len(text.encode()) for text in texts]
    wanted = min(200_000, sum(sizes) // 5) if name == "pydocs" else sum(sizes) // 20
    total = 0
    for count, size in enumerate(sizes, 1):
        total += size
        if total >= wanted:
            return count
    return len(sizes)


def paragraphs(text: str) -> set[str]:
    """The paragraphs (between blank lines) of at least MIN_PARAGRAPH characters, white space made single spaces."""
    spaced = (" ".join(part.split()) for part in _BLANK_LINES.split(text))
    return {part for part in spaced if len(part) >= MIN_PARAGRAPH}


def without_paragraphs(text: str, held_out: set[str]) -> str:
    """Drop from `text` every paragraph that stands in `held_out`, however it is indented or wrapped there."""
    parts = _BLANK_LINES.split(text)
    kept = []
    for i in range(0, len(parts), 2):
        if " ".join(parts[i].split()) not in held_out:
            kept += parts[i : i + 2]
    return "".join(kept)


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _library_files(suffixes: Iterable[str]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Files of the standard library and their path inside it, sorted by that."""
    library = _library()
    found = []
    for folder, folders, names in os.walk(library):
        folders[:] = set(folders) - _SKIPPED_FOLDERS  # site-packages may hold 100,000 files
        paths = [Path(folder, name) for name in names if os.path.splitext(name)[1] in suffixes]
        found += [(path, path.relative_to(library).parts) for path in paths if path.is_file()]
    yield from sorted(found, key=lambda item: item[1])


def _source_code() -> Iterator[tuple[str, str]]:
    for path, inside in _library_files([".py"]):
        generated = path.stem.startswith("_sysconfigdata") or inside[0].startswith("config-")
        if generated or inside[0] == "pydoc_data":  # topics: documentation in a string
            continue
        try:
            yield path.read_bytes().decode("utf-8"), inside[0].removesuffix(".py")
        except UnicodeDecodeError:
            continue


def _documentation() -> Iterator[tuple[str, str]]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        topics = {}
    for text in topics.values():
        yield text, "topics"
    for path, _ in _library_files([".txt", ".rst"]):
        if path.stem not in ("Grammar", "PatternGrammar"):
            yield path.read_bytes().decode("utf-8", "ignore"), "texts"
    for path, inside in _library_files([".py"]):
        name = ".".join(inside).removesuffix(".py").removesuffix(".__init__")
        yield _module_documentation(name, path.read_bytes()), "docstrings"
    for name in _extension_names():
        yield _extension_documentation(name), "docstrings of C modules"


def _module_documentation(name: str, source: bytes) -> str:
    """Name and docstring of a module, then signature and docstring of what it defines; "" where there are none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old modules are no business of ours
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    entries = list(_definitions(tree))
    if head := ast.get_docstring(tree):
        entries.insert(0, head)
    return "\n\n".join([name, *entries]) + "\n" if entries else ""


def _definitions(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            docstring := ast.get_docstring(child)
        ):
            yield _entry(_signature(child), docstring)
        if isinstance(child, ast.stmt):
            yield from _definitions(child)


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    return f"{node.name}({ast.unparse(node.args)})"


def _entry(signature: str, docstring: str) -> str:
    body = "\n".join(f"    {line}" if line else "" for line in docstring.splitlines())
    return f"{signature}\n{body}"


def _extension_names() -> list[str]:
    """Modules written in C, those built in and those in files, that can be loaded without side effects."""
    names = set(sys.builtin_module_names)
    folder = _library() / "lib-dynload"
    names.update(path.name.split(".")[0] for path in folder.glob("*") if path.suffix in (".so", ".pyd"))
    return sorted(name for name in names if not _SKIPPED_MODULES.fullmatch(name))


def _extension_documentation(name: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated modules are documented too
            module = importlib.import_module(name)
    except ImportError:
        return ""
    entries = [inspect.cleandoc(module.__doc__)] if isinstance(module.__doc__, str) else []
    for key, value in sorted(vars(module).items()):
        if inspect.isclass(value) and value.__module__ in (name, name.lstrip("_"), "builtins"):
            entries += _members(f"class {key}", key, value)
        elif inspect.isbuiltin(value) and isinstance(value.__doc__, str):
            entries.append(_entry(key + _text_signature(value), inspect.cleandoc(value.__doc__)))
    return "\n\n".join([name, *entries]) + "\n" if entries else ""


def _members(heading: str, name: str, value: type) -> Iterator[str]:
    if isinstance(value.__doc__, str):
        yield _entry(heading, inspect.cleandoc(value.__doc__))
    for key, member in sorted(vars(value).items()):
        # Special methods all carry the same few sentences ("Return self+value.").
        if (
            not key.startswith("__")
            and isinstance(getattr(member, "__doc__", None), str)
            and not inspect.isclass(member)
        ):
            docstring = getattr(member, "__doc__", "")
            if docstring != type(member).__doc__:
                yield _entry(f"{name}.{key}{_text_signature(member)}", inspect.cleandoc(docstring))


def _text_signature(value: object) -> str:
    return getattr(value, "__text_signature__", None) or ""
