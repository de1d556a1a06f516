"""Scorers by name: how each lays its windows over the stream (`plan` cuts them)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from niblick.errors import ConfigError, expect_free


@dataclass(frozen=True)
class Scorer:
    """How windows are laid."""

    by_document: bool
    """Whether windows begin anew with every document, so that none reaches into another."""
    overlap: Literal["never", "always", "may"]
    """Whether a window reads again what those before it read: as `score.stride` says where it may."""


SCORERS: dict[str, Scorer] = {
    "contiguous": Scorer(by_document=False, overlap="never"),
    "sliding": Scorer(by_document=False, overlap="always"),
    "document": Scorer(by_document=True, overlap="may"),
}
"""What `score.scorer` may name."""


def register_scorer(name: str, scorer: Scorer) -> None:
    """Make `name` available as `score.scorer`. Raises ConfigError if it is taken by another way to lay windows."""
    expect_free("scorer", SCORERS, name, scorer, ConfigError)
    SCORERS[name] = scorer
