"""Text to a dataset: shards, document index and manifest, streamed, and there only when all of it is.

OUT/manifest.json                                   the challenge's form, and under `niblick` what we add
OUT/tokenizers/NAME.model                           the tokenizer, if it has a file
OUT/datasets/NAME/fineweb_{train,val}_000000.bin …  BOS before each document, documents run on across shards
OUT/datasets/NAME/fineweb_{train,val}.documents.npy the document index
OUT/datasets/NAME/fineweb_val.repair.xz             if the tokenizer lost text: what gives it back

Whether it lost any is a fact of tokenizer and text: every document is decoded and compared.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from niblick.challenge import rules
from niblick.data.asked import already_there, asked, with_contents
from niblick.data.corpus import Corpus, corpus_of_foreign, corpus_of_shards, open_corpus
from niblick.data.dataset import Dataset
from niblick.data.documents import AS_IT_IS, Reading, no_documents, refuse_unused
from niblick.data.download import PREFIX, Files, challenge_documents, fetch_shards
from niblick.data.encode import Encoded, encode_blocks
from niblick.data.subword_training import Normalization, train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import Tokenizer, make_tokenizer
from niblick.data.vocabularies import Vocabulary
from niblick.data.writing import DatasetWriter, appearing_whole, refuse_used
from niblick.errors import DataError
from niblick.facts.reading import plain

MAX_WORKERS = 6
"""Processes by default at most: each takes 70 MB, and preparation stays under a gigabyte (`make memory`)."""

Progress = Callable[[int, int], None]
"""Told after every few megabytes: documents and UTF-8 bytes so far."""


def prepare(
    source: str,
    tokenizer: str | None,
    out: str | Path,
    *,
    val_docs: int | None = None,
    val_share: float | None = None,
    max_docs: int | None = None,
    shard_tokens: int = rules.SHARD_TOKENS,
    workers: int | None = None,
    normalization: Normalization = "identity",
    train_shards: int | None = None,
    hub: Files | None = None,
    reading: Reading = AS_IT_IS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make a dataset of `source` in `out` and return its manifest.

    `tokenizer` is `byte260` (the default), FILE.model, or `sp:VOCAB`, trained on the training documents with
    `normalization`. `val_docs` first documents become the validation split, or `val_share` of them (0.05 is one in
    twenty); one text alone is cut for that at the ends of its paragraphs. `max_docs` are read in all, `workers`
    processes encode (default: one per core, at most 6; for bytes none but this one). The source `challenge:docs`
    streams the challenge's documents; `challenge:sp1024` and its like fetch `train_shards` finished shards, tokenizer
    included (`hub` is where from). `reading` is how files are read. An `out` that was made by the same arguments of the
    same text stays as it is. Raises DataError for bad input and for an `out` that is in use otherwise; then nothing is
    left in it.
    """
    out = Path(out)
    wanted = asked(
        source,
        tokenizer or "byte260",
        reading,
        normalization=normalization,
        val_docs=val_docs,
        val_share=val_share,
        max_docs=max_docs,
        shard_tokens=shard_tokens,
    )
    there = already_there(out, wanted, source, tokenizer or "byte260")
    if there is not None:
        return there
    refuse_used(out)
    _check_numbers(val_docs=(val_docs, 0), max_docs=(max_docs, 1), shard_tokens=(shard_tokens, 1))
    if val_share is not None and not 0 < val_share < 1:
        raise DataError(f"--val-share is {val_share}; give a share between 0 and 1, as 0.05 for one in twenty")
    if val_share is not None and val_docs is not None:
        raise DataError("--val-docs and --val-share both say what is held out; give one of them")
    variant = source.removeprefix(PREFIX) if source.startswith(PREFIX) else None
    if variant is not None:
        refuse_unused(source, reading)
        if val_share is not None:
            raise DataError(f"the validation documents of {source} are fixed by the challenge; leave --val-share out")
    if variant is not None and variant != "docs":
        if tokenizer not in (None, variant):
            raise DataError(
                f"{source} is shards of {variant} already; leave the tokenizer out, and convert them, "
                f"or take {PREFIX}docs, for tokens of {tokenizer}"
            )
        for name, value in (("--val-docs", val_docs), ("--max-docs", max_docs)):
            if value is not None:
                raise DataError(f"{source} is finished shards, whose splits stay as they are; leave {name} out")
        return fetch_shards(variant, out, train_shards=train_shards, files=hub, progress=progress)
    if train_shards is not None:
        raise DataError(f"{source} is text, which has no shards yet; leave --train-shards out, or say --max-docs")
    tokenizer = tokenizer or "byte260"
    if not re.fullmatch(r"sp:\d+", tokenizer):
        make_tokenizer(tokenizer)  # a wrong name is better found before the text is read
    corpus = (
        challenge_documents(val_docs, hub) if variant else open_corpus(source, val_docs, max_docs, reading, val_share)
    )
    facts = corpus.facts | {"asked": plain(with_contents(wanted, source, tokenizer))}
    corpus = replace(corpus, facts=facts)
    return _build(corpus, tokenizer, out, max_docs, shard_tokens, workers, normalization, progress)


def _check_numbers(**numbers: tuple[int | None, int]) -> None:
    """Raise DataError for a number that is smaller than the least beside it."""
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise DataError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")


def convert(
    directory: str | Path,
    tokenizer: str,
    out: str | Path,
    *,
    given: Tokenizer | None = None,
    shard_tokens: int = rules.SHARD_TOKENS,
    workers: int | None = None,
    normalization: Normalization = "identity",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Decode the shards in `directory` to documents and make a dataset of them with another tokenizer.

    The shards need BOS tokens, but no index; `given` is their tokenizer where no manifest names it. They may be other
    projects' (`foreign_shards`), `given` then the vocabulary that decodes them. The splits stay as they are. Raises
    DataError as `prepare` and `Dataset.open` do.
    """
    out = Path(out)
    refuse_used(out)
    _check_numbers(shard_tokens=(shard_tokens, 1))
    corpus = _shards(Path(directory), given)
    return _build(corpus, tokenizer, out, None, shard_tokens, workers, normalization, progress)


def _shards(directory: Path, given: Tokenizer | None) -> Corpus:
    own = any(directory.glob("**/fineweb_*.bin"))
    if given is not None and directory.is_dir() and (isinstance(given, Vocabulary) or not own):
        return corpus_of_foreign(directory, given)
    return corpus_of_shards(Dataset.open(directory, given))


def _build(
    corpus: Corpus,
    tokenizer: str,
    out: Path,
    max_docs: int | None,
    shard_tokens: int,
    workers: int | None,
    normalization: Normalization,
    progress: Progress | None,
) -> dict[str, Any]:
    built = _tokenizer(tokenizer, normalization, corpus, max_docs)
    with appearing_whole(out) as partial:
        writer = DatasetWriter(partial, corpus, built, shard_tokens)
        try:
            blocks, processes = corpus.blocks(), workers or _default_workers(built)
            with closing(encode_blocks(blocks, built, processes, lambda: writer.wants_validation)) as encoded:
                for part in _limited(encoded, max_docs):
                    writer.write(part)
                    if progress:
                        progress(writer.documents, writer.bytes)
            writer.close()
        except BaseException:
            writer.abandon()
            raise
        _check_counts(corpus, writer, max_docs)
        if isinstance(built, SentencePieceTokenizer):
            path = partial / built.spec()["model_path"]
            path.parent.mkdir()
            path.write_bytes(built.model)
        return writer.manifest()


def _tokenizer(name: str, normalization: Normalization, corpus: Corpus, max_docs: int | None) -> Tokenizer:
    vocab_size = re.fullmatch(r"sp:(\d+)", name)
    if vocab_size is None:
        if normalization != "identity":
            raise DataError(f"{name} is not trained here, so its normalization cannot be chosen; leave that out")
        return make_tokenizer(name)
    model = train_subwords(corpus.training_texts(max_docs), int(vocab_size[1]), normalization)
    suffix = "" if normalization == "identity" else f"_{normalization}"
    return SentencePieceTokenizer(f"sp{vocab_size[1]}{suffix}", model)


def _default_workers(tokenizer: Tokenizer) -> int:
    # Making bytes into tokens takes less time than sending them to another process and back.
    return 1 if tokenizer.kind == "byte" else min(os.cpu_count() or 1, MAX_WORKERS)


def _limited(parts: Iterator[Encoded], max_docs: int | None) -> Iterator[Encoded]:
    left = max_docs
    for part in parts:
        if left is not None:
            part, _ = part.split(left)
            left -= len(part.records)
        yield part
        if left == 0:
            return


def _check_counts(corpus: Corpus, writer: DatasetWriter, max_docs: int | None) -> None:
    held_out = writer.val.index.documents
    if writer.documents == 0:
        raise no_documents(corpus.source, writer.skipped)
    for name, split in (("validation", writer.val), ("training", writer.train)):
        if split.index.documents and not split.index.bytes:
            raise DataError(
                f"the {split.index.documents:,} documents of the {name} split of {corpus.source} are all empty, so it "
                "holds no byte; leave documents without text out (`niblick data prepare --skip-empty`)"
            )
    if held_out < corpus.val_docs:
        raise DataError(
            f"{corpus.source} holds {held_out} documents, fewer than the {corpus.val_docs} asked for validation"
        )
    if max_docs is None and corpus.expected_docs not in (None, writer.documents):
        raise DataError(
            f"{corpus.source} gave {writer.documents} documents where its manifest promises {corpus.expected_docs}; "
            "run it again"
        )
