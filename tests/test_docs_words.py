"""The documents are made of short pieces: no long stretch without a heading, no long paragraph, dated log entries."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENTS = sorted(DOCS.glob("*.md"))
UNDER_A_HEADING, A_PARAGRAPH = 400, 60

ITEM = re.compile(r"^(\s*)([-*]|\d+\.) ")


@dataclass
class Section:
    """What stands under one heading: paragraphs and list items, without code, tables, pictures and comments."""

    title: str
    paragraphs: list[str] = field(default_factory=list)

    @property
    def words(self) -> int:
        return sum(len(p.split()) for p in self.paragraphs)


def sections(text: str) -> list[Section]:
    """The sections of a Markdown text. A list item is a paragraph of its own."""
    found = [Section("(before the first heading)")]
    open_paragraph: list[str] = []
    in_list = False

    def close() -> None:
        if open_paragraph:
            found[-1].paragraphs.append(" ".join(open_paragraph))
            open_paragraph.clear()

    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for line in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).splitlines():
        if not line.strip():
            close()
        elif line.startswith("#"):
            close()
            found.append(Section(line.lstrip("# ")))
            in_list = False
        elif ITEM.match(line):
            close()
            open_paragraph.append(ITEM.sub("", line))
            in_list = True
        elif line.lstrip().startswith(("|", "![")):
            close()
        elif line.startswith("    ") and not open_paragraph and not in_list:
            continue  # a block of code
        else:
            in_list = in_list and line.startswith(" ")
            open_paragraph.append(line.strip())
    close()
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_headings_are_near(document: Path) -> None:
    long = [f"{s.title}: {s.words} words" for s in sections(document.read_text()) if s.words > UNDER_A_HEADING]
    assert not long, f"more than {UNDER_A_HEADING} words under one heading: {long}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_paragraphs_are_short(document: Path) -> None:
    paragraphs = [p for s in sections(document.read_text()) for p in s.paragraphs]
    long = [f"{len(p.split())} words: {p[:70]}" for p in paragraphs if len(p.split()) > A_PARAGRAPH]
    assert not long, f"paragraphs of more than {A_PARAGRAPH} words:\n" + "\n".join(long)


def test_log_entries_have_date_and_question() -> None:
    _, _, *entries = re.split(r"^(?=##? )", (DOCS / "log.md").read_text(), flags=re.MULTILINE)
    assert entries
    for entry in entries:
        title = entry.splitlines()[0]
        assert re.fullmatch(r"## \d{4}-\d\d-\d\d: .+\?", title), f"{title}: should be '## DATE: question?'"
        told = re.findall(r"^\*(Tried|Saw|So)\*: ", entry, flags=re.MULTILINE)
        assert told == ["Tried", "Saw", "So"], f"{title}: should tell Tried, Saw and So, in this order"


def test_what_is_counted() -> None:
    text = "# A\n\none two\nthree\n\n    code is not\n\n- item one\n  goes on\n- two\n\n| t | u |\n\n"
    text += "```\nx y\n```\n\nlast\n"
    assert [(s.title, s.paragraphs) for s in sections(text)][1] == (
        "A",
        ["one two three", "item one goes on", "two", "last"],
    )
