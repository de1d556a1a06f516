"""Text to a dataset: shards, document index and manifest, streamed, and there only when all of it is.

OUT/manifest.json                                   the challenge's form, and under `niblick` what we add
OUT/datasets/NAME/fineweb_{train,val}_000000.bin …  BOS before each document, documents run on across shards
OUT/datasets/NAME/fineweb_{train,val}.documents.npy the document index

The first documents are the validation split. How many, when nobody says: one in twenty, at least 1, at most the
challenge's 50,000. The documents are counted for that in a first pass, which stops as soon as the answer is 50,000.
For Python's own text see `embedded.held_out_count`.

Everything is written into a directory beside OUT that is renamed at the end.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import niblick
from niblick import challenge
from niblick.data.documents import Block, Document, Texts, count_documents, no_documents, read_blocks, source_name
from niblick.data.embedded import EMBEDDED, held_out_count, paragraphs, without_paragraphs
from niblick.data.encode import Encoded, encode_blocks
from niblick.data.index import OTHER_SOURCE, IndexWriter, index_name
from niblick.data.shards import ShardWriter, file_hash
from niblick.data.tokenizers import Tokenizer, make_tokenizer
from niblick.errors import DataError

VALIDATION_SHARE = 20
"""One document in so many is held out by default."""

Progress = Callable[[int, int], None]
"""Told after every few megabytes: documents and UTF-8 bytes so far."""


def prepare(
    source: str,
    tokenizer: str,
    out: str | Path,
    *,
    val_docs: int | None = None,
    max_docs: int | None = None,
    shard_tokens: int = challenge.SHARD_TOKENS,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make a dataset of `source` in `out` and return its manifest.

    `val_docs` first documents become the validation split, `max_docs` are read in all, `workers` processes encode
    (default: one per core; for bytes none but this one). Raises DataError for bad input and for an `out` that is in
    use; then nothing is left in it.
    """
    out = Path(out)
    _refuse_used(out)
    for name, value, least in (("val_docs", val_docs, 0), ("max_docs", max_docs, 1), ("shard_tokens", shard_tokens, 1)):
        if value is not None and value < least:
            raise DataError(f"{name} is {value}; it must be at least {least}.")
    built = make_tokenizer(tokenizer)
    blocks, val_docs = _plan(source, val_docs, max_docs)
    name = f"{source_name(source)}_{built.name}"
    try:
        with _appearing_whole(out) as partial:
            dataset = partial / "datasets" / name
            dataset.mkdir(parents=True)
            writers = {split: _SplitWriter(dataset, split, shard_tokens) for split in ("val", "train")}
            sources = _Sources()
            try:
                with closing(encode_blocks(blocks, built, workers or _default_workers(built))) as encoded:
                    _write(_limited(encoded, max_docs), writers, sources, val_docs, progress)
                for writer in writers.values():
                    writer.close()
            except BaseException:
                for writer in writers.values():
                    writer.abandon()
                raise
            _check_counts(source, writers, val_docs)
            manifest = _manifest(source, name, built, writers, sources.names, shard_tokens)
            text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
            (partial / "manifest.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"Cannot write the dataset to {out}: {error.strerror or error}.") from error
    return manifest


@contextmanager
def _appearing_whole(out: Path) -> Iterator[Path]:
    """Give a directory beside `out` that becomes `out` if the block succeeds and vanishes if not."""
    out.parent.mkdir(parents=True, exist_ok=True)
    # mkdir in a mkdtemp, because mkdtemp itself is readable by its owner only.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as beside:
        partial = Path(beside, out.name)
        partial.mkdir()
        yield partial
        if out.exists():
            out.rmdir()  # empty, or this fails; Windows does not rename onto a directory
        os.rename(partial, out)


def _check_counts(source: str, writers: dict[str, _SplitWriter], val_docs: int) -> None:
    held_out, training = (writers[split].index.documents for split in ("val", "train"))
    if held_out + training == 0:
        raise no_documents(source)
    if held_out < val_docs:
        raise DataError(f"{source} holds {held_out} documents, fewer than the {val_docs} asked for validation.")


def _default_workers(tokenizer: Tokenizer) -> int:
    # Making bytes into tokens takes less time than sending them to another process and back.
    return 1 if tokenizer.kind == "byte" else os.cpu_count() or 1


def _refuse_used(out: Path) -> None:
    if (out / "manifest.json").exists():
        raise DataError(f"{out} already holds a finished dataset; remove it or choose another directory.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty directory; choose another, so that nothing is overwritten.")


def _plan(source: str, val_docs: int | None, max_docs: int | None) -> tuple[Iterator[Block], int]:
    """The blocks to encode and the number of validation documents."""
    if source in EMBEDDED:
        return _embedded_plan(source, val_docs, max_docs)
    if val_docs is None:
        enough = challenge.VALIDATION_DOCUMENTS * VALIDATION_SHARE
        count = count_documents(source, min(enough, max_docs or enough))
        if count == 1:
            raise DataError(
                f"{source} holds one document, so nothing would remain for training; "
                "give more documents, or say with val_docs (1 or 0) which split this one is."
            )
        val_docs = max(1, min(challenge.VALIDATION_DOCUMENTS, count // VALIDATION_SHARE))
    return read_blocks(source), val_docs


def _embedded_plan(source: str, val_docs: int | None, max_docs: int | None) -> tuple[Iterator[Block], int]:
    documents = [document for block in read_blocks(source) for document in block.documents()][:max_docs]
    if val_docs is None:
        val_docs = held_out_count(source, [document.text for document in documents])
    held_out = documents[:val_docs]
    known = set().union(*(paragraphs(document.text) for document in held_out))
    for document in documents[val_docs:]:
        if (text := without_paragraphs(document.text, known)).strip():
            held_out.append(Document(text, document.source))
    size = sum(len(document.text) for document in held_out)
    return iter([Texts(held_out, size)]), val_docs


class _Sources:
    """Numbers the sources in the order in which they come."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        if name not in self._numbers:
            if len(self.names) >= OTHER_SOURCE:
                return OTHER_SOURCE
            self._numbers[name] = len(self.names)
            self.names.append(name)
        return self._numbers[name]


class _SplitWriter:
    """Shards and document index of one split."""

    def __init__(self, directory: Path, split: str, shard_tokens: int) -> None:
        self.shards = ShardWriter(directory, split, shard_tokens)
        self.index_path = directory / index_name(split)
        self.index = IndexWriter(self.index_path)

    def write(self, part: Encoded, sources: _Sources) -> None:
        if not len(part.records):
            return
        numbers = np.array([sources.number(name) for name in part.sources], "<u2")
        records = part.records.copy()
        records["offset"] += np.uint64(self.shards.tokens)
        records["source"] = numbers[records["source"]]
        self.shards.write(part.tokens)
        self.index.write(records)

    def close(self) -> None:
        self.shards.close()
        self.index.close()

    def abandon(self) -> None:
        self.shards.abandon()
        self.index.abandon()

    def summary(self) -> dict[str, Any]:
        return {
            "documents": self.index.documents,
            "tokens": self.shards.tokens,
            "bytes": self.index.bytes,
            "text_hash": self.index.text_hash,
            "stream_hash": self.shards.stream_hash,
            "index": {"name": self.index_path.name, "sha256": file_hash(self.index_path)},
            "files": self.shards.files,
        }


def _limited(parts: Iterator[Encoded], max_docs: int | None) -> Iterator[Encoded]:
    left = max_docs
    for part in parts:
        if left is not None:
            part, _ = part.split(left)
            left -= len(part.records)
        yield part
        if left == 0:
            return


def _write(
    parts: Iterator[Encoded],
    writers: dict[str, _SplitWriter],
    sources: _Sources,
    val_docs: int,
    progress: Progress | None,
) -> None:
    held_out = writers["val"].index
    for part in parts:
        first, rest = part.split(val_docs - held_out.documents)
        writers["val"].write(first, sources)
        writers["train"].write(rest, sources)
        if progress:
            indexes = [writer.index for writer in writers.values()]
            progress(sum(index.documents for index in indexes), sum(index.bytes for index in indexes))


def _manifest(
    source: str,
    name: str,
    tokenizer: Tokenizer,
    writers: dict[str, _SplitWriter],
    sources: list[str],
    shard_tokens: int,
) -> dict[str, Any]:
    """The challenge's form, so that its scripts and ours can read it; ours is under `niblick`. No clock, no host."""
    spec = tokenizer.spec()
    splits = {split: writer.summary() for split, writer in writers.items()}
    val, train = splits["val"], splits["train"]
    documents = val["documents"] + train["documents"]
    path = f"datasets/{name}"
    stats = {
        f"{what}_{split}": count
        for what, key in (("docs", "documents"), ("files", "files"), ("tokens", "tokens"))
        for split, count in _counts(key, val, train)
    }
    origin = source if source in EMBEDDED else Path(source).name  # no paths of this machine
    extra: dict[str, Any] = {"version": niblick.__version__, "source": origin, "sources": sources, "splits": splits}
    if source in EMBEDDED:
        extra["python_version"] = platform.python_version()
    return {
        "version": "niblick-1",
        "num_docs": documents,
        "num_val_docs": val["documents"],
        "shuffle_seed": None,
        "shard_size": shard_tokens,
        "append_eos": False,
        "tokenizers": [spec],
        "datasets": [
            {
                "name": name,
                "tokenizer_name": tokenizer.name,
                "tokenizer_kind": tokenizer.kind,
                "path": path,
                "train_glob": f"{path}/fineweb_train_*.bin",
                "val_glob": f"{path}/fineweb_val_*.bin",
                "vocab_size": tokenizer.vocab_size,
                "bos_id": tokenizer.bos_id,
                "eos_id": spec.get("eos_id"),
                "stats": stats,
            }
        ],
        "niblick": extra,
    }


def _counts(key: str, val: dict[str, Any], train: dict[str, Any]) -> list[tuple[str, int]]:
    counts = [len(split[key]) if isinstance(split[key], list) else split[key] for split in (val, train)]
    return [("total", sum(counts)), ("val", counts[0]), ("train", counts[1])]
