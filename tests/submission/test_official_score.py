"""The score of a submission is the official one: of the text and by the scorer that result.json names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from niblick.errors import ConfigError
from niblick.facts.reading import plain
from niblick.facts.scores import Legality, ScoreRecord, ScorerFacts
from niblick.run.directory import Run
from niblick.submission.folder import _official

RESULT = ScoreRecord(
    bpb=2.5875,
    scorer=ScorerFacts(scorer="contiguous"),
    text_hash="a",
    stream_hash="b",
    artifact_bytes=100,
    tokens=10,
    bytes=9,
    legality=Legality(under_cap=True),
)
OTHER_TEXT = replace(RESULT, bpb=3.1163, text_hash="c", stream_hash="d")


def official(folder: Path, *records: ScoreRecord) -> ScoreRecord:
    (folder / "scores.jsonl").write_text("".join(json.dumps(plain(record)) + "\n" for record in records))
    return _official(Run(folder), folder / "artifact.nib", RESULT)


def test_the_newest_score_of_the_official_text_is_taken(tmp_path: Path) -> None:
    again = replace(RESULT, bpb=2.58751, seconds=3.0)
    assert (
        official(tmp_path, RESULT, again, OTHER_TEXT, replace(RESULT, scorer=ScorerFacts(scorer="sliding"), bpb=1.0))
        == again
    )


def test_without_one_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no score of the text"):
        official(tmp_path, OTHER_TEXT)
    with pytest.raises(ConfigError, match=r"says 2\.487500 BPB of the official text.* 2\.587500"):
        official(tmp_path, RESULT, replace(RESULT, bpb=2.4875))
