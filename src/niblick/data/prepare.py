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
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from niblick.arguments import Count, PathLike, Source, checked
from niblick.challenge import rules
from niblick.data.asked import Asked, already_there, asked, with_contents
from niblick.data.corpus import Corpus, corpus_of_foreign, corpus_of_shards, open_corpus
from niblick.data.dataset import Dataset
from niblick.data.documents import AS_IT_IS, Reading, no_documents, refuse_unused
from niblick.data.download import PREFIX, Files, challenge_documents, fetch_shards
from niblick.data.encode import Encoded, encode_blocks
from niblick.data.hub import PREFIX as HUB
from niblick.data.hub_text import hub_rows
from niblick.data.row_sources import Rows, python_rows, written_down
from niblick.data.subword_training import Normalization, train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import Tokenizer, make_tokenizer, write_model_file
from niblick.data.vocabularies import Vocabulary
from niblick.data.writing import DatasetWriter, appearing_whole, refuse_used
from niblick.errors import DataError
from niblick.facts.reading import plain
from niblick.memory import keep_freed_memory

MAX_WORKERS = 6
"""Processes by default at most: each takes 70 MB, and preparation stays under a gigabyte (`make memory`)."""

Manifest = dict[str, Any]
"""Of a dataset, as JSON: the challenge's form, and what we add."""
Progress = Callable[[int, int], None]
"""Told after every few megabytes: documents and UTF-8 bytes so far."""


@checked
def prepare(
    source: Source,
    tokenizer: str | None,
    out: PathLike,
    *,
    val_docs: int | None = None,
    val_share: float | None = None,
    max_docs: int | None = None,
    shard_tokens: int = rules.SHARD_TOKENS,
    workers: Count | None = None,
    normalization: Normalization = "identity",
    train_shards: int | None = None,
    shuffle_seed: int | None = None,
    hub: Files | None = None,
    reading: Reading = AS_IT_IS,
    progress: Progress | None = None,
) -> Manifest:
    """Make a dataset of `source` in `out` and return its manifest.

    `source` is a file, a folder, Python's own text by name, a dataset on the hub (`hf:REPO`, see `hub`), or what a
    program has at hand: strings, mappings, a table or a column of pyarrow, pandas or polars.

    `tokenizer` is `byte260` (the default), FILE.model, FILE.json, or `sp:VOCAB`, trained on the training documents with
    `normalization`. `val_docs` first documents become the validation split, or `val_share` of them (0.05 is one in
    twenty); one text alone is cut for that at the ends of its paragraphs. `max_docs` are read in all, `workers`
    processes encode (default: one per core, at most 6; for bytes none but this one). The source `challenge:docs`
    streams the challenge's documents; `challenge:sp1024` and its like fetch `train_shards` finished shards, tokenizer
    included (`hub` is where from). `shuffle_seed` shuffles a dataset of the hub. `reading` is how files are read. An
    `out` that was made by the same arguments of the same text stays as it is. Raises DataError for bad input and for an
    `out` that is in use otherwise; then nothing is left in it.
    """
    out, known = Path(out), tokenizer or "byte260"
    source = os.fspath(source) if isinstance(source, os.PathLike) else source
    _check_numbers(
        val_docs=(val_docs, 0), max_docs=(max_docs, 1), shard_tokens=(shard_tokens, 1), train_shards=(train_shards, 0)
    )
    if val_share is not None and not 0 < val_share < 1:
        raise DataError(f"--val-share is {val_share}; give a share between 0 and 1, as 0.05 for one in twenty")
    if val_share is not None and val_docs is not None:
        raise DataError("--val-docs and --val-share both say what is held out; give one of them")
    rows = _rows(source, reading, shuffle_seed)
    wanted = asked(
        rows.source if rows else str(source),
        known,
        reading,
        revision=rows.revision if rows else "",
        normalization=normalization,
        val_docs=val_docs,
        val_share=val_share,
        max_docs=max_docs,
        shard_tokens=shard_tokens,
    )
    build = partial(
        _build,
        tokenizer=known,
        out=out,
        max_docs=max_docs,
        shard_tokens=shard_tokens,
        workers=workers,
        normalization=normalization,
        progress=progress,
    )
    if rows:
        return _of_rows(rows, wanted, known, out, reading, build, progress)
    assert isinstance(source, str)
    variant = source.removeprefix(PREFIX) if source.startswith(PREFIX) else None
    shards = variant is not None and variant != "docs"
    refuse_unused(source, reading)
    if variant is not None and val_share is not None:
        raise DataError(f"the validation documents of {source} are fixed by the challenge; leave --val-share out")
    if shards:
        _refuse_for_shards(source, tokenizer, val_docs, max_docs)
    elif train_shards is not None:
        raise DataError(f"{source} is text, which has no shards yet; leave --train-shards out, or say --max-docs")
    else:
        _refuse_wrong(known)
    there = already_there(out, wanted, source, known)
    if there is not None:
        return there
    refuse_used(out)
    if shards and variant is not None:
        return fetch_shards(variant, out, train_shards=train_shards, files=hub, progress=progress)
    corpus = (
        challenge_documents(val_docs, hub) if variant else open_corpus(source, val_docs, max_docs, reading, val_share)
    )
    return build(_with_facts(corpus, wanted, source, known))


def _refuse_for_shards(source: str, tokenizer: str | None, val_docs: int | None, max_docs: int | None) -> None:
    """Raise DataError for what would do nothing with finished shards."""
    variant = source.removeprefix(PREFIX)
    if tokenizer not in (None, variant):
        raise DataError(
            f"{source} is shards of {variant} already; leave the tokenizer out, and convert them, "
            f"or take {PREFIX}docs, for tokens of {tokenizer}"
        )
    for name, value in (("--val-docs", val_docs), ("--max-docs", max_docs)):
        if value is not None:
            raise DataError(f"{source} is finished shards, whose splits stay as they are; leave {name} out")


def _refuse_wrong(tokenizer: str) -> None:
    """Raise DataError for a tokenizer that is none: that is better found before the text is read."""
    if not re.fullmatch(r"sp:\d+", tokenizer):
        make_tokenizer(tokenizer)


def _with_facts(corpus: Corpus, wanted: Asked, contents: str | None, tokenizer: str) -> Corpus:
    facts = corpus.facts | {"asked": plain(with_contents(wanted, contents, tokenizer))}
    return replace(corpus, facts=facts)


def _rows(source: str | Iterable[object], reading: Reading, shuffle_seed: int | None) -> Rows | None:
    """The rows of a source that is no file and no name of text. Raises DataError for what would do nothing there."""
    on_hub = isinstance(source, str) and source.startswith(HUB)
    if shuffle_seed is not None and not on_hub:
        raise DataError(f"--shuffle-seed is for datasets of the hub, {HUB}REPO; leave it out")
    if isinstance(source, str) and not on_hub:
        return None
    for flag, given in (("--separator", reading.separator), ("--files", reading.files)):
        if given:
            raise DataError(f"rows are read from no text files, so {flag} would do nothing; leave it out")
    if isinstance(source, str):
        return hub_rows(source, reading.text_key, shuffle_seed)
    return python_rows(source, reading.text_key)


def _of_rows(
    rows: Rows,
    wanted: Asked,
    tokenizer: str,
    out: Path,
    reading: Reading,
    build: Callable[[Corpus], Manifest],
    progress: Progress | None,
) -> Manifest:
    """Write the rows down, and make a dataset of that file; a commit that is there already is not fetched again."""
    _refuse_wrong(tokenizer)
    contents = str(rows.folder) if rows.folder else None
    if (contents or rows.revision) and (there := already_there(out, wanted, contents, tokenizer)) is not None:
        return there
    with written_down(rows, out, wanted.max_docs, reading.skip_empty, progress) as path:
        if not (contents or rows.revision):
            contents = str(path)
            if (there := already_there(out, wanted, contents, tokenizer)) is not None:
                return there
        refuse_used(out)
        try:
            as_lines = Reading(skip_empty=reading.skip_empty)
            corpus = open_corpus(str(path), wanted.val_docs, wanted.max_docs, as_lines, wanted.val_share)
            corpus = replace(corpus, name=rows.name, source=rows.source, facts=corpus.facts | dict(rows.facts))
            return build(_with_facts(corpus, wanted, contents, tokenizer))
        except DataError as error:  # which names the file that was written
            raise DataError(str(error).replace(str(path), rows.called)) from error


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
) -> Manifest:
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
) -> Manifest:
    keep_freed_memory()
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
        write_model_file(built, partial)
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
