"""Full, read-only and vanished disks: one sentence, exit code 2, nothing lost, no temporary file left."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Niblick
from rundirs import make_run

from niblick import cli, files

VERBS = [["tag", "keep", "one"], ["note", "wider is not better", "--run", "one"]]


def held(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the cache, which may be thrown away."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".ledger"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_run(tmp_path, "one")
    (tmp_path / "one" / "notes.json").write_text('{"tags": ["old"], "notes": []}')
    (tmp_path / "log.md").write_text("# Research log\n\n- by hand\n")
    return tmp_path


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT, errno.EDQUOT])
@pytest.mark.parametrize("place", ["fsync", "replace"])
def test_nothing_is_lost_where_a_write_fails(
    runs: Path, niblick: Niblick, monkeypatch: pytest.MonkeyPatch, verb: list[str], code: int, place: str
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    before = held(runs)
    monkeypatch.setattr(files.os, place, fail)
    said = niblick.refused(*verb, "--runs", runs)
    assert files._TROUBLE[code] in said
    assert held(runs) == before


@pytest.mark.parametrize("code", sorted(files._TROUBLE))
def test_any_verb_ends_with_a_sentence(niblick: Niblick, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail() -> None:
        raise OSError(code, os.strerror(code), "/somewhere/run")

    monkeypatch.setattr(cli, "app", fail)
    assert f"/somewhere/run cannot be read or written: {files._TROUBLE[code]}" in niblick.refused("train", "x")


@pytest.mark.parametrize("options", ["ro", "size=16k"])
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_disk_that_is_full_or_read_only(runs: Path, options: str, verb: list[str]) -> None:
    """A real file system of its own in memory, in a namespace of its own."""
    enter = ["unshare", "-rm", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*enter, "mount -t tmpfs x /mnt"], check=False).returncode:
        pytest.skip("no file system can be mounted in a user namespace here")
    command = " ".join([sys.executable, "-m", "niblick", *(f"'{word}'" for word in verb), "--runs", "/mnt"])
    fill = "mount -o remount,ro /mnt" if options == "ro" else "dd if=/dev/zero of=/mnt/rest bs=4k 2>/dev/null"
    copy = "mount -t tmpfs -o size=400k x /mnt && cp -r ./* /mnt/ && rm -f /mnt/.ledger* &&"
    script = f"{copy} {{ {fill}; {command}; echo code $?; cat /mnt/one/notes.json /mnt/log.md; ls -A /mnt /mnt/one; }}"
    here = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}
    done = subprocess.run([*enter, script], cwd=runs, env=here, capture_output=True, text=True, check=False)
    assert "code 2" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("niblick: ")]) == 1, done.stderr
    assert '{"tags": ["old"], "notes": []}# Research log\n\n- by hand\n' in done.stdout
    assert ".tmp" not in done.stdout
