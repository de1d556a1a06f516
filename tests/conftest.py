"""Shared between tests: where real data lies, a little made-up data, a browser."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import find_chromium, launched
from command import Niblick
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="niblick-state-")  # tests trust recipes of their own

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share it: a script's parts are found once
    CACHE = tempfile.TemporaryDirectory(prefix="niblick-cache-")
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for there in usual.iterdir() if usual.is_dir() else ():
        if there.name != "niblick":
            Path(CACHE.name, there.name).symlink_to(there)  # what pip and browsers have
    os.environ["XDG_CACHE_HOME"] = CACHE.name

for ignored in (signal.SIGINT, signal.SIGHUP):  # as under nohup or behind `&`
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, lambda number, frame: None)  # processes that tests start would ignore them too

ROOT = Path(__file__).parents[1]


LONGEST = [
    *("test_script_options", "test_folder", "test_quickstart", "test_exports", "test_survival", "test_launching"),
    *("test_ranks", "test_first_day", "test_benchmarks", "test_web", "test_auditor", "test_museum", "test_verbs"),
]
"""Files of minutes, which begin first: a worker that took one last would end alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def shared_folder() -> Path:
    """The folder of real data beside the repository; skips the test where there is none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder.name}/ beside the repository, which is not distributed with it")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    return shared_folder()


@pytest.fixture(scope="session")
def webmix(shared: Path) -> Path:
    """4,028 real documents; the first 220 are the validation split."""
    return shared / "data" / "webmix" / "docs_selected.jsonl"


@pytest.fixture(scope="session")
def webmix_figures() -> dict[str, Any]:
    """Tokens, hashes and byte counts of those 220 documents."""
    return json.loads((ROOT / "tests" / "reference" / "webmix_val_bytes.json").read_text())


@pytest.fixture(autouse=True)
def one_thread_for_tiny_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tiny models run fastest on one thread, and most of all when other processes use the other cores."""
    if request.path.parent.name not in ("model", "train"):
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few documents of Python's own, as bytes; the first, which is scored, is short."""
    from niblick.data.prepare import prepare

    folder = tmp_path_factory.mktemp("toy")
    texts = [f"Document {i}: " + "the quick brown fox jumps over the lazy dog, " * (4 + i) for i in range(12)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    prepare(str(folder / "text.jsonl"), "byte260", folder / "data", val_docs=3)
    return folder / "data"


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """A browser, installed if need be."""
    path = find_chromium()
    if path is None:
        pytest.skip("there is no Chromium, and apt-get cannot install one here")
    return path


@pytest.fixture(scope="session")
def chromium(chromium_path: str) -> Iterator[Any]:
    """One browser for all tests of a process: Playwright starts no second one while the first is there."""
    with launched(chromium_path) as browser:
        yield browser


@pytest.fixture
def niblick(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Niblick:
    """Runs command lines in this process."""
    return Niblick(capsys, monkeypatch)


@pytest.fixture
def score_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score artifacts in this process: a fresh one takes seconds to start."""
    from tiny import score_in_process

    from niblick.run import pipeline

    monkeypatch.setattr(pipeline, "official_score", score_in_process)


@pytest.fixture
def one_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the same code for every run: making a script takes seconds, and these tests look at other things."""
    from niblick.recipes.presets import get_preset
    from niblick.run import packing

    size = packing.closure_bytes(get_preset("hnet-small"), None)
    monkeypatch.setattr(packing, "closure_bytes", lambda config, recipe: size)
