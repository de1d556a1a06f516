"""A run that has ended on the far side comes home whole, or its state names what is missing; down waits for that."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy import Home, quiet

from niblick.errors import ConfigError
from niblick.ledger.ledger import Ledger
from niblick.remote import ending, money
from niblick.remote.address import RemoteError, Unreachable
from niblick.remote.clouds import Own
from niblick.remote.pull import missing_at_home, pull
from niblick.remote.records import RemoteRun
from niblick.run.artifacts import find_artifact
from niblick.run.directory import Run, read_json, source_snapshot

pytestmark = pytest.mark.slow


def test_the_watcher_stopped_the_machine_with_its_disk_kept(ended: tuple[RemoteRun, Path]) -> None:
    """Nobody asked for a second after the end: the user's command ran, and every file is still there."""
    far = ended[1]
    assert (far / "machine-stopped").exists()
    listed = read_json(far / "files.json")
    assert {"config.json", "events.jsonl", "model.safetensors", "result.json", "train.log"} <= set(listed)
    assert all((far / "runs" / "hnet-small-1" / name).is_file() for name in listed)


def test_home_verified_scored_and_only_then_deleted_there(home: Home, waiting: RemoteRun) -> None:
    records, far = home.records, Path(waiting.folder)
    run = pull(records, "hnet-small-1")
    assert (run.state, run.missing, run.home) == ("done", (), True)
    local = Run(records.runs / "hnet-small-1")
    result = local.result()
    assert result and result.bpb > 0 and local.changed() == []
    assert result.run == "runs/hnet-small-1"  # as if it had run here
    assert (local.path / "source.tar.zst").read_bytes() == source_snapshot(None)
    assert find_artifact("hnet-small-1", records.runs)[0].is_file()
    assert sorted(p.name for p in local.path.iterdir() if p.name.startswith(".")) == []
    (row,) = Ledger(records.runs).rows()  # what lists and ranks runs sees one like any other
    assert (row.id, row.status) == ("hnet-small-1", "done")
    machine, deleted = ending.down(records, records.machine("there"), Own(), [], quiet)
    assert (machine.state, deleted) == ("down", ["hnet-small-1"])
    assert not far.exists() and local.result() == result


def test_down_looks_again_at_what_is_home(home: Home, waiting: RemoteRun) -> None:
    records = home.records
    pull(records, "hnet-small-1")
    (records.runs / "hnet-small-1" / "model.safetensors").unlink()
    with pytest.raises(RemoteError, match=r"model\.safetensors is not as it came"):
        ending.down(records, records.machine("there"), Own(), [], quiet)
    assert Path(waiting.folder).is_dir()
    scores = next((records.runs / "hnet-small-1").rglob("scores.jsonl"))
    scores.write_text(scores.read_text() * 2)  # scored again at home: that is no loss, and stays
    assert pull(records, "hnet-small-1").state == "done"
    assert len(scores.read_text().splitlines()) == 2
    assert ending.down(records, records.machine("there"), Own(), [], quiet)[0].state == "down"


def test_down_refuses_what_cannot_be_fetched_until_abandoned(home: Home, waiting: RemoteRun) -> None:
    records = home.records
    home.server.stop()
    printed = home.remote("down", "there", code=2)
    assert "is kept: hnet-small-1 is" in printed and "cannot be reached" in printed and "--abandon" in printed
    with pytest.raises(ConfigError, match="has no run nonsense"):
        ending.down(records, records.machine("there"), Own(), ["nonsense"], quiet)
    home.server.start()
    said: list[str] = []
    ending.down(records, records.machine("there"), Own(), ["hnet-small-1"], said.append)
    assert said == ["abandoned hnet-small-1: what is not at home is lost"]
    assert records.run("hnet-small-1").state == "abandoned" and not Path(waiting.folder).exists()


def _make_large(run: RemoteRun) -> Path:
    """Add a file of 24 MB to the run there, so that its transfer takes a while."""
    folder = Path(run.folder)
    large = folder / "runs" / run.run / "artifacts" / "large.bin"
    large.write_bytes(os.urandom(24 << 20))
    (folder / "files.json").unlink()
    return large


def _until(what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _arrived(home: Home) -> int:
    """Bytes of files that are on their way."""
    coming = [*home.records.beside("hnet-small-1").glob("temporary/*")]
    coming += (home.records.runs / "hnet-small-1").rglob(".rsync-partial/*")
    return sum(p.stat().st_size for p in coming)


def test_a_connection_cut_mid_pull_goes_on_where_it_stopped(home: Home, waiting: RemoteRun) -> None:
    records, large = home.records, _make_large(waiting)
    home.server.slow_rsync(4000)
    errors: list[Exception] = []

    def first() -> None:
        try:
            pull(records, "hnet-small-1")
        except Unreachable as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    _until(lambda: _arrived(home) > 4 << 20)
    assert home.server.cut()
    thread.join(60)
    assert "was lost" in str(errors[0])
    assert not records.run("hnet-small-1").home
    kept = _arrived(home)
    assert 4 << 20 < kept < 24 << 20
    assert not (records.runs / "hnet-small-1" / "artifacts" / "large.bin").exists()  # whole files alone
    started = time.monotonic()
    run = pull(records, "hnet-small-1")
    assert run.state == "done" and missing_at_home(records, run) == []
    assert (records.runs / "hnet-small-1" / "artifacts" / "large.bin").read_bytes() == large.read_bytes()
    assert time.monotonic() - started < 60 and _arrived(home) == 0


def test_a_killed_client_leaves_nothing_half_written(home: Home, waiting: RemoteRun) -> None:
    records, _ = home.records, _make_large(waiting)
    home.server.slow_rsync(4000)
    client = home.start("pull", "hnet-small-1")
    _until(lambda: _arrived(home) > 2 << 20)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    assert not records.run("hnet-small-1").home
    run = pull(records, "hnet-small-1")  # waits for the rsync that the client left, if it lives
    assert run.state == "done" and missing_at_home(records, run) == []
    assert not list((records.runs / "hnet-small-1").rglob(".*"))


def _damaging_rsync(folder: Path, times: int) -> Path:
    """An rsync that flips a byte of what it fetched, so many times, and leaves size and time as they were."""
    folder.mkdir()
    script = folder / "rsync"
    script.write_text(f"""#!/usr/bin/env python3
import os, pathlib, subprocess, sys
done = subprocess.run([{shutil.which("rsync")!r}, *sys.argv[1:]], close_fds=False)
counter = pathlib.Path({str(folder / "count")!r})
count = len(counter.read_text()) if counter.exists() else 0
target = pathlib.Path(sys.argv[-1]) / "model.safetensors"
if count < {times} and target.is_file():
    counter.write_text("x" * (count + 1))
    times = target.stat()
    data = bytearray(target.read_bytes())
    data[-1] = (data[-1] + 1) % 256
    target.write_bytes(data)
    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
sys.exit(done.returncode)
""")
    script.chmod(0o755)
    return folder


def test_a_file_damaged_on_the_way_is_fetched_again(
    home: Home, waiting: RemoteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _damaging_rsync(tmp_path / "bad", times=1)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    run = pull(home.records, "hnet-small-1")
    assert (folder / "count").read_text() == "x"
    assert run.state == "done" and Run(home.records.runs / "hnet-small-1").changed() == []


def test_a_file_damaged_again_and_again_is_named(
    home: Home, waiting: RemoteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = home.records
    monkeypatch.setenv("PATH", f"{_damaging_rsync(tmp_path / 'bad', times=9)}:{os.environ['PATH']}")
    printed = json.loads(home.remote("pull", "hnet-small-1", "--json", code=1).partition("\nniblick")[0])
    assert printed["state"] == "incomplete" and printed["missing"] == ["model.safetensors"]
    assert not printed["verified"]
    with pytest.raises(RemoteError, match=r"not whole at home \(model\.safetensors missing\)"):
        ending.down(records, records.machine("there"), Own(), [], quiet)
    monkeypatch.undo()
    assert pull(records, "hnet-small-1").state == "done"


def test_a_machine_that_is_gone_is_no_result(home: Home, waiting: RemoteRun) -> None:
    shutil.rmtree(waiting.folder)
    run = pull(home.records, "hnet-small-1")
    assert run.state == "incomplete" and run.missing and "not there any more" in run.lines[0]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a*"])
def test_names_that_lead_out_of_the_run_are_refused(home: Home, waiting: RemoteRun, name: str) -> None:
    listed = {name: {"bytes": 1, "sha256": "0" * 64}}
    (Path(waiting.folder) / "files.json").write_text(json.dumps(listed))
    with pytest.raises(RemoteError, match="is none of a run"):
        pull(home.records, "hnet-small-1")


def test_links_there_are_not_followed_here(home: Home, waiting: RemoteRun) -> None:
    (Path(waiting.folder) / "runs" / "hnet-small-1" / "notes").symlink_to("/etc")
    assert pull(home.records, "hnet-small-1").state == "done"
    assert not os.path.lexists(home.records.runs / "hnet-small-1" / "notes")


def test_no_secret_is_written(home: Home, waiting: RemoteRun) -> None:
    printed = home.remote("pull", "hnet-small-1") + home.remote("ls") + home.remote("status", "--json")
    private = (home.server.folder / "key").read_text().splitlines()[1]
    secrets = [private, "hf_secret_of_the_environment", "rp_secret_of_the_environment"]
    written = [p for folder in (home.folder, Path(waiting.folder)) for p in folder.rglob("*") if p.is_file()]
    assert len(written) > 20
    for secret in secrets:
        assert secret not in printed
        assert [p for p in written if secret.encode() in p.read_bytes()] == []


def test_ls_says_what_it_costs_and_who_idles(home: Home, waiting: RemoteRun) -> None:
    records, now = home.records, time.time()
    run = pull(records, "hnet-small-1")
    records.save_machine(replace(records.machine("there"), since=now - 7200))
    records.save(replace(run, launched=now - 7200, ended=now - 3600))
    facts = json.loads(home.remote("ls", "--json"))
    assert facts["machines"][0]["cost"] == pytest.approx(4.0, abs=0.1)
    assert facts["runs"][0]["cost"] == pytest.approx(2.0, abs=0.01)
    assert "machine there has been idle for 60 minutes ($2.0" in facts["warnings"][0]
    assert money.warnings([replace(records.machine("there"), state="down")], []) == []
    assert "all, verified" in home.remote("ls")
