"""`niblick push`: a finished run as a folder that others can load, on the hub or on a disk.

Nothing in it is a pickle: the artifact, weights as safetensors, JSON, and the model card.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from niblick import __version__
from niblick.artifact.container import read_artifact
from niblick.config.run_config import to_dict
from niblick.data.dataset import Dataset
from niblick.data.hub import PREFIX, HubAddress, hub_library, in_sentences
from niblick.data.shards import file_hash
from niblick.data.tokenizers import write_model_file
from niblick.errors import ConfigError, DataError, StorageError
from niblick.facts.reading import plain
from niblick.facts.record import Record
from niblick.files import json_bytes
from niblick.model.counting import parameter_count
from niblick.run.artifacts import HUB_ARTIFACT
from niblick.run.directory import Run
from niblick.submission.folder import Entry, chunk_pictures, read_audit, read_entry
from niblick.submission.model_card import model_card


@dataclass(frozen=True, kw_only=True)
class Pushed(Record):
    """What was written, and where."""

    where: str
    """An address or a folder, by which it is loaded again."""
    revision: str = ""
    """The commit on the hub."""
    files: dict[str, int]
    """Bytes of each."""


def push(run: Run, target: str, private: bool = False) -> Pushed:
    """Write weights, artifact, config, score, audit and a model card of `run` to `hf:OWNER/NAME`, or to a new folder.

    Raises ConfigError for a run that is not finished or was changed, and for a folder that is in use; DataError where
    the hub does not take it.
    """
    entry = read_entry(run)
    if changed := run.changed():
        raise ConfigError(f"{run.path} was changed after it finished ({', '.join(changed)}): push a run as it ended")
    if target.startswith(PREFIX):
        return _to_hub(entry, HubAddress.parse(target), private)
    out = Path(target)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already: name a new folder")
    with _prepared(entry, str(out), out.parent) as folder:
        files = _sizes(folder)
        try:
            if out.exists():
                out.rmdir()
            folder.rename(out)
        except OSError as error:
            raise StorageError(f"{out} cannot be written ({error.strerror}): make room, or name another") from error
    return Pushed(where=str(out), files=files)


def _to_hub(entry: Entry, address: HubAddress, private: bool) -> Pushed:
    where = f"{PREFIX}{address.repo}"
    if address.folder or address.revision or address.parts or address.column:
        raise ConfigError(f"{where} is no name to push to: give hf:OWNER/NAME, or a new folder without hf:")
    library = hub_library()
    with _prepared(entry, where, None) as folder, in_sentences(address, "model"):
        api = library.HfApi()
        api.create_repo(address.repo, private=private, exist_ok=True)
        about = f"{entry.run.name}: {entry.record.bpb:.4f} BPB (niblick {__version__})"
        commit = api.upload_folder(repo_id=address.repo, folder_path=folder, commit_message=about)
        return Pushed(where=where, revision=str(commit.oid), files=_sizes(folder))


@contextmanager
def _prepared(entry: Entry, where: str, beside: Path | None) -> Iterator[Path]:
    """The folder as it is to be, in a place of its own."""
    if beside is not None:
        beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".niblick-push-", dir=beside) as temporary:
        folder = Path(temporary, "model")
        folder.mkdir()
        shutil.copyfile(entry.artifact, folder / HUB_ARTIFACT)
        if entry.run.weights.is_file():
            shutil.copyfile(entry.run.weights, folder / "model.safetensors")
        _write_tokenizer(entry, folder)
        # Where the data lay on this machine is nobody's business.
        config = replace(entry.config, data=replace(entry.config.data, path=Path(entry.config.data.path).name))
        (folder / "config.json").write_bytes(json_bytes(to_dict(config)))
        (folder / "score.json").write_bytes(json_bytes(plain(entry.record)))
        audit = read_audit(entry)
        if audit is not None and audit.artifact_sha256 != file_hash(entry.artifact):
            audit = None
        if audit is not None:
            shown = replace(audit, subject=entry.run.name, data=Path(audit.data).name)
            (folder / "audit.json").write_bytes(json_bytes(plain(shown)))
        card = model_card(entry, audit, chunk_pictures(entry), where, parameter_count(entry.config.model))
        (folder / "README.md").write_text(card, encoding="utf-8")
        yield folder


def _write_tokenizer(entry: Entry, folder: Path) -> None:
    """The file of a subword tokenizer, without which the model reads no text."""
    if "model_path" not in read_artifact(entry.artifact).config["tokenizer"]:
        return
    try:
        tokenizer = Dataset.open(entry.config.data.path).tokenizer
    except DataError as error:
        raise ConfigError(
            f"the tokenizer of {entry.run.path} comes with its data, which are not there any more ({error})"
        ) from error
    write_model_file(tokenizer, folder)


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
