"""Vocabularies of others: what their tokens decode to, so that their shards can be turned back into text.

Byte-level BPE as GPT-2, Llama 3 and others have it, from `tokenizer.json` (or GPT-2's `vocab.json`, `encoder.json`) of
the transformers library, or from a `.tiktoken` file. They decode only: encoding needs their merges and their rules for
cutting text, and nothing here is trained on their tokens.
"""

from __future__ import annotations

import base64
import binascii
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.data.beginnings import refuse_pointer
from niblick.errors import DataError, kind_of
from niblick.files import parse_json, read_small

SUFFIXES = (".json", ".tiktoken")
BETWEEN = ("<|endoftext|>", "<|begin_of_text|>", "<s>", "<|bos|>", "<bos>")
"""Names of the token that stands between documents."""
_TIKTOKEN = {50280: 50256, 100255: 100257, 199997: 199999}
"""The token between texts by the last rank of a .tiktoken file, which does not say it: p50k, cl100k, o200k. Elsewhere
it is the one after the ranks."""
_MOST = 1 << 20
_FILE_MOST = 64 << 20
"""Bytes of a file that are read at most."""
ENCODES = "byte260, byte256, a SentencePiece FILE.model, a byte-level tokenizer.json, or sp:VOCAB, which trains one"


class Vocabulary:
    """What each token stands for; `bos_id` is the token between documents. A tokenizer that only decodes.

    `undefined` are the numbers below the largest for which the vocabulary has no token.
    """

    kind = "foreign"

    def __init__(self, name: str, pieces: list[bytes], bos_id: int, undefined: Iterable[int] = ()) -> None:
        self.name, self.bos_id = name, bos_id
        self.vocab_size = len(pieces)
        self.end_ids = (bos_id,)
        self._pieces = pieces
        self._undefined = np.zeros(len(pieces), bool)
        self._undefined[[*undefined]] = True

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read a file of others. Raises DataError for one that is missing or of another kind."""
        return cls.parse(path, read_vocabulary_file(path))

    @classmethod
    def parse(cls, path: Path, data: bytes) -> Vocabulary:
        """Read the content of a file that is called `path`. Raises DataError for another kind."""
        if path.suffix == ".tiktoken":
            known, controls = _ranks(path, data), set[int]()
        else:
            known, controls = _from_json(path, data)
        separators = [token for name in BETWEEN for token, piece in known.items() if piece == name.encode()]
        if not separators and path.suffix == ".tiktoken":
            separators = [_TIKTOKEN.get(max(known, default=0), len(known))]
        if not separators:
            raise DataError(f"{path} has none of the tokens {', '.join(BETWEEN)}, so documents cannot be told apart")
        controls |= set(separators)
        pieces = [b"" if token in controls else known.get(token, b"") for token in range(max({*known, *controls}) + 1)]
        undefined = {*range(len(pieces))} - {*known, *controls}
        own = path.stem not in ("tokenizer", "vocab", "encoder")
        return cls(path.stem if own else path.resolve().parent.name, pieces, separators[0], undefined)

    def encode_batch(self, texts: list[str]) -> list[npt.NDArray[np.uint16]]:
        """Raise DataError: foreign vocabularies decode only."""
        raise decodes_only(self.name)

    def decode(self, tokens: npt.NDArray[Any]) -> bytes:
        """Return the bytes of `tokens`. Raises DataError for a token outside the vocabulary, or missing in it."""
        if not len(tokens):
            return b""
        if int(tokens.max()) >= self.vocab_size:
            raise DataError(f"token {int(tokens.max())} is outside {self.name}, which has {self.vocab_size} tokens")
        undefined = self._undefined[tokens]
        if undefined.any():
            raise DataError(
                f"token {int(tokens[undefined][0])} is not defined in {self.name}; give the vocabulary that the shards "
                "were made with"
            )
        return b"".join(map(self._pieces.__getitem__, tokens.tolist()))

    def pieces(self) -> list[bytes]:
        """Return the bytes that each token stands for; control tokens stand for none."""
        return list(self._pieces)

    def token_bytes(self, previous: npt.NDArray[Any], tokens: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the bytes of each token."""
        return np.array([len(piece) for piece in self._pieces], np.int64)[np.asarray(tokens)]

    def spec(self) -> dict[str, Any]:
        """Raise DataError: no dataset is made with it."""
        raise decodes_only(self.name)


def read_vocabulary_file(path: Path) -> bytes:
    """The content of a file of a vocabulary. Raises DataError if it cannot be read, or is no such file."""
    try:
        data = read_small(path, _FILE_MOST)
    except OSError as error:
        raise DataError(f"the vocabulary {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"the vocabulary {path} cannot be read: {error}") from error
    refuse_pointer(data, str(path))
    return data


def decodes_only(name: str) -> DataError:
    """The error for a foreign vocabulary where text is to be encoded."""
    return DataError(
        f"{name} is a vocabulary of the transformers library or of tiktoken: niblick decodes shards made with it "
        f"(`niblick data convert FOLDER --given {shlex.quote(name)} --out DIR`), and encodes text by {ENCODES}"
    )


def other_tokenizer(name: str) -> str:
    """What to say of a file of others that is no tokenizer here; "" where its name says nothing."""
    path = Path(name)
    said = {
        ".pkl": "is a pickle, and pickles of strangers are not opened",
        ".bin": "is binary, as llama2.c's tokenizer.bin is, which is made of a tokenizer.model: give that",
        ".vocab": f"lists the pieces of a SentencePiece model: give {path.with_suffix('.model').name}, which lies "
        "beside it where it was trained",
    }.get(path.suffix.lower(), "is no file of a kind that is known as a tokenizer")
    if not path.is_file():
        return "does not exist" if path.suffix.lower() in (".pkl", ".bin", ".vocab") else ""
    return said


def _ranks(path: Path, data: bytes) -> dict[int, bytes]:
    try:
        pairs = [line.split() for line in data.splitlines() if line]
        return {_token(path, int(rank)): base64.b64decode(piece, validate=True) for piece, rank in pairs}
    except (ValueError, binascii.Error) as error:
        raise DataError(f"{path} is no .tiktoken file: lines of a base64 token and its rank are expected") from error


def _from_json(path: Path, data: bytes) -> tuple[dict[int, bytes], set[int]]:
    """The bytes of each token, and which are controls."""
    try:
        content = parse_json(data, lenient=True, pairs=False, most=_FILE_MOST)
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); give tokenizer.json, vocab.json or a .tiktoken file") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds {kind_of(content)}, where a vocabulary is expected")
    if not isinstance(content.get("model"), dict):  # vocab.json, in which "model" may be a token
        content = {"model": {"vocab": content}, "decoder": {"type": "ByteLevel"}}
    model, decoder = content["model"], content.get("decoder")
    steps = [decoder, *_list(path, decoder, "decoders")] if isinstance(decoder, dict) else []
    names = [str(step.get("type")) for step in steps if isinstance(step, dict)]
    kind, vocab = model.get("type", "BPE"), model.get("vocab")
    if kind != "BPE" or "ByteLevel" not in names or not isinstance(vocab, dict):
        model_file = path.with_name("tokenizer.model")
        beside = f"give {model_file}, which lies beside it" if model_file.is_file() else f"text is encoded by {ENCODES}"
        raise DataError(
            f"{path} is a {kind} vocabulary with the decoder {'+'.join(names) or 'none'}, and of those only byte-level "
            f"BPE is read, such as GPT-2's and Llama 3's; {beside}"
        )
    letters, known, controls = _letters(), dict[int, bytes](), set[int]()
    for piece, token in vocab.items():
        known[_token(path, token)] = b"".join(letters.get(letter) or _utf8(path, letter) for letter in piece)
    for added in _list(path, content, "added_tokens"):
        if not isinstance(added, dict) or not isinstance(added.get("content"), str):
            raise DataError(
                f"{path} is no vocabulary: `added_tokens` holds {_short(added)}, where an id and a content are expected"
            )
        token = _token(path, added.get("id"))
        known[token] = _utf8(path, added["content"])
        if added.get("special"):
            controls.add(token)
    return known, controls


def _list(path: Path, content: dict[str, object], key: str) -> list[object]:
    value = content.get(key)
    if value is None or isinstance(value, list):
        return value or []
    raise DataError(f"{path} is no vocabulary: `{key}` is {_short(value)}, where a list is expected")


def _utf8(path: Path, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path} is no vocabulary: {_short(text)} holds half a surrogate pair") from error


def _token(path: Path, token: object) -> int:
    if type(token) is int and 0 <= token < _MOST:  # true is an int, and no number of a token
        return token
    raise DataError(f"{path} is no vocabulary: {_short(token)} is no token")


def _short(value: object) -> str:
    return ascii(value)[:40]


def _letters() -> dict[str, bytes]:
    """The letter that GPT-2's vocabulary writes for each byte: itself if it is visible, else the next free from 256."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): bytes([byte]) for byte in visible} | {
        chr(256 + number): bytes([byte]) for number, byte in enumerate(hidden)
    }
