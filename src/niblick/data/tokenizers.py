"""Tokenizers: text to uint16 tokens and back to bytes, and how many bytes a token counts for.

`byte260` is the published byte tokenizer: pad 0, bos 1, eos 2, unk 3, then the 256 byte values from 4 on. Subwords are
in `subwords`. BOS is never added here: whoever writes a stream puts one before each document.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from niblick.data.subwords import SentencePieceTokenizer
from niblick.errors import DataError, nearest

Tokens = npt.NDArray[np.uint16]


class Tokenizer(Protocol):
    """What data preparation, scoring and generation need of a tokenizer."""

    @property
    def name(self) -> str:
        """Short name, part of dataset names, such as `byte260`."""

    @property
    def kind(self) -> str:
        """Family, as in the challenge's manifest."""

    @property
    def vocab_size(self) -> int:
        """Tokens are smaller than this."""

    @property
    def bos_id(self) -> int:
        """The token that starts every document."""

    def encode_batch(self, texts: list[str]) -> list[Tokens]:
        """Return the tokens of each text, without BOS. Texts must be encodable as UTF-8."""

    def decode(self, tokens: npt.NDArray[Any]) -> bytes:
        """Return the UTF-8 bytes that `tokens` stand for; control tokens stand for none."""

    def pieces(self) -> list[bytes]:
        """Return the bytes that each token of the vocabulary stands for amid a text; control tokens for none."""

    def token_bytes(self, previous: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the bytes each token counts for by the challenge's rule, given the token before it (same shape)."""

    def spec(self) -> dict[str, Any]:
        """Return what `make_tokenizer` needs to build it again, as JSON."""


class ByteTokenizer:
    """byte260: every byte is a token, so every text comes back exactly."""

    name = "byte260"
    kind = "byte"
    vocab_size = 260
    bos_id = 1
    offset = 4
    """The token of byte 0; smaller tokens are control tokens: pad, bos, eos, unk."""

    def encode_batch(self, texts: list[str]) -> list[Tokens]:
        """Return the tokens of each text, without BOS."""
        offset = np.uint16(self.offset)
        return [np.add(np.frombuffer(text.encode(), np.uint8), offset, dtype=np.uint16) for text in texts]

    def decode(self, tokens: npt.NDArray[Any]) -> bytes:
        """Return the bytes of `tokens`. Raises DataError for a token outside the vocabulary."""
        tokens = np.asarray(tokens)
        if tokens.size == 0:
            return b""
        if int(tokens.max()) >= self.vocab_size:
            raise DataError(f"token {int(tokens.max())} is outside byte260, which has {self.vocab_size} tokens")
        if int(tokens.min()) < self.offset:
            tokens = tokens[tokens >= self.offset]
        return np.subtract(tokens, self.offset, dtype=np.uint8, casting="unsafe").tobytes()

    def pieces(self) -> list[bytes]:
        """Return the byte of every token; control tokens have none."""
        return [b""] * self.offset + [bytes([value]) for value in range(256)]

    def token_bytes(self, previous: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return 1 for every byte token and 0 for control tokens; `previous` does not matter here."""
        return (np.asarray(tokens) >= self.offset).astype(np.int64)

    def spec(self) -> dict[str, Any]:
        """Return what `make_tokenizer` needs to build it again."""
        return {"name": self.name, "kind": self.kind, "vocab_size": self.vocab_size, "bos_id": self.bos_id, "eos_id": 2}


KNOWN = ("byte260", "FILE.model", "sp:1024")


def make_tokenizer(name_or_spec: str | Mapping[str, Any], directory: Path | None = None) -> Tokenizer:
    """Build a tokenizer from its name (`byte260`, `FILE.model`) or from the `spec()` in a manifest.

    `directory` is where paths in a spec count from: that of the manifest. Raises DataError for unknown tokenizers and
    for model files that are missing or wrong.
    """
    if isinstance(name_or_spec, str):
        if name_or_spec == "byte260":
            return ByteTokenizer()
        if name_or_spec.endswith(".model"):
            return SentencePieceTokenizer.read(Path(name_or_spec))
        raise DataError(f"there is no tokenizer {name_or_spec!r}{nearest(name_or_spec, KNOWN)}")
    name, kind = str(name_or_spec.get("name")), str(name_or_spec.get("kind"))
    if kind == "byte" or kind == "pure_byte":
        return ByteTokenizer()
    if kind.startswith("sentencepiece"):
        if directory is None:
            raise DataError(f"the tokenizer {name} needs its model file; open the data that it came with")
        path = directory / str(name_or_spec.get("model_path"))
        return SentencePieceTokenizer.read(path, name, name_or_spec.get("model_sha256"))
    raise DataError(f"the tokenizer {name} is of a kind that niblick does not know ({kind})")
