"""SkyPilot behind one thin adapter: `Sdk` is all that is asked of it, `SkyPilot` the only code that calls it.

SkyPilot finds and rents the machine, and stops or ends it. Nothing is run through it: runs go by ssh as to any machine,
so its autostop, which would see an idle machine, is never set. What of its ways each cloud supports, it says itself.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from niblick.errors import ConfigError
from niblick.remote.address import Address, RemoteError

if TYPE_CHECKING:  # importing this asks for no torch: SkyPilot may live in an environment of its own
    from niblick.remote.records import Machine, RemoteRun

DEFAULT_GPU = "H100"
DISK_GB = 200

STOP_COMMANDS = {"aws": "sudo shutdown -h now", "gcp": "sudo shutdown -h now"}
"""What stops a machine of a cloud from inside and keeps its disk. Elsewhere a machine is left running, never ended."""


@dataclass(frozen=True)
class Cluster:
    """A rented machine."""

    host: str
    """The name that SkyPilot gave it in ssh's own config."""
    price_per_hour: float


class Sdk(Protocol):
    """The calls that are made to SkyPilot. Each call returns when it is done and raises RemoteError with its reason."""

    def launch(self, name: str, accelerators: str, cloud: str) -> Cluster:
        """Rent a machine, or start again one of this name that was stopped."""

    def stop(self, name: str) -> None:
        """Stop it and keep its disk."""

    def down(self, name: str) -> None:
        """End it, disk and all."""


def accelerators(shape: str) -> str:
    """SkyPilot's name of a shape: `1x` → `H100:1`, `h100x8` → `H100:8`. Raises ConfigError for what is none."""
    match = re.fullmatch(r"(?:([A-Za-z][A-Za-z0-9-]*?)x)?([1-9][0-9]?)(x?)", shape.strip())
    if not match or bool(match[1]) == bool(match[3]):
        raise ConfigError(f"--shape {shape!r} is no shape: write 1x or 8x (of {DEFAULT_GPU}), or h100x8, a100-80gbx1")
    return f"{(match[1] or DEFAULT_GPU).upper()}:{match[2]}"


def gpu_count(shape: str) -> int:
    """GPUs of a shape."""
    return int(accelerators(shape).partition(":")[2])


class Rented:
    """Machines that SkyPilot finds."""

    def __init__(self, sdk: Sdk) -> None:
        self.sdk = sdk

    def up(self, machine: Machine) -> Machine:
        """Rent the machine. Its host key is new, so the first one seen is taken, into a file of its own."""
        cluster = self.sdk.launch(machine.name, accelerators(machine.shape or "1x"), machine.cloud)
        address = Address(cluster.host, known_hosts=machine.address.known_hosts, accept_host_key=True)
        price = machine.price_per_hour or cluster.price_per_hour
        return replace(machine, address=address, price_per_hour=price, since=time.time())

    def stop(self, machine: Machine) -> None:
        """Stop it and keep its disk. Raises RemoteError where the cloud cannot do that."""
        self.sdk.stop(machine.name)

    def down(self, machine: Machine, runs: list[RemoteRun]) -> list[str]:
        """End it. The runs on it go with it."""
        self.sdk.down(machine.name)
        return [run.run for run in runs]


def task(name: str, accelerators: str, cloud: str) -> Any:
    """Return SkyPilot's own description of the machine: no work of its own, so that it is only rented."""
    import sky

    resources = sky.Resources(infra=cloud or None, accelerators=accelerators, disk_size=DISK_GB)
    wanted = sky.Task(name=name, run=None)
    wanted.set_resources(resources)
    wanted.validate()
    return wanted


class SkyPilot:
    """SkyPilot's Python API. Its accounts and keys are its own business: nothing of them passes through here."""

    def launch(self, name: str, accelerators: str, cloud: str) -> Cluster:
        """Rent a machine, or start again one of this name that was stopped."""
        import sky

        _, handle = self._wait(lambda: sky.launch(task(name, accelerators, cloud), cluster_name=name))
        return Cluster(name, float(handle.launched_resources.get_cost(3600)))

    def stop(self, name: str) -> None:
        """Stop it and keep its disk."""
        import sky

        self._wait(lambda: sky.stop(name))

    def down(self, name: str) -> None:
        """End it, disk and all."""
        import sky

        self._wait(lambda: sky.down(name))

    def _wait(self, request: Any) -> Any:
        import sky

        try:
            return sky.get(request())
        except Exception as error:  # SkyPilot has dozens of kinds; all mean that it did not happen
            first = str(error).strip().splitlines()[:1]
            raise RemoteError(f"SkyPilot: {first[0] if first else type(error).__name__}") from error


def sdk() -> Sdk:
    """Return SkyPilot's API. Raises ConfigError if it is not installed."""
    try:
        import sky  # noqa: F401
    except ImportError:
        raise ConfigError("the sky back end needs SkyPilot: pip install 'niblick[sky]', then `sky check`") from None
    return SkyPilot()
