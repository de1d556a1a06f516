"""What `torch.save` wrote, read from a stranger: tensors and plain data, and nothing in it is run."""

from __future__ import annotations

import io
import itertools
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from niblick.errors import ArtifactError


def load_dictionary(path: Path, data: bytes | None = None) -> dict[Any, Any]:
    """Return the dictionary in a file of `torch.save`, from `data` if it is at hand; else tensors are mapped, not read.

    In torch's zip form nothing is compressed, so the file bounds the storages. Raises ArtifactError, which names
    `path`, for what is no such file, is damaged, holds more than tensors and plain data, or no dictionary.
    """
    try:
        with zipfile.ZipFile(path if data is None else io.BytesIO(data)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ArtifactError(f"{path} holds compressed records, which torch.save never writes; that is refused")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); give the path of a checkpoint") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
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
    return content


def no_dictionary(path: Path, content: Any) -> ArtifactError:
    """The error for content that is no dictionary of tensors by name."""
    return ArtifactError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors by name")


def _global(error: Exception) -> str:
    """What the file wanted to call, as far as torch says."""
    words = str(error).replace("`", " ").split()
    after = [b for a, b in itertools.pairwise(words) if a == "GLOBAL"]
    return after[0] if after else "something that is no tensor"
