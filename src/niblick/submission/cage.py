"""A cage for strangers' programs: a view of the system that is theirs alone, no network, limits, and an end.

Inside, a program sees the system's libraries, its Python and what it was given to read, all read-only; a folder of its
own; and no process but its own. Its environment holds what it was given. When the program ends, or runs into a limit,
everything that it started is killed. Linux alone has such cages: by bubblewrap (`bwrap`), else by `unshare`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import psutil

from niblick.errors import ConfigError

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_FILES = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/sys/devices/system", "/proc/driver/nvidia")
_ROOTS_OWN = ("sys", "irq", "bus", "sysrq-trigger")
"""Parts of /proc that root may write: and root in a cage is root outside, where it was root who built the cage."""
_LOOK_EVERY = 0.1
_UNITS = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Limits:
    """What a program in a cage may take."""

    seconds: int = 7200
    memory: int = 64 * 10**9
    """Bytes that it and all that it started have in memory."""
    processes: int = 512
    output: int = 64 * 10**6
    """Bytes that it may print."""
    disk: int = 32 * 10**9
    """Bytes that its folder may grow to."""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    """What it printed, at most a little more than `Limits.output`."""
    err: str
    over: str
    """The limit that it ran into, as words; empty if none."""


@dataclass(frozen=True)
class Cage:
    """One way to build a cage on this machine."""

    name: str
    """`bubblewrap`, `namespaces` or `none`: then programs run as they are, with a cleared environment."""

    def command(self, words: Sequence[str], place: Path, read: Sequence[Path], at: Path) -> list[str]:
        """The command that runs `words` in the folder `at`, with `place` as all that may be written."""
        shown = [path for path in (*map(Path, (*_SYSTEM, *_FILES)), *read) if path.exists()]
        if self.name == "bubblewrap":
            return _bubblewrap(words, place, shown, at)
        if self.name == "namespaces":
            return ["unshare", *_NAMESPACES, "sh", "-ec", _script(words, place, shown, at)]
        return [*words]

    def run(
        self,
        words: Sequence[str],
        place: Path,
        variables: Mapping[str, str],
        limits: Limits,
        *,
        read: Sequence[Path] = (),
        at: str = "",
    ) -> Ended:
        """Run a program in the folder `at` of `place`, which is its own, and wait for its end.

        Everything lies at the same paths inside as outside: `place`, and what it may `read` besides.
        """
        place = place.resolve()
        (place / "home").mkdir(exist_ok=True)
        plain = {"PATH": "/usr/bin:/bin", "HOME": str(place / "home"), "USER": "nobody", "LANG": "C.UTF-8"}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(
                self.command(words, place, read, place / at),
                cwd=place / at,
                env=plain | dict(variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=functools.partial(_limit_files, max(limits.disk, limits.output)),
            )
            try:
                over = _watch(process, place, (out.fileno(), err.fileno()), limits)
            finally:
                _end(process)
            said, complained = (_read(file.fileno(), limits.output) for file in (out, err))
        if process.returncode in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ):
            over = over or f"wrote a file of more than {limits.disk:,} bytes"
        return Ended(process.returncode, said, complained, over)


def parse_limits(text: str) -> Limits:
    """Read `seconds=600,memory=8GB`: any of the limits, sizes in bytes, kB, MB or GB. Raises ConfigError."""
    known = {field.name for field in fields(Limits)}
    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        number = re.fullmatch(r"(\d{1,15})\s*(kB|MB|GB|)", value.strip())
        if name.strip() not in known or number is None or (number[2] and name.strip() in ("seconds", "processes")):
            raise ConfigError(
                f"{part!r} is no limit: give any of {', '.join(sorted(known))}, as in seconds=600,memory=8GB"
            )
        found[name.strip()] = int(number[1]) * _UNITS[number[2]]
    return replace(Limits(), **found)


@functools.cache
def find_cage() -> Cage | None:
    """The best cage that works here, tried by running a program in it; None if there is none."""
    for name, program in (("bubblewrap", "bwrap"), ("namespaces", "unshare")):
        if shutil.which(program):
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError):
                ended = Cage(name).run(["/bin/sh", "-c", "echo caged; exit 7"], Path(folder), {}, Limits(seconds=20))
                if ended.code == 7 and ended.out == "caged\n":
                    return Cage(name)
    return None


def _bubblewrap(words: Sequence[str], place: Path, shown: Sequence[Path], at: Path) -> list[str]:
    command = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL"]
    command += ["--disable-userns"] if _no_more_users() else []
    command += ["--die-with-parent", "--new-session", "--hostname", "cage", "--proc", "/proc", "--dev", "/dev"]
    for part in _ROOTS_OWN:
        command += ["--ro-bind-try", f"/proc/{part}", f"/proc/{part}"]
    command += ["--size", str(1 << 30), "--tmpfs", "/tmp"]
    for path in shown:
        if path.is_symlink() and path.parent == Path("/"):
            command += ["--symlink", os.readlink(path), str(path)]
        else:
            command += ["--ro-bind", os.path.realpath(path), str(path)]
    for device in sorted(Path("/dev").glob("nvidia*")):
        command += ["--dev-bind-try", str(device), str(device)]
    return [*command, "--bind", str(place), str(place), "--chdir", str(at), "--", *words]


@functools.cache
def _no_more_users() -> bool:
    """Whether this bubblewrap can keep programs from making user namespaces: 0.8 and newer can."""
    told = subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=False)
    return "--disable-userns" in told.stdout + told.stderr


_NAMESPACES = ("--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child")
_READ_ONLY = "mount -o remount,bind,ro"


def _script(words: Sequence[str], place: Path, shown: Sequence[Path], at: Path) -> str:
    """A shell script that builds a root directory in the namespaces it is run in, goes there, and drops what it may."""
    lines = [
        'PATH="$PATH:/usr/sbin:/sbin"',
        "mount --make-rprivate /",
        "root=$(mktemp -d)",
        "mount -t tmpfs -o size=1g,mode=755 tmpfs $root",
        "cd $root",
    ]
    lines += ["mkdir proc dev dev/shm tmp old", "mount -t proc proc proc", "chmod 1777 tmp dev/shm"]
    for part in _ROOTS_OWN:
        lines.append(f"test ! -e proc/{part} || {{ mount --bind proc/{part} proc/{part}; {_READ_ONLY} proc/{part}; }}")
    lines += [f"touch dev/{d}; mount --bind /dev/{d} dev/{d}" for d in ("null", "zero", "full", "random", "urandom")]
    lines += ["ln -s /proc/self/fd dev/fd"]
    for path in shown:
        here = shlex.quote(f".{path}")
        if path.is_symlink() and path.parent == Path("/"):
            lines.append(f"ln -s {shlex.quote(os.readlink(path))} {here}")
            continue
        made = f"mkdir -p {here}" if path.is_dir() else f"mkdir -p $(dirname {here}); touch {here}"
        lines += [made, f"mount --bind {shlex.quote(os.path.realpath(path))} {here}"]
        lines += [f"{_READ_ONLY} {here}"]
    own = shlex.quote(str(place))
    lines += [f"mkdir -p .{own}; mount --bind {own} .{own}", "pivot_root . old", "cd /", "umount -l /old", "rmdir /old"]
    lines += [f"cd {shlex.quote(str(at))}"]
    lines += [f"exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- {shlex.join(words)}"]
    return "\n".join(lines)


def _limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch(process: subprocess.Popen[bytes], place: Path, printed: tuple[int, int], limits: Limits) -> str:
    """Wait for the end of a process or the first limit that it and all below it run into; return that as words."""
    started, looked = time.monotonic(), 0.0
    while process.poll() is None:
        if time.monotonic() - started > limits.seconds:
            return f"took more than {limits.seconds:,} seconds"
        if sum(os.fstat(number).st_size for number in printed) > limits.output:
            return f"printed more than {limits.output:,} bytes"
        count, size = _taken(process.pid)
        if count > limits.processes:
            return f"started more than {limits.processes:,} processes"
        if size > limits.memory:
            return f"took more than {limits.memory:,} bytes of memory"
        if time.monotonic() - looked > 1.0:
            if _stored(place, limits.disk) > limits.disk:
                return f"wrote more than {limits.disk:,} bytes"
            looked = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY)
    return ""


def _taken(pid: int) -> tuple[int, int]:
    """Processes below one, itself included, and their bytes in memory."""
    with contextlib.suppress(psutil.Error):
        below = psutil.Process(pid)
        everyone = [below, *below.children(recursive=True)]
        sizes = 0
        for one in everyone:
            with contextlib.suppress(psutil.Error):
                sizes += one.memory_info().rss
        return len(everyone), sizes
    return 0, 0


def _stored(place: Path, enough: int) -> int:
    """Bytes on disk below a folder; no further than `enough`."""
    total, todo = 0, [str(place)]
    while todo and total <= enough:
        with contextlib.suppress(OSError), os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        total += 512 * entry.stat(follow_symlinks=False).st_blocks
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left: the first process of a cage takes all others with it."""
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                one.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(number: int, limit: int) -> str:
    os.lseek(number, 0, os.SEEK_SET)
    return os.read(number, min(limit, os.fstat(number).st_size)).decode("utf-8", "replace")
