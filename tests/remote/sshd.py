"""A real OpenSSH server on 127.0.0.1, with keys of its own, and what tests do to it."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from niblick.remote.address import Address
from niblick.remote.records import Machine

PACKAGES = ("openssh-server", "openssh-client", "rsync")
_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
SetEnv OMP_NUM_THREADS=1 GOMP_SPINCOUNT=1000 PATH={path} {extra}
"""


def find_sshd() -> str:
    """Path of sshd. Installs what is missing, as on CI's bare machine; skips where that cannot be done."""
    place = os.environ["PATH"] + ":/usr/sbin"
    if not all(shutil.which(tool, path=place) for tool in ("sshd", "ssh", "ssh-keygen", "rsync")):
        if os.geteuid() or not shutil.which("apt-get"):
            pytest.skip(f"needs {', '.join(PACKAGES)}, which only root can install, with apt-get")
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
        for command in (["apt-get", "update", "-qq"], install):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"needs {', '.join(PACKAGES)}, and apt-get could not install them: {done.stderr[-200:]}")
    found = shutil.which("sshd", path=place)
    assert found
    return found


@dataclass
class Server:
    """One sshd, and a folder that plays the far machine."""

    folder: Path
    port: int
    sshd: str
    process: subprocess.Popen[bytes] | None = None
    bin: Path | None = None
    """Programs that stand before the machine's own."""

    @classmethod
    def make(cls, folder: Path) -> Server:
        """Make keys and start. The client's key has its own known_hosts, with this server in it."""
        folder.mkdir(parents=True, exist_ok=True)
        sshd = find_sshd()
        for name in ("host_key", "key", "other_key"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True
            )
        shutil.copy(folder / "key.pub", folder / "authorized_keys")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        public = (folder / "host_key.pub").read_text().split()[:2]
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(public)}\n")
        server = cls(folder, port, sshd)
        server.bin = folder / "bin"
        server.bin.mkdir()
        server.start()
        return server

    def start(self, extra: str = "") -> None:
        """Start listening; `extra` are variables of the sessions' environment."""
        if not os.geteuid():
            Path("/run/sshd").mkdir(exist_ok=True)
        path = f"{self.bin}:{os.environ['PATH']}"
        config = self.folder / "sshd_config"
        config.write_text(_CONFIG.format(port=self.port, folder=self.folder, path=path, extra=extra))
        log = open(self.folder / "sshd.log", "ab")  # noqa: SIM115  (the server's)
        self.process = subprocess.Popen([self.sshd, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
        for _ in range(200):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def sessions(self) -> list[int]:
        """Processes of the connections that are open: descendants of the server."""
        assert self.process
        return _children(self.process.pid)

    def cut(self) -> int:
        """Kill all connections, as a network does, without a word. Returns how many processes that were."""
        killed = 0
        for pid in self.sessions():
            for each in (pid, *(p for p in _children(pid) if _name(p).startswith("sshd"))):
                try:
                    os.kill(each, signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    continue
        return killed

    def slow_rsync(self, kilobytes_per_second: int) -> None:
        """Make the far rsync slow, or (0) as it was."""
        assert self.bin
        script = f'#!/bin/sh\nexec {shutil.which("rsync")} --bwlimit={kilobytes_per_second} "$@"\n'
        (self.bin / "rsync").write_text(script)
        (self.bin / "rsync").chmod(0o755)

    def stop(self) -> None:
        """Stop listening, and cut what is open."""
        if self.process:
            self.cut()
            self.process.kill()
            self.process.wait()
            self.process = None

    def machine(self, **facts: Any) -> Machine:
        """The server as niblick knows it."""
        known = {"user": getpass.getuser(), "port": self.port, "key": str(self.folder / "key")}
        address = Address("127.0.0.1", known_hosts=str(self.folder / "known_hosts"), **known)
        folder = str(self.folder / "far")
        return Machine("there", "ssh", address, folder, sys.executable, since=time.time(), **facts)

    def options(self, **changes: str) -> list[str]:
        """Options of `niblick remote` for this server."""
        values = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--user": getpass.getuser(),
            "--key": str(self.folder / "key"),
            "--known-hosts": str(self.folder / "known_hosts"),
            "--directory": str(self.folder / "far"),
        }
        values |= {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
        return [word for pair in values.items() for word in pair]


def _children(pid: int) -> list[int]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
