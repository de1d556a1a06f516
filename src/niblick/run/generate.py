"""A model as it comes out of an artifact, to use from Python: generate text, price it, cut it into chunks.

Generation reads one token at a time (`LM.step`). What it streams is always valid UTF-8: inside a character only bytes
are drawn that may come next in it, and characters are handed on when they are whole. That holds for the tokens of byte
models and for the byte pieces of subword models alike.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import codecs
import copy
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niblick.arguments import Folder, PathLike, check_fields
from niblick.boundaries.cuts import Floats, encode_text
from niblick.boundaries.cuts import chunks as cut
from niblick.boundaries.pictures import Chunks
from niblick.config.run_config import RunConfig
from niblick.data.dataset import Dataset
from niblick.data.tokenizers import Tokenizer
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.run.artifacts import find_artifact
from niblick.run.directory import Run
from niblick.run.loading import declared_score, expect_tokenizer, load_artifact, own_tokenizer
from niblick.run.prepared import config_of


@dataclass(frozen=True)
class GenerateConfig:
    """How the next token is drawn."""

    max_bytes: int = 400
    """Bytes after the prompt: the text ends before the first character that would not fit whole. Less is a beginning
    of more: nothing else about the text depends on it."""
    temperature: float = 0.8
    """0 takes the likeliest token each time."""
    top_k: int = 0
    """Draw among so many likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that hold so much probability together."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for name, fits, range_ in (
            ("max_bytes", self.max_bytes >= 0, "at least 0"),
            ("temperature", 0 <= self.temperature < math.inf, "at least 0 and finite"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("seed", -(1 << 63) <= self.seed < 1 << 64, "a number of 64 bits"),
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
    """A trained model with its tokenizer, as it comes out of an artifact file: what `niblick.load` returns.

    `model` is the torch module, in evaluation mode; `tokenizer` makes its tokens; `context` is the window length, in
    tokens, that it was scored with; `source` is the file it came out of.
    """

    def __init__(self, model: LM, tokenizer: Tokenizer, context: int, source: str = "") -> None:
        self.model, self.tokenizer, self.context, self.source = model.eval(), tokenizer, context, source

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.model.parameters())
        about = f"{weights:,} parameters, {self.tokenizer.name}, context {self.context:,} tokens"
        return f"<Loaded model: {about}{f', from {self.source}' if self.source else ''}>"

    def generate(
        self,
        prompt: str = "",
        *,
        max_bytes: int = 400,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> str:
        """Return a continuation of `prompt`, without it.

        `max_bytes` bounds its UTF-8 bytes. Temperature 0 takes the likeliest token each time; `top_k` draws among so
        many likeliest tokens (0: all), `top_p` among those that hold so much probability. The same seed gives the same
        text. Raises ConfigError for a value that does not fit, and for a prompt that `stream` refuses.
        """
        config = GenerateConfig(max_bytes, temperature, top_k, top_p, seed)
        return "".join(piece.text for piece in self.stream(prompt, config))

    def generate_many(
        self,
        prompts: Sequence[str],
        *,
        max_bytes: int = 400,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[str]:
        """Return a continuation of each prompt; all of them are written together, which is faster than one by one.

        Number i, counted from 0, is what `generate` draws by the seed `seed + i`, as far as rounding does not turn a
        draw: so one prompt given several times has several continuations. Raises as `generate`.
        """
        texts = [""] * len(prompts)
        for i, piece in self.streams(prompts, GenerateConfig(max_bytes, temperature, top_k, top_p, seed)):
            texts[i] += piece.text
        return texts

    def read_back(self, prompt: str) -> str:
        """Return `prompt` as the model reads it: without what its tokenizer loses. Raises ConfigError as `stream`."""
        return self.tokenizer.decode(np.array(self._tokens(prompt))).decode()

    def stream(self, prompt: str, config: GenerateConfig) -> Iterator[Piece]:
        """Continue `prompt` piece by piece, until max_bytes, the end of the context or the end of the document.

        All pieces together are what the tokenizer makes of prompt and continuation, less what it makes of the prompt.
        Raises ConfigError for a prompt that does not leave room in the context or that UTF-8 cannot hold.
        """
        return (piece for _, piece in self.streams([prompt], config))

    def streams(self, prompts: Sequence[str], config: GenerateConfig) -> Iterator[tuple[int, Piece]]:
        """Continue several prompts together: each piece comes with the number of its prompt. Raises as `stream`."""
        if isinstance(prompts, str):
            raise ConfigError("the prompts are one str: give a list of them")
        rows = [self._tokens(prompt) for prompt in prompts]
        for tokens in rows:
            if len(tokens) >= self.context:
                raise ConfigError(
                    f"the prompt is {len(tokens) - 1:,} tokens long, and the model's context has room for fewer than "
                    f"{self.context - 1:,}: shorten it"
                )
        return self._continue(rows, config)

    def _tokens(self, prompt: str) -> list[int]:
        if not isinstance(prompt, str):
            raise ConfigError(f"the prompt is {type(prompt).__name__}: give a str")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"character {error.start + 1} of the prompt is {prompt[error.start]!r}, which UTF-8 cannot hold: "
                "take it out"
            ) from error
        return [self.tokenizer.bos_id, *self.tokenizer.encode_batch([prompt])[0].tolist()]

    @torch.no_grad()
    def _continue(self, prompts: list[list[int]], config: GenerateConfig) -> Iterator[tuple[int, Piece]]:
        if not prompts:
            return
        device, state = next(self.model.parameters()).device, self.model.new_state(len(prompts), self.context)
        fresh = _Text(self.tokenizer)
        rows = [_Row(tokens, fresh.begun(tokens[-1]), config, i) for i, tokens in enumerate(prompts)]
        for place in range(self.context):
            token_B = torch.tensor([row.token(place) for row in rows], device=device)
            hidden_BD, levels = self.model.step_hidden(token_B, state)
            starts = levels[0][1].tolist() if levels else [False] * len(rows)
            for i, row in enumerate(rows):
                if row.writes(place) and (piece := row.take(starts[i])):
                    yield i, piece
            asking = [i for i, row in enumerate(rows) if row.asks(place)]
            if place + 1 == self.context or all(row.ended for row in rows):
                return
            if asking:  # else all are in their prompts
                for i, logits_V in zip(asking, self.model.head(hidden_BD[asking]).double().cpu(), strict=True):
                    rows[i].draw(logits_V)

    @torch.no_grad()
    def logits(self, text: str | bytes) -> Tensor:
        """Return the logits of every token of `text`, float32 (L, V) on the CPU.

        Row t is asked with BOS and the tokens before t, as far as they lie in its window: text longer than the context
        is cut into windows that start afresh. Raises as `bits`.
        """
        return torch.cat([self.model(ids_1L)[0].float().cpu() for ids_1L, _ in self._windows(text)])

    @torch.no_grad()
    def bits(self, text: str | bytes) -> Floats:
        """Return what each token of `text` costs, in bits, float64 (L,): its own `-log2 p` in its window.

        Of a byte model tokens are bytes, so these are bits of each byte. Raises ConfigError for what is no text,
        DataError for an empty text and for one that the tokenizer cannot read.
        """
        nats = []
        for ids_1L, targets_1L in self._windows(text):
            hidden_1LD, _ = self.model.hidden(ids_1L)
            nats.append(self.model.token_losses(hidden_1LD, targets_1L)[0].double().cpu().numpy())
        return np.concatenate(nats) / math.log(2)

    def bits_per_byte(self, text: str | bytes) -> float:
        """Return what `text` costs as a document of its own, in bits per UTF-8 byte of it; BOS is free.

        Raises as `bits`.
        """
        return float(self.bits(text).sum()) / len(text.encode() if isinstance(text, str) else text)

    def _windows(self, text: str | bytes) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows of a text: what the model reads, and what it is to tell, each (1, L)."""
        stream = torch.from_numpy(encode_text(text, self.tokenizer)).to(next(self.model.parameters()).device)
        for start in range(0, len(stream) - 1, self.context):
            window_1L = stream[None, start : start + self.context + 1]
            yield window_1L[:, :-1], window_1L[:, 1:]

    def chunks(self, text: str | bytes) -> Chunks:
        """Cut `text` as the outermost router does. Raises as `niblick.chunks`."""
        return Chunks(chunk for chunk in chunks(self, text) if chunk.level == 0)


def chunks(model: Loaded, text: str | bytes) -> Chunks:
    """Cut `text` as the routers of a loaded model do: the outermost level's chunks first, then those inside it.

    Text longer than the model's context is read in windows that overlap by half. Raises ConfigError for a model
    without a router, DataError for a text that is empty or that the tokenizer cannot read.
    """
    return Chunks(cut(model.model, model.tokenizer, text, model.context))


def load(
    target: PathLike = "latest",
    data: PathLike = "",
    *,
    runs: Folder = "runs",
) -> Loaded:
    """Load the model of an artifact file, of a run (its path, id or `latest`), or of `RUN:NAME`, one of its artifacts.

    Or of a folder that `niblick push` wrote, here or on the hub (`hf:REPO[@REVISION]`). `runs` is the folder in which
    ids are looked up. A subword tokenizer comes from `data`, a folder of its training's data; by default from the one
    that the run was trained on, or from beside what was pushed. Raises ConfigError or ArtifactError for what is not
    there or holds no model, ConfigError or DataError if its tokenizer is not at hand; DataError as the hub does.
    """
    path, run = find_artifact(os.fspath(target), Path(runs))
    return load_file(path, os.fspath(data), data_of(run))


def data_of(run: Run | None) -> str:
    """The folder of the data that a run was trained on, where it is there still.

    The run's recipe is loaded first: its model may have parts of its own. Raises ConfigError as `config_of`.
    """
    path = config_of(run).data.path if run is not None else ""
    return path if Path(path).is_dir() else ""


def load_file(path: Path, data: str | Path = "", trained_on: str | Path = "") -> Loaded:
    """Load a model from an artifact file. A subword tokenizer comes from `data`, or `trained_on`, or lies beside it.

    `trained_on` is not opened for a tokenizer that needs no file. Raises ArtifactError if the file
    does not hold a model, ConfigError or DataError if its tokenizer is not at hand.
    """
    model, artifact = load_artifact(path)
    config, _ = declared_score(artifact, path)
    data = data or (trained_on if "model_path" in artifact.config["tokenizer"] else "")
    if data:
        dataset = Dataset.open(data)
        expect_tokenizer(artifact, dataset, path)
        tokenizer = dataset.tokenizer
    else:
        tokenizer = own_tokenizer(artifact, path)
    return Loaded(model, tokenizer, config.seq_len, str(path))


def written(model: LM, tokenizer: Tokenizer, config: RunConfig) -> str:
    """Return what a model writes as it is now, `train.sample_bytes` of it: to be looked at while it trains.

    Nothing, if it cannot step: no run ends for want of a sample, whatever a user's own part may raise.
    """
    training = model.training
    try:
        loaded = Loaded(model, tokenizer, config.score.seq_len)
        return loaded.generate(max_bytes=config.train.sample_bytes, seed=config.seed)
    except Exception:
        return ""
    finally:
        model.train(training)


def draw(logits_V: Tensor, allowed_V: Tensor, config: GenerateConfig, random: torch.Generator) -> int:
    """Draw one token: among the allowed ones, then the top_k likeliest, then those that make up top_p."""
    logits_V = logits_V.masked_fill(~allowed_V, float("-inf"))
    if config.temperature == 0:
        return int(logits_V.argmax())
    p_V, order_V = ((logits_V - logits_V.max()) / config.temperature).softmax(-1).sort(descending=True)
    if config.top_k:
        p_V[config.top_k :] = 0
    p_V[p_V.cumsum(0) - p_V >= config.top_p * p_V.sum()] = 0
    return int(order_V[torch.multinomial(p_V, 1, generator=random)])


class _Row:
    """One text that is being written: its prompt, and what was drawn after it."""

    def __init__(self, prompt: list[int], text: _Text, config: GenerateConfig, number: int) -> None:
        self.tokens, self.read, self.text, self.config = list(prompt), len(prompt), text, config
        seed = config.seed + number
        self.random = torch.Generator().manual_seed(seed if seed < 1 << 64 else seed - (1 << 64))
        self.left, self.starts, self.ended = config.max_bytes, False, False

    def token(self, place: int) -> int:
        """The token at a place; a text that has ended stays at its last."""
        return self.tokens[min(place, len(self.tokens) - 1)]

    def writes(self, place: int) -> bool:
        """Whether the token at a place was drawn."""
        return not self.ended and place >= self.read

    def take(self, starts: bool) -> Piece | None:
        """Hand on what the last token made whole; `starts` says whether a chunk starts with it."""
        self.starts |= starts
        data = self.text.add(self.tokens[-1]).encode()
        whole, self.left = data[: self.left].decode(errors="ignore"), self.left - len(data)
        if not whole:
            return None
        piece, self.starts = Piece(whole, self.starts), False
        return piece

    def asks(self, place: int) -> bool:
        """Whether the next token is to be drawn after that at a place; else the text is in its prompt, or ends."""
        self.ended |= self.left < 0 or (self.left == 0 and place + 1 >= self.read)
        return not self.ended and place + 1 == len(self.tokens)

    def draw(self, logits_V: Tensor) -> None:
        """Draw the next token, or end."""
        token = draw(logits_V, self.text.allowed(), self.config, self.random)
        self.ended = token in self.text.ending
        self.tokens.append(token)


class _Text:
    """What tokens add to the text, one after the other, and which may come next so that it stays valid UTF-8."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids, decode = range(tokenizer.vocab_size), tokenizer.decode
        self.first = [decode(np.array([i])) for i in ids]
        """Bytes of each token after a control token: pieces of SentencePiece models may lose their space there."""
        self.bytes = [decode(np.array([i, i]))[len(self.first[i]) :] for i in ids]
        """Bytes of each token anywhere else; none for control tokens."""
        self.last, self.decoder = tokenizer.bos_id, codecs.getincrementaldecoder("utf-8")()
        self.ending = list(tokenizer.end_ids)
        self.fitting: dict[bytes, Tensor] = {}
        """Tokens that may come next, by the first bytes of a character that stand before."""

    def begun(self, last: int) -> _Text:
        """The same for another text; `last` is the last token of its prompt, BOS if that is empty."""
        text = copy.copy(self)
        text.last, text.decoder = last, codecs.getincrementaldecoder("utf-8")()
        return text

    def add(self, token: int) -> str:
        """Take in a token. Returns the characters that are whole now."""
        data = self.bytes[token] if self.bytes[self.last] else self.first[token]
        self.last = token
        return self.decoder.decode(data)

    def allowed(self) -> Tensor:
        """Tokens that may come next: those that go on with a character as it was begun; between two, ends as well."""
        pending = self.decoder.getstate()[0]
        if pending not in self.fitting:
            fits_V = torch.tensor([bool(data) and begins_text(pending + data) for data in self.bytes])
            if not pending:
                fits_V[self.ending] = True
            self.fitting[pending] = fits_V
        return self.fitting[pending]


def begins_text(data: bytes) -> bool:
    """Whether `data` is UTF-8, or the beginning of UTF-8 that is cut inside a character."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        rest = data[error.start :]
        cut = error.reason == "unexpected end of data"
        return cut and all(
            any(low <= byte <= high for low, high in next_bytes(rest[:i])) for i, byte in enumerate(rest)
        )
    return True


def next_bytes(pending: bytes) -> list[tuple[int, int]]:
    """Ranges of bytes that may follow the first bytes of a character that is not complete yet."""
    if not pending:
        return [(0, 0x7F), (0xC2, 0xF4)]
    special = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}
    return [special.get(pending[0], (0x80, 0xBF)) if len(pending) == 1 else (0x80, 0xBF)]
