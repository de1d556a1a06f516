"""A submission folder run again as a stranger would: a fresh environment, its requirements, no network.

Nothing of the stranger's is run outside of a cage. Its requirements are fetched as wheels, which hold no code that
runs when they are fetched or installed; they are installed, and its script runs, in the cage, without network. The
folder is copied, so that nothing in it changes.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from niblick.challenge.log_reader import read_log
from niblick.errors import ConfigError, NiblickError
from niblick.submission.cage import Cage, Ended, Limits, find_cage

ENOUGH = 1e-4
"""BPB by which the score may differ from what submission.json says."""

FOR_PIP = ("PATH", "HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that fetching wheels may need; those of pip and of proxies too. Installing and running get none of them."""
FOR_SCRIPTS = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "CUDA_VISIBLE_DEVICES")

_WHEELS = ("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--dest")
_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--no-index")


@dataclass(frozen=True)
class Handling:
    """How a stranger's folder is run."""

    cage: Cage
    limits: Limits = field(default_factory=Limits)
    environment: Path | None = None
    """One made before by `environment`; None: a fresh one is made of its requirements."""

    @property
    def told(self) -> str:
        """How it is kept in, in words."""
        if self.cage.name == "none":
            return "without a cage (--trust)"
        return f"in a cage ({self.cage.name}) without network"


def handling(limits: Limits | None = None, trust: bool = False, environment: Path | None = None) -> Handling | None:
    """How folders are run here; None where there is no cage and the folder is not trusted: then it is not run."""
    cage = find_cage() or (Cage("none") if trust else None)
    return Handling(cage, limits or Limits(), environment) if cage else None


def requirements(folder: Path) -> list[str]:
    """The packages that a folder's requirements.txt names.

    Raises ConfigError if there is none, or if a line is anything but a package's name, versions and conditions: an
    option, an address, a folder.
    """
    path = folder / "requirements.txt"
    if not path.is_file():
        raise ConfigError(f"{folder} has no requirements.txt: a fresh environment cannot be made")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace")[: 1 << 16].splitlines(), 1):
        if not (text := line.partition("#")[0].strip()):
            continue
        try:
            named = Requirement(text)
        except InvalidRequirement:
            named = None
        if named is None or named.url:
            raise ConfigError(
                f"{path}:{number} is {text[:80]!r}: only packages by name and version are installed, as in numpy==2.1.0"
            )
        found.append(str(named))
    return found


def environment(folder: Path, place: Path, handling: Handling) -> Path:
    """Make a fresh environment with a folder's requirements at `place`, a new folder. Returns its Python.

    Raises ConfigError for requirements that are not installed, NiblickError with pip's last line if they cannot be had.
    """
    wanted = requirements(folder)
    place.mkdir(parents=True)
    place = place.resolve()
    listed, wheels, python = place / "wanted.txt", place / "wheels", place / "environment" / "bin" / "python"
    listed.write_text("".join(f"{line}\n" for line in wanted), encoding="utf-8")
    wheels.mkdir()
    named = {
        key: value
        for key, value in os.environ.items()
        if key in FOR_PIP or key.startswith("PIP_") or key.lower().endswith("_proxy")
    }
    base = Path(sys.base_prefix)
    own = str(base / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
    fetched = Cage("none").run(
        [sys.executable, *_WHEELS, str(wheels), "-r", str(listed)], place, named, handling.limits
    )
    _expect(fetched, f"the requirements of {folder} cannot be had as wheels")
    for command in (
        [own, "-m", "venv", str(place / "environment")],
        [str(python), *_INSTALL, "--find-links", str(wheels), "-r", str(listed)],
    ):
        ended = handling.cage.run(command, place, {}, handling.limits, read=[base])
        _expect(ended, f"the requirements of {folder} cannot be installed")
    shutil.rmtree(wheels)
    return python


@dataclass(frozen=True)
class Rerun:
    """What a folder's own script claims, and how it was run."""

    bpb: float
    loss: float
    how: str


def rerun(folder: Path, data: str, handling: Handling) -> Rerun:
    """Score a folder's artifact with its own script, in a fresh environment without network.

    Raises NiblickError with what the script said if it failed.
    """
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        python = handling.environment or environment(folder, place / "packages", handling)
        own = place / "own"
        copy_folder(folder, own / "submission", handling.limits)
        variables = {"DATA_PATH": os.path.abspath(data), "PYTHONDONTWRITEBYTECODE": "1"}
        variables |= {key: os.environ[key] for key in FOR_SCRIPTS if key in os.environ}
        read = [Path(sys.base_prefix), python.parents[1], Path(data).resolve(), Path(os.path.abspath(data))]
        command = [str(python), "train_gpt.py", "--eval"]
        ended = handling.cage.run(command, own, variables, handling.limits, read=read, at="submission")
    _expect(ended, f"`python train_gpt.py --eval` of {folder} failed")
    claims = [claim for claim in read_log(ended.out).claims if claim.name.endswith("_exact")]
    if not claims:
        raise NiblickError(f"`python train_gpt.py --eval` of {folder} printed no exact score")
    return Rerun(float(claims[-1].bpb), float(claims[-1].loss or "nan"), handling.told)


def copy_folder(folder: Path, into: Path, limits: Limits) -> None:
    """Copy a stranger's folder: regular files alone, as far as the limit on disk goes; not its logs.

    Raises ConfigError for anything else in it: links, pipes, sockets and devices.
    """
    into.mkdir(parents=True)
    left = limits.disk
    for above, folders, files in os.walk(folder, followlinks=False):
        below = into / os.path.relpath(above, folder)
        folders[:] = sorted(set(folders) - {"logs", "__pycache__"})
        for name in [*folders, *sorted(files)]:
            path, facts = Path(above, name), os.lstat(os.path.join(above, name))
            if stat.S_ISDIR(facts.st_mode):
                (below / name).mkdir()
                continue
            if not stat.S_ISREG(facts.st_mode):
                raise ConfigError(f"{path} is {_kind(facts.st_mode)}: a submission holds regular files alone")
            left -= facts.st_size
            if left < 0:
                raise ConfigError(f"{folder} holds more than {limits.disk:,} bytes: raise --limits disk=…")
            shutil.copyfile(path, below / name, follow_symlinks=False)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def _expect(ended: Ended, what: str) -> None:
    """Raise NiblickError with the last line that a program said, if it failed."""
    if ended.over:
        raise NiblickError(f"{what}: it {ended.over}")
    if ended.code:
        last = ((ended.err or ended.out).strip().splitlines() or [f"exit code {ended.code}"])[-1]
        raise NiblickError(f"{what}: {last[:500]}")
