"""Addresses on the Hugging Face hub, and what can go wrong there, in sentences.

`hf:REPO[@REVISION][:CONFIG][:SPLIT][#COLUMN]` names text, `hf:REPO[@REVISION]` a model. In REPO's place a folder may
stand, which is read in the same way and needs no network: a clone, a mirror.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from niblick.errors import DataError

PREFIX = "hf:"
Kind = Literal["dataset", "model"]
_ADDRESS = re.compile(r"hf:([^@:#]+)(?:@([^:#]+))?((?::[^:#]*){0,2})(?:#(.+))?")
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
TOKENIZER_FILE = re.compile(r"tokenizers/[\w.-]+\.(model|json)")
"""Where the file of a tokenizer lies, from the folder of an artifact that was pushed or of a dataset."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAddress:
    """Where something is on the hub. `parts` are what stands between colons: config and split."""

    repo: str
    revision: str = ""
    parts: tuple[str, ...] = ()
    column: str = ""

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Read an address. Raises DataError for one of another form."""
        match = _ADDRESS.fullmatch(text)
        if match is None or not (Path(match[1]).is_dir() or _NAME.fullmatch(match[1])):
            raise DataError(
                f"{text!r} is no address on the hub; write hf:OWNER/NAME, and where it is needed @REVISION, :CONFIG, "
                ":SPLIT and #COLUMN behind it, in this order"
            )
        return cls(match[1], match[2] or "", tuple(match[3].split(":")[1:]), match[4] or "")

    @property
    def folder(self) -> Path | None:
        """The folder that stands in the hub's place, if one does."""
        return Path(self.repo) if Path(self.repo).is_dir() else None

    @property
    def name(self) -> str:
        """The last part of the name."""
        return Path(self.repo).resolve().name if self.folder else self.repo.rpartition("/")[2]


def hub_library() -> ModuleType:
    """The library of the hub. Raises DataError if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise DataError("fetching from the hub needs huggingface_hub; run `pip install niblick[hub]`") from error
    return huggingface_hub


def pinned(address: HubAddress, kind: Kind) -> str:
    """The commit that an address stands for now; "" for a folder. Raises DataError where the hub does not say it."""
    if address.folder is not None:
        if address.revision:
            raise DataError(f"{address.repo} is a folder, which has no revisions; leave @{address.revision} out")
        return ""
    if _COMMIT.fullmatch(address.revision):
        return address.revision
    with in_sentences(address, kind):
        info = hub_library().HfApi().repo_info(address.repo, revision=address.revision or None, repo_type=kind)
    return str(info.sha)


@contextmanager
def in_sentences(address: HubAddress, kind: Kind) -> Iterator[None]:
    """Turn what the hub's libraries raise into a DataError of one sentence."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # whatever they and the HTTP library below them raise
        raise DataError(_sentence(error, address, kind)) from error


def _sentence(error: Exception, address: HubAddress, kind: Kind) -> str:
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 16:
        chain.append(before)
    names = {each.__name__ for found in chain for each in type(found).__mro__}
    repo, page = address.repo, f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{address.repo}"
    if "GatedRepoError" in names or "is a gated dataset" in str(error):
        return f"{repo} is gated: accept its conditions at {page}, log in by `hf auth login`, and call it again"
    if "RevisionNotFoundError" in names:
        return f"{repo} has no revision {address.revision or 'main'}; {page}/commits lists those that it has"
    if names & {"RepositoryNotFoundError", "DatasetNotFoundError"} and not names & _UNREACHABLE:
        return f"there is no {kind} {repo} on the hub, or it is private: check the name, or log in by `hf auth login`"
    if names & _UNREACHABLE:
        return (
            f"the hub cannot be reached for {repo} ({_short(error)}); check the connection, or give a folder that is "
            f"here already, as hf:./{address.name}"
        )
    return f"{repo} cannot be read from the hub ({type(error).__name__}: {_short(error)})"


_UNREACHABLE = {
    *("ConnectionError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "TimeoutError", "TransportError"),
    *("ProxyError", "gaierror"),
}
"""Names of the exceptions that say that there is no way to the hub."""


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")


def fetched_model(text: str, artifact: str, most: int) -> Path:
    """Fetch `artifact`, a file of at most `most` bytes, of the model `hf:REPO[@REVISION]`, and return its path.

    The tokenizer's file, if it has one, lies below the same folder then. Nothing else is fetched. What was fetched of a
    commit that is named needs no network again. Raises DataError for what is not there, or is not as long as the hub
    says.
    """
    address = HubAddress.parse(text)
    if address.parts or address.column:
        raise DataError(f"{text} names a config, a split or a column, which a model does not have; leave them out")
    if address.folder is not None:
        if not (address.folder / artifact).is_file():
            raise DataError(f"the folder {address.repo} has no {artifact}; `niblick push RUN DIR` writes one")
        return address.folder / artifact
    library, revision = hub_library(), pinned(address, "model")
    with in_sentences(address, "model"):
        kept = library.try_to_load_from_cache(address.repo, artifact, revision=revision)
        if isinstance(kept, str) and address.revision == revision:
            return Path(kept)
        info = library.HfApi().model_info(address.repo, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size for file in info.siblings or []}
        if artifact not in sizes:
            raise DataError(
                f"{address.repo} has no {artifact}: `niblick push` did not write it, and nothing else is read"
            )
        wanted = [name for name in sizes if TOKENIZER_FILE.fullmatch(name)]
        for name, limit in [*((name, _TOKENIZER_MOST) for name in wanted), (artifact, most)]:
            size = sizes[name]
            if size is None or size > limit:
                raise DataError(
                    f"{name} of {address.repo} has {size or 'unknown'} bytes, and at most {limit:,} are read"
                )
            path = Path(library.hf_hub_download(address.repo, name, revision=revision))
            if path.stat().st_size != size:
                raise DataError(
                    f"{name} of {address.repo} arrived with {path.stat().st_size:,} bytes, and the hub says {size:,}: "
                    f"remove {path} and call it again"
                )
    return path


_TOKENIZER_MOST = 64 << 20
