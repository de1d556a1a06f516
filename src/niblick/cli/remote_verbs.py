"""Verbs for runs on other machines."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from niblick.challenge.tracks import UNWEIGHED
from niblick.cli.app import RUNS, Data, Env, Json, Runs, app, print_json, print_table
from niblick.errors import ConfigError

if TYPE_CHECKING:
    from niblick.config.run_config import RunConfig
    from niblick.remote.records import Machine, Records, RemoteRun

remote_app = typer.Typer(
    no_args_is_help=True,
    help="Run on other machines, and bring every result home. Example: "
    "`niblick remote launch quickstart --backend ssh --host gpu1 --data data/pydocs`",
)
app.add_typer(remote_app, name="remote")

Backend = Annotated[str, typer.Option(help="ssh (a machine you have) or sky (SkyPilot rents one).")]
Host = Annotated[str, typer.Option(help="ssh: host name, address, or alias of your ssh config.")]
User = Annotated[str, typer.Option(help="User there.")]
Port = Annotated[int, typer.Option(help="Port of its ssh server.")]
Key = Annotated[str, typer.Option(help="Path of a private key.")]
KnownHosts = Annotated[str, typer.Option(help="File of known host keys, instead of ssh's own.")]
AcceptHostKey = Annotated[bool, typer.Option("--accept-host-key", help="Accept the key of a host seen the first time.")]
Directory = Annotated[str, typer.Option(help="Folder there, below the home folder unless absolute.")]
Python = Annotated[str, typer.Option(help="Interpreter there with all packages, instead of a new environment.")]
Price = Annotated[float, typer.Option(help="Dollars an hour.")]
Shape = Annotated[str, typer.Option(help="sky: 1x, 8x (H100), h100x8, a100-80gbx1 …")]
Cloud = Annotated[str, typer.Option(help="sky: runpod, lambda, aws/us-east-1, kubernetes …; empty: the cheapest.")]
RunId = Annotated[str, typer.Argument(help="A run id, or `latest`.")]


def _records(runs: Path) -> Records:
    from niblick.remote.records import Records

    return Records(runs)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _bring_up(records: Records, wanted: Machine) -> Machine:
    """Make or find the machine that the options describe, and write it down."""
    from niblick.remote.address import Address
    from niblick.remote.clouds import provider
    from niblick.remote.records import HALTED, UP, check_name

    known = {machine.name: machine for machine in records.machines()}
    rented = wanted.backend == "sky"
    name = wanted.name or wanted.address.host or (f"niblick-{wanted.shape or '1x'}" if rented else "")
    if not name:
        raise ConfigError("name the machine: --host HOST for one you have, or --machine NAME of `niblick remote ls`")
    old = known.get(check_name(name, "machine"))
    source = provider(wanted.backend)
    address = wanted.address
    if rented:
        hosts = records.folder / "machines" / f"{name}.known_hosts"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        if not (old and old.state == UP):
            hosts.unlink(missing_ok=True)  # another machine under the same name has another key
        address = Address(name, known_hosts=str(hosts.resolve()))
    elif not address.host:
        raise ConfigError("--host is missing: the ssh back end goes to a machine you have")
    elif address.key:
        address = replace(address, key=str(Path(address.key).expanduser().resolve()))
    machine = replace(wanted, name=name, address=address, since=time.time())
    if old and old.state == UP and old.backend == wanted.backend:
        machine = replace(machine, since=old.since, price_per_hour=machine.price_per_hour or old.price_per_hour)
        if rented:
            return old
    elif old and old.state == HALTED:
        _say(f"machine   {name} was stopped: starting it again")
    machine = source.up(machine)
    return records.save_machine(machine) if rented else machine  # one's own is noted once it has answered


@remote_app.command()
def up(
    name: Annotated[str, typer.Argument(help="What to call the machine; by default its host.")] = "",
    backend: Backend = "ssh",
    host: Host = "",
    user: User = "",
    port: Port = 0,
    key: Key = "",
    known_hosts: KnownHosts = "",
    accept_host_key: AcceptHostKey = False,
    directory: Directory = "niblick-remote",
    python: Python = "",
    price: Price = 0.0,
    shape: Shape = "",
    cloud: Cloud = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Rent a machine, or name one you have, and look at it. Example: `niblick remote up gpu1 --host 192.0.2.1`"""
    from niblick.remote.address import Address
    from niblick.remote.launching import probe
    from niblick.remote.records import Machine

    records = _records(runs)
    address = Address(host, user, port, key, known_hosts, accept_host_key)
    machine = _bring_up(records, Machine(name, backend, address, directory, python, price, shape=shape, cloud=cloud))
    found = probe(machine)
    records.save_machine(machine)
    if json_:
        print_json(asdict(machine) | {"found": asdict(found)})
        return
    gpus = ", ".join(found.gpus) or "no GPU"
    print(
        f"{machine.name}  {machine.address}  {gpus}, {found.free_bytes / 1e9:,.0f} GB free, ${machine.price_per_hour}/h"
    )
    print(f"now: niblick remote launch PRESET --machine {machine.name} --data DIR")


@remote_app.command()
def launch(
    target: Annotated[str | None, typer.Argument(help="A preset, or a recipe file.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, such as model.width=128.")] = None,
    machine: Annotated[str, typer.Option(help="A machine of `niblick remote ls`, or a name for this one.")] = "",
    backend: Backend = "ssh",
    host: Host = "",
    user: User = "",
    port: Port = 0,
    key: Key = "",
    known_hosts: KnownHosts = "",
    accept_host_key: AcceptHostKey = False,
    directory: Directory = "niblick-remote",
    python: Python = "",
    price: Price = 0.0,
    shape: Shape = "",
    cloud: Cloud = "",
    data: Data = "",
    prepare: Annotated[str, typer.Option(help="Prepare the data there, from this source of `data prepare`.")] = "",
    env: Env = "",
    track: Annotated[str, typer.Option(help="As in `niblick train`.")] = "",
    name: Annotated[str, typer.Option(help="Id of the run; by default the next of its preset.")] = "",
    gpus: Annotated[int | None, typer.Option(help="GPUs that must be there; by default those of the shape.")] = None,
    devices: Annotated[int, typer.Option(help="Processes that share the training, one for each GPU.")] = 1,
    budget: Annotated[
        float | None, typer.Option(help="Dollars that the run may cost, export and pull included.")
    ] = None,
    reserve: Annotated[float, typer.Option(help="Seconds of the budget kept for exporting, scoring, pulling.")] = 900,
    stop_command: Annotated[
        str, typer.Option(help="Shell command there that stops the machine, disk kept, when home stays silent.")
    ] = "",
    stop_after: Annotated[float, typer.Option(help="Seconds of silence after the end before that.")] = 1800,
    resume: Annotated[str, typer.Option(help="Go on with this remote run, which was stopped or failed.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when the run is home, not when it is started.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between pulls in the background.")] = 15,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Send a run to a machine and start it. Example: `niblick remote launch quickstart --host gpu1 --prepare pydocs`"""
    from niblick.remote import launching
    from niblick.remote.address import Address
    from niblick.remote.pull import follow, follow_in_background
    from niblick.remote.records import Machine
    from niblick.remote.sky import STOP_COMMANDS, gpu_count

    records = _records(runs)
    if resume:
        if target or overrides:
            raise ConfigError("--resume takes the run as it was sent: leave preset and overrides away")
        old = records.run(resume)
        run = launching.resume(records, records.machine(old.machine), old)
    else:
        if not target:
            raise ConfigError("name a preset or a recipe file: `niblick presets` lists the presets")
        config, recipe = _config(target, overrides or [], env, track, data)
        if machine and not host and backend == "ssh":
            where = records.machine(machine)
        else:
            address = Address(host, user, port, key, known_hosts, accept_host_key)
            wanted = Machine(machine, backend, address, directory, python, price, shape=shape, cloud=cloud)
            where = _bring_up(records, wanted)
        rented = gpu_count(where.shape or "1x") if where.backend == "sky" else 0
        order = launching.Order(
            name=name,
            prepare=prepare,
            gpus=rented if gpus is None else gpus,
            devices=devices,
            budget=budget,
            reserve=reserve,
            stop_machine=stop_command or (STOP_COMMANDS.get(where.cloud.partition("/")[0], "") if rented else ""),
            stop_machine_after=stop_after,
        )
        run = launching.launch(records, where, config, recipe, order, _say)
    _say(f"started   {run.run} on {run.machine}; it goes on without this machine")
    if wait:
        run = follow(records, run.run, _say, every)
    else:
        follow_in_background(records, run.run, every)
    _show(records, run, json_)


def _config(target: str, overrides: list[str], env: str, track: str, data: str) -> tuple[RunConfig, Path | None]:
    from niblick.challenge.tracks import check_track
    from niblick.config.run_config import dotted, to_dict
    from niblick.recipes.targets import resolve
    from niblick.recipes.trust import trust

    config, recipe = resolve(target, overrides, env, track=track, data=data)
    if recipe:
        with contextlib.suppress(OSError):  # of the list: who cannot write it is asked again when the run is home
            trust(recipe)  # it is run, though elsewhere, and comes home with its run
    check_track(config.track, dotted(to_dict(config)))
    return config, recipe


@remote_app.command("ls")
def ls(runs: Runs = RUNS, json_: Json = False) -> None:
    """List machines and remote runs, and what they cost. Example: `niblick remote ls`"""
    from niblick.console import human_seconds
    from niblick.remote import money

    records = _records(runs)
    machines, found, now = records.machines(), records.all(), time.time()
    warned = money.warnings(machines, found, now)
    if json_:
        rows = [asdict(m) | {"cost": money.cost(m, now)} for m in machines]
        print_json({"machines": rows, "runs": [_facts(records, r, now) for r in found], "warnings": warned})
        return
    if not machines:
        print("no machine yet: niblick remote up, or niblick remote launch")
        return
    print_table(
        ["machine", "where", "state", "$/h", "since", "cost"],
        [
            [
                *(m.name, str(m.address), m.state, f"{m.price_per_hour:.2f}"),
                *(human_seconds((m.ended or now) - m.since), f"${money.cost(m, now):.2f}"),
            ]
            for m in machines
        ],
    )
    if found:
        print()
        lines = []
        for r in found:
            home = "all, verified" if r.home else f"{len(r.missing)} files missing" if r.missing else "not yet all"
            pulled = f"{human_seconds(now - r.pulled)} ago" if r.pulled else "never"
            length = human_seconds((r.ended or now) - r.launched)
            lines.append([r.run, r.machine, r.state, length, f"${money.cost(r, now):.2f}", home, pulled])
        print_table(["run", "machine", "state", "for", "cost", "at home", "pulled"], lines)
    for sentence in warned:
        _say(f"warning   {sentence}")


def _facts(records: Records, run: RemoteRun, now: float | None = None) -> dict[str, object]:
    from niblick.remote.money import cost

    folder = records.runs / run.run
    return asdict(run) | {"path": str(folder), "verified": run.home, "cost": cost(run, now)}


def _show(records: Records, run: RemoteRun, json_: bool) -> None:
    """Say how a run stands."""
    from niblick.remote.money import cost
    from niblick.run.directory import Run

    result = Run(records.runs / run.run).result() if run.home else None
    if json_:
        print_json(_facts(records, run) | {"result": result})
        return
    print(f"{run.run}  {run.state} on {run.machine}, ${cost(run):.2f}")
    for name in run.missing[:8]:
        print(f"missing   {name}")
    for line in run.lines[-4:]:
        print(f"there     {line}")
    if result:
        size = UNWEIGHED if result.total_bytes is None else f"{result.total_bytes:,} bytes"
        print(f"BPB       {result.bpb:.4f}, {size}: every file is here and verified")
    elif run.home:
        print("at home   every file is here and verified; there is no score")


@remote_app.command()
def status(run: RunId = "latest", runs: Runs = RUNS, json_: Json = False) -> None:
    """Ask a machine how a run goes. Example: `niblick remote status quickstart-1`"""
    from niblick.remote.pull import far

    records = _records(runs)
    found = records.run(run)
    answer = far(records.machine(found.machine), found, "status")
    if json_:
        print_json(_facts(records, found) | {"there": answer})
        return
    _show(records, found, False)
    wanted = ("phase", "alive", "free_bytes", "gpu_busy", "checkpoints", "reason", "code")
    said: dict[str, object] = dict(answer)
    print_table(["there", ""], [[k, str(said[k])] for k in wanted if said.get(k) not in (None, "", [])])


@remote_app.command()
def logs(
    run: RunId = "latest",
    lines: Annotated[int, typer.Option(help="Lines from the end.")] = 40,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Show what a run prints there; from home where it has ended. Example: `niblick remote logs latest --lines 100`"""
    import shlex

    records = _records(runs)
    found = records.run(run)
    kept = records.beside(found.run) / "output.log"
    if found.home and kept.is_file():
        text = kept.read_text(encoding="utf-8", errors="replace")
    else:
        path = shlex.quote(f"{found.folder}/output.log")
        text = records.machine(found.machine).address.run(f"tail -n {int(lines)} -- {path}", seconds=60)
    shown = text.splitlines()[-lines:]
    if json_:
        print_json({"run": found.run, "lines": shown})
    else:
        print("\n".join(shown))


@remote_app.command()
def pull(
    run: RunId = "latest",
    follow: Annotated[bool, typer.Option("--follow", help="Until it has ended and all of it is home.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between pulls with --follow.")] = 15,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Bring a run home, as far as it is. Example: `niblick remote pull quickstart-1 --follow`"""
    from niblick.remote import pull as pulling

    records = _records(runs)
    name = records.run(run).run
    found = pulling.follow(records, name, _say, every) if follow else pulling.pull(records, name)
    _show(records, found, json_)
    if found.missing:
        sys.exit(1)


@remote_app.command()
def stop(
    target: Annotated[str, typer.Argument(help="A run; with --machine, a machine.")],
    finish: Annotated[bool, typer.Option("--finish", help="Export and score what is trained so far.")] = False,
    machine: Annotated[bool, typer.Option("--machine", help="Stop the machine and keep its disk.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Stop a run with a checkpoint and bring it home, or a machine. Example: `niblick remote stop quickstart-1`"""
    from niblick.remote import clouds as providers
    from niblick.remote import ending
    from niblick.remote.records import HALTED

    records = _records(runs)
    if not machine:
        _show(records, ending.stop(records, target, finish=finish), json_)
        return
    found = records.machine(target)
    busy = [r.run for r in records.all() if r.machine == target and r.state in ("launching", "running")]
    if busy:
        raise ConfigError(f"{target} is at work on {', '.join(busy)}: stop that first")
    providers.provider(found.backend).stop(found)
    found = records.save_machine(replace(found, state=HALTED, ended=time.time()))
    print_json(asdict(found)) if json_ else print(f"{found.name}  stopped; its disk is kept, and may cost")


@remote_app.command()
def down(
    machine: Annotated[str, typer.Argument(help="A machine of `niblick remote ls`.")],
    abandon: Annotated[list[str] | None, typer.Option(help="Give up this run, whatever of it is not home.")] = None,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Give a machine back; refused while anything is not home. Example: `niblick remote down gpu1`"""
    from niblick.remote import clouds as providers
    from niblick.remote import ending

    records = _records(runs)
    found = records.machine(machine)
    found, deleted = ending.down(records, found, providers.provider(found.backend), abandon or [], _say)
    if json_:
        print_json(asdict(found) | {"deleted": deleted})
    else:
        print(f"{found.name}  down; deleted there: {', '.join(deleted) or 'nothing'}")


@remote_app.command(hidden=True)
def ready(folder: Path) -> None:
    """Check this machine for a run that was sent here (the far side calls this)."""
    import json

    from niblick.remote.work import ready as check

    print("\n" + json.dumps(check(folder)))


@remote_app.command(hidden=True)
def work(
    folder: Path,
    devices: Annotated[int, typer.Option()] = 1,
    resume: Annotated[bool, typer.Option("--resume")] = False,
) -> None:
    """Train what was sent here (the far side's watcher calls this)."""
    if devices != 1:
        from niblick.run.torchrun import launch as ranks_of

        sys.exit(ranks_of(devices, sys.argv[1:], folder / "runs"))
    from niblick.console import RunConsole
    from niblick.remote.work import work as train
    from niblick.train.distributed import joined

    with joined() as ranks, RunConsole() as console:
        train(folder, console, ranks, resume)
