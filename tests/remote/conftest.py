"""A server to send runs to, data for a toy run, and a home."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import Server
from toy import Home

from niblick.data.prepare import prepare


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few short documents, as bytes."""
    folder = tmp_path_factory.mktemp("toy")
    texts = [f"Document {i}: " + "the quick brown fox jumps over the lazy dog, " * (4 + i) for i in range(12)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare(str(folder / "text.jsonl"), "byte260", folder / "data", val_docs=3)
    return folder / "data"


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
