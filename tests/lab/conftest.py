"""Data for tiny models, and scoring without a fresh process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from niblick import pipeline
from niblick.data.prepare import prepare
from niblick.runs import Run


@pytest.fixture(scope="session")
def lab_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few documents of Python's own, as bytes; the first, which is scored, is short."""
    folder = tmp_path_factory.mktemp("lab")
    texts = [f"Document {i}: " + "the quick brown fox jumps over the lazy dog, " * (4 + i) for i in range(12)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare(str(folder / "text.jsonl"), "byte260", folder / "data", val_docs=3)
    return folder / "data"


@pytest.fixture
def score_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score artifacts in this process: a fresh one takes seconds to start."""

    def score(run: Run, name: str) -> dict[str, Any]:
        return pipeline.score_artifact(run.artifact(name), pipeline.config_of(run).data.path, run=run)

    monkeypatch.setattr(pipeline, "official_score", score)
