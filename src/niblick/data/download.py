"""The challenge's own data, from its repository on the Hugging Face hub, file by file and checked.

`challenge:sp1024` (or another of its tokenizers) fetches finished shards: the manifest says which there are. What has
arrived stays in a directory beside OUT, `.OUT.download`, until all of it has: after an interruption the same command
goes on where it stopped. `challenge:docs` streams the documents, 48 GB, which are never stored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from niblick.challenge import rules
from niblick.data.corpus import Corpus
from niblick.data.dataset import read_manifest
from niblick.data.json_lines import line_blocks
from niblick.data.shards import file_hash, read_shard, shard_files
from niblick.errors import DataError, nearest
from niblick.files import parse_json

PREFIX = "challenge:"
REPOSITORY = "willdepueoai/parameter-golf"
FOLDER = "datasets"

DEFAULT_TRAIN_SHARDS = 80
"""As the challenge's own script: 8 billion tokens, 16 GB."""

_PIECE = 8 << 20
_ATTEMPTS = 4
_WAIT_SECONDS = 2.0


class Files(Protocol):
    """A place that has the challenge's files. Everything that goes wrong there is an OSError."""

    def describe(self, name: str) -> tuple[int, str | None]:
        """Return size in bytes and, where known, SHA-256 (hex) of a file."""

    def read(self, name: str, start: int) -> Iterator[bytes]:
        """Read a file from byte `start` to its end, in pieces."""


class LocalFiles:
    """A directory that stands for the hub: a mirror, or a test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def describe(self, name: str) -> tuple[int, str | None]:
        """Return the size of a file; its hash is not known."""
        return (self.directory / name).stat().st_size, None

    def read(self, name: str, start: int) -> Iterator[bytes]:
        """Read a file from byte `start` to its end."""
        with open(self.directory / name, "rb") as file:
            file.seek(start)
            while piece := file.read(_PIECE):
                yield piece


class HubFiles:
    """The challenge's repository on the hub."""

    def __init__(self, repository: str = REPOSITORY, folder: str = FOLDER) -> None:
        """Raises DataError if huggingface_hub is not installed."""
        try:
            from huggingface_hub import HfFileSystem
        except ImportError as error:
            raise DataError("fetching from the hub needs huggingface_hub; run `pip install niblick[hub]`") from error
        self._system: Any = HfFileSystem()
        self._root = f"datasets/{repository}/{folder}"

    def describe(self, name: str) -> tuple[int, str | None]:
        """Return size and, for large files, SHA-256."""
        try:
            info = self._system.info(f"{self._root}/{name}")
            return int(info["size"]), getattr(info.get("lfs"), "sha256", None)
        except Exception as error:  # whatever the client and the HTTP library below it raise
            raise OSError(f"{type(error).__name__}: {error}") from error

    def read(self, name: str, start: int) -> Iterator[bytes]:
        """Read a file from byte `start` to its end."""
        try:
            with self._system.open(f"{self._root}/{name}", "rb", block_size=_PIECE) as file:
                file.seek(start)
                while piece := file.read(_PIECE):
                    yield piece
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error


def fetch_shards(
    variant: str,
    out: Path,
    *,
    train_shards: int | None = None,
    files: Files | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Fetch tokenizer, all validation shards and the first `train_shards` training shards of `variant` into `out`.

    Returns the challenge's manifest. `progress` is told files and bytes that are there. Raises DataError if the hub
    does not have them, stops (run it again to go on) or sends something else.
    """
    files = files or HubFiles()
    partial = out.parent / f".{out.name}.download"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        _fetch(files, "manifest.json", partial / "manifest.json", again=True)
        manifest = read_manifest(partial / "manifest.json")
        names = _wanted(manifest, variant, train_shards)
        done = 0
        for count, name in enumerate(names, 1):
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(files, name, path)
            done += path.stat().st_size
            if progress:
                progress(count, done)
        _check_validation(partial, manifest, variant)
        if out.exists():
            out.rmdir()
        os.rename(partial, out)
    except OSError as error:
        raise DataError(f"cannot write what is fetched to {out}: {error.strerror or error}") from error
    return manifest


def challenge_documents(val_docs: int | None, files: Files | None = None) -> Corpus:
    """The challenge's documents, streamed; the first 50,000 are held out unless `val_docs` says otherwise."""
    source = files or HubFiles()
    try:
        manifest = parse_json(b"".join(_pieces(source, "manifest.json", 0)))
        manifest.keys()
    except (ValueError, AttributeError) as error:
        raise DataError(f"the challenge's manifest.json cannot be read: {error}") from error
    name = str(manifest.get("docs_jsonl", "docs_selected.jsonl"))
    if val_docs is None:
        val_docs = int(manifest.get("num_val_docs", rules.VALIDATION_DOCUMENTS))
    return Corpus(
        f"fineweb{manifest.get('version', '')}",
        f"{PREFIX}docs",
        val_docs,
        lambda: line_blocks(_pieces(source, name, 0), name),
        {"dataset_revision": manifest.get("dataset_revision")},
        manifest.get("num_docs"),
    )


def _wanted(manifest: dict[str, Any], variant: str, train_shards: int | None) -> list[str]:
    """The files of `variant`, in the order in which they are fetched."""
    entry = _entry(manifest, variant)
    stats = entry["stats"]
    there = int(stats["files_train"])
    if train_shards is None:
        train_shards = min(DEFAULT_TRAIN_SHARDS, there)
    if not 0 <= train_shards <= there:
        raise DataError(f"train_shards is {train_shards}; {PREFIX}{variant} has 0 to {there}")
    names = []
    for spec in manifest.get("tokenizers", []):
        if spec.get("name") == entry.get("tokenizer_name") and spec.get("model_path"):
            names.append(str(spec["model_path"]))
    for split, count in (("val", int(stats["files_val"])), ("train", train_shards)):
        names += [f"{entry['path']}/{rules.shard_name(split, number)}" for number in range(count)]
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"the hub's manifest names the file {name}, outside its own directory; that is refused")
    return names


def _entry(manifest: dict[str, Any], variant: str) -> dict[str, Any]:
    known = {str(entry.get("name", "")).rpartition("_")[2]: entry for entry in manifest["datasets"]}
    if variant not in known:
        raise DataError(f"the challenge has no dataset {variant!r}{nearest(variant, ['docs', *known])}")
    entry = known[variant]
    if not isinstance(entry.get("stats"), dict) or not {"files_train", "files_val"} <= entry["stats"].keys():
        raise DataError(f"the hub's manifest does not say how many shards {variant} has; it cannot be fetched")
    return entry


def _fetch(files: Files, name: str, path: Path, again: bool = False) -> None:
    """Bring one file here, going on from what is there of it; `again` does not trust what is complete either."""
    if path.exists() and not again:
        return
    size, sha256 = _described(files, name)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() and not again else 0
    if have > size:
        have = 0
    with open(part, "ab" if have else "wb") as file:
        for piece in _pieces(files, name, have):
            file.write(piece)
            have += len(piece)
            if have > size:
                break
    if have != size or (sha256 and file_hash(part) != sha256):
        part.unlink()
        raise DataError(f"{name} arrived with {have} bytes, not as the hub describes it ({size} bytes); run it again")
    if name.endswith(".bin"):
        _check_shard(part, name)
    os.replace(part, path)


def _check_shard(part: Path, name: str) -> None:
    try:
        read_shard(part)
    except DataError as error:
        part.unlink()
        raise DataError(f"the hub's {name} is no whole shard: {error}") from error


def _described(files: Files, name: str) -> tuple[int, str | None]:
    try:
        return files.describe(name)
    except OSError as error:
        raise DataError(f"the hub does not give {name} ({error}); check the connection and run it again") from error


def _pieces(files: Files, name: str, start: int) -> Iterator[bytes]:
    """Read to the promised end, opening again where the connection broke; gives up when nothing comes any more."""
    size, _ = _described(files, name)
    failures = 0
    while start < size:
        reason = "it ended early"
        try:
            for piece in files.read(name, start):
                yield piece
                start += len(piece)
                failures = 0
        except OSError as error:
            reason = str(error)
        if start < size:
            failures += 1
            if failures >= _ATTEMPTS:
                raise DataError(
                    f"the hub stopped after {start} of {size} bytes of {name} ({reason}); "
                    "run the same command again to go on"
                )
            time.sleep(_WAIT_SECONDS * failures)


def _check_validation(directory: Path, manifest: dict[str, Any], variant: str) -> None:
    entry = _entry(manifest, variant)
    tokens = sum(len(read_shard(path)) for path in shard_files((directory / entry["val_glob"]).parent, "val"))
    if tokens != entry["stats"].get("tokens_val", tokens):
        raise DataError(
            f"the validation shards of {variant} hold {tokens} tokens, the manifest says "
            f"{entry['stats']['tokens_val']}; the hub's files do not belong together: remove {directory} and run again"
        )
