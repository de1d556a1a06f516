"""A process that is watched: which files it reads, and that it reaches no network.

Uses the interpreter's audit events (PEP 578). They tell of Python's own doings; a library in machine code could open
files that nobody hears of.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from typing import Any

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


def watch(report: str) -> None:
    """From here on, refuse every network connection, and at the end write to `report` which files were opened."""
    files: set[str] = set()
    refused: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            files.add(os.path.realpath(os.fsdecode(arguments[0])))
        elif event in _NETWORK:
            refused.append(f"{event} {arguments[1:]!r}")
            raise PermissionError("there is no network while a score is audited")

    def write() -> None:
        found = {"files": sorted(path for path in list(files) if os.path.isfile(path)), "network": list(refused)}
        with open(report, "w", encoding="utf-8") as file:
            json.dump(found, file)

    sys.addaudithook(hook)
    atexit.register(write)


def foreign(files: list[str], allowed: list[str]) -> list[str]:
    """Files that lie neither in folders that any Python reads from nor in allowed ones."""
    machine = ["/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/bin", "/opt"]
    own = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.dirname(__file__))]
    stdlib = [os.path.dirname(os.__file__), *(p for p in sys.path if "site-packages" in p or "dist-packages" in p)]
    roots = [os.path.realpath(root) for root in [*machine, *own, *stdlib, *allowed]]
    return [path for path in files if not any(path == root or path.startswith(root + os.sep) for root in roots)]
