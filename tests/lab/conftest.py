"""What makes many tiny runs quick: scoring without a fresh process, one script for all."""

from __future__ import annotations

from typing import Any

import pytest

from niblick import pipeline
from niblick.presets import get_preset
from niblick.runs import Run


@pytest.fixture
def score_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score artifacts in this process: a fresh one takes seconds to start."""

    def score(run: Run, name: str) -> dict[str, Any]:
        return pipeline.score_artifact(run.artifact(name), pipeline.config_of(run).data.path, run=run)

    monkeypatch.setattr(pipeline, "official_score", score)


@pytest.fixture
def one_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the same code for every run: making a script takes seconds, and these tests look at other things."""
    size = pipeline.weigh_code(get_preset("hnet-small"), None)
    monkeypatch.setattr(pipeline, "weigh_code", lambda config, recipe: size)
