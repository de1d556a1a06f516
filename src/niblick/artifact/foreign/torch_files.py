"""What `torch.save` wrote, read from a stranger: tensors and plain data, and nothing in it is run."""

from __future__ import annotations

import io
import itertools
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from niblick.errors import ArtifactError, kind_of

WRAPPED = ("model", "state_dict", "model_state_dict")
"""Where training scripts keep weights in a checkpoint that holds more: nanoGPT, modded-nanogpt, litgpt, Lightning."""

_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, and the file itself was not fetched: run `git lfs pull` there",
    b"GGUF": "a GGUF file of llama.cpp, and its blocks of weights are read by nothing here",
    b"\xc6\xd7\x34\x01": "a checkpoint of llm.c (model_*.bin), GPT-2's, which no preset is",
    b"\x80": "a plain pickle, which torch.save did not write: nothing in it is run; ask for a state dict",
}
"""Other files of weights, by the bytes that they begin with."""


_BEFORE_1_6 = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
"""The number that begins torch's own form before 1.6, as every pickle writes it."""


def load_dictionary(path: Path, data: bytes | None = None) -> dict[Any, Any]:
    """Return the dictionary in a file of `torch.save`, from `data` if it is at hand; else tensors are mapped, not read.

    Of a whole checkpoint the weights are returned (WRAPPED). In torch's zip form nothing is compressed, so the file
    bounds the storages. Raises ArtifactError, which names `path`, for what is no such file, is damaged, holds more than
    tensors and plain data, or no dictionary.
    """
    try:
        with zipfile.ZipFile(path if data is None else io.BytesIO(data)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ArtifactError(f"{path} holds compressed records, which torch.save never writes; that is refused")
    except OSError as error:
        raise unreadable(path, error) from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        if kind := other_kind(path, data):
            raise ArtifactError(f"{path} is {kind}") from None
        reason = str(error).rstrip(".").lower()
        raise ArtifactError(f"{path} is not what torch.save writes, or is cut off ({reason}); fetch it again") from None
    try:
        source = path if data is None else io.BytesIO(data)
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=data is None)
    except pickle.UnpicklingError as error:
        raise ArtifactError(
            f"{path} holds more than tensors and plain data ({_global(error)}), and code of strangers is not run; ask "
            "for a state dict, or save one where you trust the file: torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # torch raises whatever it trips over in a damaged file
        words = str(error).strip().splitlines() or [""]
        raise ArtifactError(f"{path} is damaged ({type(error).__name__}: {words[0][:200]}); fetch it again") from None
    if not isinstance(content, dict):
        raise no_dictionary(path, content)
    return _weights(content)


def _weights(content: dict[Any, Any]) -> dict[Any, Any]:
    """The weights of a checkpoint that holds more than those; any other dictionary as it is."""
    for key in WRAPPED:
        inner = content.get(key)
        if isinstance(inner, dict) and inner and all(isinstance(value, torch.Tensor) for value in inner.values()):
            return inner
    return content


def other_kind(path: Path, data: bytes | None) -> str:
    """What else a file is that no zip begins, in words; "" if it is not known."""
    if data is None:
        with open(path, "rb") as file:
            data = file.read(32)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < 1 << 27:
        return (
            "a file of safetensors; where its names are the published ones, "
            "torch.save(safetensors.torch.load_file(FILE), NEW) makes one that is read"
        )
    if data.startswith(b"\x80") and _BEFORE_1_6 in data[:32]:
        return (
            "in torch's form before 1.6: where you trust it, save it again by "
            "torch.save(torch.load(FILE, weights_only=True), NEW)"
        )
    return next((kind for begin, kind in _OTHERS.items() if data.startswith(begin)), "")


def unreadable(path: Path, error: OSError) -> ArtifactError:
    """The error for a path that is no file that can be read; a folder may be a checkpoint too."""
    if (path / ".metadata").is_file():
        return ArtifactError(
            f"{path} is a distributed checkpoint of torch; where you trust it, make one file of it: "
            f"`python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} FILE.pt`"
        )
    return ArtifactError(f"{path} cannot be read ({error.strerror}); give the path of a checkpoint")


def no_dictionary(path: Path, content: Any) -> ArtifactError:
    """The error for content that is no dictionary of tensors by name."""
    return ArtifactError(f"{path} holds {kind_of(content)}, expected a dictionary of tensors by name")


def _global(error: Exception) -> str:
    """What the file wanted to call, as far as torch says."""
    words = str(error).replace("`", " ").split()
    after = [b for a, b in itertools.pairwise(words) if a == "GLOBAL"]
    return after[0] if after else "something that is no tensor"
