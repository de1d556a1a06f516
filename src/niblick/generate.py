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

from niblick.data.dataset import Dataset
from niblick.data.tokenizers import Tokenizer, make_tokenizer
from niblick.errors import ConfigError
from niblick.loading import expect_tokenizer, load_artifact
from niblick.model.lm import LM
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

        Raises ConfigError for a prompt that does not leave room in the context.
        """
        bos, device = self.tokenizer.bos_id, next(self.model.parameters()).device
        tokens = [bos, *self.tokenizer.encode_batch([prompt])[0].tolist()]
        if len(tokens) >= self.context:
            raise ConfigError(
                f"the prompt is {len(tokens) - 1:,} tokens long, and the model's context has room for fewer than "
                f"{self.context - 1:,}: shorten it"
            )
        random, state = torch.Generator().manual_seed(config.seed), self.model.new_state(1, self.context)
        text, left, starts = _Text(self.tokenizer, tokens), config.max_bytes, False
        for token in tokens:
            hidden_1D, _ = self.model.step_hidden(torch.tensor([token], device=device), state)
        while len(tokens) < self.context:
            token = draw(self.model.head(hidden_1D)[0].double().cpu(), text.allowed(left), config, random)
            if token == bos:
                return
            tokens.append(token)
            hidden_1D, levels = self.model.step_hidden(torch.tensor([token], device=device), state)
            starts |= bool(levels) and bool(levels[0][1][0])
            whole, size = text.add(token)
            left -= size
            if left < 0:
                return
            if whole:
                yield Piece(whole, starts)
                starts = False

    @torch.no_grad()
    def bits_per_byte(self, text: str) -> float:
        """Return what `text` costs as a document of its own, in bits per UTF-8 byte of it; BOS is free.

        Cut into windows of the context, each starting afresh. Raises ConfigError for an empty text.
        """
        if not text:
            raise ConfigError("an empty text has no bits per byte: give at least one character")
        ids = np.concatenate(([self.tokenizer.bos_id], self.tokenizer.encode_batch([text])[0])).astype(np.int64)
        stream = torch.from_numpy(ids).to(next(self.model.parameters()).device)
        nats = 0.0
        for start in range(0, len(ids) - 1, self.context):
            window_1L = stream[None, start : start + self.context + 1]
            hidden_1LD, _ = self.model.hidden(window_1L[:, :-1])
            nats += float(self.model.token_losses(hidden_1LD, window_1L[:, 1:]).double().sum())
        return nats / math.log(2) / len(text.encode())

    def chunks(self, text: str) -> list[Chunk]:
        """Cut `text` as the outermost router does. Raises ConfigError for a dense model."""
        return chunks(self.model, self.tokenizer, text)


def load(path: str | Path, data: str | Path | None = None) -> Loaded:
    """Load a model from an artifact file. A subword tokenizer comes from `data`, a folder of its training's data.

    Raises ArtifactError if the file does not hold a model, ConfigError or DataError if its tokenizer is not at hand.
    """
    model, artifact = load_artifact(Path(path))
    if data:
        dataset = Dataset.open(data)
        expect_tokenizer(artifact, dataset, Path(path))
        tokenizer = dataset.tokenizer
    else:
        tokenizer = make_tokenizer(artifact.config["tokenizer"])
    return Loaded(model, tokenizer, int(artifact.config["score"]["seq_len"]))


def draw(logits_V: Tensor, allowed_V: Tensor | None, config: GenerateConfig, random: torch.Generator) -> int:
    """Draw one token: among the allowed ones, then the top_k likeliest, then those that make up top_p."""
    if allowed_V is not None:
        logits_V = logits_V.masked_fill(~allowed_V[: len(logits_V)], float("-inf"))
    if config.temperature == 0:
        return int(logits_V.argmax())
    p_V, order_V = (logits_V / config.temperature).softmax(-1).sort(descending=True)
    if config.top_k:
        p_V[config.top_k :] = 0
    p_V[p_V.cumsum(0) - p_V >= config.top_p * p_V.sum()] = 0
    return int(order_V[torch.multinomial(p_V, 1, generator=random)])


class _Text:
    """What has been generated, as bytes and whole characters."""

    def __init__(self, tokenizer: Tokenizer, prompt: list[int]) -> None:
        self.tokenizer, self.tokens = tokenizer, list(prompt)
        self.done = len(tokenizer.decode(np.array(prompt)))
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pending = b""
        """Bytes of a character that is not whole yet; kept for byte tokenizers alone."""

    def add(self, token: int) -> tuple[str, int]:
        """Take in a token. Returns the characters that are whole now, and the token's bytes."""
        self.tokens.append(token)
        data = self.tokenizer.decode(np.array(self.tokens))[self.done :]
        self.done += len(data)
        whole = self.decoder.decode(data)
        self.pending = b"" if whole else self.pending + data
        return whole, len(data)

    def allowed(self, left: int) -> Tensor | None:
        """Tokens that keep the text valid UTF-8 and within `left` bytes; None where tokens are no bytes."""
        if self.tokenizer.kind != "byte":
            return None
        allowed_V = torch.zeros(self.tokenizer.vocab_size, dtype=torch.bool)
        bytes_V = allowed_V[self.tokenizer.vocab_size - 256 :]
        for low, high in next_bytes(self.pending, left):
            bytes_V[low : high + 1] = True
        allowed_V[self.tokenizer.bos_id] = not self.pending
        return allowed_V


def next_bytes(pending: bytes, left: int) -> list[tuple[int, int]]:
    """Ranges of bytes that may follow the first bytes of a character; a new character needs room within `left`."""
    if not pending:
        return [(0, 0x7F), (0xC2, 0xDF), (0xE0, 0xEF), (0xF0, 0xF4)][:left]
    special = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
    return [special.get(pending[0], (0x80, 0xBF)) if len(pending) == 1 else (0x80, 0xBF)]
