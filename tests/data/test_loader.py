"""Batches: the stream as a plain loop reads it, shuffles that visit every window once, exact resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from niblick.data.dataset import Dataset, Split
from niblick.data.index import RECORD
from niblick.data.loader import Batches, Order, document_windows, permute
from niblick.errors import DataError


def counting(tokens: int, shard: int = 7) -> Split:
    """A split whose token i is i, in small shards."""
    whole = np.arange(tokens, dtype=np.uint16)
    shards = np.split(whole, range(shard, tokens, shard))
    return Split("train", [Path(f"shard{i}") for i in range(len(shards))], shards)


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permutation(size: int, key: int) -> None:
    found = permute(np.arange(size), size, key)
    assert sorted(found.tolist()) == list(range(size))


def test_permutation_looks_random() -> None:
    """Neighbours are torn apart, and two keys agree no more than chance lets them."""
    size = 10_000
    first, second = (permute(np.arange(size), size, key) for key in (1, 2))
    assert np.mean(np.abs(np.diff(first))) == pytest.approx(size / 3, rel=0.05)
    assert np.sum(first == second) < 10
    assert abs(np.corrcoef(np.arange(size), first)[0, 1]) < 0.05


@given(tokens=st.integers(5, 200), seq_len=st.integers(1, 4), rows=st.integers(1, 9), steps=st.integers(1, 6))
def test_stream_order(tokens: int, seq_len: int, rows: int, steps: int) -> None:
    batches = Batches(counting(tokens), vocab_size=1000, seq_len=seq_len, rows=rows)
    start = 0
    for _ in range(steps):
        ids, targets = batches.next()
        assert ids.dtype == targets.dtype == torch.int64
        for row, target in zip(ids.tolist(), targets.tolist(), strict=True):
            if start + seq_len + 1 > tokens:
                start = 0
            assert row == list(range(start, start + seq_len))
            assert target == list(range(start + 1, start + seq_len + 1))
            start += seq_len


@given(tokens=st.integers(5, 300), seq_len=st.integers(1, 4), seed=st.integers(-5, 2**40), epoch=st.integers(0, 3))
def test_shuffle_visits_every_window_once(tokens: int, seq_len: int, seed: int, epoch: int) -> None:
    batches = Batches(counting(tokens), vocab_size=1000, seq_len=seq_len, rows=1, order="shuffle", seed=seed)
    count = batches.windows
    starts = np.sort(batches.starts(epoch * count, count))
    assert np.all(np.diff(starts) == seq_len)
    assert starts[0] >= 0 and starts[-1] + seq_len + 1 <= tokens
    assert count >= tokens // seq_len - 2


def test_epochs_differ_in_order_and_phase() -> None:
    batches = Batches(counting(10_000), vocab_size=10_000, seq_len=16, rows=1, order="shuffle", seed=3)
    epochs = [batches.starts(epoch * batches.windows, batches.windows) for epoch in range(6)]
    assert len({tuple(starts) for starts in epochs}) == 6
    assert len({int(starts[0]) % 16 for starts in epochs}) > 2
    other = Batches(counting(10_000), vocab_size=10_000, seq_len=16, rows=1, order="shuffle", seed=4)
    assert not np.array_equal(other.starts(0, 100), batches.starts(0, 100))


@pytest.mark.parametrize("order", ["stream", "shuffle"])
def test_resuming_is_exact(order: Order) -> None:
    def fresh(position: int = 0) -> Batches:
        return Batches(counting(500), vocab_size=1000, seq_len=9, rows=4, order=order, seed=7, position=position)

    batches = fresh()
    for _ in range(40):  # several epochs
        resumed = fresh(batches.position)
        for ours, theirs in zip(batches.next(), resumed.next(), strict=True):
            assert torch.equal(ours, theirs)


def test_token_outside_the_vocabulary() -> None:
    with pytest.raises(DataError, match="shard3: token 4 is 25, outside the vocabulary of 25"):
        Batches(counting(50), vocab_size=25, seq_len=9, rows=4).next()


def test_too_little_text() -> None:
    with pytest.raises(DataError, match="has 8 tokens, but one window needs 9"):
        Batches(counting(8), vocab_size=10, seq_len=8, rows=1)
    assert Batches(counting(9), vocab_size=10, seq_len=8, rows=3).next()[0].shape == (3, 8)


def test_real_stream(webmix_bytes: Dataset) -> None:
    """Targets are the next tokens, across shards and documents."""
    batches = Batches(webmix_bytes.train, vocab_size=260, seq_len=1024, rows=64)
    whole = webmix_bytes.train.slice(0, 64 * 1024 * 40 + 1).astype(np.int64)
    for step in range(40):
        ids, targets = batches.next()
        start = step * 64 * 1024
        assert np.array_equal(ids.numpy().ravel(), whole[start : start + 64 * 1024])
        assert np.array_equal(targets.numpy().ravel(), whole[start + 1 : start + 64 * 1024 + 1])


def documents(lengths: list[int]) -> Split:
    """A split of documents of these lengths; token i is i."""
    index = np.zeros(len(lengths), RECORD)
    index["tokens"] = lengths
    index["offset"] = np.cumsum([0, *lengths[:-1]])
    whole = np.arange(sum(lengths)).astype(np.uint16)
    return Split("train", [Path("a"), Path("b")], np.array_split(whole, 2), index)


def test_windows_of_documents_by_hand() -> None:
    """Documents of 10, 3, 3, 25, 2 and 30 tokens; windows of 8 and their targets."""
    starts = document_windows(documents([10, 3, 3, 25, 2, 30]), 8)
    # 0 and 8: the first document; the second of them reaches into the fourth, which starts at 16. 16, 24, 32: the
    # fourth, seen to its end at 40; the next starts at 41, and the last of them all at 43.
    assert starts.tolist() == [0, 8, 16, 24, 32, 41, 43, 51, 59]


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), seq_len=st.integers(1, 16))
def test_every_document_is_seen_from_its_start(lengths: list[int], seq_len: int) -> None:
    split = documents(lengths)
    if split.tokens < seq_len + 1:
        return
    starts = document_windows(split, seq_len).tolist()
    offsets = split.index["offset"].tolist()  # type: ignore[index]
    ends = [*offsets[1:], split.tokens]
    assert starts == sorted(set(starts))
    assert starts[-1] + seq_len + 1 <= split.tokens
    owner = [max(i for i, offset in enumerate(offsets) if offset <= start) for start in starts]
    for start, i, before in zip(starts, owner, [None, *starts], strict=False):
        assert start == offsets[i] or (before is not None and start == before + seq_len), "at a start, or going on"
    covered = {t for start in starts for t in range(start, start + seq_len + 1)}
    missing = set(range(split.tokens)) - covered
    assert len(missing) <= seq_len, "only what is left at the end"
    for i, (offset, end) in enumerate(zip(offsets, ends, strict=True)):
        whole = any(start <= offset and end <= start + seq_len + 1 for start in starts)
        from_start = offset in starts
        assert whole or from_start or offset > split.tokens - seq_len - 1, f"document {i}"


@pytest.mark.parametrize("order", ["stream", "shuffle"])
def test_documents_resume_exactly_and_mix_shards(order: Order) -> None:
    split = documents([40, 7, 90, 3, 3, 200, 55, 20])
    seen: list[int] = []
    batches = Batches(split, vocab_size=1000, seq_len=9, rows=4, order=order, packing="documents", seed=7)
    for _ in range(batches.windows // 4 * 3):
        again = Batches(
            split,
            vocab_size=1000,
            seq_len=9,
            rows=4,
            order=order,
            packing="documents",
            seed=7,
            position=batches.position,
        )
        for ours, theirs in zip(batches.next(), again.next(), strict=True):
            assert torch.equal(ours, theirs)
        seen += theirs[:, 0].tolist()
    first = seen[: batches.windows // 2]
    assert (max(first) < 230) == (order == "stream"), "a shuffled epoch begins in all shards"


def test_packing_needs_an_index() -> None:
    with pytest.raises(DataError, match=r"no document index, which data\.packing=documents needs"):
        Batches(counting(50), vocab_size=100, seq_len=9, rows=4, packing="documents")


@pytest.mark.parametrize("order", ["stream", "shuffle"])
def test_ranks_share_what_one_process_reads(order: Order) -> None:
    """Together they read the same windows, none twice, in the order of one process with as many micro-batches."""
    split = counting(2000)
    alone = Batches(split, vocab_size=2000, seq_len=9, rows=2, order=order, seed=1)
    ranks = [Batches(split, vocab_size=2000, seq_len=9, rows=2, order=order, seed=1, rank=r, ranks=3) for r in range(3)]
    for _ in range(30):
        for rank in ranks:
            assert torch.equal(rank.next()[0], alone.next()[0])
        assert {rank.position for rank in ranks} == {alone.position}


def test_the_batch_ahead_is_dropped_when_the_position_moves() -> None:
    batches = Batches(counting(500), vocab_size=500, seq_len=9, rows=2)
    first = batches.next()
    batches.next()
    batches.position = 0
    assert torch.equal(batches.next()[0], first[0])
    assert batches.position == 2


def test_part_of_a_split() -> None:
    split = documents([10, 20, 30, 40])
    part = split.part(15, 65)
    assert part.slice(0, part.tokens).tolist() == list(range(15, 65))
    assert part.index is not None
    assert part.index["offset"].tolist() == [15, 45]
    assert split.part(0, 100).slice(0, 100).tolist() == list(range(100))
