"""Tokenizers: text to uint16 tokens and back to bytes, and how many bytes a token counts for.

`byte260` is the published byte tokenizer: pad 0, bos 1, eos 2, unk 3, then the 256 byte values from 4 on. `byte256` is
that of the H-Net paper: byte values as they are, 254 and 255, which UTF-8 never has, being BOS and EOS. Subwords are in
`subwords`. BOS is never added here: whoever writes a stream puts one before each document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from niblick.data.json_tokenizers import JsonTokenizer
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.vocabularies import ENCODES, SUFFIXES, Vocabulary, decodes_only, other_tokenizer
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

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokens that end a text where one is drawn: BOS of the next, and EOS where documents may end in one."""

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
    bos_id, eos_id = 1, 2
    end_ids: tuple[int, ...] = (1,)
    offset = 4
    """The token of byte 0; smaller tokens are control tokens: pad, bos, eos, unk."""

    def encode_bytes(self, data: bytes) -> Tokens:
        """Return the tokens of bytes, which need not be text."""
        return np.add(np.frombuffer(data, np.uint8), np.uint16(self.offset), dtype=np.uint16)

    def encode_batch(self, texts: list[str]) -> list[Tokens]:
        """Return the tokens of each text, without BOS."""
        return [self.encode_bytes(text.encode()) for text in texts]

    def encode_documents(self, texts: list[bytes]) -> Tokens | None:
        """Return the tokens of texts, each after a BOS, in one pass; None if not all of them come back."""
        bos = bytes([(self.bos_id - self.offset) % 256])  # what decoding makes of a BOS
        data = b"".join(part for text in texts for part in (bos, text))
        tokens = np.add(np.frombuffer(data, np.uint8), np.uint16(self.offset), dtype=np.uint16)
        tokens[np.cumsum([0] + [len(text) + 1 for text in texts[:-1]])[: len(texts)]] = self.bos_id
        same = np.subtract(tokens, self.offset, dtype=np.uint8, casting="unsafe").tobytes() == data
        return tokens if same else None

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
        ids = {"bos_id": self.bos_id, "eos_id": self.eos_id}
        return {"name": self.name, "kind": self.kind, "vocab_size": self.vocab_size, **ids}


class Byte256Tokenizer(ByteTokenizer):
    """byte256: tokens are byte values (H-Net paper). Text is UTF-8, so 254 and 255 are free to be BOS and EOS."""

    name = "byte256"
    kind = "byte256"
    vocab_size = 256
    bos_id, eos_id = 254, 255
    end_ids = (254, 255)
    offset = 0

    def encode_bytes(self, data: bytes) -> Tokens:
        """Return the tokens of bytes. Raises DataError if one of them is what stands for BOS or EOS."""
        tokens = super().encode_bytes(data)
        if tokens.size and int(tokens.max()) >= self.bos_id:
            at = int(np.argmax(tokens >= self.bos_id))
            raise DataError(
                f"byte {at} is 0x{int(tokens[at]):02X}, which is a control token of byte256 and stands in no UTF-8 "
                "text: give text"
            )
        return tokens

    def decode(self, tokens: npt.NDArray[Any]) -> bytes:
        """Return the bytes of `tokens`. Raises DataError for a token outside the vocabulary."""
        tokens = np.asarray(tokens)
        if tokens.size and int(tokens.max()) >= self.vocab_size:
            raise DataError(f"token {int(tokens.max())} is outside byte256, which has {self.vocab_size} tokens")
        return tokens[tokens < self.bos_id].astype(np.uint8).tobytes()

    def pieces(self) -> list[bytes]:
        """Return the byte of every token; control tokens have none."""
        return [bytes([value]) for value in range(self.bos_id)] + [b"", b""]

    def token_bytes(self, previous: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return 1 for every byte token and 0 for control tokens; `previous` does not matter here."""
        return (np.asarray(tokens) < self.bos_id).astype(np.int64)


BYTE_TOKENIZERS: dict[str, type[ByteTokenizer]] = {"byte260": ByteTokenizer, "byte256": Byte256Tokenizer}
"""Tokenizers whose name is all it takes to make them."""
KNOWN = (*BYTE_TOKENIZERS, "FILE.model", "tokenizer.json", "sp:1024")


def given_tokenizer(name: str) -> Tokenizer:
    """Build what decodes shards: a tokenizer by name, or the vocabulary of others in a file. Raises DataError."""
    if re.fullmatch(r"sp:\d+", name):
        raise DataError(f"{name} trains a tokenizer, and the one that made these shards is needed: give its FILE.model")
    if name.endswith(SUFFIXES):
        return Vocabulary.read(Path(name))
    if name not in BYTE_TOKENIZERS and not Path(name).is_file() and not name.endswith(".model"):
        raise DataError(
            f"there is no tokenizer {name!r}; give the file of the vocabulary that made the shards: tokenizer.json, "
            "vocab.json, FILE.tiktoken or FILE.model"
        )
    return make_tokenizer(name)


def make_tokenizer(name_or_spec: str | Mapping[str, Any], directory: Path | None = None) -> Tokenizer:
    """Build a tokenizer from its name (`byte260`, `byte256`, `FILE.model`, `FILE.json`) or from a manifest's `spec()`.

    `directory` is where paths in a spec count from: that of the manifest. Raises DataError for unknown tokenizers and
    for model files that are missing or wrong.
    """
    if isinstance(name_or_spec, str):
        if name_or_spec in BYTE_TOKENIZERS:
            return BYTE_TOKENIZERS[name_or_spec]()
        if name_or_spec.endswith(".model"):
            return SentencePieceTokenizer.read(Path(name_or_spec))
        if name_or_spec.endswith(".json"):
            return JsonTokenizer.read(Path(name_or_spec))
        if name_or_spec.endswith(SUFFIXES):
            Vocabulary.read(Path(name_or_spec))  # one that decodes, or the reason why it does not
            raise decodes_only(name_or_spec)
        if kind := other_tokenizer(name_or_spec):
            raise DataError(f"{name_or_spec} {kind}; text is encoded by {ENCODES}")
        raise DataError(f"there is no tokenizer {name_or_spec!r}{nearest(name_or_spec, KNOWN)}")
    name, kind = str(name_or_spec.get("name")), str(name_or_spec.get("kind"))
    if kind == "byte" or kind == "pure_byte":
        return ByteTokenizer()
    if kind == Byte256Tokenizer.kind:
        return Byte256Tokenizer()
    if kind.startswith("sentencepiece"):
        return SentencePieceTokenizer.read(*_file(name_or_spec, directory))
    if kind == JsonTokenizer.kind:
        return JsonTokenizer.read(*_file(name_or_spec, directory))
    raise DataError(f"the tokenizer {name} is of a kind that niblick does not know ({kind})")


def write_model_file(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the model file of a tokenizer that has one, where its `spec()` says from `folder`."""
    if isinstance(tokenizer, SentencePieceTokenizer | JsonTokenizer):
        path = folder / tokenizer.spec()["model_path"]
        path.parent.mkdir()
        path.write_bytes(tokenizer.model)


def _file(spec: Mapping[str, Any], directory: Path | None) -> tuple[Path, str, str | None]:
    """Return the model file of a spec, the tokenizer's name and the file's digest."""
    name = str(spec.get("name"))
    if directory is None:
        raise DataError(f"the tokenizer {name} needs its model file; open the data that it came with")
    return directory / str(spec.get("model_path")), name, spec.get("model_sha256")
