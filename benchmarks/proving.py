"""Speed of coding text with the model `hnet-small` (`niblick compress`), beside scoring the same text, in one run."""

from __future__ import annotations

import numpy as np

from measure import Row, compare
from niblick.data.dataset import Split
from niblick.data.embedded import embedded_documents
from niblick.data.tokenizers import ByteTokenizer
from niblick.recipes.presets import get_preset
from niblick.score.coding import Layout, encode
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import score_split
from scoring import trained_like


def bench_proving(quick: bool) -> list[Row]:
    """Return one row: bytes coded a second; decoding takes the same steps. `quick`: two kilobytes."""
    config = get_preset("hnet-small")
    text = "".join(text for text, _ in embedded_documents("pydocs")).encode()[: 2_000 if quick else 130_000]
    tokens = np.append(np.uint16(1), np.frombuffer(text, np.uint8) + np.uint16(4)).astype(np.uint16)
    model, windows = trained_like(config.model), ScoreConfig(seq_len=config.score.seq_len)
    layout = Layout(len(tokens), np.zeros(1, np.int64), windows, 1, config.model.vocab_size)
    split = Split("val", [], [tokens])
    return [
        compare(
            f"code {len(text) // 1000} kB with the model `hnet-small`, {len(layout.blocks()[0])} lanes, float32",
            lambda: list(encode(model, tokens, layout)),
            lambda: score_split(model, split, ByteTokenizer(), windows),
            peer_name="scoring the same text",
            repeats=1 if quick else 3,
            amount=len(text) / 1000,
            unit="kB/s",
        )
    ]
