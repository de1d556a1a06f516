"""Byte-level BPE of the tokenizers library as a tokenizer: `tokenizer.json` as GPT-2, Llama 3 and others have it.

The library encodes; what a token decodes to is read from the file by `vocabularies`, as it is for shards of others.
Whether text comes back is found out as for every tokenizer: by decoding each document.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.data.vocabularies import Vocabulary, decodes_only, read_vocabulary_file
from niblick.errors import DataError

MOST_TOKENS = 65536
"""Shards hold uint16."""


class JsonTokenizer:
    """A byte-level BPE. `model` is the content of its tokenizer.json."""

    kind = "tokenizers_bpe"

    def __init__(self, name: str, model: bytes) -> None:
        """Raises DataError if `model` is no such file, has more than 65,536 tokens, or tokenizers is not installed."""
        self.name, self.model = name, model
        self._vocabulary = Vocabulary.parse(Path(f"{name}.json"), model)
        self.vocab_size, self.bos_id = self._vocabulary.vocab_size, self._vocabulary.bos_id
        self.end_ids = (self.bos_id,)
        if self.vocab_size > MOST_TOKENS:
            raise DataError(f"the tokenizer {name} has {self.vocab_size} tokens; shards hold at most 65536 (uint16)")
        self._encoder = _encoder(name, model)

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonTokenizer, (self.name, self.model)

    @classmethod
    def read(cls, path: Path, name: str | None = None, sha256: str | None = None) -> JsonTokenizer:
        """Read a file. Raises DataError if it is missing, something else, or not the one with `sha256`."""
        model = read_vocabulary_file(path)
        if b'"merges"' not in model:
            Vocabulary.parse(path, model)  # one that decodes, or the reason why it does not
            raise decodes_only(str(path))
        found = hashlib.sha256(model).hexdigest()
        if sha256 and found != sha256:
            raise DataError(f"{path} is another tokenizer than the data was made with (SHA-256 {found}, not {sha256})")
        return cls(name or Vocabulary.parse(path, model).name, model)

    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[np.uint16]]:
        """Return the tokens of each text, without BOS. What a text has of control tokens is text."""
        # One by one, and so on one thread: preparation has a process for each core.
        return [np.array(self._encoder.encode(text, add_special_tokens=False).ids, np.uint16) for text in texts]

    def decode(self, tokens: npt.NDArray[Any]) -> bytes:
        """Return the bytes of `tokens`. Raises DataError for a token outside the vocabulary."""
        return self._vocabulary.decode(np.asarray(tokens))

    def pieces(self) -> list[bytes]:
        """Return the bytes that each token stands for; control tokens stand for none."""
        return self._vocabulary.pieces()

    def token_bytes(self, previous: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the bytes of each token; `previous` does not matter here."""
        return self._vocabulary.token_bytes(previous, tokens)

    def spec(self) -> dict[str, Any]:
        """Return what `make_tokenizer` needs to build it again; `model_path` counts from the manifest's directory."""
        return {
            "name": self.name,
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            "bos_id": self.bos_id,
            "eos_id": None,
            "model_path": f"tokenizers/{self.name}.json",
            "model_sha256": hashlib.sha256(self.model).hexdigest(),
        }


def _encoder(name: str, model: bytes) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise DataError(
            f"encoding by {name}.json needs the tokenizers library; run `pip install niblick[hub]`"
        ) from error
    try:
        encoder = tokenizers.Tokenizer.from_buffer(model)
    except BaseException as error:  # a panic of the library is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"the tokenizer {name} is not read by the tokenizers library ({error})") from error
    encoder.no_truncation()
    encoder.no_padding()
    encoder.encode_special_tokens = True
    return encoder
