"""Launching through a real server: what is refused, and what a run survives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sshd import Server
from told import told
from toy import LONG, SHORT, Home, quiet, toy_config

from niblick.data.dataset import Dataset
from niblick.errors import ConfigError, NiblickError
from niblick.remote import ending, launching
from niblick.remote.address import Address, RemoteError, Unreachable
from niblick.remote.launching import Order, environment_script, probe
from niblick.remote.pull import far, missing_at_home, pull
from niblick.remote.records import Machine, Records, RemoteRun
from niblick.run.directory import Run, read_json

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "no-such-host.invalid"}, "there is no host 'no-such-host.invalid'"),
        ({"port": 1}, "cannot be reached (connection refused)"),
        ({"user": "nobody-of-that-name"}, "refuses the user or the key"),
        ({"key": "other_key"}, "refuses the user or the key"),
        ({"known_hosts": "/dev/null"}, "accept it with --accept-host-key"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(home: Home, changes: dict[str, Any], message: str) -> None:
    machine = home.server.machine()
    if "key" in changes:
        changes = {"key": str(home.server.folder / changes["key"])}
    wrong = replace(machine, address=replace(machine.address, **changes))
    with pytest.raises(RemoteError) as error:
        probe(wrong)
    assert message in str(error.value)
    assert "PRIVATE KEY" not in str(error.value)


def test_an_unknown_host_key_is_taken_when_accepted_and_a_changed_one_never(home: Home) -> None:
    known = home.server.folder / "own_known_hosts"
    machine = home.server.machine()
    address = replace(machine.address, known_hosts=str(known), accept_host_key=True)
    assert probe(replace(machine, address=address)).directory.endswith("/far")
    assert "ssh-ed25519" in known.read_text()
    shutil.copy(home.server.folder / "other_key.pub", other := home.server.folder / "other_known_hosts")
    public = other.read_text().split()[:2]
    other.write_text(f"[127.0.0.1]:{home.server.port} {' '.join(public)}\n")
    with pytest.raises(RemoteError, match="is not the one known for it"):
        probe(replace(machine, address=replace(address, known_hosts=str(other))))


@pytest.mark.parametrize(
    "facts",
    [
        *({"host": "bob:hunter2@example.org"}, {"host": "-oProxyCommand=x"}, {"host": "a", "user": "bob:hunter2"}),
        *({"host": "a", "port": 70000}, {"host": "a", "key": "/no/such/key"}, {"host": ""}),
    ],
)
def test_addresses_that_are_none(facts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        Address(**facts)
    assert "hunter2" not in str(error.value)


def _refused(records: Records, machine: Machine, config: Any, order: Order, message: str) -> None:
    """Nothing is left at home of a launch that was refused."""
    before = sorted(p.name for p in records.runs.glob("[!.]*"))
    with pytest.raises(NiblickError, match=message):
        launching.launch(records, machine, config, None, order, quiet)
    assert sorted(p.name for p in records.runs.glob("[!.]*")) == before


def test_launches_that_are_refused(home: Home, toy_data: Path, waiting: RemoteRun, tmp_path: Path) -> None:
    records, machine, config = home.records, home.server.machine(), toy_config(SHORT, toy_data)
    shutil.rmtree(records.runs)
    _refused(records, machine, config, Order(gpus=1), "has 0 GPUs by nvidia-smi, and this run needs 1")
    _refused(records, machine, config, Order(name="hnet-small-1"), "there is a run hnet-small-1 in .* give this run")
    _refused(records, machine, config, Order(name="../up"), "is no name for a run")
    _refused(records, machine, toy_config(SHORT, tmp_path / "none"), Order(), "none")
    _refused(records, machine, config, Order(budget=1.0), "a --budget needs a price")
    paid = replace(machine, price_per_hour=4.0)
    _refused(records, paid, config, Order(budget=0.5), "leaves no time to train")
    timed = toy_config([*SHORT, "schedule.max_seconds=7200"], toy_data)
    _refused(records, paid, timed, Order(budget=4.0), "schedule.max_seconds=7200 is more than the 2700 s")
    _refused(records, replace(machine, python="/no/python"), config, Order(name="x"), "/no/python")
    unwritable = replace(machine, directory="/proc/niblick")
    _refused(records, unwritable, config, Order(), "mkdir: cannot create directory")
    (records.runs / "mine").mkdir()
    _refused(records, machine, config, Order(name="mine"), "mine is there already: give this run another --name")


def test_no_disk(home: Home, toy_data: Path) -> None:
    small = home.server.folder / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        machine = replace(home.server.machine(), directory=str(small))
        config = toy_config(SHORT, toy_data)
        _refused(home.records, machine, config, Order(), "has 1 MB free in .*, and this run needs about 6[78] MB")
        (small / "full").write_bytes(b"")
        with pytest.raises(OSError):
            (small / "full").write_bytes(bytes(2 << 20))
        source = home.folder / "large"
        source.write_bytes(os.urandom(1 << 20))
        with pytest.raises(RemoteError, match="a disk is full"):
            machine.address.push(source, f"{small}/large")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_data_damaged_there_is_never_trained_on(home: Home, toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push = Address.push

    def damaging(self: Address, source: Path, target: str) -> None:
        push(self, source, target)
        shard = next(Path(target).rglob("*_val_*.bin"))
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)

    monkeypatch.setattr(Address, "push", damaging)
    _refused(
        home.records, home.server.machine(), toy_config(SHORT, toy_data), Order(), "are not what was sent, such as"
    )
    assert not list((home.server.folder / "far").glob("*/runs"))


def test_the_environment_is_made_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    address = server.machine().address
    path = str(server.folder / "env with blanks")
    address.run(environment_script(path, ["pip"]))
    assert Path(path, ".ready").exists()
    marker = Path(path, "marker")
    marker.touch()
    address.run(environment_script(path, ["pip"]))
    assert marker.exists()  # it was left alone
    Path(path, ".ready").unlink()
    with pytest.raises(RemoteError, match="no-such-package"):
        address.run("export PIP_NO_INDEX=1;" + environment_script(path, ["no-such-package-of-anyone"]))
    assert not marker.exists() and not Path(path, ".ready").exists()


def _steps(run: Path) -> int:
    steps = [e["step"] for e in told(Run(run)) if e["event"] == "step"]
    return steps[-1] if steps else 0


def _until_step(run: Path, step: int) -> None:
    deadline = time.monotonic() + 120
    while _steps(run) < step:
        assert time.monotonic() < deadline, (run.parents[1] / "output.log").read_text()
        time.sleep(0.2)


def test_a_run_outlives_its_connections_is_stopped_gone_on_with_and_ends_by_its_budget(
    home: Home, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, server = home.records, home.server
    run = launching.launch(records, server.machine(), toy_config(LONG, toy_data), None, Order(), quiet)
    there = Path(run.folder) / "runs" / run.run
    _until_step(there, 60)
    assert launching.start(records, server.machine(), run).state == "running"  # asking again starts no second one
    live = pull(records, run.run)
    here = records.runs / run.run
    assert live.state == "running" and _steps(here) >= 60
    assert [p.name for p in (here / "checkpoints").iterdir()]

    # The connection is cut while it runs, and then nobody answers at all.
    session = subprocess.Popen([*server.machine().address.ssh(), "127.0.0.1", "sleep 60"], stderr=subprocess.DEVNULL)
    time.sleep(1)
    assert server.cut()
    assert session.wait(20) == 255
    server.stop()
    with pytest.raises(Unreachable, match="cannot be reached"):
        pull(records, run.run)
    assert records.run(run.run).state == "running"
    before = _steps(there)
    _until_step(there, before + 20)  # it goes on
    server.start()
    with pytest.raises(RemoteError, match="is running there, and its result is not here"):
        ending.down(records, records.machine("there"), ending_provider(), [], quiet)

    stopped = ending.stop(records, run.run)
    assert (stopped.state, stopped.missing) == ("stopped", ()) and missing_at_home(records, stopped) == []
    last = max(p.name for p in (here / "checkpoints").iterdir())
    assert last == max(p.name for p in (there / "checkpoints").iterdir())

    # What is left of a budget lets it go on a little; then it is exported, scored and marked as cut short.
    monkeypatch.setattr(launching, "seconds_to_train", lambda *_: 10.0)
    launching.resume(records, records.machine("there"), stopped)
    deadline = time.monotonic() + 200
    while (ended := pull(records, run.run)).state == "running":
        assert time.monotonic() < deadline, (Path(run.folder) / "output.log").read_text()
        time.sleep(1)
    assert (ended.state, ended.missing) == ("done", ()), ended
    result = Run(here).result()
    assert result and result.bpb > 0 and Run(here).changed() == []
    assert read_json(here / "stopped.json")["reason"] == "its budget was used up"
    assert far(records.machine("there"), ended, "status")["phase"] == "done"


def ending_provider() -> Any:
    from niblick.remote.clouds import Own

    return Own()


def test_quickstart_by_the_command_line(home: Home) -> None:
    """As a user does it: data prepared there, pulled in the background, with a budget."""
    sets = [s for s in SHORT if not s.startswith("score.documents")]
    words = ["hnet-small", *sets, "score.documents=1", "--prepare", "pydocs", "--every", "1"]
    printed = home.launch(*words, "--price", "3.6", "--budget", "10", "--json")
    facts = json.loads(printed)
    assert facts["run"] == "hnet-small-1" and facts["state"] == "running" and facts["budget"] == 10
    deadline = time.monotonic() + 200
    while not (run := home.records.run("hnet-small-1")).home:  # nobody calls pull: it is done in the background
        assert time.monotonic() < deadline, (home.records.beside("hnet-small-1") / "pull.log").read_text()
        time.sleep(0.5)
    assert run.state == "done" and missing_at_home(home.records, run) == []
    result = Run(home.records.runs / "hnet-small-1").result()
    assert result and result.bpb > 0
    assert Dataset.open(Path(run.folder) / "data" / "pydocs").manifest["niblick"]["source"] == "pydocs"
    assert "hnet-small-1" in home.remote("logs", "latest") or home.remote("logs", "latest").strip()
    assert json.loads(home.remote("down", "127.0.0.1", "--json"))["deleted"] == ["hnet-small-1"]
    assert sys.executable == run.python
