"""A file under a model: bytes in, a stream out, and the bytes back.

    magic, length of the head (4 bytes), head (JSON), SHA-256 of all that
    for each block: length (4 bytes), check of its tokens, data, and the first bytes of the SHA-256 of these three

What no model makes smaller is stored: magic, SHA-256 of the rest, `r` (as it is) or `z` (deflate), length (8 bytes),
data.

A text becomes one document of tokens. What the tokenizer loses (newlines, bytes that are no UTF-8) comes with it as a
patch. The head names the model by the SHA-256 of its artifact; nothing else can read the stream. Every byte is under a
hash, so that damage is told before any of it is decoded; the check of a block tells what hashes cannot, that this
machine computes other probabilities than the one that wrote it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from niblick.data.repair import RepairWriter, apply_repair
from niblick.data.tokenizers import Tokenizer
from niblick.errors import ArtifactError, ConfigError, DataError
from niblick.files import parse_json
from niblick.model.lm import LM
from niblick.model.stepping import can_compile
from niblick.score.coding import (
    CHECK_BYTES,
    Block,
    Differs,
    Layout,
    Report,
    Tokens,
    decode,
    encode,
    refuse_unprovable,
    worth_compiling,
)
from niblick.score.score_config import ScoreConfig, SidecarConfig

if TYPE_CHECKING:
    from niblick.score.known_text import KnownText

MAGIC = b"niblick text 1\n"
STORED = b"niblick file 1\n"
MAX_HEAD = 64 << 20
_DIGEST = 32


@dataclass(frozen=True)
class Model:
    """A model that codes, and what it is called: `sha256` is that of its artifact file."""

    lm: LM
    tokenizer: Tokenizer
    name: str
    sha256: str
    text: KnownText | None = None
    """What its mixture reads before it codes."""


@dataclass(frozen=True)
class Sizes:
    """What became of `original` bytes under the model: `payload` is what its coder wrote, `patch` what the tokenizer
    loses, and the rest of `coded` says which model it was, and checks it."""

    original: int
    tokens: int
    payload: int
    patch: int
    coded: int
    blocks: int
    total: int
    """Of the stream: those coded by the model, or fewer, where it is stored without it."""
    method: str = "model"
    """`model`, or how it is stored where that is smaller: `deflate` or `raw`."""

    @property
    def overhead(self) -> int:
        """Bytes of `coded` that are no text: the head, the checks of blocks."""
        return self.coded - self.payload - self.patch


def compress(data: bytes, model: Model, config: ScoreConfig, report: Report | None = None) -> tuple[bytes, Sizes]:
    """Return `data` as a stream of `model`, or stored, whichever is smaller, and the sizes.

    Raises ConfigError if that way of scoring is not provable by decoding.
    """
    stream, sizes = model_stream(data, model, config, report)
    stored, method = _stored(data)
    if len(stored) >= len(stream):
        return stream, sizes
    return stored, replace(sizes, total=len(stored), method=method)


def model_stream(data: bytes, model: Model, config: ScoreConfig, report: Report | None = None) -> tuple[bytes, Sizes]:
    """Return `data` as a stream of `model` under the windows of `config`, and its sizes.

    Raises ConfigError if that way of scoring is not provable by decoding.
    """
    text, patch = _to_tokens(data, model.tokenizer)
    tokens = np.concatenate((np.array([model.tokenizer.bos_id], np.uint16), text))
    threads = torch.get_num_threads()
    head = {
        "model": {"name": model.name, "sha256": model.sha256},
        "scorer": {"scorer": config.scorer, "seq_len": config.seq_len, "stride": config.stride}
        | {"capacity": config.capacity}
        | ({"sidecar": asdict(config.sidecar)} if config.sidecar.name else {}),
        "tokens": len(tokens),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "patch": base64.b64encode(patch).decode(),
        "machine": _machine() | {"threads": threads, "compiled": worth_compiling(len(tokens), config)},
    }
    coded = json.dumps(head, separators=(",", ":")).encode()
    out = bytearray(MAGIC + len(coded).to_bytes(4, "little") + coded)
    out += hashlib.sha256(out).digest()
    payload = blocks = 0
    for block in encode(model.lm, tokens, _layout(head, config, model.tokenizer), report, model.text):
        record = len(block.data).to_bytes(4, "little") + block.check + block.data
        out += record + hashlib.sha256(record).digest()[:CHECK_BYTES]
        payload, blocks = payload + len(block.data), blocks + 1
    return bytes(out), Sizes(len(data), len(tokens), payload, len(patch), len(out), blocks, len(out))


def decompress(stream: bytes, model: Model, report: Report | None = None) -> bytes:
    """Return what `compress` was given. Raises ArtifactError for anything but a whole stream of this model, or a stored
    file, which needs none.
    """
    if stream.startswith(STORED):
        return _restored(stream)
    head, at = _read_head(stream)
    named = head["model"]
    if named["sha256"] != model.sha256:
        raise ArtifactError(
            f"the stream was written with the model {named['name']} (SHA-256 {named['sha256'][:16]}…), and this is "
            f"{model.name} ({model.sha256[:16]}…): give --model that one"
        )
    layout = _layout(head, _scorer(head), model.tokenizer)
    blocks = list(_read_blocks(stream, at))
    room = layout.room(len(blocks), sum(len(block.data) for block in blocks))
    if layout.tokens > room:
        raise _damaged(f"declares {layout.tokens:,} tokens, and its {len(blocks)} blocks hold at most {room:,}")
    if len(blocks) != len(layout.blocks()):
        raise _damaged(f"has {len(blocks)} blocks where {len(layout.blocks())} are needed")
    if layout.compiled and not can_compile():
        raise ArtifactError(
            "the stream was written with compiled steps, and torch.compile does not work here: install a compiler of "
            "C++ (g++)"
        )
    before = torch.get_num_threads()
    torch.set_num_threads(head["machine"]["threads"])  # sums may be split by threads
    try:
        tokens = decode(model.lm, iter(blocks), layout, report, model.text)
        data = _to_bytes(tokens[1:], base64.b64decode(head["patch"]), model.tokenizer)
    except Differs as error:
        raise _other_machine(f"block {error.block} of {len(blocks)}", head) from error
    except DataError as error:
        raise _other_machine(str(error), head) from error
    finally:
        torch.set_num_threads(before)
    if hashlib.sha256(data).hexdigest() != head["sha256"]:
        raise _other_machine("the whole", head)
    return data


def _stored(data: bytes) -> tuple[bytes, str]:
    """Return `data` stored without a model, and how: deflated where that is smaller."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    kind, method, body = (b"z", "deflate", packed) if len(packed) < len(data) else (b"r", "raw", data)
    rest = kind + len(data).to_bytes(8, "little") + body
    return STORED + hashlib.sha256(rest).digest() + rest, method


def _restored(stream: bytes) -> bytes:
    """Return the file that `_stored` wrote. Deflate gives at most 1,032 bytes for one, which bounds the memory."""
    start = len(STORED) + _DIGEST
    rest = stream[start:]
    kind, length, body = rest[:1], int.from_bytes(rest[1:9], "little"), rest[9:]
    if len(rest) < 9 or hashlib.sha256(rest).digest() != stream[len(STORED) : start] or kind not in (b"r", b"z"):
        raise _damaged("holds a stored file that is not as it was written")
    if length > 1032 * len(body) + 64:
        raise _damaged(f"declares {length:,} bytes, more than it can hold")
    try:
        data = zlib.decompressobj(-15).decompress(body, length + 1) if kind == b"z" else body
    except zlib.error:
        raise _damaged("holds a stored file that cannot be inflated") from None
    if len(data) != length:
        raise _damaged("holds a stored file of another length than it says")
    return data


def _to_tokens(data: bytes, tokenizer: Tokenizer) -> tuple[Tokens, bytes]:
    """Tokens of `data` as one document, and the patch that gives it back from them, b"" where they do."""
    if tokenizer.kind in ("byte", "pure_byte"):
        # Any bytes, whether they are text or not.
        place = {piece: token for token, piece in enumerate(tokenizer.pieces()) if len(piece) == 1}
        table = np.array([place[bytes([value])] for value in range(256)], np.uint16)
        return table[np.frombuffer(data, np.uint8)], b""
    [tokens] = tokenizer.encode_batch([data.decode(errors="replace")])
    decoded = tokenizer.decode(tokens)
    if decoded == data:
        return tokens, b""
    writer = RepairWriter()
    writer.add(data, decoded)
    return tokens, writer.finish()


def _to_bytes(tokens: Tokens, patch: bytes, tokenizer: Tokenizer) -> bytes:
    decoded = tokenizer.decode(tokens)
    if not patch:
        return decoded
    [data] = apply_repair(patch, [decoded])
    return data


def _layout(head: dict[str, Any], config: ScoreConfig, tokenizer: Tokenizer) -> Layout:
    compiled = head["machine"].get("compiled", False)
    return Layout(head["tokens"], np.zeros(1, np.int64), config, tokenizer.bos_id, tokenizer.vocab_size, compiled)


def _scorer(head: dict[str, Any]) -> ScoreConfig:
    """The way of scoring that a head names."""
    settings = dict(head["scorer"])
    return ScoreConfig(**settings | {"sidecar": SidecarConfig(**settings.get("sidecar", {}))})


def _machine() -> dict[str, str]:
    return {"torch": torch.__version__, "platform": f"{platform.system()} {platform.machine()}"}


def _read_head(stream: bytes) -> tuple[dict[str, Any], int]:
    """Return the head, and where the blocks begin."""
    if not stream.startswith(MAGIC):
        what = "is empty" if not stream else "does not begin like one"
        raise ArtifactError(f"this is no stream of `niblick compress`: it {what}")
    start = len(MAGIC) + 4
    length = int.from_bytes(stream[len(MAGIC) : start], "little")
    end = start + length
    if length > MAX_HEAD or end + _DIGEST > len(stream):
        raise _damaged("ends inside its head")
    if hashlib.sha256(stream[:end]).digest() != stream[end : end + _DIGEST]:
        raise _damaged("has a head that is not as it was written")
    try:
        head = parse_json(stream[start:end], most=MAX_HEAD)
        _check_head(head)
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise _damaged(f"has a head that cannot be ({error})") from None
    return head, end + _DIGEST


def _check_head(head: dict[str, Any]) -> None:
    """Raise ValueError, KeyError, TypeError or ConfigError for a head that `compress` does not write."""
    refuse_unprovable(_scorer(head))
    tokens, count, threads = head["tokens"], head["bytes"], head["machine"]["threads"]
    if not all(type(value) is int for value in (tokens, count, threads, head["scorer"]["seq_len"])):
        raise ValueError("counts are integers")
    # A token stands for some byte or other; a text of one token has one byte or more.
    if not 1 <= tokens <= 8 * count + 64 or not 1 <= threads <= 4 * (os.cpu_count() or 1) + 256:
        raise ValueError(f"{tokens} tokens for {count} bytes, {threads} threads")
    if type(head["machine"].get("compiled", False)) is not bool:
        raise ValueError("whether steps are compiled is true or false")
    if not isinstance(head["model"]["name"], str) or not isinstance(head["model"]["sha256"], str):
        raise ValueError("the model has a name and a SHA-256")
    base64.b64decode(head["patch"], validate=True)


def _read_blocks(stream: bytes, at: int) -> Iterator[Block]:
    number = 0
    while at < len(stream):
        start = at + 4
        length = int.from_bytes(stream[at:start], "little")
        end = start + CHECK_BYTES + length
        if end + CHECK_BYTES > len(stream):
            raise _damaged(f"ends inside block {number}")
        if hashlib.sha256(stream[at:end]).digest()[:CHECK_BYTES] != stream[end : end + CHECK_BYTES]:
            raise _damaged(f"has a block {number} that is not as it was written")
        yield Block(stream[start + CHECK_BYTES : end], stream[start : start + CHECK_BYTES])
        at, number = end + CHECK_BYTES, number + 1


def _damaged(what: str) -> ArtifactError:
    return ArtifactError(f"the stream {what}: it is damaged or cut off; fetch or make it again")


def _other_machine(where: str, head: dict[str, Any]) -> ArtifactError:
    wrote, here = head["machine"], _machine()
    return ArtifactError(
        f"{where} of the stream is whole but decodes to something else: this machine (torch {here['torch']}, "
        f"{here['platform']}) computes other probabilities than the one that wrote it (torch {wrote.get('torch')}, "
        f"{wrote.get('platform')}, {wrote['threads']} threads); decompress it on a machine like that"
    )
