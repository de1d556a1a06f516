"""A server to send runs to, data for a toy run, a run that has ended there, and a home."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sshd import Server
from toy import SHORT, Home, quiet, toy_config

from niblick.remote import launching
from niblick.remote.records import Records, RemoteRun
from niblick.run.directory import read_json


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server.make(tmp_path / "server")
    yield server
    server.stop()


@pytest.fixture
def home(tmp_path: Path, server: Server) -> Home:
    folder = tmp_path / "home"
    folder.mkdir()
    return Home(folder, server)


@pytest.fixture(scope="session")
def ended(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RemoteRun, Path]:
    """A run that was launched and has ended on the far side, while home was silent: its record, its folder there."""
    folder = tmp_path_factory.mktemp("ended")
    server = Server.make(folder / "server")
    records = Records(folder / "runs")
    order = launching.Order(stop_machine="touch machine-stopped", stop_machine_after=1)
    run = launching.launch(records, server.machine(price_per_hour=2.0), toy_config(SHORT, toy_data), None, order, quiet)
    server.stop()  # nobody is there to ask any more
    far = Path(run.folder)
    deadline = time.monotonic() + 240
    while not (far / "machine-stopped").exists():
        assert time.monotonic() < deadline, (far / "output.log").read_text()
        time.sleep(0.2)
    return run, far


@pytest.fixture
def waiting(ended: tuple[RemoteRun, Path], home: Home) -> RemoteRun:
    """That run on this test's own server, with nothing of it at home yet."""
    run, far = ended
    folder = home.server.folder / "far" / run.run
    shutil.copytree(far, folder, symlinks=True)
    home.records.save_machine(home.server.machine(price_per_hour=2.0))
    (home.folder / "runs" / run.run).mkdir(parents=True)
    assert read_json(folder / "job.json")["run"] == run.run
    return home.records.save(replace(run, folder=str(folder), python=sys.executable))
