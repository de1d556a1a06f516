"""Guides: boundaries that are known, towards which a router is trained before it is set free (`train.init_from`).

    whitespace        where a run of space-like bytes starts
    bpe:FILE.model    where a token of a SentencePiece model starts, in the same bytes
    entropy           where a small model is unsure of the next token (the model is `entropy.artifact`)

A guide is only a target of training, so unlike a router it may look ahead, as the edges of BPE do.

Shapes: B batch, L positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niblick.data.subwords import SentencePieceTokenizer
from niblick.errors import ConfigError, expect_free, nearest
from niblick.model.model_config import UNTAUGHT, ModelConfig
from niblick.model.providers import Whitespace

Guide = Callable[[Tensor], Tensor]
"""From ids_BL to the boundaries that a router is first trained towards."""

GUIDES: dict[str, Callable[[ModelConfig], Guide]] = {
    "whitespace": lambda config: Whitespace(config.vocab_size),
}
"""Guides that need nothing but the model's config."""
_OTHERS = ("bpe", "entropy")


def register_guide(name: str, guide: Callable[[ModelConfig], Guide]) -> None:
    """Make `name` available as `train.init_from`. Raises ConfigError if it is taken by another guide."""
    expect_free("guide", GUIDES | dict.fromkeys(_OTHERS), name, guide, ConfigError)
    GUIDES[name] = guide


def make_guide(name: str, config: ModelConfig, entropy: Guide | None = None) -> Guide:
    """Return the guide of that name; `entropy` is the one it stands for, read off a small model.

    Raises ConfigError if there is none, or if it does not fit the model; DataError if a model file does not.
    """
    kind, _, file = name.partition(":")
    if kind not in GUIDES and kind not in _OTHERS:
        raise ConfigError(f"unknown train.init_from {name!r}{nearest(kind, (*GUIDES, *_OTHERS))}")
    if not config.levels:
        raise ConfigError(f"train.init_from={name!r} trains a router, and this model is dense: it has none")
    if (router := config.levels[0].router) in UNTAUGHT:
        raise ConfigError(f"train.init_from={name!r} trains a router, and the router {router!r} has nothing to learn")
    if kind == "bpe":
        if not file:
            raise ConfigError("train.init_from=bpe needs the file of a SentencePiece model: bpe:FILE.model")
        return SubwordEdges(SentencePieceTokenizer.read(Path(file)), config.vocab_size)
    if file:
        raise ConfigError(f"train.init_from={name!r} names a file, and {kind!r} takes none: leave {':' + file!r} away")
    if kind == "entropy":
        if entropy is None:
            raise ConfigError("train.init_from=entropy asks a small trained model: name it, entropy.artifact=FILE.nib")
        return entropy
    return GUIDES[kind](config)


class SubwordEdges:
    """Boundaries where tokens of a SentencePiece model start, for ids that are bytes; control tokens are boundaries.

    Each stretch between control tokens is encoded as a text of its own. Where a window cuts a character, its bytes
    belong to no text: none of them is a boundary. Raises ConfigError if ids are no bytes.
    """

    def __init__(self, tokenizer: SentencePieceTokenizer, vocab_size: int) -> None:
        if not 256 <= vocab_size <= 272:
            raise ConfigError(
                f"the edges of {tokenizer.name} are places between bytes, and vocab_size={vocab_size} is no byte "
                "vocabulary: use byte260"
            )
        self.tokenizer, self.controls = tokenizer, vocab_size - 256

    def __call__(self, ids_BL: Tensor) -> Tensor:
        return torch.stack([self._row(ids_L) for ids_L in ids_BL.cpu()]).to(ids_BL.device)

    def _row(self, ids_L: Tensor) -> Tensor:
        ids = ids_L.numpy()
        boundary = ids < self.controls
        stops = [-1, *np.flatnonzero(boundary).tolist(), len(ids)]
        for before, stop in itertools.pairwise(stops):
            data = (ids[before + 1 : stop] - self.controls).astype(np.uint8).tobytes()
            text = data.decode(errors="ignore")
            whole = text.encode()
            cut = data.find(whole)  # bytes of a character whose beginning lies in the window before
            if whole and cut >= 0:
                boundary[before + 1 + cut + self.tokenizer.starts(text)] = True
        return torch.from_numpy(boundary)
