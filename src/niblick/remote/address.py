"""Where a machine is, and the only two ways to it: a command through ssh, files through rsync.

Passwords are never used or asked for; host keys are checked always. All that is sent to a far shell is quoted.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from niblick.errors import ConfigError, NiblickError

CONNECT_SECONDS = 15
SILENCE_SECONDS = 60
"""A connection on which nothing comes for so long is given up."""
GONE = 255
"""What ssh exits with when it is the connection that failed, and not the command."""
RSYNC_LOST = (10, 12, 30, 35, 255)
"""What rsync exits with when the connection failed or was lost."""

DISK = 11
"""What rsync exits with when it cannot write a file."""
PARTIAL = 23
"""What rsync exits with when some files did not come, and others did."""


class RemoteError(NiblickError):
    """A machine that refuses, or a run on it that is not as it should be."""


class Unreachable(RemoteError):
    """A machine that does not answer, a connection that was lost, a copy that failed: trying again may do."""

    exit_code = 1


class Incomplete(Unreachable):
    """A copy of which some files did not come."""


@dataclass(frozen=True)
class Address:
    """A machine as ssh knows it. An empty user, port 0 and an empty key leave that to ssh and its config file."""

    host: str
    user: str = ""
    port: int = 0
    key: str = ""
    """Path of a private key; its content is never read here."""
    known_hosts: str = ""
    accept_host_key: bool = False
    """Accept the key of a host that is seen for the first time; a changed key is refused all the same."""

    def __post_init__(self) -> None:
        if "@" in self.host:  # not repeated: people write passwords before it
            raise ConfigError("--host takes a host alone: write the user with --user (passwords are never used)")
        if not re.fullmatch(r"[A-Za-z0-9_:][A-Za-z0-9._:-]*", self.host):
            raise ConfigError(f"--host {self.host!r} is no host name or address")
        if self.user and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.user):
            raise ConfigError("--user is no user name: it may hold letters, digits, dots, dashes (no password)")
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--port {self.port} is no port: give 1 to 65535")
        for name, path in (("--key", self.key), ("--known-hosts", self.known_hosts)):
            if any(c in path for c in "'\"\n"):
                raise ConfigError(f"{name} may hold no quotes and no line breaks: rsync could not be told of it")
        if self.key and not Path(self.key).is_file():
            raise ConfigError(f"there is no key {self.key}: --key takes the path of a private key file")

    def __str__(self) -> str:
        return (f"{self.user}@" if self.user else "") + self.host + (f":{self.port}" if self.port else "")

    def ssh(self) -> list[str]:
        """The ssh command up to, but without, the host."""
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "accept-new" if self.accept_host_key else "yes",
            "ConnectTimeout": CONNECT_SECONDS,
            "ServerAliveInterval": SILENCE_SECONDS // 4,
            "ServerAliveCountMax": 4,
            "ForwardAgent": "no",
            "ClearAllForwardings": "yes",
            "LogLevel": "ERROR",
        }
        if self.key:
            options["IdentitiesOnly"] = "yes"
        if self.known_hosts:
            options["UserKnownHostsFile"] = self.known_hosts
        command = ["ssh", "-T", *(f"-o{name}={value}" for name, value in options.items())]
        command += ["-i", self.key] if self.key else []
        command += ["-l", self.user] if self.user else []
        return command + (["-p", str(self.port)] if self.port else [])

    def run(self, command: str, *, input: bytes = b"", seconds: float | None = None) -> str:
        """Run a command of the far shell and return its stdout.

        Raises Unreachable if the machine was not reached or the connection broke, RemoteError if the command failed.
        """
        try:
            done = subprocess.run(
                [*self.ssh(), "--", self.host, command], input=input, capture_output=True, timeout=seconds, check=False
            )
        except FileNotFoundError:
            raise ConfigError("there is no ssh here: install the OpenSSH client") from None
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{self} did not answer within {seconds:.0f} s: try again") from None
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode == GONE:
            raise self._refused(said)
        if done.returncode:
            raise RemoteError(f"on {self}: {_last(said) or f'a command failed with exit code {done.returncode}'}")
        return done.stdout.decode(errors="replace")

    def push(self, source: Path, target: str) -> None:
        """Copy a file, or what is in a folder, to `target`; only what changed travels. Raises like `run`."""
        name = f"{source}/" if source.is_dir() else str(source)
        self._rsync(["-rt", "--partial-dir=.rsync-partial", name, f"{self._bracketed()}:{target}"])

    def fetch(self, source: str, target: Path, options: Iterable[str] = (), *, holding: int) -> None:
        """Copy what is in the far folder `source` into `target`; goes on with what is there. Raises like `run`.

        Links are left out: a far side cannot make this one write anywhere else. `holding` is the descriptor of a lock
        that rsync holds as well: if this process is killed, nobody else writes until rsync has ended.
        """
        target.mkdir(parents=True, exist_ok=True)
        self._rsync(["-rt", *options, "--", f"{self._bracketed()}:{source}/", f"{target}/"], holding=(holding,))

    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def _rsync(self, arguments: list[str], holding: tuple[int, ...] = ()) -> None:
        # Quoted for the far shell by rsync itself (-s): folders may hold blanks.
        command = ["rsync", "-s", f"--timeout={SILENCE_SECONDS}", "-e", shlex.join(self.ssh()), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, check=False, pass_fds=holding)
        except FileNotFoundError:
            raise ConfigError("there is no rsync here: install rsync") from None
        said = done.stderr.decode(errors="replace").strip()
        if "rsync: command not found" in said or "rsync: not found" in said:
            raise RemoteError(f"there is no rsync on {self}: install it there (apt-get install rsync)")
        if done.returncode in RSYNC_LOST:
            raise self._refused(said)
        if done.returncode == DISK:
            raise Unreachable(f"a disk is full or cannot be written, here or on {self}: make room, then try again")
        if done.returncode:
            kind = Incomplete if done.returncode == PARTIAL else Unreachable
            raise kind(f"rsync with {self} failed: {said.partition(chr(10))[0] or f'exit code {done.returncode}'}")

    def _refused(self, said: str) -> RemoteError:
        """The error that says why ssh itself failed."""
        if "IDENTIFICATION HAS CHANGED" in said:
            return RemoteError(
                f"the host key of {self} is not the one known for it: this may be another machine in its place. If you "
                f"know why, remove the old one with `ssh-keygen -R` and launch again"
            )
        if ("host key" in said.lower() and "known" in said.lower()) or "Host key verification failed" in said:
            return RemoteError(
                f"the host key of {self} is unknown: compare its fingerprint, then accept it with --accept-host-key"
            )
        if "Permission denied" in said:
            key = f"the key {self.key}" if self.key else "no key offered"
            return RemoteError(f"{self} refuses the user or {key}: check --user and --key")
        if "Could not resolve" in said:
            return Unreachable(f"there is no host {self.host!r} that this machine can find: check --host")
        for sign in ("Connection refused", "timed out", "No route to host", "Network is unreachable"):
            if sign in said:
                return Unreachable(f"{self} cannot be reached ({sign.lower()}): is it up, and are host and port right?")
        return Unreachable(f"the connection to {self} was lost ({_last(said) or 'without a word'}): try again")


def _last(said: str) -> str:
    """The line that says most: the last one that is not rsync's own summary."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("rsync error:")]
    return lines[-1].removeprefix("niblick: ") if lines else ""
