"""What a program in a cage sees, may do and leaves behind: nothing but what it was given."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import psutil
import pytest
from cages import install_bubblewrap

from niblick.errors import ConfigError, NiblickError
from niblick.submission.cage import Cage, Limits, find_cage, parse_limits
from niblick.submission.rerun import Handling, copy_folder, environment, requirements

SHELL = "/bin/sh"


@pytest.fixture(params=["bubblewrap", "namespaces"])
def cage(request: pytest.FixtureRequest, tmp_path: Path) -> Cage:
    install_bubblewrap()
    made = Cage(request.param)
    try:
        works = made.run([SHELL, "-c", "exit 7"], tmp_path, {}, Limits(seconds=60)).code == 7
    except OSError:
        works = False
    if not works:
        pytest.skip(f"this machine has no cage of the kind {request.param}")
    return made


def said(cage: Cage, place: Path, script: str, **given: str) -> str:
    ended = cage.run([SHELL, "-c", script], place, given, Limits(seconds=60))
    assert ended.code == 0, ended
    return ended.out


def test_the_environment_is_what_was_given(cage: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "a secret of the caller's")
    seen = said(cage, tmp_path, "env; cat /proc/*/environ | tr '\\0' '\\n'", GIVEN="1")
    assert "GIVEN=1" in seen and "secret" not in seen and f"HOME={tmp_path}/home" in seen


def test_no_process_and_no_file_of_the_caller_is_seen(cage: Cage, tmp_path: Path) -> None:
    own, beside = tmp_path / "own", tmp_path / "beside.txt"
    own.mkdir()
    beside.write_text("the caller's")
    script = f"ls -d /proc/[0-9]*; ls -d {beside} {Path.home()} {Path(__file__)} 2>&1; true"
    lines = said(cage, own, script).splitlines()
    assert sum(line.startswith("/proc/") for line in lines) < 6
    assert sum("No such file" in line for line in lines) == 3


def test_only_its_own_folder_is_written(cage: Cage, tmp_path: Path) -> None:
    own, given = tmp_path / "own", tmp_path / "given"
    own.mkdir()
    given.mkdir()
    (given / "data.txt").write_text("data")
    script = f"cat {given}/data.txt; echo x > {own}/mine; for f in /usr/x {given}/x /proc/sys/kernel/x; do " + (
        "(echo x > $f) 2>&1; done; test -w /proc/sys/kernel/core_pattern || echo kept"
    )
    ended = cage.run([SHELL, "-c", script], own, {}, Limits(seconds=60), read=[given])
    assert ended.out.startswith("data") and ended.out.endswith("kept\n") and ended.out.count("annot create") == 3
    assert (own / "mine").read_text() == "x\n" and [f.name for f in given.iterdir()] == ["data.txt"]


def test_there_is_no_network(cage: Cage, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = (
            f"import socket\ntry: socket.create_connection(('127.0.0.1', {port}), 5)\nexcept OSError: print('none')"
        )
        python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        ended = cage.run([str(python), "-c", program], tmp_path, {}, Limits(seconds=60), read=[Path(sys.base_prefix)])
    assert ended.out == "none\n", ended


@pytest.mark.parametrize(
    ("script", "limits", "over"),
    [
        ("sleep 600 & sleep 600", Limits(seconds=1), "took more than 1 seconds"),
        (
            "while true; do echo 0123456789012345678901234567890123456789; done",
            Limits(output=10_000),
            "printed more than",
        ),
        ("for i in 1 2 3 4 5 6 7 8 9; do sleep 600 & done; wait", Limits(processes=6), "started more than 6 processes"),
        (
            "for i in 1 2 3; do head -c 900000 /dev/zero > $i; done; sleep 600",
            Limits(disk=2_000_000),
            "wrote more than",
        ),
        ("x=$(head -c 60000000 /dev/zero | tr '\\0' x); sleep 600", Limits(memory=40_000_000), "bytes of memory"),
    ],
)
def test_limits_end_it(cage: Cage, tmp_path: Path, script: str, limits: Limits, over: str) -> None:
    assert over in cage.run([SHELL, "-c", script], tmp_path, {}, limits).over


def test_no_file_grows_beyond_the_limit(cage: Cage, tmp_path: Path) -> None:
    script = "head -c 3000000 /dev/zero > one; true"
    ended = cage.run([SHELL, "-c", script], tmp_path, {}, Limits(disk=2_000_000, output=9999))
    assert (tmp_path / "one").stat().st_size <= 2_000_000 and (
        ended.over or "too large" in ended.err or ended.code == 0
    )


def test_nothing_outlives_it(cage: Cage, tmp_path: Path) -> None:
    mark = f"{600 + os.getpid() / 1e7:.7f}"
    assert said(cage, tmp_path, f"setsid sleep {mark} & echo gone") == "gone\n"
    assert not [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]


def test_an_interrupted_caller_leaves_nothing(cage: Cage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import niblick.submission.cage as module

    mark = f"{700 + os.getpid() / 1e7:.7f}"

    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cage.run([SHELL, "-c", f"sleep {mark}"], tmp_path, {}, Limits())
    assert not [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]


def test_limits_as_words() -> None:
    assert parse_limits("") == Limits()
    assert parse_limits("seconds=60, memory=8GB,output=2kB") == Limits(seconds=60, memory=8 * 10**9, output=2000)
    for text in ("seconds", "seconds=-1", "time=5", "seconds=5GB", "memory=8TB", "disk=99999999999999999"):
        with pytest.raises(ConfigError, match=r"is no limit: give any of disk, memory, output, processes, seconds"):
            parse_limits(text)


@pytest.mark.parametrize(
    "line",
    [
        "git+https://example.org/x.git",
        "x @ https://example.org/x.whl",
        "-r other.txt",
        "--index-url=x",
        "./here",
        "-e .",
    ],
)
def test_requirements_are_packages_by_name(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"# a comment\nnumpy==2.1.0  # why\n{line}\n")
    with pytest.raises(ConfigError, match=r"requirements.txt:3 is .*: only packages by name and version are installed"):
        requirements(tmp_path)


def test_an_environment_made_in_a_cage(cage: Cage, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "requirements.txt").write_text("packaging\n")
    handling = Handling(cage)
    python = environment(folder, tmp_path / "packages", handling)
    read = [Path(sys.base_prefix), python.parents[1]]
    own = tmp_path / "own"
    own.mkdir()
    program = "import packaging, importlib.util as u; print(packaging.__file__, u.find_spec('torch'))"
    ended = cage.run([str(python), "-c", program], own, {}, Limits(), read=read)
    assert ended.out.startswith(str(python.parents[1])) and ended.out.endswith(" None\n"), ended
    (folder / "requirements.txt").write_text("packaging==0.0.0.1\n")
    with pytest.raises(NiblickError, match=r"theirs cannot be had as wheels: ERROR: No matching distribution"):
        environment(folder, tmp_path / "again", handling)


def test_only_regular_files_are_copied(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    (folder / "logs").mkdir(parents=True)
    (folder / "deep").mkdir()
    (folder / "deep" / "a.txt").write_text("a")
    (folder / "logs" / "long.log").write_text("log")
    copy_folder(folder, tmp_path / "one", Limits())
    assert [p.relative_to(tmp_path / "one").as_posix() for p in sorted((tmp_path / "one").rglob("*"))] == [
        "deep",
        "deep/a.txt",
    ]
    with pytest.raises(ConfigError, match="holds more than 0 bytes"):
        copy_folder(folder, tmp_path / "two", Limits(disk=0))
    (folder / "out").symlink_to("/")
    with pytest.raises(ConfigError, match="out is a link: a submission holds regular files alone"):
        copy_folder(folder, tmp_path / "three", Limits())
    (folder / "out").unlink()
    os.mkfifo(folder / "deep" / "pipe")
    with pytest.raises(ConfigError, match="pipe is a pipe: "):
        copy_folder(folder, tmp_path / "four", Limits())


def test_one_of_them_is_found_and_kept() -> None:
    found = [find_cage() for _ in range(2)]
    assert found[0] is found[1] and threading.active_count() >= 1
    if found[0] is None:
        pytest.skip("this machine has no cage")
    assert found[0].name in ("bubblewrap", "namespaces")
