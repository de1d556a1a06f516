"""Several processes on the same files: one trains a run at a time, and of what all may write nothing is lost."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from niblick.errors import ConfigError
from niblick.files import append_line, locked
from niblick.ledger.ledger import Ledger
from niblick.recipes.presets import get_preset
from niblick.run import pipeline
from niblick.run.directory import Run, create_run

HOLD = """
import sys, time
from pathlib import Path
from niblick.run.directory import Run
with Run(Path(sys.argv[1])).writing():
    print("held", flush=True)
    time.sleep(600)
"""
NOTE = """
import sys
from pathlib import Path
from niblick.ledger.ledger import Ledger
from niblick.ledger.notes import note, tag
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
[row] = Ledger(folder).rows()
for i in range(count):
    tag([row], f"{name}{i}")
    note(folder, f"{name}{i}", row)
"""
APPEND = """
import sys
from pathlib import Path
from niblick.files import append_line
for i in range(int(sys.argv[3])):
    append_line(Path(sys.argv[1]), sys.argv[2] * 50 + str(i))
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "runs", get_preset("hnet-small"))


def test_one_process_trains_a_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second is told who the first is; a process that died holds nothing."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, run.path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    (run.path / "other.tmp").write_text("of the process that trains")
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    monkeypatch.setattr(pipeline, "prepare", lambda *given, **named: None)
    who = rf"process {holder.pid} on {platform.node()}, since \d{{4}}-\d\d-\d\d .*: wait until that has ended"
    with pytest.raises(ConfigError, match=rf"hnet-small-1 is being written by {who}"):
        pipeline.resume(run, lambda event: None)
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before
    holder.kill()
    holder.wait()
    with run.writing():
        assert str(os.getpid()) in (run.path / "writer.lock").read_text()
    assert not (run.path / "writer.lock").exists()


def test_notes_of_several_processes_are_all_kept(run: Run) -> None:
    count, names = 40, ("one", "two", "three")
    folder = run.path.parent
    writers = [subprocess.Popen([sys.executable, "-c", NOTE, folder, name, str(count)]) for name in names]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    [row] = Ledger(folder).rows()
    wanted = {f"{name}{i}" for name in names for i in range(count)}
    assert set(row.tags) == wanted == {n["text"] for n in row.notes}
    lines = (folder / "log.md").read_text().splitlines()
    assert sorted(line.rsplit(" ", 1)[1] for line in lines if line.startswith("- ")) == sorted(wanted)


def test_lines_of_several_processes_are_whole(tmp_path: Path) -> None:
    path, count = tmp_path / "lines.jsonl", 300
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, path, name, str(count)]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(name * 50 + str(i) for name in "abc" for i in range(count))
    append_line(path, json.dumps({}))
    assert len(path.read_text().splitlines()) == 3 * count + 1


def test_a_whole_last_line_is_kept_and_half_a_one_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"b": 2}')
    append_line(path, '{"c": 3}')
    assert path.read_text() == '{"a": 1}\n{"b": 2}\n{"c": 3}\n'
    path.write_text('{"a": 1}\n{"b": 2')
    append_line(path, '{"c": 3}')
    assert path.read_text() == '{"a": 1}\n{"c": 3}\n'


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "a.lock", "a"),
        pytest.raises(ConfigError, match=r"^b is being written by process"),
        locked(tmp_path / "a.lock", "b", wait=0.2),
    ):
        raise AssertionError
    with locked(tmp_path / "a.lock", "b"):
        pass
