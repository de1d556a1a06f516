"""What each part of the mixture gives, on any prepared datasets of bytes, beside the compressors: a table for docs.

Every row but the first takes one part away from the strong setting, and gives the bits per byte that are then needed
on the validation split. With an artifact, its model is among what is mixed. `--primed` lets the mixture read the
training text first, without the model.

Usage: python benchmarks/mixture_table.py [--primed] [--documents N] [--parts] [--memory MIB] DATASET[=ARTIFACT] …
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niblick.data.dataset import Dataset, Split
from niblick.run.loading import load_artifact
from niblick.score.baselines import PREFIX_BYTES, compressor_baselines, label
from niblick.score.mixture import FAST, STRONG, Floats, Integers, Mixture, Setting
from niblick.score.ngram_mixture import NgramMixture
from niblick.score.score_config import ScoreConfig, SidecarConfig
from niblick.score.scorers import score_split

PARTS = {
    "strong": STRONG,
    "without words, lines, columns, gaps": replace(STRONG, text=False),
    "without the model's guess as context": replace(STRONG, guess=False),
    "without match models": replace(STRONG, matches=()),
    "one match model instead of three": replace(STRONG, matches=(6,)),
    "without a slot's own probability": replace(STRONG, confidence=False),
    "one set of weights instead of seven": replace(STRONG, sets=1),
    "without the last stages": replace(STRONG, stages=False),
    "contexts of 0 to 6 bytes only": replace(STRONG, orders=(0, 1, 2, 3, 4, 5, 6)),
    "fast": FAST,
}


def main() -> None:
    """Print one table for each dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--primed", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--documents", type=int, default=0)
    parser.add_argument("--memory", type=int, default=128)
    asked = parser.parse_args()
    for text in asked.datasets:
        folder, _, artifact = text.partition("=")
        print(f"\n{Path(folder).name}\n\n| what | BPB | kB/s |\n| --- | ---: | ---: |", flush=True)
        for name, bpb, speed in rows(Dataset.open(Path(folder)), artifact, asked):
            print(f"| {name} | {bpb:.4f} | {speed:,.0f} |", flush=True)


def rows(dataset: Dataset, artifact: str, asked: argparse.Namespace) -> Iterator[tuple[str, float, float]]:
    """Give what was done, its bits per byte and its kB of held-out text a second of processor time."""
    split = dataset.val.first_documents(asked.documents, dataset.tokenizer) if asked.documents else dataset.val
    tokens = split.slice(0, split.tokens).astype(np.int64)
    held_out = dataset.tokenizer.decode(tokens.astype(np.uint16))
    training = dataset.train.slice(0, dataset.train.tokens) if asked.primed else np.zeros(0, np.uint16)
    text = dataset.tokenizer.decode(training) if asked.primed else None
    found = compressor_baselines(held_out, text, slow=PREFIX_BYTES) if not asked.parts else {}
    for name, row in found.items():
        if bool(row["prefix_bytes"]) == asked.primed:
            yield label(name), row["bits_per_byte"], len(held_out) / 1000 / row["seconds"]
    settings = PARTS if asked.parts else {name: PARTS[name] for name in ("strong", "fast")}
    model = distributions(dataset, artifact, split) if artifact else None
    for p_NV in (None,) if model is None else (None, model):
        if asked.parts and model is not None and p_NV is None:
            continue
        if p_NV is not None:
            yield "the model alone", bits(-np.log(p_NV[np.arange(len(tokens)), tokens]), held_out), math.nan
        for name, setting in settings.items():
            bpb, speed = mixed(setting, asked.memory, training.astype(np.int64), tokens, p_NV, held_out)
            yield f"mixture, {name}{', with the model' if p_NV is not None else ''}", bpb, speed
    if model is not None and not asked.primed and not asked.parts:
        start = time.process_time()
        nats_N = ngrams(tokens, model, dataset.tokenizer.bos_id)
        yield (
            "sidecar ngram, with the model",
            bits(nats_N, held_out),
            len(held_out) / 1000 / (time.process_time() - start),
        )


def mixed(
    setting: Setting, memory: int, training: Integers, tokens: Integers, p_NV: Floats | None, held_out: bytes
) -> tuple[float, float]:
    """Return bits per byte and kB/s of a mixture that may have read the training text."""
    mixture = Mixture(260, setting, memory)
    mixture.read(training)
    start = time.process_time()
    nats_N = mixture.read(tokens, p_NV)
    return bits(nats_N, held_out), len(held_out) / 1000 / (time.process_time() - start)


def ngrams(tokens: Integers, p_NV: Floats, bos_id: int) -> Floats:
    """Return the nats of each token under the n-gram mixture with its defaults; the first is not predicted."""
    config, nats = SidecarConfig("ngram"), [np.zeros(1)]
    mixture = NgramMixture(p_NV.shape[1], config.order, config.weight, config.rate, bos_id)
    mixture.reveal(int(tokens[0]))
    for start in range(1, len(tokens), 1008):
        part = slice(start, start + 1008)
        log_q_NV = mixture.adjust(np.log(p_NV[part]), tokens[part])
        nats.append(-log_q_NV[np.arange(len(log_q_NV)), tokens[part]])
    return np.concatenate(nats)


def bits(nats_N: Floats, held_out: bytes) -> float:
    """Return bits per byte of all tokens but the first, which opens the stream."""
    return float(nats_N[1:].sum()) / math.log(2) / len(held_out)


def distributions(dataset: Dataset, artifact: str, split: Split) -> Floats:
    """Return what the model says before each token, p_NV, as the score of the run asks it."""
    model, _ = load_artifact(Path(artifact))
    vocab_size = model.config.vocab_size
    p_NV = np.full((split.tokens, vocab_size), 1 / vocab_size)

    def keep(first: int, logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        log_p_NV = logits_NV.double().log_softmax(1)
        p_NV[first : first + len(targets_N)] = log_p_NV.exp().numpy()
        return log_p_NV[torch.arange(len(targets_N)), targets_N]

    score_split(model, split, dataset.tokenizer, ScoreConfig(), sidecar=keep)
    return p_NV


if __name__ == "__main__":
    main()
