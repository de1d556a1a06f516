"""Token shards of other projects: told apart, and opened where they are nothing but a stream of tokens.

    nanoGPT         train.bin, val.bin: uint16 without header, a token after each document, or none at all
    build-nanogpt   NAME_train_000001.npy: the same as numpy arrays, a token before each document
    llm.c           NAME_train.bin, NAME_val.bin: the challenge's header, GPT-2's tokens, one before each document
    llm.c, Llama 3  another magic number, uint32
    Megatron-LM     NAME.bin with NAME.idx; litdata: chunk-*.bin with index.json; llama2.c: data00.bin. Named, not read.

modded-nanogpt's shards are llm.c's, called as the challenge's are.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.challenge import rules
from niblick.data.beginnings import HEAD_BYTES, refuse_pointer
from niblick.data.index import map_array
from niblick.data.shards import HEADER_BYTES, read_shard, shard_files
from niblick.errors import DataError

GPT2_BETWEEN = 50256
"""The token that stands between documents in GPT-2's vocabulary."""
_LLAMA3 = (20240801, 7)
"""Magic number and version of llm.c's shards for Llama 3."""
_WIDE, _WIDE_LEAST = 16, 64
"""Above so many uint16 it is no chance that every second one is below 16."""
_NAME = re.compile(r"(?:^|_)(train|val)(?:id|idation)?(?:_\d+)?\.(?:bin|npy)$")


def foreign_splits(directory: Path) -> dict[str, list[Path]]:
    """The files of each split in a folder of foreign shards, in order; {} where there are none that can be read."""
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.iterdir()):
        name = _NAME.search(path.name)
        if name and path.is_file() and not path.with_suffix(".idx").exists():
            found.setdefault(name[1], []).append(path)
    return found


def foreign_kind(directory: Path) -> DataError | None:
    """What to say of a folder that holds token shards of another project; None where it holds none."""
    for pattern, beside, kind in (
        ("*.idx", "*.bin", "Megatron-LM's (NAME.bin with NAME.idx)"),
        ("index.json", "chunk-*.bin", "litdata's (chunk-*.bin with index.json)"),
        ("data[0-9]*.bin", "data[0-9]*.bin", "llama2.c's (data00.bin, flat, without splits)"),
    ):
        if any(directory.glob(pattern)) and any(directory.glob(beside)):
            return DataError(
                f"{directory} holds token shards, but {kind}, of which no text can be made here: give the text that "
                "they were made from: `niblick data prepare --source TEXT --out DIR`"
            )
    splits = foreign_splits(directory)
    if not splits:
        return None
    first = next(iter(splits.values()))[0]
    if (directory / "meta.pkl").is_file():
        text = directory / "input.txt"
        source = shlex.quote(str(text)) if text.is_file() else "TEXT"
        return DataError(
            f"{directory} holds nanoGPT's characters as tokens ({first.name}, meta.pkl), and pickles of strangers are "
            "not opened; make a dataset of the text that they were made from: "
            f"`niblick data prepare --source {source} --out DIR`"
        )
    return DataError(
        f"{directory} holds token shards, but {_form(first)}; `niblick data convert {shlex.quote(str(directory))} "
        "--given tokenizer.json --out DIR` makes a dataset of their text (given is the vocabulary they were made with, "
        "GPT-2's for one: tokenizer.json, vocab.json or FILE.tiktoken)"
    )


def is_dataset(directory: Path) -> bool:
    """Whether a folder holds shards that niblick opens: the challenge's or its own."""
    files = _named_as_ours(directory)
    return bool(files) and not is_llama3(files[0])


def _named_as_ours(directory: Path) -> list[Path]:
    folders = [directory, *directory.glob("datasets/*")]
    return [path for folder in folders for split in ("train", "val") for path in shard_files(folder, split)]


def converting(directory: Path) -> str:
    """What makes a dataset of the text of shards that are called as the challenge's: one sentence with the command."""
    first = _named_as_ours(directory)[0]
    above = first.parent.resolve().parent.parent / "manifest.json"
    if any(path.is_file() for path in (directory / "manifest.json", above)):
        return f"`niblick data convert {shlex.quote(str(directory))} --out DIR` decodes them"
    tokens, folder = read_shard(first), shlex.quote(str(first.parent))
    if len(tokens) and int(tokens[0]) == GPT2_BETWEEN:
        return (
            f"they begin with token {GPT2_BETWEEN}, so they are GPT-2's tokens, as llm.c and modded-nanogpt have them; "
            f"`niblick data convert {folder} --given tokenizer.json --out DIR` makes a dataset of their text, given "
            "GPT-2's tokenizer.json, vocab.json or FILE.tiktoken"
        )
    return (
        f"nothing says which tokenizer made them; `niblick data convert {folder} --given FILE.model --out DIR` makes "
        "a dataset of their text (given is the SentencePiece model they were made with, or byte260)"
    )


def is_llama3(path: Path) -> bool:
    """Whether a shard is one of llm.c's for Llama 3, whatever its name."""
    try:
        return _head(path)[:2] == _LLAMA3
    except OSError:
        return False


def read_foreign(path: Path) -> npt.NDArray[Any]:
    """Map the tokens of a foreign shard, shape (tokens,), uint16 or uint32. Raises DataError if it is none."""
    try:
        return _read(path)
    except OSError as error:
        raise DataError(f"the shard {path} cannot be read: {error.strerror or error}") from error


def _read(path: Path) -> npt.NDArray[Any]:
    if path.suffix == ".npy":
        try:
            tokens = map_array(path)
        except (ValueError, EOFError) as error:
            raise DataError(f"{path} is no array of tokens ({error}); fetch it again") from error
        if tokens.ndim != 1 or tokens.dtype.kind != "u":
            raise _no_tokens(path, tokens)
        return tokens
    size, (magic, version, count) = path.stat().st_size, _head(path)
    if (magic, version) == (rules.SHARD_MAGIC, rules.SHARD_VERSION):
        return read_shard(path)
    if (magic, version) == _LLAMA3:
        if size != HEADER_BYTES + 4 * count:
            raise DataError(f"{path} has {size} bytes, its header promises {count} tokens of 4; fetch it again")
        return np.memmap(path, "<u4", "r", HEADER_BYTES, (count,))
    if size % 2 or not size:
        raise DataError(f"{path} has {size} bytes, which are no uint16 tokens; fetch it again")
    tokens = np.memmap(path, "<u2", "r")
    _refuse_wide(path, tokens)
    return tokens


def _no_tokens(path: Path, array: npt.NDArray[Any]) -> DataError:
    """What to say of an array that is no row of unsigned integers, and how to make one of it where that can be."""
    expected = f"{path} holds {array.dtype} {list(array.shape)}, where one row of tokens (uint16 or uint32) is expected"
    if array.dtype.kind not in "iu":
        return DataError(f"{expected}; give an array of tokens")
    name = shlex.quote(str(path))
    return DataError(
        f"{expected}; write it again: `python -c 'import sys, numpy; "
        f'numpy.save(sys.argv[1], numpy.load(sys.argv[1]).ravel().astype("uint32"))\' {name}`'
    )


def _refuse_wide(path: Path, tokens: npt.NDArray[Any]) -> None:
    """Raise DataError for tokens of 4 or 8 bytes: of those every second uint16 is next to nothing."""
    first = tokens[: 1 << 16]
    if len(first) >= _WIDE_LEAST and int(first[1::2].max()) < _WIDE and int(first[::2].max()) >= _WIDE:
        raise DataError(
            f"{path} holds tokens of 4 bytes or more (every second uint16 in it is below {_WIDE}), and without a "
            "header only uint16 is read; write it again as uint16, or as a numpy array of uint32 in a .npy file"
        )


def _head(path: Path) -> tuple[int, int, int]:
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    refuse_pointer(head, str(path))
    magic, version, count = np.frombuffer(head[:12].ljust(12, b"\0"), "<i4").tolist()
    return magic, version, count


def _form(path: Path) -> str:
    if path.suffix == ".npy":
        return f"build-nanogpt's ({path.name}: an array of uint16)"
    magic, version, _ = _head(path)
    if (magic, version) == (rules.SHARD_MAGIC, rules.SHARD_VERSION):
        return f"llm.c's ({path.name}: the challenge's header over GPT-2's tokens)"
    if (magic, version) == _LLAMA3:
        return f"llm.c's for Llama 3 ({path.name}: uint32)"
    return f"nanoGPT's ({path.name}: uint16 without header)"
