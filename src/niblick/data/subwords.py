"""SentencePiece models as tokenizers, read from a `.model` file.

What a token decodes to is looked up in a table made once, so that decoding gives bytes (also for slices that cut a
character) and byte counts come from the same table.

Three things decide whether text comes back: normalization, a space put before every document ("dummy prefix", taken
away again after a control token), and byte pieces for characters that have no piece of their own. Models made by
`subword_training` neither normalize nor prefix. One character is still special: SentencePiece writes a space as U+2581,
so that a U+2581 of the text would come back as a space. Where everything else comes back, it is encoded as its bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import sentencepiece

from niblick.data.beginnings import refuse_pointer
from niblick.errors import DataError

_SPACE = "\u2581"
_PROBE = "  ab\n\n\ufb01 \u00a0 "
"""Comes back only from a model that neither normalizes nor prefixes."""


class SentencePieceTokenizer:
    """A SentencePiece model (BPE or unigram). `model` is the content of its file."""

    kind = "sentencepiece_bpe"

    def __init__(self, name: str, model: bytes) -> None:
        """Raises DataError if `model` is no SentencePiece model, has no BOS or more than 65,536 tokens."""
        self.name = name
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
            self.vocab_size = self._processor.vocab_size()
        except RuntimeError as error:
            raise DataError(f"the tokenizer {name} is no SentencePiece model; give the .model file of one") from error
        if self.vocab_size == 0:
            raise DataError(f"the tokenizer {name} is no SentencePiece model; give the .model file of one")
        if self.vocab_size > 65536:
            raise DataError(f"the tokenizer {name} has {self.vocab_size} tokens; shards hold at most 65536 (uint16)")
        self.bos_id = self._processor.bos_id()
        self.eos_id = self._processor.eos_id()
        if self.bos_id < 0:
            raise DataError(f"the tokenizer {name} has no BOS token, which starts every document; train one that has")
        self.end_ids = (self.bos_id,)
        self._make_tables()

    def __reduce__(self) -> tuple[Any, ...]:
        return SentencePieceTokenizer, (self.name, self.model)

    @classmethod
    def read(cls, path: Path, name: str | None = None, sha256: str | None = None) -> SentencePieceTokenizer:
        """Read a `.model` file. Raises DataError if it is missing, something else, or not the one with `sha256`."""
        try:
            model = path.read_bytes()
        except OSError as error:
            raise DataError(f"the tokenizer model {path} cannot be read: {error.strerror}") from error
        refuse_pointer(model, str(path))
        found = hashlib.sha256(model).hexdigest()
        if sha256 and found != sha256:
            raise DataError(f"{path} is another tokenizer than the data was made with (SHA-256 {found}, not {sha256})")
        return cls(name or path.stem, model)

    def _make_tables(self) -> None:
        processor, ids = self._processor, range(self.vocab_size)
        self._control = np.array([processor.is_control(i) or processor.is_unused(i) for i in ids])
        self._unknown = np.array([processor.is_unknown(i) for i in ids])
        pieces = [processor.id_to_piece(i) for i in ids]
        self._leading = np.array([piece.startswith(_SPACE) for piece in pieces])
        self._bytes: list[bytes] = []
        for i, piece in enumerate(pieces):
            if self._control[i]:
                self._bytes.append(b"")
            elif processor.is_byte(i):
                self._bytes.append(bytes([int(piece[3:5], 16)]))  # <0xE2>
            elif self._unknown[i]:
                self._bytes.append(processor.decode([i]).encode())
            else:
                self._bytes.append(piece.replace(_SPACE, " ").encode())
        counted = ~(self._control | self._unknown)
        self._counts = np.array([len(b) for b in self._bytes], np.int64) * counted
        # The leading space is a byte of the text, except where decoding takes it away as the dummy prefix.
        spaced = np.flatnonzero(self._leading & counted)
        self._drops_first_space = bool(spaced.size) and not processor.decode([int(spaced[0])]).startswith(" ")
        escape = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()]
        exact = all(processor.is_byte(i) for i in escape) and processor.decode(processor.encode(_PROBE)) == _PROBE
        self._escape = escape if exact else None

    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[np.uint16]]:
        """Return the tokens of each text, without BOS."""
        # One thread: preparation has a process for each core.
        encoded = self._processor.encode(texts, num_threads=1)
        if self._escape is not None:
            for i, text in enumerate(texts):
                if _SPACE in text:
                    encoded[i] = self._encode_around_spaces(text)
        return [np.array(tokens, np.uint16) for tokens in encoded]

    def _encode_around_spaces(self, text: str) -> list[int]:
        first, *others = self._processor.encode(text.split(_SPACE), num_threads=1)
        for part in others:
            first += [*(self._escape or []), *part]
        return first

    def starts(self, text: str) -> npt.NDArray[np.int64]:
        """Return where tokens start in the UTF-8 bytes of `text`, ascending and without repetition.

        What stands for several bytes together, as the byte pieces of one character, starts where they do. Raises
        DataError if the installed sentencepiece cannot tell.
        """
        try:
            found = self._processor.encode(text, return_type="offset_mapping", return_bytes=True)
        except (TypeError, ValueError) as error:
            raise DataError("where tokens start is told by sentencepiece 0.2.3 and newer; install that") from error
        return np.unique([start for start, end in found["offsets"] if end > start]).astype(np.int64)

    def decode(self, tokens: npt.NDArray[Any]) -> bytes:
        """Return the bytes of `tokens`; a beginning without BOS counts as the beginning of a document.

        Raises DataError for a token outside the vocabulary.
        """
        tokens = np.asarray(tokens, np.int64)
        if tokens.size and int(tokens.max()) >= self.vocab_size:
            raise DataError(f"token {int(tokens.max())} is outside {self.name}, which has {self.vocab_size} tokens")
        parts = [self._bytes[token] for token in tokens.tolist()]
        if self._drops_first_space and len(parts):
            after_control = np.concatenate([[True], self._control[tokens[:-1]]])
            for i in np.flatnonzero(after_control & self._leading[tokens]):
                parts[i] = parts[i][1:]
        return b"".join(parts)

    def pieces(self) -> list[bytes]:
        """Return the bytes that each token stands for amid a text, its leading space included; controls for none."""
        return list(self._bytes)

    def token_bytes(self, previous: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the bytes each token counts for by the challenge's rule, given the token before it (same shape).

        UTF-8 bytes of the piece; its leading space only if the token before is no control token and not unknown;
        nothing for control tokens and unknown. Models without dummy prefix never lose that space, so there it counts
        always, and the counts add up to the bytes of the text.
        """
        tokens = np.asarray(tokens)
        counts = self._counts[tokens]
        if self._drops_first_space:
            lost = (self._control | self._unknown)[np.asarray(previous)]
            counts = counts - (lost & self._leading[tokens])
        return counts

    def spec(self) -> dict[str, Any]:
        """Return what `make_tokenizer` needs to build it again; `model_path` counts from the manifest's directory."""
        return {
            "name": self.name,
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "model_path": f"tokenizers/{self.name}.model",
            "model_sha256": hashlib.sha256(self.model).hexdigest(),
        }
