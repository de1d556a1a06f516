"""Sending a run to a machine: look at it, ship code and data, make the environment, check all, start.

Until the start nothing is written at home that a failure does not take away again. Doing it all again is cheap: data
and environment stay there, and only what changed travels.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import re
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import zstandard

from niblick.config.run_config import RunConfig, override, to_dict
from niblick.data.dataset import Dataset
from niblick.data.shards import file_hash
from niblick.errors import ConfigError
from niblick.files import parse_json
from niblick.remote import records as at
from niblick.remote.address import Address, RemoteError, Unreachable
from niblick.remote.far import Data
from niblick.remote.money import RESERVE, fits_budget, seconds_to_train
from niblick.remote.pull import Say, far
from niblick.remote.records import Machine, Ready, Records, RemoteRun, check_name
from niblick.remote.work import needed_bytes, source_digest
from niblick.run.directory import read_json, source_snapshot, write_json

CLOCKS_APART = 60.0
"""Seconds that a far clock may differ before it is said."""


@dataclass(frozen=True)
class Order:
    """The details of a launch, beside config and machine."""

    name: str = ""
    """Id of the run; empty: the next one of the preset."""
    prepare: str = ""
    """Prepare the data there from this source, instead of sending it."""
    gpus: int = 0
    """GPUs that there must be."""
    devices: int = 1
    """Processes that share the training."""
    budget: float | None = None
    reserve: float = RESERVE
    stop_machine: str = ""
    """Shell command there that stops the machine and keeps its disk, once home has been silent for long."""
    stop_machine_after: float = 1800.0

    def __post_init__(self) -> None:
        if self.gpus < 0 or self.devices < 1 or self.reserve < 0 or self.stop_machine_after < 0:
            raise ConfigError("--gpus, --reserve and --stop-after count from 0, --devices from 1")


@dataclass(frozen=True)
class Probe:
    """What a look at a machine says, before anything is sent."""

    directory: str
    free_bytes: int
    clock_offset: float
    """Seconds that its clock is ahead of this one."""
    gpus: tuple[str, ...]


def probe(machine: Machine) -> Probe:
    """Look at a machine and make its directory. Raises Unreachable, or RemoteError for what is missing there."""
    folder = _shell_path(machine.directory)
    script = f"""
    for t in rsync tar; do command -v $t >/dev/null || {{ echo "there is no $t there: install it" >&2; exit 3; }}; done
    mkdir -p {folder} && cd {folder} && mkdir -p data || exit 3
    echo "directory=$(pwd -P)"; echo "free=$(df -Pk . | awk 'NR==2 {{print $4}}')"; echo "now=$(date +%s)"
    if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name --format=csv,noheader | sed 's/^/gpu=/'; fi
    """
    before = time.time()
    said = machine.address.run(script, seconds=120)
    lines = [line.partition("=") for line in said.splitlines()]
    facts = {key: value for key, _, value in lines if key != "gpu"}
    try:
        offset = float(facts["now"]) - (before + time.time()) / 2
        gpus = tuple(value for key, _, value in lines if key == "gpu")
        return Probe(facts["directory"], int(facts["free"]) * 1024, offset, gpus)
    except (KeyError, ValueError):
        raise RemoteError(f"{machine.address} does not behave like a Linux shell (it said {said[:80]!r})") from None


def launch(
    records: Records, machine: Machine, config: RunConfig, recipe: Path | None, order: Order, say: Say
) -> RemoteRun:
    """Send a run to a machine and start it. Returns its record.

    Raises ConfigError or RemoteError before anything is started; Unreachable in the very moment of the start leaves
    the run `launching`, and a pull says what became of it.
    """
    started = time.time()
    left = seconds_to_train(machine.price_per_hour, order.budget, order.reserve, 0.0)
    fits_budget(config.schedule.max_seconds, left)
    data, sent, config = _data(config, order)
    if config.train.checkpoint_every == 0:
        say("note      train.checkpoint_every=0: while it runs, only events and log come home")
    with _reserved(records, config.preset, order.name) as run_id:
        say(f"machine   looking at {machine.address}")
        found = probe(machine)
        records.save_machine(machine)
        _check(found, machine, config, order, sum(_size(path) for path in sent.values()))
        if abs(found.clock_offset) > CLOCKS_APART:
            say(f"warning   the clock there is {found.clock_offset:+.0f} s off: times of events will be, too")
        folder = f"{found.directory}/{run_id}"
        _claim(machine, folder, run_id)
        for place, local in sent.items():
            say(f"data      {local} → {machine.address}")
            machine.address.push(local, _store(found.directory, data[place]))
        _ship(machine.address, folder, recipe, {place: _store(found.directory, d) for place, d in data.items()})
        python = machine.python or _environment(
            machine.address, found.directory, requirements(bool(order.prepare)), say
        )
        job = asdict(order) | {"run": run_id, "config": to_dict(config), "data": data}
        job |= {"source_sha256": source_digest(recipe), "needs_bytes": needed_bytes(config)}
        run = RemoteRun(run_id, machine.name, at.LAUNCHING, folder, python, started, machine.price_per_hour)
        run = replace(run, budget=order.budget)
        say("checking  environment, GPUs, disk, clock, data")
        _write_job(records, machine.address, run, job)
        facts = _ready(machine, run)
        spent = time.time() - started
        job["stop_after_seconds"] = seconds_to_train(machine.price_per_hour, order.budget, order.reserve, spent)
        _write_job(records, machine.address, run, job)
        run = records.save(replace(run, ready=facts))
    return start(records, machine, run)


def start(records: Records, machine: Machine, run: RemoteRun) -> RemoteRun:
    """Start a run that was sent, or go on with one that ended before its result. Raises Unreachable, RemoteError."""
    try:
        status = far(machine, run, "start")
    except Unreachable as error:
        raise Unreachable(
            f"{error}; whether {run.run} was started is not known: niblick remote pull {run.run}"
        ) from None
    if "phase" not in status:
        raise RemoteError(f"{run.run} did not start: see output.log in {run.folder} on {machine.address}")
    return records.save(replace(run, state=at.RUNNING, ended=None, missing=(), lines=()))


def resume(records: Records, machine: Machine, run: RemoteRun) -> RemoteRun:
    """Go on with a run that was stopped or failed, with what is left of its budget. Raises ConfigError, RemoteError."""
    if run.state not in (at.STOPPED, at.FAILED, at.LAUNCHING):
        raise ConfigError(f"{run.run} is {run.state}: only a run that was stopped or failed can be gone on with")
    if (records.runs / run.run / "result.json").is_file():
        raise ConfigError(f"{run.run} has its result already: launch another run")
    job = read_json(records.beside(run.run) / "job.json")
    spent = time.time() - run.launched
    job["stop_after_seconds"] = seconds_to_train(run.price_per_hour, run.budget, job["reserve"], spent)
    _write_job(records, machine.address, run, job)
    return start(records, machine, run)


@contextlib.contextmanager
def _reserved(records: Records, preset: str, name: str) -> Any:
    """Reserve a run id at home; given back if what is done with it fails."""
    records.runs.mkdir(parents=True, exist_ok=True)
    numbers = (f"{check_name(preset, 'run')}-{n}" for n in range(1, 1_000_000))
    for run_id in [check_name(name, "run")] if name else numbers:
        try:
            (records.runs / run_id).mkdir()
            break
        except FileExistsError:
            if name:
                raise ConfigError(f"{records.runs / name} is there already: give this run another --name") from None
    try:
        yield run_id
    except BaseException:
        shutil.rmtree(records.runs / run_id, ignore_errors=True)  # nothing was started: there is nothing in it
        shutil.rmtree(records.folder / run_id, ignore_errors=True)
        raise


def _data(config: RunConfig, order: Order) -> tuple[dict[str, Data], dict[str, Path], RunConfig]:
    """Files that the run reads, by their place in its folder there; those to send; the config with these places."""
    if not config.data.path and not order.prepare:
        raise ConfigError("no data is named: pass --data DIR to send it, or --prepare pydocs to have it prepared there")
    local = Path(config.data.path or f"data/{re.sub('[^A-Za-z0-9]+', '-', order.prepare).strip('-')}")
    place = _place(local)
    config = override(config, [f"data.path={json.dumps(place)}"])
    data: dict[str, Data] = {}
    sent = {}
    if order.prepare:
        hashes = None
        if local.exists():
            known = Dataset.open(local)
            hashes = {split.name: split.text_hash for split in (known.val, known.train)}
        finished = order.prepare.startswith("challenge:") and order.prepare != "challenge:docs"  # shards of their own
        tokenizer = None if finished else config.tokenizer
        data[place] = {"prepare": order.prepare, "tokenizer": tokenizer, "text_hashes": hashes}
    else:
        Dataset.open(local)  # says what is wrong with it
        data[place], sent[place] = {"files": _digests(local)}, local
    if config.entropy.artifact:
        model = Path(config.entropy.artifact)
        if not model.is_file():
            raise ConfigError(f"there is no artifact {model} (entropy.artifact)")
        config = override(config, [f"entropy.artifact={json.dumps(_place(model))}"])
        data[_place(model)], sent[_place(model)] = {"files": {model.name: file_hash(model)}}, model
    return data, sent, config


def _place(local: Path) -> str:
    """Where a file or folder is to be found there: as it is called here, if that is inside the working directory."""
    if local.is_absolute() and local.is_relative_to(Path.cwd()):
        local = local.relative_to(Path.cwd())
    pure = PurePosixPath(local.as_posix())
    inside = not pure.is_absolute() and ".." not in pure.parts and len(pure.parts) > 1
    return pure.as_posix() if inside and pure.parts[0] not in ("runs", "source") else f"data/{pure.name}"


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size


def _store(directory: str, data: Data) -> str:
    """Where data lies there for all runs: named by what it is, so that no run changes what another reads."""
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
    return f"{directory}/data/{digest}"


def _check(found: Probe, machine: Machine, config: RunConfig, order: Order, size: int) -> None:
    needs = needed_bytes(config) + size
    if found.free_bytes < needs:
        raise RemoteError(
            f"{machine.address} has {found.free_bytes / 1e6:,.0f} MB free in {found.directory}, and this run needs "
            f"about {needs / 1e6:,.0f} MB: give it a larger disk, or another --directory"
        )
    wanted = max(order.gpus, order.devices if config.train.device == "cuda" else 0, config.train.device == "cuda")
    if len(found.gpus) < wanted:
        raise RemoteError(
            f"{machine.address} has {len(found.gpus)} GPUs by nvidia-smi, and this run needs {wanted}: choose another "
            "machine, fewer --gpus, or train.device=cpu"
        )


def _claim(machine: Machine, folder: str, run_id: str) -> None:
    """Make the run's folder there; what a launch that failed left of it is used again."""
    path = shlex.quote(folder)
    said = machine.address.run(f"mkdir -p {path} && if test -e {path}/far.json; then echo taken; fi", seconds=60)
    if "taken" in said:
        raise ConfigError(f"there is a run {run_id} in {folder} on {machine.address}: give this run another --name")


def _ship(address: Address, folder: str, recipe: Path | None, links: dict[str, str]) -> None:
    """Send the sources, and link the data to the places where the config has it."""
    tar = zstandard.ZstdDecompressor().decompress(source_snapshot(recipe))
    path = shlex.quote(folder)
    address.run(
        f"cd {path} && rm -rf source.new && mkdir source.new && tar -xf - -C source.new && rm -rf source && "
        "mv source.new source",
        input=tar,
        seconds=600,
    )
    for place, target in links.items():
        parent = shlex.quote(str(PurePosixPath(place).parent))
        address.run(f"cd {path} && mkdir -p {parent} && ln -sfn {shlex.quote(target)} {shlex.quote(place)}", seconds=60)


def _write_job(records: Records, address: Address, run: RemoteRun, job: Mapping[str, object]) -> None:
    write_json(records.beside(run.run) / "job.json", job)
    path = shlex.quote(f"{run.folder}/job.json")
    address.run(f"cat > {path}.tmp && mv {path}.tmp {path}", input=json.dumps(job).encode(), seconds=60)


def _ready(machine: Machine, run: RemoteRun) -> Ready:
    folder = shlex.quote(run.folder)
    command = shlex.join([run.python, "-m", "niblick", "remote", "ready", run.folder])
    said = machine.address.run(f"cd {folder} && PYTHONPATH={folder}/source {command}")
    try:
        return parse_json(said.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise RemoteError(f"{machine.address} could not check itself: it said {said[-80:]!r}") from None


def requirements(prepares: bool) -> list[str]:
    """What niblick needs there: the packages it is installed with here, and those that fetch text, if it `prepares`."""
    extras = ("hub", "parquet") if prepares else ()
    needed = []
    for each in importlib.metadata.requires("niblick") or []:
        package, _, marker = each.partition(";")
        if not marker or any(re.search(f"extra == ['\"]{extra}['\"]", marker) for extra in extras):
            needed.append(package.strip())
    return sorted(set(needed))


def _environment(address: Address, directory: str, wanted: list[str], say: Say) -> str:
    """Make the environment, once for all runs with the same needs. Returns its interpreter."""
    path = f"{directory}/env-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:12]}"
    say(f"packages  {path} (made once: minutes)")
    address.run(environment_script(path, wanted))
    return f"{path}/bin/python"


def environment_script(path: str, wanted: list[str]) -> str:
    """A script that makes a virtual environment; one that a lost connection left half-made is made anew.

    It sees the machine's own packages: a torch that came with the image, for its driver, is used and not fetched again.
    """
    env, packages = shlex.quote(path), shlex.join(wanted)
    return f"""
    test -e {env}/.ready && exit 0
    python=
    for p in python3 python3.13 python3.12 python3.11; do
      $p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && python=$p && break
    done
    test -n "$python" || {{ echo "no Python 3.11 or newer with venv: install it there, or pass --python" >&2; exit 3; }}
    rm -rf {env}; $python -m venv --system-site-packages {env} || exit 3
    {env}/bin/python -m pip install --quiet --disable-pip-version-check {packages} >&2 || exit 3
    touch {env}/.ready
    """


def _shell_path(directory: str) -> str:
    """A folder for the far shell; `~/x` and `x` are both below the home folder, where ssh starts."""
    if "\n" in directory or not directory.strip():
        raise ConfigError("--directory takes the path of a folder on the machine")
    return shlex.quote(directory.removeprefix("~/"))
