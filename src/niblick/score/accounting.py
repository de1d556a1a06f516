"""What a score says about its text: is all of it in the tokens, and what does a byte of the original cost?

A lossy tokenizer makes the text easier: its score counts bits of what is left. `bpb_repaired` adds the bits of the
patch that gives the original back (see `data.repair`), and divides by the original's bytes.
"""

from __future__ import annotations

from niblick.data.dataset import Split
from niblick.facts.scores import TextFacts
from niblick.score.scorers import Score


def text_facts(score: Score, split: Split) -> TextFacts:
    """Return what a score record holds about losses of `split`, on which `score` was made; None for what is unknown.

    `lossless`; `documents` and `original_bytes` of the text; `lost`: documents that do not come back, their bytes, and
    the bytes that come instead; `repair_bits`; `bpb_repaired`, which is the score itself where nothing is lost.
    """
    documents = original_bytes = repaired = None
    if split.index is not None:
        documents, original_bytes = len(split.index), int(split.index["bytes"].sum(dtype="int64"))
    if split.lossless:
        repaired = score.bpb
    elif split.lossless is False and original_bytes and split.repair_bits is not None:
        repaired = (score.bits + split.repair_bits) / original_bytes
    return TextFacts(
        lossless=split.lossless,
        documents=documents,
        original_bytes=original_bytes,
        lost=split.lost,
        repair_bits=split.repair_bits,
        bpb_repaired=repaired,
    )
