"""What makes a site of docs/ (`make docs`): pages that lie outside it, and links that leave it.

README.md and its like become pages of the site. A link to a source file leads to a page that shows the file. So the
links in Markdown are written for people who read it in the repository, and hold on the site too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "findings/README.md": "findings.md",
}
"""Files that are pages too, and where."""
LOGO = ROOT / "src" / "niblick" / "monitor" / "web" / "logo.svg"
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^(```+)[^\n]*\n.*?^\1[ ]*$", re.DOTALL | re.MULTILINE)
LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".yml": "yaml"}


def place_of(path: Path) -> str:
    """Where on the site a file of the repository is: a page, a picture, or a page that shows its source."""
    name = path.relative_to(ROOT).as_posix()
    if name in OUTSIDE:
        return OUTSIDE[name]
    return name.removeprefix("docs/") if name.startswith("docs/") and path.suffix != ".py" else f"source/{name}.md"


def written_in(place: str) -> Path:
    """The folder from which the links of a page lead."""
    return next((ROOT / name for name, page in OUTSIDE.items() if page == place), ROOT / "docs" / place).parent


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply `change` to each stretch of Markdown between fenced blocks of code."""
    parts, end = list[str](), 0
    for fence in FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence.group()]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def linked(text: str, place: str) -> dict[str, Path]:
    """The files of the repository that the links of a page lead to, by what the links say."""
    targets = {link[0] for link in LINK.findall(FENCE.sub("", text))}
    paths = {target: (written_in(place) / target).resolve() for target in targets}
    return {target: path for target, path in paths.items() if path.is_file() and path.is_relative_to(ROOT)}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/, and one for each source file that a page links to."""
    for name, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=(ROOT / name).read_text(encoding="utf-8")))
    files.append(File.generated(config, "images/logo.svg", abs_src_path=str(LOGO)))
    for page in [file for file in files if file.is_documentation_page()]:
        for path in linked(page.content_string, page.src_uri).values():
            place = place_of(path)
            if place.startswith("source/") and files.get_file_from_path(place) is None:
                files.append(File.generated(config, place, content=source_page(path)))
    return files


def source_page(path: Path) -> str:
    """A page that shows a file."""
    text = path.read_text(encoding="utf-8").rstrip("\n")
    fence = "`" * (3 + max((len(run) for run in re.findall(r"`{3,}", text)), default=0))
    name = path.relative_to(ROOT).as_posix()
    front = "---\nsearch: {exclude: true}\nhide: [toc]\n---\n"
    return f"{front}# `{name}`\n\n{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text}\n{fence}\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links to where things are on the site."""
    place = page.file.src_uri
    known = linked(markdown, place)

    def led(match: re.Match[str]) -> str:
        target, anchor = match.group(1), match.group(2) or ""
        if target not in known:
            return match.group()
        return posixpath.relpath(place_of(known[target]), posixpath.dirname(place)) + anchor

    return outside_code(markdown, lambda part: LINK.sub(led, part))
