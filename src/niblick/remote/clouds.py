"""Where machines come from: one's own, or SkyPilot's. From `up` to `down` both are reached the same way, by ssh."""

from __future__ import annotations

import shlex
import time
from typing import Protocol

from niblick.errors import ConfigError
from niblick.remote import records as at
from niblick.remote.pull import PATIENCE, far
from niblick.remote.records import Machine, RemoteRun


class Provider(Protocol):
    """Makes machines and gives them back."""

    def up(self, machine: Machine) -> Machine:
        """Bring a machine up and return it with its address and price."""

    def stop(self, machine: Machine) -> None:
        """Stop a machine and keep its disk. Raises ConfigError where that cannot be."""

    def down(self, machine: Machine, runs: list[RemoteRun]) -> list[str]:
        """Give a machine back. Returns the runs that were deleted with it."""


class Own:
    """Machines that one has: they are neither started nor ended, only cleaned."""

    def up(self, machine: Machine) -> Machine:
        """The machine is up."""
        return machine

    def stop(self, machine: Machine) -> None:
        """Raises ConfigError: nobody here knows how."""
        raise ConfigError(f"{machine.name} is a machine of your own: stop it where you started it")

    def down(self, machine: Machine, runs: list[RemoteRun]) -> list[str]:
        """Delete the runs on it; data and environments stay for the next ones."""
        return delete_there(machine, runs)


def provider(backend: str) -> Provider:
    """Return the provider of a back end. Raises ConfigError if there is none, or SkyPilot is not installed."""
    if backend == "ssh":
        return Own()
    if backend == "sky":
        from niblick.remote.sky import Rented, sdk

        return Rented(sdk())
    raise ConfigError(f"there is no back end {backend!r}: choose ssh or sky")


def delete_there(machine: Machine, runs: list[RemoteRun]) -> list[str]:
    """Delete the folders of runs on a machine, ending what still runs in them. Data and environments stay.

    Raises Unreachable or RemoteError.
    """
    deleted = []
    for run in runs:
        status = far(machine, run, "status")
        if not status["exists"]:
            continue
        if status.get("phase") == at.RUNNING:
            far(machine, run, "ask", "stop")
            deadline = time.monotonic() + PATIENCE
            while far(machine, run, "status").get("phase") == at.RUNNING and time.monotonic() < deadline:
                time.sleep(1)
        path = shlex.quote(run.folder)
        machine.address.run(f"test -f {path}/job.json && rm -rf -- {path}", seconds=600)
        deleted.append(run.run)
    return deleted
