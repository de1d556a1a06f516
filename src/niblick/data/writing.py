"""Writing a dataset: two splits of shards and index, what was lost in them, the manifest; all of it or nothing."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import niblick
from niblick.data.corpus import Corpus
from niblick.data.encode import Encoded, Loss
from niblick.data.index import OTHER_SOURCE, IndexWriter, index_name
from niblick.data.repair import REPAIR_NAME, RepairWriter
from niblick.data.shards import ShardWriter, file_hash
from niblick.data.tokenizers import Tokenizer
from niblick.errors import DataError

_EXCERPT = 24
"""Bytes before and after the first difference that the manifest's example shows."""


def refuse_used(out: Path) -> None:
    """Raise DataError if `out` holds anything."""
    if (out / "manifest.json").exists():
        raise DataError(f"{out} already holds a finished dataset; remove it or choose another directory")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty directory; choose another, so that nothing is overwritten")


@contextmanager
def appearing_whole(out: Path) -> Iterator[Path]:
    """Give a directory beside `out` that becomes `out` if the block succeeds and vanishes if not.

    Raises DataError if the disk does not take it.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A directory inside the temporary one, because that is readable by its owner only.
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=out.parent) as beside:
            partial = Path(beside, out.name)
            partial.mkdir()
            yield partial
            if out.exists():
                out.rmdir()  # empty, or this fails; Windows does not rename onto a directory
            os.rename(partial, out)
    except OSError as error:
        raise DataError(f"cannot write the dataset to {out}: {error.strerror or error}") from error


class DatasetWriter:
    """Writes one dataset into `out`/datasets/NAME, the first `corpus.val_docs` documents as its validation split."""

    def __init__(self, out: Path, corpus: Corpus, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self.out = out
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.shard_tokens = shard_tokens
        self.name = f"{corpus.name}_{tokenizer.name}"
        directory = out / "datasets" / self.name
        directory.mkdir(parents=True)
        self.sources = _Sources()
        self.val = _SplitWriter(directory, "val", tokenizer, shard_tokens, RepairWriter())
        self.train = _SplitWriter(directory, "train", tokenizer, shard_tokens)

    @property
    def wants_validation(self) -> bool:
        """Whether validation documents are still to come."""
        return self.val.index.documents < self.corpus.val_docs

    @property
    def documents(self) -> int:
        """Documents so far."""
        return self.val.index.documents + self.train.index.documents

    @property
    def skipped(self) -> int:
        """Documents without text that were left out so far."""
        return self.val.skipped + self.train.skipped

    @property
    def bytes(self) -> int:
        """UTF-8 bytes so far."""
        return self.val.index.bytes + self.train.index.bytes

    def write(self, part: Encoded) -> None:
        """Append documents."""
        first, rest = part.split(self.corpus.val_docs - self.val.index.documents)
        self.val.write(first, self.sources)
        self.train.write(rest, self.sources)

    def close(self) -> None:
        """Finish all files but the manifest."""
        self.val.close()
        self.train.close()

    def abandon(self) -> None:
        """Close all files as they are."""
        self.val.abandon()
        self.train.abandon()

    def manifest(self) -> dict[str, Any]:
        """Write and return the manifest: the challenge's form, and ours under `niblick`. No clock, no host."""
        spec = self.tokenizer.spec()
        path = f"datasets/{self.name}"
        manifest = {
            "version": "niblick-1",
            "num_docs": self.documents,
            "num_val_docs": self.val.index.documents,
            "shuffle_seed": None,
            "shard_size": self.shard_tokens,
            "append_eos": False,
            "tokenizers": [spec],
            "datasets": [
                {
                    "name": self.name,
                    "tokenizer_name": self.tokenizer.name,
                    "tokenizer_kind": self.tokenizer.kind,
                    "path": path,
                    "train_glob": f"{path}/fineweb_train_*.bin",
                    "val_glob": f"{path}/fineweb_val_*.bin",
                    "vocab_size": self.tokenizer.vocab_size,
                    "bos_id": self.tokenizer.bos_id,
                    "eos_id": spec.get("eos_id"),
                    "stats": self._stats(),
                }
            ],
            "niblick": {
                "version": niblick.__version__,
                "source": self.corpus.source,
                **self.corpus.facts,
                "sources": self.sources.names,
                "splits": {"val": self.val.summary(), "train": self.train.summary()},
            },
        }
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (self.out / "manifest.json").write_text(text, encoding="utf-8")
        return manifest

    def _stats(self) -> dict[str, int]:
        stats: dict[str, int] = {}
        for what, val, train in (
            ("docs", self.val.index.documents, self.train.index.documents),
            ("files", len(self.val.shards.files), len(self.train.shards.files)),
            ("tokens", self.val.shards.tokens, self.train.shards.tokens),
        ):
            stats |= {f"{what}_total": val + train, f"{what}_val": val, f"{what}_train": train}
        return stats


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
    """Shards, document index and losses of one split; with a `repair`, also the patch that undoes them."""

    def __init__(
        self, directory: Path, split: str, tokenizer: Tokenizer, shard_tokens: int, repair: RepairWriter | None = None
    ) -> None:
        self.directory = directory
        self.shards = ShardWriter(directory, split, shard_tokens)
        self.index_path = directory / index_name(split)
        self.index = IndexWriter(self.index_path)
        self.tokenizer = tokenizer
        self.repair = repair
        self.challenge_bytes = 0
        self.empty = self.skipped = 0
        self.lost = {"documents": 0, "bytes": 0, "decoded_bytes": 0}
        self.example: dict[str, Any] | None = None

    def write(self, part: Encoded, sources: _Sources) -> None:
        self.skipped += len(part.skipped)
        if not len(part.records):
            return
        for loss in part.losses:
            self._note(loss)
        if self.repair is not None:
            _write_repair(self.repair, part)
        if self.tokenizer.kind == "byte":
            self.challenge_bytes += int(part.records["bytes"].sum(dtype=np.int64))
        else:  # a part begins with BOS, which counts for nothing
            self.challenge_bytes += int(self.tokenizer.token_bytes(part.tokens[:-1], part.tokens[1:]).sum())
        numbers = np.array([sources.number(name) for name in part.sources], "<u2")
        self.empty += int((part.records["bytes"] == 0).sum())
        records = part.records.copy()
        records["offset"] += np.uint64(self.shards.tokens)
        records["source"] = numbers[records["source"]]
        self.shards.write(part.tokens)
        self.index.write(records)

    def _note(self, loss: Loss) -> None:
        self.lost["documents"] += 1
        self.lost["bytes"] += loss.original_bytes
        self.lost["decoded_bytes"] += loss.decoded_bytes
        if self.example is None and loss.texts is not None:
            self.example = {"document": self.index.documents + loss.document, **_excerpt(*loss.texts)}

    def close(self) -> None:
        self.shards.close()
        self.index.close()

    def abandon(self) -> None:
        self.shards.abandon()
        self.index.abandon()

    def summary(self) -> dict[str, Any]:
        """What the manifest says about the split. Writes the patch, if one is needed."""
        lossless = self.lost["documents"] == 0
        summary = {
            "documents": self.index.documents,
            "tokens": self.shards.tokens,
            "empty": self.empty,
            "skipped": self.skipped,
            "bytes": self.index.bytes,
            "challenge_bytes": self.challenge_bytes,
            "text_hash": self.index.text_hash,
            "stream_hash": self.shards.stream_hash,
            "lossless": lossless,
            "lost": None if lossless else {**self.lost, "example": self.example},
            "index": {"name": self.index_path.name, "sha256": file_hash(self.index_path)},
            "files": self.shards.files,
        }
        if self.repair is not None:
            summary["repair_bits"] = 0
            if not lossless:
                patch = self.repair.finish()
                (self.directory / REPAIR_NAME).write_bytes(patch)
                summary["repair_bits"] = 8 * len(patch)
        return summary


def _write_repair(repair: RepairWriter, part: Encoded) -> None:
    losses = {loss.document: loss.texts for loss in part.losses}
    for document in range(len(part.records)):
        if document in losses:
            texts = losses[document]
            assert texts is not None, "validation documents are encoded with keep_texts"
            repair.add(*texts)
        else:
            repair.add_exact()


def _excerpt(original: bytes, decoded: bytes) -> dict[str, str]:
    first = next((i for i, (a, b) in enumerate(zip(original, decoded, strict=False)) if a != b), len(decoded))
    around = slice(max(0, first - _EXCERPT), first + _EXCERPT)
    return {"original": original[around].decode(errors="replace"), "decoded": decoded[around].decode(errors="replace")}
