"""What the names of files say: which are read as documents, and which are forms of others."""

from __future__ import annotations

import re
from pathlib import Path

from niblick.data.columns import TABLES
from niblick.data.compressed import COMPRESSIONS


def _and_compressed(*suffixes: str) -> tuple[str, ...]:
    return tuple(suffix + packed for suffix in suffixes for packed in ("", *COMPRESSIONS))


LINES = _and_compressed(".jsonl", ".ndjson", ".json")
SHEETS = _and_compressed(".csv", ".tsv")
PAGES = _and_compressed(".md", ".rst", ".tex", ".html", ".htm")
PROSE = (*_and_compressed(".txt", ".text", ".tokens"), *PAGES)
CODE = _and_compressed(".py", ".c", ".h", ".cpp", ".js", ".ts", ".rs", ".go")
TEXTS = (*PROSE, *CODE)
FORMS = (
    "FILE.jsonl, FILE.ndjson, FILE.json, FILE.csv, FILE.tsv or FILE.txt (also .zst, .gz, .xz, .bz2), FILE.parquet, "
    "FILE.arrow, FILE.feather, a directory of these, pydocs, pysource or challenge:docs"
)
_UNREAD = {
    (".warc", ".wet", ".wat"): "it is a web archive: take the text out of it first",
    (".tar", ".zip", ".tgz", ".7z", ".rar"): "unpack it first",
    (".mds",): "it holds samples of MosaicML's streaming: write their texts as JSON lines first",
    (".pkl", ".pickle", ".pt", ".pth"): "pickles of strangers are not opened",
    (".safetensors", ".gguf", ".nib"): "it holds weights, and no text",
    (
        ".lz4",
        ".br",
        ".lzma",
        ".lz",
        ".z",
        ".zz",
        ".sz",
        ".snappy",
    ): "decompress it first, or compress it as .zst or .gz",
    (".orc", ".avro", ".xlsx", ".xls", ".ods", ".db", ".sqlite", ".sqlite3", ".duckdb", ".h5", ".hdf5", ".tfrecord"): (
        "write its texts as JSON lines or Parquet first"
    ),
    (".tfrecords", ".msgpack", ".lance"): "write its texts as JSON lines or Parquet first",
    (".pdf", ".epub", ".mobi", ".docx", ".doc", ".odt", ".rtf", ".xml"): "take the text out of it first",
    (".ipynb",): "it is a notebook: `jupyter nbconvert --to markdown` makes text of it",
    (".npz", ".idx", ".npy", ".bin"): "it is binary, and no text",
}
"""What to do about forms of others."""
SHARDS = (".bin", ".npy", ".idx")
"""Suffixes of token shards, which are named by their folder."""


def readable(name: str) -> bool:
    """Whether the name says that a file holds documents; `RC_2021-01.zst`, as dumps are called, is JSON lines."""
    bare = name.lower().endswith(COMPRESSIONS) and name.count(".") == 1
    return bare or name.lower().endswith((*LINES, *SHEETS, *TEXTS, *TABLES))


def taken_for_lines(name: str) -> bool:
    """Whether a compressed file that the user named is read as JSON lines: nothing says that it is something else."""
    low = name.lower()
    return low.endswith(COMPRESSIONS) and not hint(name) and not low.endswith((*TEXTS, *SHEETS))


def is_bare(name: str) -> bool:
    """Whether nothing but the lack of a suffix says that a compressed file is JSON lines."""
    return taken_for_lines(name) and not name.lower().endswith(LINES)


def source_name(source: str) -> str:
    """The stem that names datasets and documents: `docs_selected` for `some/docs_selected.jsonl.zst`."""
    name = Path(source).resolve().name if source in (".", "..") else Path(source).name
    for suffix in sorted((*LINES, *SHEETS, *TEXTS, *TABLES, *COMPRESSIONS), key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
            break
    return re.sub(r"[^\w.-]+", "_", name) or "data"


def hint(name: str) -> str:
    """What to do about a file in a form of others; "" if there is nothing to say."""
    low = name.lower()
    if low.endswith(COMPRESSIONS) and low[: low.rfind(".")].endswith(TABLES):
        return "tables compress their columns themselves: decompress it first"
    parts = {f".{part}" for part in low.split(".")[1:]}
    return next((said for suffixes, said in _UNREAD.items() if parts & {*suffixes}), "")
