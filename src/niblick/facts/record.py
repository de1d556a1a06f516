"""What facts have in common: frozen fields, and the keys of newer versions, which are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Record:
    """Facts under the names of their keys in a file."""

    SELDOM: ClassVar[tuple[str, ...]] = ()
    """Fields that a file leaves out where they are what they are by default."""

    extra: Mapping[str, object] = field(default_factory=dict)
    """What a file says besides, such as the keys of a newer version: it is written back as it was read."""
