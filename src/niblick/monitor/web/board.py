"""Leaderboard, and bytes against BPB."""

from __future__ import annotations

from niblick.monitor.watcher import Watcher


def build(watcher: Watcher) -> None:
    pass
