"""What a file begins with, where that is no text: so that the refusal says what it is, and not which byte is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
}
_TODO = {"zip": "unpack it first", "PDF": "take the text out of it first"}


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
    for begin, (what, suffix) in _BEGINS.items():
        if piece.startswith(begin):
            todo = _TODO.get(what) or (f"decompress it to a {suffix}" if packed else f"give it the suffix {suffix}")
            it = "what is inside it" if packed else "it"
            raise DataError(f"{name} holds no text: {it} begins as {what} does; {todo}")
