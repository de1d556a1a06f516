"""A prepared dataset, opened: manifest, tokenizer, and for each split its shards as one long stream of tokens.

Opening checks the header and size of every shard but reads no tokens, so it is quick for any size. A shard is held
against its SHA-256 in the manifest once in a process, before the first of its tokens is used; an index when it is
opened. Shards without manifest or index (the challenge's own) open too, as far as what is there goes; then the caller
names the tokenizer.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.data.beginnings import refuse_pointer
from niblick.data.foreign_shards import GPT2_BETWEEN, converting, foreign_kind, is_dataset, is_llama3
from niblick.data.index import index_name, read_index, text_hash
from niblick.data.shards import expect_digest, read_shard, shard_files
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.text_forms import SHARDS
from niblick.data.tokenizers import BYTE_TOKENIZERS, Tokenizer, make_tokenizer
from niblick.errors import DataError
from niblick.files import parse_json, read_small, why

_MAKE = "make some with `niblick data prepare --source pydocs --tokenizer byte260 --out DIR`"

_PIECE = 1 << 22
"""Tokens that are hashed at once."""
_LOST = ("documents", "bytes", "decoded_bytes")


@dataclass(frozen=True)
class Split:
    """One split: `shards` are memory maps of uint16 in stream order, `files` the paths they come from.

    `index` has a record per document (dtype `index.RECORD`). `lossless` says whether the tokens give the text back,
    `repair_bits` (of a validation split) what it costs where they do not, `lost` how many `documents` that are, their
    `bytes` and the `decoded_bytes` that come instead. All of these are None where nobody recorded them.
    """

    name: str
    files: list[Path]
    shards: list[npt.NDArray[np.uint16]]
    index: npt.NDArray[Any] | None = None
    text_hash: str | None = None
    stream_hash: str | None = None
    lossless: bool | None = None
    repair_bits: int | None = None
    lost: dict[str, int] | None = None
    byte_counts: list[npt.NDArray[np.uint16]] = field(default_factory=list)
    """Bytes of each token as the maker of the data counted them, a shard beside each of the tokens'; mostly none."""
    byte_note: str = ""
    """What there is to say of such counts."""
    sha256: list[str] = field(default_factory=list)
    """Digests of the files as the manifest has them; none where nobody recorded them. A shard is held against its own
    once before the first of its tokens is used."""
    _ends: list[int] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        self._ends.extend(accumulate(len(shard) for shard in self.shards))

    @property
    def tokens(self) -> int:
        """Tokens in all shards, BOS included."""
        return self._ends[-1] if self._ends else 0

    def unavailable(self) -> list[str]:
        """Facts about the split that nobody recorded: one sentence each, for people."""
        missing = [self.byte_note] if self.byte_note else []
        if self.index is None:
            missing.append(
                f"the {self.name} split has no document index: no text hash and no count of its original bytes, so its "
                "scores can be compared with scores on the same tokens alone"
            )
        if self.lossless is None:
            missing.append(
                f"nothing says whether the tokens of the {self.name} split give its text back: lossless and "
                "bpb_repaired are unknown (`niblick data prepare` finds out)"
            )
        return missing

    def slice(self, start: int, length: int) -> npt.NDArray[np.uint16]:
        """Return tokens [start, start + length) of the stream, shape (length,), a view where one shard holds them.

        Raises DataError if that reaches outside the split.
        """
        if start < 0 or length < 0 or start + length > self.tokens:
            raise DataError(
                f"tokens {start} to {start + length} of the {self.name} split were asked for; it has {self.tokens}"
            )
        number = bisect_right(self._ends, start)
        parts = []
        while length:
            if self.sha256:
                expect_digest(self.files[number], self.sha256[number])
            shard = self.shards[number]
            inside = start - (self._ends[number] - len(shard))
            part = shard[inside : inside + length]
            parts.append(part)
            start += len(part)
            length -= len(part)
            number += 1
        if len(parts) == 1:
            return np.asarray(parts[0])
        return np.concatenate(parts) if parts else np.zeros(0, np.uint16)

    def stream_digest(self) -> str:
        """SHA-256 (hex) of all tokens, as their maker computes it."""
        digest = hashlib.sha256()
        for start in range(0, self.tokens, _PIECE):
            piece = self.slice(start, min(_PIECE, self.tokens - start))
            digest.update(np.ascontiguousarray(piece, "<u2").data)
        return digest.hexdigest()

    def expect_stream(self) -> None:
        """Hold all tokens against the stream hash that a manifest has of them. Raises DataError if it is another."""
        if self.stream_hash is not None and (found := self.stream_digest()) != self.stream_hash:
            raise DataError(
                f"the manifest of {self.files[0].parent if self.files else 'the data'} gives the {self.name} split the "
                f"stream hash {self.stream_hash[:16]}…, where that of its tokens is {found[:16]}…: it was changed; "
                "prepare or fetch the data again"
            )

    def target_bytes(self, first: int, span: npt.NDArray[np.uint16], tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
        """Return the bytes of the targets `span[1:]`, the first of which is token `first` of the stream."""
        if not self.byte_counts:
            return tokenizer.token_bytes(span[:-1], span[1:])
        counts = Split(self.name, self.files, self.byte_counts)
        return counts.slice(first, len(span) - 1).astype(np.int64)

    def part(self, start: int, stop: int) -> Split:
        """Return tokens [start, stop) as a split of their own, with the documents that begin in them.

        No token is copied. What was recorded of the whole text (hashes, losses) is not said of a part.
        """
        begins = [end - len(shard) for end, shard in zip(self._ends, self.shards, strict=True)]

        def cut(shards: list[npt.NDArray[np.uint16]]) -> list[npt.NDArray[np.uint16]]:
            pairs = zip(begins, shards, strict=False)
            return [shard[max(start - begin, 0) : max(stop - begin, 0)] for begin, shard in pairs]

        shards = cut(self.shards)
        index = self.index
        if index is not None:
            first, last = np.searchsorted(index["offset"], (start, stop))
            index = np.array(index[first:last])
            index["offset"] -= start
        return Split(self.name, self.files, shards, index, byte_counts=cut(self.byte_counts), sha256=self.sha256)

    def first_documents(self, count: int, tokenizer: Tokenizer) -> Split:
        """Return the first `count` documents as a split of their own; itself where it has no more.

        Its hashes are those of its documents, and whether they come back is found out by decoding them; what it costs
        where they do not (`repair_bits`) is unknown of a part. Raises DataError without a document index.
        """
        if self.index is None:
            raise DataError(f"the {self.name} split has no document index, so no number of its documents can be taken")
        if count >= len(self.index):
            return self
        part = self.part(0, int(self.index["offset"][count]))
        assert part.index is not None
        lossless = self.lossless
        if lossless is False:
            tokens = part.slice(0, part.tokens)
            lossless = all(
                hashlib.sha256(tokenizer.decode(tokens[at + 1 : at + count])).digest() == digest.tobytes()
                for at, count, digest in zip(*(part.index[key] for key in ("offset", "tokens", "sha256")), strict=True)
            )
        lost = dict.fromkeys(_LOST, 0) if lossless else None
        return replace(
            part, text_hash=text_hash(part.index), stream_hash=part.stream_digest(), lossless=lossless, lost=lost
        )

    def check_vocabulary(self, tokens: npt.NDArray[np.uint16], start: int, vocab_size: int) -> None:
        """Check that `tokens`, which begin at `start` of the stream, are inside the vocabulary.

        Raises DataError naming file and position of the first that is not.
        """
        if not tokens.size or int(tokens.max()) < vocab_size:
            return
        wrong = int(np.argmax(tokens >= vocab_size))
        number = bisect_right(self._ends, start + wrong)
        inside = start + wrong - (self._ends[number] - len(self.shards[number]))
        raise DataError(
            f"{self.files[number]}: token {inside} is {int(tokens[wrong])}, outside the vocabulary of {vocab_size}; "
            "the data was made with another tokenizer or is damaged"
        )


@dataclass(frozen=True)
class Dataset:
    """A dataset: `directory` holds the shards, `manifest` is {} where there is none."""

    directory: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer
    train: Split
    val: Split

    @property
    def entry(self) -> dict[str, Any]:
        """What the manifest says about this dataset; {} if nothing."""
        return _entry(self.manifest, self.directory.name)

    @classmethod
    def open(cls, path: str | Path, tokenizer: Tokenizer | None = None, usual: str = "") -> Dataset:
        """Open `path`: what prepare was given as `out`, or the directory of the shards itself.

        `tokenizer` overrides the manifest's. Where there is no manifest it is the only model in the folder
        `tokenizers`, or the byte tokenizer of the name `usual`. Raises DataError if there are no shards, if one is
        damaged or missing, or if the tokenizer is unknown.
        """
        directory, manifest = _locate(Path(path))
        if not _holds_shards(directory) or is_llama3(_shards_of_both(directory)[0]):
            if foreign := foreign_kind(directory):
                raise foreign
            raise DataError(f"{directory} holds no fineweb_train_*.bin or fineweb_val_*.bin; {_MAKE}")
        try:
            recorded = manifest.get("niblick", {}).get("splits", {})
            train, val = (open_split(directory, split, recorded.get(split)) for split in ("train", "val"))
            if tokenizer is None:
                if not manifest:
                    _refuse_gpt2(directory, train, val)
                tokenizer = _tokenizer(manifest, directory, usual)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(
                f"the manifest of {directory} is of no known form ({type(error).__name__}: {error}); prepare or fetch "
                "the data again"
            ) from error
        return cls(directory, manifest, tokenizer, train, val)


def _locate(path: Path) -> tuple[Path, dict[str, Any]]:
    """The directory of the shards, and the manifest."""
    if path.is_file():
        if path.suffix in SHARDS:
            raise _one_shard(path)
        raise DataError(
            f"{path} is a file; give the folder of the shards, or make one of a text: "
            f"`niblick data prepare --source {shlex.quote(str(path))} --out DIR`"
        )
    if not path.is_dir():
        raise DataError(f"there is no data directory {path}; {_MAKE}")
    if (path / "manifest.json").is_file():
        manifest = read_manifest(path / "manifest.json")
        listed = [path / str(entry.get("path", "")) for entry in manifest["datasets"]]
        present = [directory for directory in listed if os.path.isdir(directory)]  # False for what can be no name
        if len(present) > 1:
            names = ", ".join(directory.name for directory in present)
            raise DataError(f"{path} holds several datasets ({names}); name one, as in {present[0]}")
        if not present:
            raise DataError(f"{path} has a manifest but none of the datasets it lists; prepare the data again")
        return present[0], manifest
    inside = [folder for folder in sorted(path.glob("datasets/*")) if folder.is_dir() and _holds_shards(folder)]
    if len(inside) > 1 and not _holds_shards(path):
        names = ", ".join(directory.name for directory in inside)
        raise DataError(f"{path} holds several datasets ({names}); name one, as in {inside[0]}")
    if inside and not _holds_shards(path):
        return inside[0], {}
    above = path.resolve().parent.parent / "manifest.json"
    return path, read_manifest(above) if above.is_file() and path.resolve().parent.name == "datasets" else {}


def _one_shard(path: Path) -> DataError:
    """The error for a shard where its folder is expected."""
    folder = path.parent
    if not is_dataset(folder) and (foreign := foreign_kind(folder)):
        return foreign
    inside = f": {folder}" if is_dataset(folder) else ""
    return DataError(f"{path} is a file; give the folder of the shards{inside}")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest, the challenge's or ours. Raises DataError if it is something else."""
    try:
        data = read_small(path)
        refuse_pointer(data, str(path))
        manifest = parse_json(data)
    except (OSError, ValueError) as error:
        raise DataError(
            f"the manifest {path} cannot be read ({why(error)}); prepare or fetch the data again"
        ) from error
    entries = manifest.get("datasets") if isinstance(manifest, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path} is no dataset manifest: it lists no `datasets`; prepare or fetch the data again")
    return manifest


def _entry(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """What the manifest says about the dataset `name`."""
    for entry in manifest.get("datasets", []):
        if Path(str(entry.get("path", ""))).name == name:
            return entry
    return {}


def _tokenizer(manifest: dict[str, Any], directory: Path, usual: str) -> Tokenizer:
    entry = _entry(manifest, directory.name)
    for spec in manifest.get("tokenizers", []):
        if spec.get("name") == entry.get("tokenizer_name"):
            return make_tokenizer(spec, directory.parent.parent)
    if not manifest and usual in BYTE_TOKENIZERS:
        return BYTE_TOKENIZERS[usual]()
    models = sorted((directory.resolve().parent.parent / "tokenizers").glob("*.model"))
    if not manifest and usual and len(models) == 1:
        return SentencePieceTokenizer.read(models[0])
    raise DataError(
        f"nothing says which tokenizer made {directory}: it has no manifest that lists it; make a dataset of it by "
        f"`niblick data convert {shlex.quote(str(directory))} --given FILE.model --out DIR` (given is the "
        "SentencePiece model they were made with, or byte260)"
    )


def _refuse_gpt2(directory: Path, *splits: Split) -> None:
    """Shards without manifest whose first token is the one that begins a document in GPT-2's vocabulary."""
    for split in splits:
        if split.tokens and int(split.slice(0, 1)[0]) == GPT2_BETWEEN:
            raise DataError(f"{directory} holds token shards, and no dataset of niblick: {converting(directory)}")


def _holds_shards(directory: Path) -> bool:
    return bool(_shards_of_both(directory))


def _shards_of_both(directory: Path) -> list[Path]:
    return [path for split in ("train", "val") for path in shard_files(directory, split)]


def _byte_counts(
    directory: Path, split: str, shards: list[npt.NDArray[np.uint16]]
) -> tuple[list[npt.NDArray[np.uint16]], str]:
    """The counts in fineweb_SPLIT_bytes_*.bin, where they fit the tokens, and a sentence on them for people."""
    files = shard_files(directory, f"{split}_bytes")
    if not files:
        return [], ""
    counts = [read_shard(path) for path in files]
    named = f"{files[0].name}{f' and {len(files) - 1} more' if len(files) > 1 else ''}"
    if [len(count) for count in counts] != [len(shard) for shard in shards]:
        held, wanted = sum(map(len, counts)), sum(map(len, shards))
        note = f"{named} has byte counts of {held:,} tokens, where the {split} split has {wanted:,}: they are not used"
        return [], note
    return counts, f"bytes are counted as {named} says, by whoever made the data, and not by the tokenizer"


def _expect_form(directory: Path, split: str, recorded: dict[str, Any], index: npt.NDArray[Any]) -> None:
    """Raise DataError where what a manifest says of a split's text has no sense, or is not what its index says."""
    lossless, repair = recorded.get("lossless"), recorded.get("repair_bits")
    wrong = ""
    if not isinstance(lossless, bool | None):
        wrong = f"lossless={lossless!r}, which is neither true nor false"
    elif isinstance(repair, bool) or not isinstance(repair, int | float | None) or (repair is not None and repair < 0):
        wrong = f"repair_bits={repair!r}, which is no number of bits"
    elif (found := text_hash(index)) != recorded["text_hash"]:
        wrong = f"the text hash {str(recorded['text_hash'])[:16]}…, where that of the document index is {found[:16]}…"
    if wrong:
        raise DataError(
            f"the manifest of {directory} gives the {split} split {wrong}: it was changed; prepare or fetch the data "
            "again"
        )


def open_split(directory: Path, split: str, recorded: dict[str, Any] | None, *, indexed: bool = True) -> Split:
    """Open the shards of a split, `recorded` what a manifest says of it. Raises DataError if they do not fit.

    Without a manifest an index is taken where there is one, unless it is not asked for (not `indexed`).
    """
    files = shard_files(directory, split)
    if recorded is None:
        shards = [read_shard(path) for path in files]
        path = directory / index_name(split)
        index = read_index(path) if indexed and path.is_file() else None
        counts, note = _byte_counts(directory, split, shards)
        return Split(split, files, shards, index, byte_counts=counts, byte_note=note)
    expected = [directory / file["name"] for file in recorded["files"]]
    for path in {*expected} ^ {*files}:
        state = "is missing" if path in expected else "is not in the manifest"
        raise DataError(f"the shard {path} {state}; prepare the data again")
    shards = [read_shard(path) for path in expected]
    for path, shard, file in zip(expected, shards, recorded["files"], strict=True):
        if len(shard) != file["tokens"]:
            raise DataError(f"{path} has {len(shard)} tokens, but the manifest says {file['tokens']}; prepare it again")
    path = directory / recorded["index"]["name"]
    index = read_index(path)
    if "sha256" in recorded["index"]:
        expect_digest(path, recorded["index"]["sha256"])
    if len(index) != recorded["documents"]:
        raise DataError(
            f"the index of {directory} ({split}) has {len(index)} documents, but the manifest says "
            f"{recorded['documents']}; prepare the data again"
        )
    _expect_form(directory, split, recorded, index)
    lost = recorded.get("lost") or (dict.fromkeys(_LOST, 0) if recorded.get("lossless") else None)
    return Split(
        split,
        expected,
        shards,
        index,
        recorded["text_hash"],
        recorded["stream_hash"],
        recorded.get("lossless"),
        recorded.get("repair_bits"),
        {key: lost[key] for key in _LOST} if lost else None,
        sha256=[file["sha256"] for file in recorded["files"]],
    )
