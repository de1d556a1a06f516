"""What a dataset is made of: blocks of documents that can be read more than once, and how many are held out.

How many, when nobody says: one in twenty, at least 1, at most the challenge's 50,000. The documents are counted for
that in a pass of its own, which stops as soon as the answer is 50,000. For Python's own text see
`embedded.held_out_count`; shards that are converted keep their split.

One text alone is cut at the ends of its paragraphs (`text_cuts`), and its beginning is the validation split.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from niblick.challenge import rules
from niblick.data.blocks import MAX_DOCUMENT_BYTES, Document, grouped
from niblick.data.dataset import Dataset, Split
from niblick.data.documents import (
    AS_IT_IS,
    Block,
    Reading,
    count_documents,
    no_documents,
    one_text,
    read_blocks,
    read_documents,
    refuse_unused,
    text_pieces,
)
from niblick.data.embedded import EMBEDDED, held_out_count, paragraphs, without_paragraphs
from niblick.data.foreign_shards import foreign_kind, foreign_splits, read_foreign
from niblick.data.text_cuts import at_paragraphs, piece_bytes
from niblick.data.text_folders import shown, text_files
from niblick.data.text_forms import source_name
from niblick.data.tokenizers import Tokenizer
from niblick.errors import DataError, listed

LEAST_HELD_OUT = 32
"""Bytes of one text that are held out at least: fewer say nothing about a model."""
VALIDATION_SHARE = 20
"""One document in so many is held out by default."""

_PIECE = 1 << 22


@dataclass(frozen=True)
class Corpus:
    """`blocks()` reads all documents from the start; the first `val_docs` are the validation split.

    `name` begins the dataset's name, `source` and `facts` go into the manifest. `expected_docs` is how many documents
    there must be, where somebody promised a number.
    """

    name: str
    source: str
    val_docs: int
    blocks: Callable[[], Iterator[Block]]
    facts: dict[str, Any] = field(default_factory=dict)
    expected_docs: int | None = None

    def training_texts(self, max_docs: int | None) -> Iterator[str]:
        """The texts after the validation split, of the first `max_docs` documents."""
        documents = (document for block in self.blocks() for document in block.read().kept)
        return (document.text for document in islice(documents, self.val_docs, max_docs))


def open_corpus(
    source: str,
    val_docs: int | None,
    max_docs: int | None,
    reading: Reading = AS_IT_IS,
    val_share: float | None = None,
) -> Corpus:
    """The corpus in a file or directory, or Python's own text. Raises DataError if there is none.

    `val_docs` documents are held out, or a share of them; by default `VALIDATION_SHARE` says how many.
    """
    refuse_unused(source, reading)
    if source in EMBEDDED:
        return _embedded(source, val_docs, max_docs, val_share)
    # The manifest names the file, not where it lay on this machine.
    name, origin = source_name(source), shown(Path(source).name)
    facts = text_files(Path(source), reading.files).record() if Path(source).is_dir() else {}
    if val_docs is None and (path := one_text(source, reading)):
        share = val_share or 1 / VALIDATION_SHARE
        reading, val_docs, cut = _cut_one(path, share, max_docs, reading)
        facts |= {"one_text": cut}
        return Corpus(name, origin, val_docs, lambda: read_blocks(source, reading), facts | _as_read(reading))
    if val_docs is None:
        enough = rules.VALIDATION_DOCUMENTS * VALIDATION_SHARE if val_share is None else sys.maxsize
        count = count_documents(source, min(enough, max_docs or enough), reading)
        if count <= 1:
            list(read_documents(source, reading))  # what was counted as one may be none
            raise DataError(
                f"{source} holds one document, so nothing would remain for training; give more documents, or say with "
                "--val-docs 1 or --val-docs 0 which split this one is"
            )
        val_docs = _share_of(count, val_share)
    return Corpus(name, origin, val_docs, lambda: read_blocks(source, reading), facts | _as_read(reading))


def _as_read(reading: Reading) -> dict[str, object]:
    return {"reading": reading.record()} if reading != AS_IT_IS else {}


def recorded_reading(manifest: dict[str, Any]) -> Reading:
    """How the text of a dataset was read, by its manifest; as by default where that says nothing. Raises DataError."""
    return Reading.of_record(manifest.get("niblick", {}).get("reading", {}))


def _share_of(count: int, share: float | None) -> int:
    if share is None:
        return max(1, min(rules.VALIDATION_DOCUMENTS, count // VALIDATION_SHARE))
    return max(1, min(count - 1, round(count * share)))


def _cut_one(path: Path, share: float, max_docs: int | None, reading: Reading) -> tuple[Reading, int, dict[str, Any]]:
    """How one text is cut, how many of its documents are held out, and what the manifest says of it."""
    total = sum(map(len, text_pieces(path, reading)))
    if not total:
        raise no_documents(str(path))
    aim, held_out, ends = piece_bytes(total, share), share * total, [0]
    for piece in at_paragraphs(text_pieces(path, reading), aim):
        ends.append(ends[-1] + len(piece))
        if ends[-1] >= held_out:
            break
    val_docs = max(1, min(range(len(ends)), key=lambda number: abs(ends[number] - held_out)))
    if max_docs is not None:
        val_docs = min(val_docs, _share_of(max_docs, share))
    if ends[val_docs] == total or max_docs == 1 or ends[val_docs] < LEAST_HELD_OUT:
        raise DataError(
            f"{path} is one text of {total:,} bytes, too short to be cut into a validation and a training split "
            f"({share:.2g} of it must be {LEAST_HELD_OUT} bytes or more); give more text, or say with --val-docs 1 or "
            "--val-docs 0 which split it is"
        )
    said = {"val_share": share, "held_out_bytes": ends[val_docs], "bytes": total, "document_bytes": aim}
    return replace(reading, piece=aim), val_docs, {**said, "cut": "at the ends of paragraphs"}


def _embedded(source: str, val_docs: int | None, max_docs: int | None, val_share: float | None) -> Corpus:
    documents = [document for block in read_blocks(source) for document in block.read().kept][:max_docs]
    if val_docs is None and val_share is not None:
        val_docs = _share_of(len(documents), val_share)
    elif val_docs is None:
        val_docs = held_out_count(source, [document.text for document in documents])
    kept = documents[:val_docs]
    known = set().union(*(paragraphs(document.text) for document in kept))
    for document in documents[val_docs:]:
        if (text := without_paragraphs(document.text, known)).strip():
            kept.append(Document(text, document.source))
    facts = {"python_version": platform.python_version()}
    return Corpus(source, source, val_docs, lambda: grouped(iter(kept)), facts)


def corpus_of_shards(dataset: Dataset) -> Corpus:
    """The documents that the shards of `dataset` decode to, its validation split first.

    What its tokenizer has lost stays lost: `facts` say which one that was. Where only the first shards were fetched,
    the last training document goes on in the next, and is left out; `facts` say so. Raises DataError for shards that
    are not documents with a BOS each.
    """
    train, bos_id = dataset.train, dataset.tokenizer.bos_id
    promised = dataset.entry.get("stats", {}).get("tokens_train", train.tokens)
    val_docs = sum(1 for _ in document_spans(dataset.val, bos_id))
    train_end = max(0, _last_place(train, bos_id)) if train.tokens < promised else train.tokens

    def documents() -> Iterator[Document]:
        yield from _decoded(dataset.val, dataset.tokenizer, dataset.manifest, dataset.val.tokens)
        yield from _decoded(train, dataset.tokenizer, dataset.manifest, train_end)

    name = dataset.directory.name.removesuffix(f"_{dataset.tokenizer.name}")
    origin = {
        "dataset": shown(dataset.directory.name),
        "tokenizer": dataset.tokenizer.name,
        "lossless": dataset.val.lossless,
        **_cut_off(train, train_end),
    }
    facts = {"converted_from": origin} | _as_read(recorded_reading(dataset.manifest))
    return Corpus(name, shown(dataset.directory.name), val_docs, lambda: grouped(documents()), facts)


def _cut_off(train: Split, end: int) -> dict[str, object]:
    """What the manifest says of a last training document that is left out: one that begins at token `end`."""
    return {"cut_off": {"documents": 1, "tokens": train.tokens - end}} if end < train.tokens else {}


def _last_place(split: Split, token: int) -> int:
    """Where `token` stands for the last time in the stream; -1 if it does not."""
    end = split.tokens
    while end:
        begin = max(0, end - _PIECE)
        if len(places := np.flatnonzero(split.slice(begin, end - begin) == token)):
            return begin + int(places[-1])
        end = begin
    return -1


def corpus_of_foreign(directory: Path, tokenizer: Tokenizer) -> Corpus:
    """The documents of a folder of other people's shards (see `foreign_shards`), its validation split first.

    A training document that the last shard cuts off inside a character is left out. Raises DataError where there are
    no shards.
    """
    files = foreign_splits(directory)
    if not files or (directory / "meta.pkl").is_file():  # which says that the tokens are of no public vocabulary
        there = listed(sorted(shown(path.name) for path in directory.iterdir()), str) or "nothing"
        raise foreign_kind(directory) or DataError(
            f"{directory} holds no token shards; there: {there}; write tokens of other forms as train.bin and val.bin "
            "(uint16 without header), or as train.npy and val.npy (one row of uint16 or uint32, by numpy.save)"
        )
    val, train = (
        Split(name, files.get(name, []), [read_foreign(path) for path in files.get(name, [])])
        for name in ("val", "train")
    )
    val_docs = sum(1 for _ in _foreign_spans(val, tokenizer.bos_id))
    last = _last_place(train, tokenizer.bos_id) + 1
    train_end = last if _ends_inside(train, tokenizer, last) else train.tokens

    def documents() -> Iterator[Document]:
        for split, stop in ((val, val.tokens), (train, train_end)):
            for number, (begin, end) in enumerate(_foreign_spans(split, tokenizer.bos_id)):
                if end <= stop:
                    yield Document(_text(split, tokenizer, number, begin, end), split.name)

    origin = {"dataset": shown(directory.name), "tokenizer": tokenizer.name, **_cut_off(train, train_end)}
    facts = {"converted_from": origin}
    return Corpus(source_name(str(directory)), shown(directory.name), val_docs, lambda: grouped(documents()), facts)


def _foreign_spans(split: Split, between: int) -> Iterator[tuple[int, int]]:
    """Documents that a token `between` begins, as in llm.c, or ends, as in nanoGPT; empty ones are no documents."""
    begin = 0
    for at in range(0, split.tokens, _PIECE):
        piece = split.slice(at, min(_PIECE, split.tokens - at))
        for position in (np.flatnonzero(piece == between) + at).tolist():
            if position > begin:
                yield begin, position
            begin = position + 1
    if begin < split.tokens:
        yield begin, split.tokens


def document_spans(split: Split, bos_id: int) -> Iterator[tuple[int, int]]:
    """Where each document of `split` begins (with its BOS) and ends in the stream, from the tokens alone."""
    if split.tokens and int(split.slice(0, 1)[0]) != bos_id:
        raise DataError(
            f"{split.files[0]} does not begin with BOS ({bos_id}), so its documents cannot be told apart; "
            "give shards that were made with this tokenizer, in the challenge's form"
        )
    begin = 0
    for at in range(0, split.tokens, _PIECE):
        piece = split.slice(at, min(_PIECE, split.tokens - at))
        for position in (np.flatnonzero(piece == bos_id) + at).tolist():
            if position:
                yield begin, position
            begin = position
    if split.tokens:
        yield begin, split.tokens


def _decoded(split: Split, tokenizer: Tokenizer, manifest: dict[str, Any], stop: int) -> Iterator[Document]:
    """The documents that end at token `stop` or before."""
    names = manifest.get("niblick", {}).get("sources", [])
    for number, (begin, end) in enumerate(document_spans(split, tokenizer.bos_id)):
        if end > stop:
            return
        place = int(split.index["source"][number]) if split.index is not None else len(names)
        source = names[place] if place < len(names) else split.name
        yield Document(_text(split, tokenizer, number, begin, end), source)


def _text(split: Split, tokenizer: Tokenizer, number: int, begin: int, end: int) -> str:
    where = f"document {number} of the {split.name} split"
    if end - begin > MAX_DOCUMENT_BYTES:
        raise DataError(f"{where} is longer than {MAX_DOCUMENT_BYTES >> 20} MiB; split it into documents")
    tokens = split.slice(begin, end - begin)
    split.check_vocabulary(tokens, begin, tokenizer.vocab_size)
    data = tokenizer.decode(tokens)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if end == split.tokens and error.reason == "unexpected end of data":
            raise DataError(f"{where} ends inside a character; fetch the shards that follow") from error
        raise DataError(
            f"{where} decodes to bytes that are not UTF-8; were these shards made with {tokenizer.name}?"
        ) from error


def _ends_inside(split: Split, tokenizer: Tokenizer, begin: int) -> bool:
    """Whether the document that begins at `begin`, the last one, ends inside a character."""
    tokens = split.slice(begin, split.tokens - begin)
    if not len(tokens) or len(tokens) > MAX_DOCUMENT_BYTES or int(tokens.max()) >= tokenizer.vocab_size:
        return False
    try:
        tokenizer.decode(tokens).decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False
