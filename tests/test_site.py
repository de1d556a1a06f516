"""The site that `make docs` makes: it is built without a warning, its links lead somewhere, and it needs no network."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
NEEDED = ("mkdocs", "material", "mkdocstrings_handlers")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, NEEDED)), reason="the packages of niblick[docs] are not installed"
    ),
]


class Page(HTMLParser):
    """Links, anchors and what a page loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("script", "img", "iframe", "source"):
            self.loads += [given["src"]] if "src" in given else []
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(given.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING -" not in done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = pages.get(target)
            fine = target.is_file() and (not parts.fragment or not found or unquote(parts.fragment) in found.anchors)
            if not fine:
                wrong.append(f"{path.name}: {link}")
    assert wrong == []
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    loaded = {load for page in pages.values() for load in page.loads}
    assert {load for load in loaded if urlsplit(load).netloc} == set()
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?https?:", style.read_text(encoding="utf-8")), style.name


def test_what_is_there(site: Path, pages: dict[Path, Page]) -> None:
    """Every document, every picture, the sources that pages link to, and the public names of the API."""
    for document in (ROOT / "docs").rglob("*.md"):
        assert (site / document.relative_to(ROOT / "docs").with_suffix(".html")) in pages
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.name in (site / "gallery.html").read_text(encoding="utf-8")
    names = set().union(*(page.anchors for page in pages.values()))
    for name in (
        *(
            "run.generate.load",
            "data.prepare.prepare",
            "score.any_function.score_function",
            "pack.weights.pack_weights",
        ),
        *("config.run_config.RunConfig", "model.layers.register_block", "train.optim.register_optimizer"),
    ):
        assert f"niblick.{name}" in names
    assert not list(site.rglob("*.py"))


def test_search_without_network(site: Path, chromium: Any) -> None:
    """Opened as a file, on a desktop and on a phone: a word is found, and no page is wider than the screen."""
    asked: list[str] = []

    def watched(route: Any) -> None:
        if route.request.url.startswith(("file:", "data:", "blob:")):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    for width, height in ((1280, 900), (390, 844)):
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.route("**/*", watched)
        for name in ("index.html", "data.html", "reference/config.html"):
            page.goto((site / name).as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        if width > 1000:
            # Letter by letter: the page looks at what is written when a key goes up.
            page.locator("input.md-search__input").press_sequentially("dictionary")
            page.wait_for_selector(".md-search-result__item a", timeout=60_000)
        page.close()
    assert asked == []
