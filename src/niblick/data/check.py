"""Is a dataset what its manifest says? Reads every byte of it, in pieces.

Validation documents are also decoded, repaired where the tokenizer is lossy, and compared with their hashes in the
index: the text that scores are about is really in there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from niblick.data.dataset import Dataset, Split
from niblick.data.index import text_hash
from niblick.data.repair import REPAIR_NAME, apply_repair, read_repair
from niblick.data.shards import file_hash
from niblick.data.tokenizers import Tokenizer
from niblick.errors import DataError

_PIECE = 1 << 22


def check(path: str | Path, tokenizer: Tokenizer | None = None) -> dict[str, Any]:
    """Check the dataset at `path` (see `Dataset.open`) and return what was found.

    The report has a line of counts and hashes per split; `verified` lists what there was to compare with,
    `unavailable` what nobody recorded.
    Raises DataError naming the first file that is not right.
    """
    dataset = Dataset.open(path, tokenizer)
    recorded = dataset.manifest.get("niblick", {}).get("splits", {})
    splits = {
        split.name: _check_split(split, dataset.tokenizer, recorded.get(split.name))
        for split in (dataset.val, dataset.train)
    }
    stats = next((entry.get("stats") for entry in dataset.manifest.get("datasets", []) if recorded), None)
    if stats and stats["tokens_total"] != sum(report["tokens"] for report in splits.values()):
        raise DataError(
            f"the manifest of {dataset.directory} counts {stats['tokens_total']} tokens; its shards disagree"
        )
    return {
        "directory": str(dataset.directory),
        "tokenizer": dataset.tokenizer.name,
        "splits": splits,
        "verified": ["headers", "vocabulary", *(["hashes", "counts", "index"] if recorded else [])],
        "unavailable": dataset.val.unavailable() + dataset.train.unavailable(),
    }


def _check_split(split: Split, tokenizer: Tokenizer, recorded: dict[str, Any] | None) -> dict[str, Any]:
    stream, documents, start = hashlib.sha256(), 0, 0
    for shard in split.shards:
        for at in range(0, len(shard), _PIECE):
            piece = np.ascontiguousarray(shard[at : at + _PIECE])
            split.check_vocabulary(piece, start + at, tokenizer.vocab_size)
            stream.update(piece.view(np.uint8).data)
            documents += int(np.count_nonzero(piece == tokenizer.bos_id))
        start += len(shard)
    report = {
        "tokens": split.tokens,
        "documents": documents,
        "shards": len(split.shards),
        "stream_hash": stream.hexdigest(),
        "text_hash": None,
    }
    if recorded is not None:
        for path, file in zip(split.files, recorded["files"], strict=True):
            _compare(f"{path}: SHA-256", file_hash(path), file["sha256"])
        where = f"the {split.name} split at {split.files[0].parent if split.files else 'this dataset'}"
        _compare(f"{where}: stream hash", report["stream_hash"], recorded["stream_hash"])
        _compare(f"{where}: tokens", split.tokens, recorded["tokens"])
    if split.index is not None:
        _check_index(split, tokenizer, documents)
        report["text_hash"] = text_hash(split.index)
        if recorded is not None:
            where = f"the document index of the {split.name} split"
            _compare(f"{where}: text hash", report["text_hash"], recorded["text_hash"])
            _compare(f"{where}: documents", len(split.index), recorded["documents"])
            _compare(f"{where}: bytes", int(split.index["bytes"].sum(dtype=np.int64)), recorded["bytes"])
            if split.name == "val":
                _check_texts(split, tokenizer, recorded)
    return report


def _check_index(split: Split, tokenizer: Tokenizer, documents: int) -> None:
    """Documents follow each other without gaps and fill the stream. Each begins with a BOS; there are no others."""
    index = split.index
    assert index is not None
    where = f"the document index of the {split.name} split"
    _compare(f"{where}: documents that begin with BOS", documents, len(index))
    ends = np.cumsum(index["tokens"], dtype=np.uint64)
    starts = ends - index["tokens"]
    wrong = np.flatnonzero(starts != index["offset"])
    if wrong.size:
        raise DataError(f"{where}: document {wrong[0]} does not begin where the one before it ends; prepare it again")
    _compare(f"{where}: tokens", int(ends[-1]) if len(ends) else 0, split.tokens)
    start = 0
    for shard in split.shards:
        first, last = np.searchsorted(starts, np.array([start, start + len(shard)], np.uint64))
        inside = starts[first:last] - np.uint64(start)
        if np.any(shard[inside] != tokenizer.bos_id):
            raise DataError(f"{where}: not every document begins with BOS ({tokenizer.bos_id}); prepare it again")
        start += len(shard)


def _check_texts(split: Split, tokenizer: Tokenizer, recorded: dict[str, Any]) -> None:
    assert split.index is not None
    spans = zip(split.index["offset"].tolist(), split.index["tokens"].tolist(), strict=True)
    texts: Iterator[bytes] = (tokenizer.decode(split.slice(offset, tokens)) for offset, tokens in spans)
    if not recorded["lossless"]:
        patch = read_repair(split.files[0].parent / REPAIR_NAME)
        _compare("the repair patch of the val split: bits", 8 * len(patch), recorded["repair_bits"])
        texts = apply_repair(patch, texts)
    for number, (text, digest) in enumerate(zip(texts, split.index["sha256"], strict=True)):
        if hashlib.sha256(text).digest() != bytes(digest):
            raise DataError(f"document {number} of the val split is not the text that was prepared; prepare it again")


def _compare(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise DataError(
            f"{what} is {found}, but {expected} is recorded; the data was changed: prepare or fetch it again"
        )
