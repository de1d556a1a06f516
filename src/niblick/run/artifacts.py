"""Artifacts of runs: finding them by name, describing them, and their digests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from niblick.artifact.container import MAX_FILE_BYTES, read_artifact
from niblick.challenge.rules import Config
from niblick.data.hub import PREFIX, fetched_model
from niblick.data.shards import file_hash
from niblick.errors import ArtifactError
from niblick.facts.record import Record
from niblick.files import imported_beside
from niblick.run.directory import Run, open_run

HUB_ARTIFACT = "artifact.nib"
"""The artifact of a run that was pushed, at the top of its folder."""


@dataclass(frozen=True, kw_only=True)
class TensorFacts(Record):
    """A tensor as an artifact stores it."""

    name: str
    shape: tuple[int, ...]
    scheme: str
    raw_bytes: int
    """Before coding."""
    stored_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class TextPart(Record):
    """The text in an artifact."""

    stored_bytes: int
    bytes: int
    """Of the text."""
    documents: int
    tokens: int
    mix: str
    memory: int
    """Setting and MiB of the mixture that unpacks it."""


@dataclass(frozen=True, kw_only=True)
class ByteFacts(Record):
    """Where the bytes of an artifact are."""

    total: int
    header: int
    payload: int
    """Of the tensors."""
    text: int = 0
    before_coding: int


@dataclass(frozen=True, kw_only=True)
class ArtifactFacts(Record):
    """What `niblick show` says of an artifact."""

    path: str
    codec: str
    config: Config
    tensors: tuple[TensorFacts, ...]
    bytes: ByteFacts
    text: TextPart | None = None


def describe_artifact(path: Path) -> ArtifactFacts:
    """What an artifact holds: config, tensors with their schemes, bytes per part."""
    artifact = read_artifact(path)
    sizes = artifact.bytes
    tensors = tuple(
        TensorFacts(
            name=t.name,
            shape=tuple(artifact.encoded[t.name].shape),
            scheme=t.scheme,
            raw_bytes=t.raw,
            stored_bytes=t.stored,
        )
        for t in sizes.tensors
    )
    counted = ByteFacts(
        total=sizes.file, header=sizes.header, payload=sizes.payload, text=sizes.text, before_coding=sizes.raw
    )
    part = None
    if (text := artifact.text) is not None:
        part = TextPart(
            stored_bytes=len(text.data),
            bytes=text.bytes,
            documents=text.documents,
            tokens=text.tokens,
            mix=text.mix,
            memory=text.memory,
        )
    return ArtifactFacts(
        path=str(path), codec=artifact.codec, config=artifact.config, tensors=tensors, bytes=counted, text=part
    )


def digests(run: Run) -> dict[str, str]:
    """SHA-256 of the finished files: what was changed afterwards shows."""
    files = [run.path / "config.json", run.weights, *(run.artifact(n) for n in run.artifact_names())]
    files += [run.recipe, *imported_beside(run.recipe).values()] if run.recipe.is_file() else []
    return {f.relative_to(run.path).as_posix(): file_hash(f) for f in files}


def find_artifact(target: str, runs: Path) -> tuple[Path, Run | None]:
    """Resolve RUN, RUN:NAME, the path of an artifact, a folder that was pushed, or a model on the hub (`hf:REPO`).

    Raises ConfigError, ArtifactError or, of the hub, DataError if it is not there.
    """
    path = Path(target)
    if target.startswith(PREFIX):
        return fetched_model(target, HUB_ARTIFACT, MAX_FILE_BYTES), None
    if (path / HUB_ARTIFACT).is_file():
        return path / HUB_ARTIFACT, None
    if path.is_file():
        owner = path.resolve().parents[2] if len(path.resolve().parents) > 2 else path
        return path, Run(owner) if (owner / "config.json").is_file() else None
    if path.suffix == ".nib":
        raise ArtifactError(f"there is no artifact {path}")
    name, _, artifact = target.rpartition(":") if ":" in target else (target, "", "")
    run = open_run(name, runs)
    names = run.artifact_names()
    found = run.finished()
    if not names and found is None:
        raise ArtifactError(f"{run.path} has no artifact yet: it is not finished (`niblick train --resume {run.path}`)")
    chosen = artifact or (found.artifact if found else names[0])
    if found is not None and chosen == found.artifact and chosen not in names:
        again = "`niblick export {}` packs its weights again" if run.weights.is_file() else "its weights are gone, too"
        raise ArtifactError(f"{run.path} has lost its artifact {chosen}: {again.format(run.path)}")
    if chosen not in names:
        raise ArtifactError(f"{run.path} has no artifact {chosen!r} (there: {', '.join(names)})")
    return run.artifact(chosen), run
