"""From blocks of text to blocks of tokens, over several processes, in order, with a bounded amount in flight.

This module is what worker processes import, so it must not import torch.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.data.blocks import BLOCK_BYTES
from niblick.data.documents import Block
from niblick.data.index import RECORD
from niblick.data.tokenizers import ByteTokenizer, Tokenizer
from niblick.errors import DataError

_PATIENCE = 1.0
"""Seconds of encoding in this process before others are started: they take about half of that to come up."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A document that did not come back: its place among the others, its UTF-8 bytes and those that came instead.

    `texts` has the original and what it decoded to; it is None where nobody asked for more than one example.
    """

    document: int
    original_bytes: int
    decoded_bytes: int
    texts: tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class Encoded:
    """Consecutive documents as one run of tokens. In `records`, offsets count from its start, sources in `sources`.

    For each document without text that was left out, `skipped` has how many of these stand before it.
    """

    tokens: npt.NDArray[np.uint16]
    records: npt.NDArray[Any]
    sources: list[str]
    losses: list[Loss]
    skipped: list[int]

    def split(self, count: int) -> tuple[Encoded, Encoded]:
        """Cut after `count` documents."""
        if count >= len(self.records):
            return self, Encoded(self.tokens[:0], self.records[:0], self.sources, [], [])
        cut = int(self.records["offset"][count])
        rest = self.records[count:].copy()
        rest["offset"] -= np.uint64(cut)
        before = [loss for loss in self.losses if loss.document < count]
        after = [replace(loss, document=loss.document - count) for loss in self.losses if loss.document >= count]
        near = [at for at in self.skipped if at < count]
        far = [at - count for at in self.skipped if at >= count]
        return (
            Encoded(self.tokens[:cut], self.records[:count], self.sources, before, near),
            Encoded(self.tokens[cut:], rest, self.sources, after, far),
        )


def encode_block(block: Block, tokenizer: Tokenizer, keep_texts: bool = False) -> Encoded:
    """Tokenize all documents of a block, each with a BOS before it, and see which of them come back.

    `keep_texts` has every loss carry its texts, not only the first.
    """
    read = block.read()
    documents = read.kept
    texts = [document.text for document in documents]
    sources = list(dict.fromkeys(document.source for document in documents))
    number = {name: i for i, name in enumerate(sources)}
    utf8 = [text.encode() for text in texts]
    with ThreadPoolExecutor(1) as beside:  # hashing leaves the interpreter to others
        hashed = beside.submit(lambda: b"".join(hashlib.sha256(text).digest() for text in utf8))
        stream = tokenizer.encode_documents(utf8) if isinstance(tokenizer, ByteTokenizer) else None
        if stream is None:
            stream, lengths, losses = _one_by_one(texts, utf8, tokenizer, keep_texts)
        else:
            lengths, losses = np.fromiter(map(len, utf8), np.int64, len(utf8)) + 1, []
        records = np.zeros(len(documents), RECORD)
        records["tokens"] = lengths
        records["offset"] = np.cumsum(lengths) - lengths
        records["source"] = [number[document.source] for document in documents]
        records["bytes"] = list(map(len, utf8))
        records["sha256"] = np.frombuffer(hashed.result(), np.uint8).reshape(-1, 32)
    return Encoded(stream, records, sources, losses, read.skipped)


def _one_by_one(
    texts: list[str], utf8: list[bytes], tokenizer: Tokenizer, keep_texts: bool
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64], list[Loss]]:
    """Tokens of documents, each after a BOS; how many each has, BOS included; and those that do not come back."""
    encoded = tokenizer.encode_batch(texts)
    losses: list[Loss] = []
    for i, (tokens, text) in enumerate(zip(encoded, utf8, strict=True)):
        decoded = tokenizer.decode(tokens)
        if decoded != text:
            losses.append(Loss(i, len(text), len(decoded), (text, decoded) if keep_texts or not losses else None))
    lengths = np.fromiter((len(tokens) + 1 for tokens in encoded), np.int64, len(encoded))
    stream = np.empty(int(lengths.sum()), np.uint16)
    for end, tokens in zip(np.cumsum(lengths), encoded, strict=True):
        stream[end - len(tokens) - 1] = tokenizer.bos_id
        stream[end - len(tokens) : end] = tokens
    return stream, lengths, losses


def encode_blocks(
    blocks: Iterator[Block], tokenizer: Tokenizer, workers: int, keep_texts: Callable[[], bool]
) -> Generator[Encoded, None, None]:
    """Encode `blocks` in their order with `workers` processes; what comes out does not depend on their number.

    `keep_texts` is asked before each block (see `encode_block`). Only about one block per worker is ever under way.
    Closing the generator stops the workers. Raises DataError as reading and encoding do.
    """
    start = time.monotonic()
    while workers == 1 or time.monotonic() < start + _PATIENCE:
        if (first := next(blocks, None)) is None:
            return
        yield encode_block(first, tokenizer, keep_texts())
    # Spawned, not forked: the same on every platform, and no threads of torch are copied half-way.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (tokenizer,))
    waiting: deque[tuple[int, Future[Encoded]]] = deque()
    in_flight = 0
    try:
        for block in blocks:
            while waiting and in_flight + block.size > (workers + 1) * BLOCK_BYTES * 3 // 2:
                size, future = waiting.popleft()
                yield future.result()
                in_flight -= size
            waiting.append((block.size, pool.submit(_encode_in_worker, block, keep_texts())))
            in_flight += block.size
        while waiting:
            yield waiting.popleft()[1].result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died while encoding (out of memory, killed, or started from a script without "
            "`if __name__ == '__main__':`); run again with one worker"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_worker_tokenizer: Tokenizer


def _start_worker(tokenizer: Tokenizer) -> None:
    global _worker_tokenizer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which stops the others
    _worker_tokenizer = tokenizer


def _encode_in_worker(block: Block, keep_texts: bool) -> Encoded:
    return encode_block(block, _worker_tokenizer, keep_texts)
