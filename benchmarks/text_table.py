"""Which training text an artifact should hold: ways to choose, by what they save; a table for docs.

Every sixteenth training document is held back, and text for the artifact is chosen from the others. Each row says what
the text takes when packed, and the bits per byte that a mixture without a model then needs for the documents held back,
which decide, and for the validation split, which does not.

Usage: python benchmarks/text_table.py [--sizes BYTES …] [--mix strong] [--memory MIB] DATASET
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import numpy as np

from niblick.data.dataset import Dataset, Split
from niblick.data.tokenizers import Tokenizer
from niblick.pack.chosen_text import chosen_text
from niblick.score.mixture import SETTINGS, Integers, Mixture
from niblick.score.plan import document_starts

HELD, EVERY = 3, 16


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000, 600_000, 1_500_000])
    parser.add_argument("--mix", choices=list(SETTINGS), default="strong")
    parser.add_argument("--memory", type=int, default=128)
    asked = parser.parse_args()
    dataset = Dataset.open(Path(asked.dataset))
    documents = split_documents(dataset.train, dataset.tokenizer)
    held = [d for n, d in enumerate(documents) if n % EVERY == HELD]
    rest = [d for n, d in enumerate(documents) if n % EVERY != HELD]
    val = dataset.val.slice(0, dataset.val.tokens).astype(np.int64)
    texts = {"held back": np.concatenate(held), "validation": val}
    print("| text | how it is chosen | documents | packed bytes | held back | validation | seconds |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for size in [0, *asked.sizes, 10**12]:
        for way in ("none",) if not size else ("all",) if size == 10**12 else WAYS:
            started = time.process_time()
            tokens_N = taken(way, rest, size, dataset.tokenizer)
            seconds = time.process_time() - started
            mixture = Mixture(dataset.tokenizer.vocab_size, SETTINGS[asked.mix], asked.memory)
            packed = mixture.read(tokens_N).sum() / math.log(2) / 8
            bpb = {
                name: copy.deepcopy(mixture).read(text)[1:].sum() / math.log(2) / len(dataset.tokenizer.decode(text))
                for name, text in texts.items()
            }
            count = int((tokens_N == dataset.tokenizer.bos_id).sum())
            told = len(dataset.tokenizer.decode(tokens_N))
            row = (f"{told:,}", way, f"{count:,}", f"{packed:,.0f}", *(f"{b:.4f}" for b in bpb.values()))
            print(f"| {' | '.join(row)} | {seconds:.0f} |", flush=True)


WAYS = ("the first", "the last", "evenly spread", "the largest", "what saves most for its bytes")


def split_documents(split: Split, tokenizer: Tokenizer) -> list[Integers]:
    """Return the tokens of each document."""
    begin_D = document_starts(split, tokenizer.bos_id)
    return [part.astype(np.int64) for part in np.split(split.slice(0, split.tokens), begin_D[1:])]


def taken(way: str, documents: list[Integers], size: int, tokenizer: Tokenizer) -> Integers:
    """Return text of about `size` bytes, in the order of the stream; whole documents."""
    if way == "none":
        return np.zeros(0, np.int64)
    if way == "all":
        return np.concatenate(documents)
    if way == WAYS[-1]:
        stream = np.concatenate(documents).astype(np.uint16)
        return chosen_text(Split("train", [], [stream]), tokenizer, size)[0]
    count = len(documents)
    orders = {
        "the first": range(count),
        "the last": range(count)[::-1],
        "evenly spread": np.random.default_rng(0).permutation(count).tolist(),
        "the largest": sorted(range(count), key=lambda d: -len(documents[d])),
    }
    chosen, room = [], size
    for d in orders[way]:
        if len(documents[d]) <= room:
            chosen.append(d)
            room -= len(documents[d])
    return np.concatenate([documents[d] for d in sorted(chosen)])


if __name__ == "__main__":
    main()
