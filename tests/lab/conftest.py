"""Data for tiny models, and scoring without a fresh process."""

from __future__ import annotations

from typing import Any

import pytest

from niblick import pipeline
from niblick.runs import Run


@pytest.fixture
def score_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score artifacts in this process: a fresh one takes seconds to start."""

    def score(run: Run, name: str) -> dict[str, Any]:
        return pipeline.score_artifact(run.artifact(name), pipeline.config_of(run).data.path, run=run)

    monkeypatch.setattr(pipeline, "official_score", score)
