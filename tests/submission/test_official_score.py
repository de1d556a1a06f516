"""The score of a submission is the official one: of the text and by the scorer that result.json names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from niblick.errors import ConfigError
from niblick.run.directory import Run
from niblick.submission.folder import _official

RESULT: dict[str, Any] = {"bpb": 2.5875, "scorer": {"scorer": "contiguous"}, "text_hash": "a", "stream_hash": "b"}
OTHER_TEXT = RESULT | {"bpb": 3.1163, "text_hash": "c", "stream_hash": "d"}


def official(folder: Path, *records: dict[str, Any]) -> dict[str, Any]:
    (folder / "scores.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return _official(Run(folder), folder / "artifact.nib", RESULT)


def test_the_newest_score_of_the_official_text_is_taken(tmp_path: Path) -> None:
    again = RESULT | {"bpb": 2.58751, "seconds": 3.0}
    assert official(tmp_path, RESULT, again, OTHER_TEXT, RESULT | {"scorer": {}, "bpb": 1.0}) == again


def test_without_one_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no score of the text"):
        official(tmp_path, OTHER_TEXT)
    with pytest.raises(ConfigError, match=r"says 2\.487500 BPB of the official text.* 2\.587500"):
        official(tmp_path, RESULT, RESULT | {"bpb": 2.4875})
