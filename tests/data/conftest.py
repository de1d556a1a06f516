"""Small real datasets for the tests of the data package."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare

WriteJsonl = Callable[[Path, Iterable[str]], Path]


def _write_jsonl(path: Path, texts: Iterable[str]) -> Path:
    with open(path, "w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")
    return path


@pytest.fixture(scope="session")
def write_jsonl() -> WriteJsonl:
    """A function that writes one document a line, as the challenge's cache does, and returns the path."""
    return _write_jsonl


@pytest.fixture(scope="session")
def webmix_bytes(webmix: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """All of webmix as byte260, in shards that documents run across."""
    out = tmp_path_factory.mktemp("webmix") / "data"
    prepare(str(webmix), "byte260", out, val_docs=220, shard_tokens=1_000_000, workers=2)
    return Dataset.open(out)
