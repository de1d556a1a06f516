"""Checkpoints: weights, optimizer state, clocks, data position and random states in one safetensors file.

Written to a temporary file, flushed to disk and renamed, so that a file under its final name is always whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from niblick.errors import ArtifactError
from niblick.train.optim import Optimizers

KEEP = 2
"""Checkpoints kept: the newest, and the one before it."""


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    position: int = 0
    """Windows of training text consumed."""
    train_seconds: float = 0.0
    """The train clock: stops for warmup and validation, as the challenge counts."""
    wall_seconds: float = 0.0


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically: temporary file, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(folder: Path, model: nn.Module, optimizers: Optimizers, progress: Progress) -> Path:
    """Write `step_<n>.safetensors` into `folder` and drop all but the newest KEEP. Returns the path."""
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"optim/{k}": v for k, v in optimizers.state_tensors().items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    path = folder / f"step_{progress.step:08d}.safetensors"
    save_tensors(path, tensors, {"progress": json.dumps(asdict(progress))})
    for old in list_checkpoints(folder)[:-KEEP]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step_*.safetensors"))


def load_checkpoint(path: Path, model: nn.Module, optimizers: Optimizers) -> Progress:
    """Put a checkpoint's state into model and optimizers. Raises ArtifactError if it is damaged or of another model."""
    tensors, metadata = read_tensors(path)
    try:
        progress = Progress(**json.loads(metadata["progress"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is no checkpoint of niblick: it says nothing of its progress ({error})") from error
    load_weights(model, _part(tensors, "model/"), path)
    optimizers.load_state_tensors(_part(tensors, "optim/"))
    torch.set_rng_state(tensors["random/cpu"])
    if "random/cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random/cuda"])
    return progress


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ArtifactError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged or no safetensors file: {error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Read what a safetensors file says about itself, without its tensors. Raises ArtifactError as `read_tensors`."""
    with _opened(path) as file:
        return file.metadata() or {}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors and metadata. Raises ArtifactError if it is missing or damaged."""
    with _opened(path) as file:
        return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118


def load_weights(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Copy weights into the model. Raises ArtifactError naming the first tensor that is missing, extra or different."""
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors:
            raise ArtifactError(f"{path} has no tensor {name}, which the model needs")
        if name not in own:
            raise ArtifactError(f"{path} has a tensor {name}, which the model does not have")
        if own[name].shape != tensors[name].shape:
            found, expected = tuple(tensors[name].shape), tuple(own[name].shape)
            raise ArtifactError(f"{path}: tensor {name} has shape {found}, the model expects {expected}")
    model.load_state_dict(tensors)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
