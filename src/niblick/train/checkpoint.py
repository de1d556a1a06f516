"""Checkpoints: weights, the state of all that trains them, clocks, data position and random states in one file.

Written to a temporary file, flushed to disk and renamed, so that a file under its final name is always whole. It holds
the SHA-256 of all that is in it, which is checked when it is read; files of before that go without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from niblick.errors import ArtifactError, StorageError
from niblick.files import parse_json, temporary_for


class Stateful(Protocol):
    """A part of training with state of its own (optimizers, averages, quantization-aware training)."""

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the whole state as named tensors."""
        ...

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state_tensors` gave; {} is the state at the start."""
        ...


Parts = Mapping[str, Stateful]
"""Stateful parts by the name under which checkpoints keep them."""


class WatchState(TypedDict, total=False):
    """What the watch over losses and routers remembers."""

    routers: list[int]
    """For each level, how many logged steps its collapse has lasted."""
    losses: list[float]
    in_spike: bool


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    position: int = 0
    """Windows of training text consumed, by all ranks together."""
    train_seconds: float = 0.0
    """The train clock: stops for warmup and validation, as the challenge counts."""
    wall_seconds: float = 0.0
    """Everything since the start, but the time between being killed and going on."""
    rollbacks: int = 0
    """How often a loss spike was undone."""
    watch: WatchState = field(default_factory=WatchState)
    """What the watch over losses and routers remembers."""


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically: temporary file, fsync, rename. Raises StorageError if it cannot be."""
    temporary = temporary_for(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        save_file(held, temporary, metadata | {_DIGEST: content_digest(held, metadata)})
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (SafetensorError, OSError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        size = sum(t.numel() * t.element_size() for t in tensors.values()) / 1e6
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path.parent).free / 1e6
            raise StorageError(
                f"{path} cannot be written: it takes {size:.1f} MB, {free:.1f} MB are free ({why})"
            ) from error
        raise StorageError(f"{path} cannot be written ({why})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


_DIGEST = "sha256"


def content_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 (hex) of contiguous tensors in memory: names, types, shapes, values, and what is said of them."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def stream_tensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[Tensor], metadata: dict[str, str]
) -> None:
    """Write a safetensors file of float32 tensors without ever holding it; they come one by one, in order of `shapes`.

    Atomic like `save_tensors`, and raises as it does.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for name, shape in shapes.items():
        end = at + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    temporary = temporary_for(path)
    try:
        with open(temporary, "wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for tensor, shape in zip(tensors, shapes.values(), strict=True):
                assert tuple(tensor.shape) == shape
                file.write(tensor.detach().float().contiguous().numpy().data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: it takes {at / 1e6:.1f} MB ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def capture(model: nn.Module, parts: Parts) -> dict[str, Tensor]:
    """Return the state of a run as named tensors: weights, parts and random states. They share memory with the run."""
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    for name, part in parts.items():
        tensors |= {f"{name}/{k}": v for k, v in part.state_tensors().items()}
    tensors["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random/cuda"] = torch.cuda.get_rng_state()
    return tensors


def put_back(tensors: dict[str, Tensor], model: nn.Module, parts: Parts, source: Path) -> None:
    """Undo everything since `capture`. Raises ArtifactError, naming `source`, if the state is not of these parts."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, key = name.partition("/")
        groups.setdefault(group, {})[key] = tensor
    for name in groups.keys() - parts.keys() - {"model", "random"}:
        raise ArtifactError(f"{source} holds the state of {name!r}, which this run does not have: another config?")
    load_weights(model, groups.get("model", {}), source)
    for name, part in parts.items():
        part.load_state_tensors(groups.get(name, {}))
    torch.set_rng_state(groups["random"]["cpu"])
    if "cuda" in groups["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(groups["random"]["cuda"])


def save_checkpoint(folder: Path, model: nn.Module, parts: Parts, progress: Progress, keep: int = 2) -> Path:
    """Write `step_<n>.safetensors` into `folder` and drop all but the newest `keep`; 0 drops none. Returns the path.

    Raises StorageError if it cannot be written; those before it are then still there.
    """
    path = folder / f"step_{progress.step:08d}.safetensors"
    save_tensors(path, capture(model, parts), {"progress": json.dumps(asdict(progress))})
    for old in list_checkpoints(folder)[:-keep]:  # [:-0] is empty
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step_*.safetensors"))


def load_checkpoint(path: Path, model: nn.Module, parts: Parts) -> Progress:
    """Put a checkpoint's state into model and parts. Raises ArtifactError if it is damaged or of another model.

    Nothing goes back to the checkpoint before a damaged one by itself: the error names it.
    """
    try:
        tensors, metadata = read_tensors(path)
        if metadata.keys() - {"progress"}:
            raise ArtifactError(f"{path} is damaged: it says {sorted(metadata)} of itself")
    except ArtifactError as error:
        before = [other for other in list_checkpoints(path.parent) if other.name < path.name]
        offer = f": move it away to go on from {before[-1].name}" if before else "; there is none before it"
        raise ArtifactError(f"{error}{offer}") from error
    try:
        progress = Progress(**parse_json(metadata["progress"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is no checkpoint of niblick: it says nothing of its progress ({error})") from error
    put_back(tensors, model, parts, path)
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
        tensors, metadata = {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    said = metadata.pop(_DIGEST, None)
    if said is not None and said != content_digest(tensors, metadata):
        raise ArtifactError(f"{path} is damaged: its contents are not those that were written (SHA-256 {said[:16]}…)")
    return tensors, metadata


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
