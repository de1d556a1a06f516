"""Python's own text: enough of it, the same every time, and nothing of the held-out text left in training text."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from niblick.data.embedded import (
    EMBEDDED,
    MIN_PARAGRAPH,
    embedded_documents,
    held_out_count,
    paragraphs,
    without_paragraphs,
)


@pytest.mark.parametrize(("name", "least"), [("pydocs", 1_500_000), ("pysource", 5_000_000)])
def test_text_there_is(name: str, least: int) -> None:
    pairs = embedded_documents(name)
    texts = [text for text, _ in pairs]
    hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
    assert hashes == sorted(set(hashes))
    assert sum(len(text.encode()) for text in texts) > least
    assert not any("site-packages" in source for _, source in pairs)


def test_documentation_is_what_help_shows() -> None:
    pairs = embedded_documents("pydocs")
    decoder = next(text for text, _ in pairs if text.startswith("json.decoder\n"))
    assert "class JSONDecoder" in decoder
    assert "Simple JSON <https://json.org> decoder" in decoder
    assert "raw_decode(self, s, idx=0)" in decoder
    kinds = {source for _, source in pairs}
    assert kinds >= {"topics", "docstrings", "docstrings of C modules"}
    builtins = next(text for text, _ in pairs if text.startswith("builtins\n"))
    assert "Return the absolute value of the argument." in builtins
    assert " at 0x" not in "".join(text for text, source in pairs if source.endswith("C modules"))


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_same_in_another_process(name: str) -> None:
    """Whatever the hash seed, and whatever has been imported before."""
    code = (
        "import sys, hashlib\nif sys.argv[2] == '1': import torch, sqlite3, curses\n"
        "from niblick.data.embedded import embedded_documents\n"
        "print(hashlib.sha256(repr(embedded_documents(sys.argv[1])).encode()).hexdigest())"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code, name, str(i)]) for i in range(2)]
    assert runs[0] == runs[1]


def test_held_out_count() -> None:
    assert held_out_count("pydocs", ["x" * 1000] * 2000) == 200
    assert held_out_count("pydocs", ["x" * 1000] * 100) == 20
    assert held_out_count("pysource", ["é" * 500] * 2000) == 100


def test_paragraphs_are_dropped_however_indented() -> None:
    shared = "This sentence is long enough\nto be a copied paragraph."
    held_out = paragraphs(f"Held out.\n\n    {shared.replace(chr(10), ' ')}\n")
    text = f"Title\n\n{shared}\n  \nShort one.\n\nMine alone, and long enough to count too."
    assert without_paragraphs(text, held_out) == "Title\n\nShort one.\n\nMine alone, and long enough to count too."
    assert without_paragraphs(text, set()) == text
    assert all(len(paragraph) >= MIN_PARAGRAPH for paragraph in held_out)
