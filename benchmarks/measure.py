"""Ours and a peer, taken in turns in one run: machines are noisy, so what counts is the ratio of neighbours."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 15.0
"""Seconds after which a comparison is not repeated any more, on machines where one pair takes long."""
DOCS = Path(__file__).parents[1] / "docs" / "performance.md"


@dataclass(frozen=True)
class Row:
    """One line of the benchmark table. `ratio` says how many times better ours is, whatever the unit."""

    name: str
    ours: float
    peer: float
    unit: str
    ratio: float
    lowest: float
    highest: float
    """Lowest and highest ratio of two neighbouring runs."""
    peer_name: str


def compare(
    name: str,
    ours: Callable[[], Any],
    peer: Callable[[], Any],
    *,
    peer_name: str,
    repeats: int,
    amount: float | None = None,
    unit: str = "ms",
) -> Row:
    """Time both in turns after one run each that is not counted, `repeats` times or until LIMIT is passed.

    Without `amount` the figures are milliseconds; with it they are `amount` per second in `unit`.
    """
    seconds = [(_seconds(ours), _seconds(peer))]
    while len(seconds) <= repeats and (len(seconds) == 1 or sum(map(sum, seconds)) < LIMIT):
        seconds.append((_seconds(ours), _seconds(peer)))
    del seconds[0]
    ratios = [theirs / own for own, theirs in seconds]
    own, theirs = (statistics.median(column) for column in zip(*seconds, strict=True))
    figures = (amount / own, amount / theirs) if amount else (1000 * own, 1000 * theirs)
    return Row(name, *figures, unit, statistics.median(ratios), min(ratios), max(ratios), peer_name)


def _seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def put_into_docs(name: str, text: str, page: Path = DOCS) -> None:
    """Put `text` between the markers `name` of a page, docs/performance.md by default."""
    changed, found = re.subn(
        rf"(<!-- {name}(?::.*?)? -->\n).*?(<!-- /{name} -->)",
        lambda match: match[1] + text + "\n" + match[2],
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if not found:
        raise ValueError(f"{page} has no place marked {name!r}")
    page.write_text(changed, encoding="utf-8")
