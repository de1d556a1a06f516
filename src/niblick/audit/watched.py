"""A process that is watched: which files it reads and for whom, what it imports, and that it starts nothing.

Uses the interpreter's audit events (PEP 578), and stands before the readers in machine code that the interpreter does
not hear of (safetensors). Who asks is told by the call stack: what the user's own code opens is judged more strictly
than what Python and niblick need to run. Code that sets out to deceive the interpreter itself is not seen.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.metadata
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
              "pty.spawn", "os.startfile")  # fmt: skip
_NIBLICK = os.path.realpath(os.path.dirname(os.path.dirname(__file__)))
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib")
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
                  "MKL_NUM_THREADS", "GOMP_SPINCOUNT", "LANG", "LC_ALL")  # fmt: skip
"""Variables of the environment that a fresh process may have."""


@dataclass
class Watched:
    """What was seen."""

    own: str
    """The folder of the user's code."""
    data: str
    files: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    """Files that the user's code asked for itself, other than code it imports."""
    network: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take in an event of the interpreter. Raises PermissionError for networks and for processes of the user's."""
        if event == "open" and arguments and isinstance(arguments[0], str | bytes | os.PathLike):
            self.opened(os.fsdecode(arguments[0]))
        elif event in _NETWORK:
            self.network.append(f"{event} {arguments[1:]!r}")
            raise PermissionError("there is no network while a score is audited")
        elif event in _PROCESSES and self._users_own():
            self.processes.append(f"{event} {str(arguments[0] if arguments else '')[:80]}")
            raise PermissionError("no process is started while a score is audited")

    def opened(self, name: str) -> None:
        """A file is opened."""
        path = os.path.realpath(name)
        self.files.add(path)
        text = path.startswith(self.data + os.sep)
        if self._users_own(through_niblick=text) and (text or not path.endswith(_CODE)):
            self.asked.add(path)

    def _users_own(self, *, through_niblick: bool = True) -> bool:
        """Whether the user's code asked for this: not by importing something, nor (unless told) by asking niblick."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(self.own + os.sep):
                return True
            if file.startswith("<frozen importlib._bootstrap"):
                return False  # what a module does as it is imported is its own doing
            own = file.startswith(_NIBLICK + os.sep) and not file.startswith(_NIBLICK + os.sep + "audit")
            if own and not through_niblick:
                return False
            frame = frame.f_back
        return False

    def plain(self) -> dict[str, list[str]]:
        """As JSON."""
        stdlib = os.path.realpath(os.path.dirname(os.__file__))
        modules = set()
        for name, module in list(sys.modules.items()):
            file = os.path.realpath(getattr(module, "__file__", None) or "")
            if "." not in name and os.path.isfile(file) and (_packages(file) or not file.startswith(stdlib + os.sep)):
                modules.add(name)
        return {
            "files": sorted(path for path in list(self.files) if os.path.isfile(path)),
            "asked": sorted(path for path in list(self.asked) if os.path.isfile(path)),
            "network": list(self.network),
            "processes": list(self.processes),
            "modules": sorted(modules),
        }


def watch(report: str, own: str, data: str) -> None:
    """From here on, refuse networks and the user's processes, and at the end write to `report` what was seen."""
    seen = Watched(os.path.realpath(own), os.path.realpath(data))

    def write() -> None:
        with open(report, "w", encoding="utf-8") as file:
            json.dump(seen.plain(), file)

    sys.addaudithook(seen.hear)
    _stand_before_safetensors(seen)
    atexit.register(write)


def _stand_before_safetensors(seen: Watched) -> None:
    """Hear of the files that safetensors opens in machine code."""
    for module in ("safetensors", "safetensors.torch", "safetensors.numpy"):
        library = importlib.import_module(module)
        opener = getattr(library, "safe_open", None)
        if opener is not None:
            vars(library)["safe_open"] = _heard(opener, seen)
        for name in ("load_file", "load_model"):
            if (reader := getattr(library, name, None)) is not None:
                vars(library)[name] = _heard(reader, seen)


def _heard(function: Any, seen: Watched) -> Any:
    def instead(*arguments: Any, **options: Any) -> Any:
        for name in [*arguments, options.get("filename")]:
            if isinstance(name, str | os.PathLike) and os.path.isfile(name):
                seen.opened(os.fspath(name))
        return function(*arguments, **options)

    return instead


_listening: list[set[str]] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _listening[-1].add(os.path.realpath(os.fsdecode(arguments[0])))


@contextlib.contextmanager
def listening() -> Iterator[set[str]]:
    """The files that are opened in this process meanwhile."""
    if not _listening:
        sys.addaudithook(_listen)
        _listening.append(set())  # such a hook stays; from now on it has a place for what nobody asks for
    _listening.append(set())
    try:
        yield _listening[-1]
    finally:
        _listening.pop()
        _listening[0].clear()


def foreign(files: list[str], allowed: list[str]) -> list[str]:
    """Files that lie neither in folders that any Python reads from nor in allowed ones."""
    machine = ["/proc", "/sys", "/dev", "/etc", "/usr", "/lib", "/lib64", "/bin", "/opt"]
    own = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.dirname(__file__))]
    stdlib = [os.path.dirname(os.__file__), *(p for p in sys.path if "site-packages" in p or "dist-packages" in p)]
    roots = [os.path.realpath(root) for root in [*machine, *own, *stdlib, *allowed]]
    return [path for path in files if not any(path == root or path.startswith(root + os.sep) for root in roots)]


def strange_packages(modules: list[str], own: set[str]) -> list[str]:
    """Top-level modules that are neither Python's, nor niblick's, nor of what niblick requires, nor in `own`."""
    known = required()
    belong = importlib.metadata.packages_distributions()
    return [
        name
        for name in modules
        if name not in sys.stdlib_module_names
        and name not in own
        and name not in ("niblick", "__main__", "sitecustomize", "usercustomize", "sitecustomise")
        and not known & {_normal(owner) for owner in belong.get(name, ["?"])}
    ]


def _packages(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file


def required() -> set[str]:
    """Every distribution that niblick requires, with what those require, extras too."""
    found: set[str] = set()
    waiting = ["niblick"]
    while waiting:
        name = _normal(waiting.pop())
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            for line in importlib.metadata.requires(name) or []:
                needed = re.match(r"[\w.-]+", line)
                if needed and (name == "niblick" or "extra ==" not in line):
                    waiting.append(needed.group())
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
