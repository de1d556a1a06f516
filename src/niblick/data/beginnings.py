"""What a file begins with, where that is no text: so that the refusal says what it is, and not which byte is wrong."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from niblick.data.compressed import unpacking
from niblick.errors import DataError

_POINTER = b"version https://git-lfs.github.com/spec/v1"
HEAD_BYTES = len(_POINTER)
"""How much of a file tells that it is a pointer."""
_BEGINS = {
    b"\x1f\x8b\x08": ("gzip", ".gz"),
    b"\xfd7zXZ\0": ("xz", ".xz"),
    b"\x28\xb5\x2f\xfd": ("zstd", ".zst"),
    **{b"BZh%d1AY&SY" % level: ("bzip2", ".bz2") for level in range(1, 10)},
    b"PAR1\x15": ("Parquet", ".parquet"),  # the first field of the first header is an integer
    b"ARROW1\0\0": ("Arrow", ".arrow"),
    b"PK\3\4": ("zip", ""),
    b"%PDF-": ("PDF", ""),
    b"WARC/1.": ("a web archive (WARC)", ""),
    b"SQLite format 3\0": ("SQLite", ""),
    b"\x89HDF\r\n": ("HDF5", ""),
    b"{\\rtf": ("RTF", ""),
}
_TODO = {
    "zip": "unpack it first",
    "tar": "unpack it first",
    "SQLite": "write its texts as JSON lines or Parquet first",
    "HDF5": "write its texts as JSON lines or Parquet first",
}
"""What to do about those that have no suffix here; of all others the text is to be taken out first."""
_WIDE = ((b"\xff\xfe\0\0", "UTF-32"), (b"\0\0\xfe\xff", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
"""Marks that no UTF-8 begins with."""
_TAR = slice(257, 262)
_ZEROS = bytes(512)


def begins_as(head: bytes) -> tuple[str, str]:
    """What a file begins as, and its suffix here, "" if it has none; two "" where its beginning says nothing."""
    if head[_TAR] == b"ustar":
        return "tar", ""
    return next((known for begin, known in _BEGINS.items() if head.startswith(begin)), ("", ""))


def what_to_do(path: Path) -> str:
    """What to do about a file whose name says nothing, by its beginning."""
    with open(path, "rb") as file:
        head = file.read(4096)
    what, suffix = begins_as(head)
    if what:
        return f"it begins as {what} does: " + (f"give it the suffix {suffix}" if suffix else _todo(what))
    if b"\0" in head:
        return "it is binary, and no text"
    if head.lstrip().startswith(b"{"):
        return "if it is JSON lines, give it the suffix .jsonl"
    return f"if it is text, call it {path.name}.txt"


def _todo(what: str) -> str:
    return _TODO.get(what, "take the text out of it first")


def _without_mark(piece: bytes) -> str:
    """The encoding of text that is UTF-16 without a mark: every other byte of Latin letters is zero there."""
    head = piece[:512]
    zeros = [head[place::2].count(0) for place in (0, 1)]
    if len(head) >= 16 and not min(zeros) and max(zeros) > len(head) // 3:
        return "UTF-16LE" if zeros[1] else "UTF-16BE"
    return ""


def is_web_page(begin: bytes) -> bool:
    """Whether a file begins as the page does that a server gives in place of a file."""
    return begin.lstrip()[:5].lower() in (b"<!doc", b"<html")


WEB_PAGE = "a web page stands there in place of the file: fetch it again"


def not_utf8(where: str, at: int) -> DataError:
    """The error for text whose byte `at` is not UTF-8."""
    return DataError(
        f"{where}: byte {at + 1} is not UTF-8; convert the file to UTF-8, as by `iconv -f ENCODING -t UTF-8`"
    )


def refuse_pointer(head: bytes, name: str) -> None:
    """Raise DataError for a file that begins as a pointer of Git LFS, which stands where a file was not fetched."""
    if head.startswith(_POINTER):
        raise DataError(f"{name} is a Git LFS pointer, and the file itself was not fetched: run `git lfs pull` there")


def of_text(pieces: Iterable[bytes], name: str, packed: bool) -> Iterator[bytes]:
    """Give the pieces of a file that is read as text. Raises DataError where the first is known to be something else.

    `packed` says that they come out of a compressed file.
    """
    first = True
    for piece in pieces:
        if first and piece:
            first = False
            _refuse_known(piece, name, packed)
        yield piece


def _refuse_known(piece: bytes, name: str, packed: bool) -> None:
    refuse_pointer(piece, name)
    wide = next((wide for begin, wide in _WIDE if piece.startswith(begin)), "") or _without_mark(piece)
    if wide:
        how = f"{unpacking(name)[0]} {shlex.quote(name)} | iconv -f {wide} -t UTF-8 > NEW"
        raise DataError(f"{name} is {wide}, where UTF-8 is expected; `{how}` converts it")
    if piece.startswith(_ZEROS):
        raise DataError(f"{name} begins with {len(_ZEROS)} zero bytes, as a download that broke off; fetch it again")
    what, suffix = begins_as(piece)
    if what:
        todo = f"decompress it to a {suffix}" if packed else f"give it the suffix {suffix}"
        it = "what is inside it" if packed else "it"
        raise DataError(f"{name} holds no text: {it} begins as {what} does; {todo if suffix else _todo(what)}")
