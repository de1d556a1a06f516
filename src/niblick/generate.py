"""A model as it comes out of an artifact, to use from Python: generate text, price it, cut it into chunks.

Generation reads one token at a time (`LM.step`). What it streams is always valid UTF-8: a byte model only draws bytes
that may come next in a character, and characters are handed on when they are whole.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niblick.data.tokenizers import Tokenizer
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.pipeline import load_artifact
from niblick.study.boundaries import Chunk, chunks


@dataclass(frozen=True)
class GenerateConfig:
    """How the next token is drawn."""

    max_bytes: int = 400
    """Bytes after the prompt; a character that would not fit whole is left out."""
    temperature: float = 0.8
    """0 takes the likeliest token each time."""
    top_k: int = 0
    """Draw among so many likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that hold so much probability together."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, fits, range_ in (
            ("max_bytes", self.max_bytes >= 0, "at least 0"),
            ("temperature", 0 <= self.temperature < math.inf, "at least 0 and finite"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not fits:
                raise ConfigError(f"{name}={getattr(self, name)} must be {range_}")


@dataclass(frozen=True)
class Piece:
    """Characters that generation hands on, one or more at a time."""

    text: str
    starts_chunk: bool
    """Whether a chunk of the outermost router starts with them; of a dense model, never."""


class Loaded:
    """A model with its tokenizer. `context` is the window length it was scored with, in tokens."""

    def __init__(self, model: LM, tokenizer: Tokenizer, context: int) -> None:
        self.model, self.tokenizer, self.context = model.eval(), tokenizer, context

    def generate(self, prompt: str = "", config: GenerateConfig | None = None) -> str:
        """Return a continuation of `prompt`, without it. Raises ConfigError as `stream` does."""
        return "".join(piece.text for piece in self.stream(prompt, config or GenerateConfig()))

    @torch.no_grad()
    def stream(self, prompt: str, config: GenerateConfig) -> Iterator[Piece]:
        """Continue `prompt` piece by piece, until max_bytes, the end of the context or the end of the document.

        Raises ConfigError for a prompt that is not shorter than the context.
        """
        tokens = [self.tokenizer.bos_id, *self.tokenizer.encode_batch([prompt])[0].tolist()]
        if len(tokens) >= self.context:
            raise ConfigError(
                f"the prompt is {len(tokens) - 1} tokens long, and the model's context holds {self.context - 1} "
                "besides BOS: shorten it"
            )
        generator = torch.Generator().manual_seed(config.seed)
        state = self.model.new_state(1, context=self.context)
        device = next(self.model.parameters()).device
        text, left = _Utf8(), config.max_bytes
        allowed = _Allowed(self.tokenizer)
        previous, starts, held = tokens[0], False, False
        for i in range(self.context):
            token = torch.tensor([tokens[i]], device=device)
            hidden_BD, levels = self.model.step_hidden(token, state)
            held |= bool(levels and levels[0][1][0]) and i >= len(tokens) - 1 and i > 0
            if i + 1 < len(tokens):
                continue
            if i >= len(prompt_tokens := tokens) - 1 and i > 0:
                del prompt_tokens
            starts, held = held or starts, False
            choice = _draw(self.model.head(hidden_BD)[0].double().cpu(), allowed.mask(left), config, generator)
            if choice is None:
                return
            previous = choice
            tokens.append(previous)
            data = allowed.take(choice)
            left -= len(data)
            if whole := text.add(data):
                yield Piece(whole, starts)
                starts = False
