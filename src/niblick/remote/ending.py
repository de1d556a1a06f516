"""Stopping runs and giving machines back: never while something of a run is not at home."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from niblick.errors import ConfigError, NiblickError
from niblick.remote import records as at
from niblick.remote.address import RemoteError
from niblick.remote.clouds import Provider
from niblick.remote.pull import PATIENCE, Say, far, lost_at_home, not_home, pull
from niblick.remote.records import Machine, Records, RemoteRun


def stop(records: Records, run_id: str, *, finish: bool = False, patience: float = PATIENCE) -> RemoteRun:
    """Stop a run with a checkpoint, or let it finish now: export and score what there is. Then bring it home.

    Raises RemoteError if it does not end in time; Unreachable.
    """
    run = records.run(run_id)
    machine = records.machine(run.machine)
    if run.state in at.ENDED:
        raise ConfigError(f"{run_id} has ended already: it is {run.state}")
    far(machine, run, "ask", "finish" if finish else "stop")
    deadline = time.monotonic() + patience
    while far(machine, run, "status").get("phase") == at.RUNNING:
        if time.monotonic() > deadline:
            raise RemoteError(f"{run_id} was asked to stop and goes on: niblick remote logs {run_id}")
        time.sleep(1)
    return pull(records, run_id)


def down(
    records: Records, machine: Machine, provider: Provider, abandon: Iterable[str], say: Say
) -> tuple[Machine, list[str]]:
    """Give a machine back: its runs are deleted there, and a rented one is ended. Returns it, and the runs deleted.

    Raises RemoteError, with nothing deleted, while anything of a run is not at home, but for runs named in `abandon`.
    """
    runs = [run for run in records.all() if run.machine == machine.name]
    abandoned = set(abandon)
    if unknown := abandoned - {run.run for run in runs}:
        raise ConfigError(f"{machine.name} has no run {', '.join(sorted(unknown))}: nothing was deleted")
    problems = [why for run in runs if run.run not in abandoned and (why := _kept_by(records, run))]
    if problems:
        raise RemoteError(
            f"{machine.name} is kept: {'; '.join(problems)}. Bring it home with `niblick remote pull`, or give it up "
            "for good with --abandon RUN_ID"
        )
    for run in runs:
        if run.run in abandoned and not run.home:
            say(f"abandoned {run.run}: what is not at home is lost")
            records.save(replace(run, state=at.ABANDONED, ended=run.ended or time.time()))
    deleted = provider.down(machine, runs)
    return records.save_machine(replace(machine, state=at.DOWN, ended=machine.ended or time.time())), deleted


def _kept_by(records: Records, run: RemoteRun) -> str:
    """Why a run keeps its machine, after a last try to bring it home; empty if it does not."""
    if run.state == at.ABANDONED:
        return ""
    why = ""
    if not run.home:
        try:
            run = pull(records, run.run)
        except NiblickError as error:
            why = f" ({error})"
    if reason := not_home(run):
        return reason + why
    lost = lost_at_home(records, run)  # looked at again: it may have been deleted here since
    return f"{run.run} was at home, but {', '.join(lost[:3])} is not as it came any more" if lost else ""
