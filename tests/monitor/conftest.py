"""A browser for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import launched


@pytest.fixture(scope="session")
def chromium(chromium_path: str) -> Iterator[Any]:
    with launched(chromium_path) as browser:
        yield browser
