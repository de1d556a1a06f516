"""Windows with what is known of them; stability and robustness on models whose boundaries are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from niblick.boundaries import robustness, stability
from niblick.boundaries.compute import position_costs
from niblick.boundaries.cuts import Decisions, Reader, Row
from niblick.boundaries.measure import measure
from niblick.boundaries.references import word_ends, word_starts
from niblick.boundaries.sample import make_sample, window_starts
from niblick.boundaries.surprisal import surprisal
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import DataError
from niblick.facts.reading import plain
from niblick.model.lm import LM
from niblick.model.model_config import EntropyConfig, LevelConfig, ModelConfig, NgramConfig, StageConfig

TEXTS = [
    "One two three four. Five six.\n",
    "Sieben acht neun, zehn elf zwölf dreizehn vierzehn fünfzehn.",
    "ab cd " * 20,
]


def reader(router: str = "whitespace") -> Reader:
    torch.manual_seed(0)
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), router=router, target_length=4.0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T1")))
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return Reader(model, ByteTokenizer())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    import json

    folder = tmp_path_factory.mktemp("data")
    lines = [json.dumps({"text": text, "source": name}) for text, name in zip([*TEXTS, "train"], "abcd", strict=True)]
    (folder / "docs.jsonl").write_text("\n".join(lines) + "\n")
    prepare(str(folder / "docs.jsonl"), "byte260", folder / "out", val_docs=3)
    return Dataset.open(folder / "out")


def test_windows_are_spread_evenly() -> None:
    assert window_starts(100, 3, 10) == [0, 40, 90] or window_starts(100, 3, 10) == [0, 50, 90]
    assert window_starts(100, 50, 10) == list(range(0, 100, 10))
    assert window_starts(10, 4, 10) == [0]
    with pytest.raises(DataError, match="a window of 11 tokens is longer than the data, which has 10"):
        window_starts(10, 4, 11)


def test_pieces_know_document_source_and_edges(dataset: Dataset) -> None:
    tested = reader()
    sources = dataset.manifest["niblick"]["sources"]
    sample = make_sample(tested, dataset.val, 100, 40, {"starts": word_starts}, sources)
    stream = dataset.val.slice(0, dataset.val.tokens)
    found: dict[str, bytes] = {}
    for piece in sample.pieces:
        data = tested.tokenizer.decode(sample.windows[piece.window])[piece.begin : piece.end]
        found[piece.source] = found.get(piece.source, b"") + data
        assert len(piece.edges["starts"]) == len(data)
        assert not piece.edges["starts"][0]
    whole = tested.tokenizer.decode(stream[: 40 * len(sample.windows)])
    assert b"".join(found.values()) == whole
    assert found["a"].decode() == TEXTS[0] and found["b"].decode() == TEXTS[1]
    # The window that begins amid `Sieben`'s document goes on with it: a word cut by the window starts nothing.
    second = next(p for p in sample.pieces if p.window == 1)
    text = tested.tokenizer.decode(sample.windows[1])[second.begin : second.end]
    whole_edges = word_starts(TEXTS[1].encode())
    offset = TEXTS[1].encode().index(text)
    expected = whole_edges[offset : offset + len(text)].copy()
    expected[0] = False
    np.testing.assert_array_equal(second.edges["starts"], expected)


def test_known_boundaries_are_measured(dataset: Dataset) -> None:
    """`ab cd ab …` under the whitespace router: a chunk at each space, three bytes long, none at a word's start."""
    tested = reader()
    edges = {"word starts": word_starts, "word ends": word_ends}
    part = dataset.val.part(int(dataset.val.index["offset"][2]), dataset.val.tokens)
    sample = make_sample(tested, part, 3, 37, edges)
    [facts] = measure(tested.read(sample.windows, costs=True), sample)
    assert facts.references["word ends"].f1 == 1
    assert facts.references["word starts"].f1 == 0
    assert facts.references["word starts"].excess < 0
    assert facts.whitespace_agreement == 1
    assert plain(facts.inside_characters) == {"count": 0, "share": 0}
    assert facts.common[0].text in (" ab", " cd")
    assert facts.boundaries_per_window == pytest.approx(13)  # 12 or 13 spaces, and the start
    assert facts.mean_length.tokens == pytest.approx(37 / 13)
    cost = facts.surprisal
    assert cost.boundary.tokens + cost.inside.tokens == 3 * 36
    assert 0 < cost.share_of_bits < 1
    mean = (cost.boundary.bits + cost.inside.bits) / (3 * 36)
    assert cost.enrichment == pytest.approx(cost.boundary.bits_per_token / mean)
    [spaces] = cost.classes  # every chunk but a window's first starts with a space
    assert (spaces.name, spaces.boundaries, spaces.bits) == ("space", 1, 1)
    assert spaces.enrichment == pytest.approx(cost.enrichment)
    assert facts.caps["L//4"].boundaries == pytest.approx(4 / 13)
    assert facts.scripts[0].name == "Latin"


def test_enrichment_counts_the_dear_bytes() -> None:
    """Bytes that cost 4 bits start chunks, those after them cost 2, all others 1: B is 4 and 2 over the mean."""
    data = "a1 é,a1 é,".encode()
    start = np.array([True, False, False, True, False, False] * 2)
    bits = np.where(start, 4.0, np.where(np.roll(start, 1), 2.0, 1.0))
    size = len(data)
    row = Row(
        np.zeros(size, np.int64),
        data,
        np.arange(size),
        np.ones(size, np.int64),
        (Decisions(start, start.astype(float), 4, size),),
        np.where(np.arange(size) == 0, np.nan, bits * np.log(2)),
    )
    found = surprisal([row], 0)
    assert found is not None and found.compute is None
    mean = bits[1:].mean()
    assert found.enrichment == pytest.approx(4 / mean)
    assert found.enrichment_next == pytest.approx(2 / mean)
    assert [(c.name, c.boundaries) for c in found.classes] == [
        ("start of a character", pytest.approx(2 / 3)),
        ("letter", pytest.approx(1 / 3)),
    ]
    assert sum(c.bits for c in found.classes) == pytest.approx(1)


def test_flips_between_windows(dataset: Dataset) -> None:
    """The whitespace router looks at two bytes: no flips. The fixed one counts from the window's start: all move."""
    steady = reader()
    sample = make_sample(steady, dataset.val, 5, 32, {})
    for found in stability.flips_between_windows(steady, dataset.val, sample):
        assert found.flips_per_window == 0
    counting = reader("fixed")
    found = {f.shift: f for f in stability.flips_between_windows(counting, dataset.val, sample)}
    assert sorted(found) == [1, 8, 16]
    assert found[8].flips_per_window == 0  # a multiple of its 4
    assert found[1].flips_per_window == pytest.approx(14)  # of positions 2 to 31 seven, 4, 8, …, and 5, 9, …
    assert found[1].share == pytest.approx(14 / 30)


def test_flips_between_models(dataset: Dataset) -> None:
    one, other = reader(), reader("fixed")
    sample = make_sample(one, dataset.val, 5, 32, {})
    rows = one.read(sample.windows)
    same = stability.flips_between_models(rows, one.read(sample.windows))
    assert (same.flips_per_window, same.f1, same.excess) == (0, 1, 1)
    found = stability.flips_between_models(rows, other.read(sample.windows))
    by_hand = [sum(a != (t % 4 == 0) for t, a in enumerate(row.levels[0].boundary_L.tolist()) if t) for row in rows]
    assert found.flips_per_window == pytest.approx(np.mean(by_hand))
    across = stability.agreement_across_tokens(rows, one)
    assert across.windows == len(rows)
    assert across.f1 > 0.85  # but for control tokens, which the text does not show


def test_edits() -> None:
    text = "One two three"
    letter = robustness.change_letter(text, 0)
    assert letter and len(letter.text) == len(text) and letter.text[:6] == text[:6] and letter.text[7:] == text[7:]
    assert (letter.begin, letter.old_end, letter.new_end) == (6, 7, 7)
    case = robustness.change_case("aüb", 0)
    assert case and case.text in ("Aüb", "aüB")
    space = robustness.double_space(text, 0)
    assert space and space.text == "One two  three" and (space.begin, space.old_end, space.new_end) == (8, 8, 9)
    swapped = robustness.swap_letters(text, 0)
    assert swapped and swapped.text == "One tow three" and (swapped.begin, swapped.old_end) == (5, 7)
    assert robustness.double_space("none", 0) is None and robustness.change_letter("12", 0) is None


def test_reach_of_edits() -> None:
    """Under the whitespace router nothing behind an edit moves; a router that counts moves to the end."""
    texts = ["One two three four five", "Eins zwei drei vier"]
    steady = robustness.edits(reader(), texts)
    assert plain(steady["a letter changed"]) == {
        "texts": 2,
        "moved": 0,
        "flips": 0,
        "mean_reach": 0,
        "median_reach": 0,
        "largest_reach": 0,
        "flips_before": 0,
    }
    counting = robustness.edits(reader("fixed"), texts)
    assert counting["two letters swapped"].moved == 0
    space = counting["a space doubled"]
    # `One two three |four five`: the text goes on at byte 14, then at 15; chunks start at bytes 3, 7, … of both. Behind
    # the edit that is at 1 and 5 before it, at 0, 4 and 8 after it.
    assert space.moved == 1 and space.flips_before == 0
    assert space.largest_reach == 9 and space.flips == 5


def test_repeated_and_spaceless() -> None:
    found = {each.unit: each for each in robustness.repeated(reader("fixed"), 40)}
    assert plain(found["a"]) == {"unit": "a", "bytes": 40, "boundaries": 11, "longest": 4}
    spaces = robustness.without_spaces(reader(), ["One two three"])
    assert spaces.spaced.mean_length_bytes == pytest.approx(13 / 3)
    assert spaces.spaceless.mean_length_bytes == 11  # no spaces, no boundaries
    assert spaces.spaceless.edges == 2 and spaces.spaceless.f1 == 0
    assert robustness.without_spaces(reader(), [" \n"]) is None


def test_compute_is_set_against_the_bits_it_is_spent_for() -> None:
    """A token costs 10, a chunk 90 more: at two starts 200 for 4 + 2 bits, at the other three 30 for 1 + 1 + 3."""
    start = np.array([True, False, False, True, False, False])
    bits = np.array([np.nan, 4.0, 1.0, 1.0, 2.0, 3.0])
    ids = np.zeros(6, np.int64)
    levels = (Decisions(start, start.astype(float), 2, 6),)
    row = Row(ids, b"abcdef", np.arange(6), np.ones(6, np.int64), levels, bits * np.log(2), 10 + 90.0 * start)
    found = surprisal([row], 0)
    assert found is not None and found.compute is not None
    assert found.compute.boundary == pytest.approx(200 / 6)
    assert found.compute.inside == pytest.approx(30 / 5)
    assert found.compute.all == pytest.approx(230 / 11)


def test_what_positions_cost() -> None:
    """By hand: maps of blocks, residual, router and head. What is used twice costs twice; a small model counts."""
    block = 2 * 16 * (16 + 8) + 2 * 16 * 32  # q and out, k and v of one head of two; the MLP
    levels = (
        LevelConfig(StageConfig("T1"), None, "fixed", target_length=3.0),
        LevelConfig(StageConfig("c1"), StageConfig("t1"), "cosine"),
    )
    config = ModelConfig(width=16, heads=2, kv_heads=1, levels=levels, main=StageConfig("T2", unique=1))
    outer = 260 * 16 + block + 16 * 16
    inner = 16 * 4 + 2 * 16 * (16 + 8) + 3 * 16 * 16
    assert position_costs(LM(config)) == (outer, inner, 2 * block)
    small = ModelConfig(width=8, heads=1, kv_heads=1, main=StageConfig("t1"))
    asking = replace(config, levels=(replace(levels[0], router="entropy"),), entropy=EntropyConfig(small))
    assert position_costs(LM(asking))[0] == outer + 260 * 8 + 4 * 8 * 8
    narrow = replace(config, levels=(), embed_width=4, ngrams=(NgramConfig(2, 64, 6),))
    assert position_costs(LM(narrow)) == (260 * 4 + 2 * 4 * 16 + 6 * 16 + 2 * block,)
