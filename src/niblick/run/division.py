"""How a cap is divided between text and weights: by what each split of it buys on training text that was held back.

Text makes what learns from it better, and leaves fewer bits for each weight. Every way is tried whole: text chosen
among the documents that are not held back, packed, read, and weights fitted to what is left; the documents held back
are then scored as the artifact would score them.

Shapes: N tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from niblick.config.run_config import RunConfig
from niblick.data.dataset import Dataset, Split
from niblick.errors import ArtifactError
from niblick.pack.fit import Fit, Telling, dequantized
from niblick.run.loading import build_model
from niblick.run.prepared import expect_reader
from niblick.score.plan import document_starts
from niblick.score.scorers import score_split
from niblick.train.precision import autocast, pick_device

SHARES = (0.0, 0.25, 0.5, 1.0)
"""Of the text that is wanted at most; none first: where weights do not fit alone, no text need be packed to say so."""
HELD_BACK = 1 << 16
"""Tokens that are held back, at most, and of a sixteenth of the documents at most."""


@dataclass(frozen=True, kw_only=True)
class Division:
    """One way to divide a cap, and what it makes of the documents held back."""

    share: float
    """Of the text that is wanted at most."""
    text_bytes: int
    packed_text: int
    weights: int
    """Bytes of all the rest of the artifact."""
    bpb: float


def divide(
    config: RunConfig, dataset: Dataset, room: int, fitted: Callable[[int], Fit], telling: Telling
) -> tuple[Division, ...]:
    """Try shares of `config.export.text` in an artifact of `room` bytes; return what was tried, the best first.

    `fitted` gives the best weights for so many bytes. Raises ConfigError if no sidecar would read a text, and
    ArtifactError if weights do not even fit without one.
    """
    from niblick.pack.chosen_text import chosen_text, document_bytes  # which compile: only where they are used
    from niblick.score.known_text import KnownText

    expect_reader(config)
    held, rest = hold_back(dataset.train, dataset.tokenizer.bos_id)
    if not held.tokens:
        telling.say("the training text is one document, so none is held back to try shares of it: all of it is taken")
        return ()
    scorer = replace(config.score, max_seconds=None, documents=0)
    device = pick_device(config.train.device)
    model = build_model(config.model, seed=0).to(device).eval()
    begin_D = document_starts(rest, dataset.tokenizer.bos_id)
    most = int(document_bytes(rest, dataset.tokenizer, begin_D, np.append(begin_D[1:], rest.tokens)).sum())
    tried: list[Division] = []
    counts = {int(share * min(config.export.text, most)): share for share in reversed(SHARES)}
    for count, share in sorted(counts.items()):
        known, packed = None, 0
        if count:
            telling.say(f"trying {count:,} bytes of text")
            tokens_N, told, documents = chosen_text(rest, dataset.tokenizer, count)
            known = KnownText.packing(tokens_N, config.model.vocab_size, config.score.sidecar, told, documents)
            packed = len(known.packed.data)
        try:
            weights = fitted(room - packed)
        except ArtifactError as error:
            if not count:
                raise
            telling.say(f"{count:,} bytes of text take {packed:,}: {error}")
            continue
        model.load_state_dict(dequantized(weights.encoded))
        with torch.no_grad(), autocast(device, config.train.dtype):
            bpb = score_split(model, held, dataset.tokenizer, scorer, text=known).bpb
        tried.append(Division(share=share, text_bytes=count, packed_text=packed, weights=weights.bytes, bpb=bpb))
        telling.say(f"{packed:>12,} bytes of text and {weights.bytes:,} of all else: {bpb:.4f} BPB of text held back")
    return tuple(sorted(tried, key=lambda division: division.bpb))


def hold_back(split: Split, bos_id: int) -> tuple[Split, Split]:
    """Return documents of a split that are held back, and the others: every sixteenth, until they are enough."""
    begin_D = document_starts(split, bos_id)
    end_D = np.append(begin_D[1:], split.tokens)
    held, room = set(), HELD_BACK
    for d in range(len(begin_D))[7::16] or range(min(1, len(begin_D) - 1)):
        if room <= 0:
            break
        held.add(d)
        room -= int(end_D[d] - begin_D[d])

    def part(keep: bool) -> Split:
        chosen = [d for d in range(len(begin_D)) if (d in held) is keep]
        spans = [split.slice(int(begin_D[d]), int(end_D[d] - begin_D[d])) for d in chosen]
        return Split("held back" if keep else "train", [], spans)

    return part(True), part(False)
