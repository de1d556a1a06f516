"""Pictures are valid text whatever the bytes are, and show every byte once."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niblick.boundaries.cuts import Chunk, Decisions, Row
from niblick.boundaries.pictures import brackets, cells, chunk_boxes, coloured, stacked, svg, visible


def row(data: bytes, starts: list[int]) -> Row:
    """A row of bytes with chosen boundaries, as byte260 reads it after a BOS."""
    boundary_L = np.zeros(len(data) + 1, bool)
    boundary_L[[0, *(start + 1 for start in starts)]] = True
    size_L = np.array([0] + [1] * len(data))
    p_L = np.where(boundary_L, 0.75, 0.125)
    ids_L = np.array([1, *(byte + 4 for byte in data)])
    return Row(ids_L, data, np.cumsum(size_L) - size_L, size_L, (Decisions(boundary_L, p_L, 1, len(ids_L)),))


def test_brackets_as_published() -> None:
    assert brackets([Chunk("The ", 0, 4, 1.0), Chunk("quick\n", 4, 10, 0.9)]) == "[The ][quick⏎]"


def test_what_would_move_or_hide_text_is_escaped() -> None:
    assert visible("a\x1b[31m\r\tb\u202ec\ufeff") == "a\\x1b[31m\\r⇥b\\u202ec\\ufeff"
    shown = coloured([Chunk("a\x1b", 0, 2, 1.0), Chunk("b\nc", 2, 5, 1.0)])
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)
    assert plain == "a\\x1bb⏎\nc"
    assert len(set(re.findall("\x1b\\[([0-9;]{3,})m", shown))) == 2


def test_cells() -> None:
    """A whole character stands together; one with a boundary inside it, and a byte of none, as bytes."""
    data = "é€".encode() + b"\xffx"
    assert [cell.text for cell in cells(data, {0})] == ["é", "€", "\\xff", "x"]
    cut = cells(data, {0, 3})
    assert [cell.text for cell in cut] == ["é", "\\xe2", "\\x82", "\\xac", "\\xff", "x"]
    assert [(cell.begin, cell.end) for cell in cut] == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]
    assert [cell.text for cell in cells("e\u0301日".encode(), {0})] == ["e\u0301", "日"]
    assert cells("日".encode(), {0})[0].columns == 2


def test_p_under_every_byte() -> None:
    html = chunk_boxes(row("né <".encode(), [0, 3]))
    assert len(re.findall("<u", html)) == 5
    assert len(re.findall('<u class="at"', html)) == 2
    assert html.count('<span class="chunk">') == 2
    assert "&lt;" in html and "byte 2: p = 0.125" in html
    assert html.count("<span") == html.count("</span>")


def test_html_breaks_lines_between_chunks() -> None:
    assert "</span><br><span" in chunk_boxes(row(b"a\nb", [0, 2]))


def test_svg_shows_text_and_bars() -> None:
    root = ET.fromstring(svg(row(b"ab cd", [0, 3]), title="t & u"))
    space = "{http://www.w3.org/2000/svg}"
    texts = [each.text for each in root.iter(f"{space}text")]
    assert texts == ["t & u", "a", "b", "c", "d"]
    assert len(list(root.iter(f"{space}line"))) == 2
    bars = [float(each.get("height", 0)) for each in root.iter(f"{space}rect")][1:]
    assert sorted({round(height / 16, 3) for height in bars if height < 20}) == [0.125, 0.75]


def test_svg_breaks_lines_between_chunks() -> None:
    root = ET.fromstring(svg(row(b"aaaa bbbb", [0, 5]), columns=6))
    tops = [each.get("y") for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len({*tops[:4]}) == 1 and len({*tops[4:]}) == 1 and tops[0] != tops[-1]


def test_pictures_one_under_the_other() -> None:
    one, other = row(b"ab cd", [0, 3]), row(b"x", [0])
    root = ET.fromstring(stacked({"one": one, "two <b>": other}, columns=8))
    space = "{http://www.w3.org/2000/svg}"
    inside = root.findall(f"{space}svg")
    assert [each.find(f"{space}text").text for each in inside] == ["one", "two <b>"]  # type: ignore[union-attr]
    heights = [float(each.get("height", 0)) for each in inside]
    assert [float(each.get("y", 0)) for each in inside] == [0, heights[0]]
    assert float(root.get("height", 0)) == sum(heights)


@pytest.mark.parametrize("picture", [svg, chunk_boxes])
@settings(max_examples=60, deadline=None)
@given(data=st.binary(min_size=1, max_size=40), seed=st.integers(0, 100))
def test_any_bytes_make_valid_pictures(picture: object, data: bytes, seed: int) -> None:
    starts = [0, *np.flatnonzero(np.random.default_rng(seed).random(len(data)) < 0.3).tolist()]
    text = picture(row(data, starts))  # type: ignore[operator]
    text.encode()
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)
    if picture is svg:
        ET.fromstring(text)
    else:
        assert len(re.findall("<u", text)) == len(data)
