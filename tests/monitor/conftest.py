"""A browser for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import find_chromium, launched


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium, and apt-get cannot install one here")
    with launched(path) as browser:
        yield browser
