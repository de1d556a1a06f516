"""Following files: half lines, rotation, truncation, bytes that are no text, and logs of gigabytes."""

from __future__ import annotations

import itertools
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from niblick.challenge.log_line import clean
from niblick.errors import DataError
from niblick.monitor import tail as tailing
from niblick.monitor.finding import LogSource
from niblick.monitor.tail import Tail, expect_text, last_lines


def poll(tail: Tail) -> list[str]:
    return list(tail.poll()[1])


def line(step: int, steps: int = 100_000_000) -> str:
    return f"step:{step}/{steps} train_loss:{2 + 1 / step:.4f} train_time:{step * 40}ms step_avg:40.00ms\n"


def test_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntw")
    tail = Tail(path)
    assert poll(tail) == ["one"]
    assert tail.unfinished() == "tw"
    with open(path, "a") as file:
        file.write("o\nthree\n")
    assert poll(tail) == ["two", "three"]
    assert poll(tail) == []


def test_half_a_line_is_no_number(tmp_path: Path) -> None:
    """A number that is still being written is not read, the whole one is, and a last line without its end at last."""
    path = tmp_path / "log"
    path.write_text(line(1, 9) + "step:2/9 val_loss:2.0 val_bpb:1.2")
    source = LogSource("log", path)
    source.poll(time.time())
    assert source.facts.val_bpb is None
    with open(path, "a") as file:
        file.write("345")
    source.poll(time.time())
    assert source.facts.val_bpb is None
    source.poll(time.time() + 60)
    assert source.facts.val_bpb == 1.2345


def test_a_last_line_that_ends_with_a_unit_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("legal_ttt_exact val_loss:2.79517119 val_bpb:1.08209788 eval_time:293430ms")
    source = LogSource("log", path)
    source.poll(time.time())
    assert source.facts.final and source.facts.final.bpb == 1.08209788


def test_every_split_of_a_file_gives_the_same_lines(tmp_path: Path) -> None:
    text = "ä line\n\nstep:1/2 x\r\nlast\n".encode()
    path = tmp_path / "log"
    for cut in range(len(text)):
        path.write_bytes(text[:cut])
        tail = Tail(path)
        lines = poll(tail)
        with open(path, "ab") as file:
            file.write(text[cut:])
        assert lines + poll(tail) == ["ä line", "", "step:1/2 x\r", "last"]


def test_truncation_and_rewriting(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\n")
    tail = Tail(path)
    poll(tail)
    path.write_text("new\n")
    again, lines = tail.poll()
    assert again and list(lines) == ["new"]
    path.write_text("a text that is longer than what was there\nbefore\n")  # same file, grown past where we were
    again, lines = tail.poll()
    assert again and list(lines)[-1] == "before"


def test_rotation_goes_on_in_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("model_params:5\n" + line(1) + line(2))
    source = LogSource("log", path)
    source.poll(time.time())
    os.rename(path, tmp_path / "log.1")
    source.poll(time.time())
    assert source.gone
    path.write_text(line(3) + line(4))
    source.poll(time.time())
    assert not source.gone
    assert (source.facts.step, len(source.facts.curve), source.facts.parameters) == (4, 4, 5)


def test_a_log_that_is_copied_anew_is_read_once(tmp_path: Path) -> None:
    """rsync replaces a file by a longer one."""
    path, start = tmp_path / "log", "model_params:5\n" + line(1) + line(2)
    path.write_text(start)
    source = LogSource("log", path)
    source.poll(time.time())
    (tmp_path / "new").write_text(start + line(3))
    os.replace(tmp_path / "new", path)
    source.poll(time.time())
    assert (source.facts.step, len(source.facts.curve)) == (3, 3)


def test_nul_bytes_of_a_truncated_log_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    tail = Tail(path)
    poll(tail)
    with open(path, "ab") as file:
        file.write(b"\0" * 100 + b"two\n")
    assert poll(tail) == ["two"]


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with open(path, "wb") as file:
        file.write(b"one\n")
        for _ in range(20):
            file.write(b"x" * (1 << 20))
        file.write(b"\ntwo\n")
    tail = Tail(path)
    tracemalloc.start()
    assert poll(tail) + poll(tail) == ["one", "two"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\x7fELF\0\0")
    with pytest.raises(DataError, match="is a binary file, not a log"):
        expect_text(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log"
    path.write_bytes("step:1/2\r\nstep:2/2\r\n".encode(encoding))
    expect_text(path)
    assert [clean(line) for line in poll(Tail(path)) if clean(line)] == ["step:1/2", "step:2/2"]


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        expect_text(tmp_path / "nothing")
    with pytest.raises(DataError, match="is a folder"):
        expect_text(tmp_path)


@pytest.mark.slow
def test_two_gigabytes(tmp_path: Path) -> None:
    """Head, samples and end of a huge log: its settings, its whole curve and its last step, in bounded memory."""
    path, size = tmp_path / "log", 2 << 30
    block = 200_000
    with open(path, "w") as file:
        file.write("model_params:17059912\nseed:1337\n")
        step = 0
        while file.tell() < size:
            for _ in range(40):  # the same block some times over: writing is what takes long here
                file.write("".join(line(step + i + 1) for i in range(0, block, 500)))
            file.truncate()
            step += block
            file.seek(min(size, file.tell() + (40 << 20)))  # a hole: as large as it looks, without the disk
            file.write("\n")
        file.write(line(step + 1))
    assert path.stat().st_size >= size
    source = LogSource("log", path)
    tracemalloc.start()
    started = time.perf_counter()
    source.poll(time.time())
    seconds, peak = time.perf_counter() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    facts = source.facts
    assert source.sampled
    assert (facts.parameters, facts.seed, facts.step) == (17059912, 1337, step + 1)
    assert len(facts.curve) > 100
    assert peak < 64 << 20
    assert seconds < 30  # it is half a second where nothing else runs; the whole file would take minutes
    with open(path, "a") as file:
        file.write(line(step + 2))
    source.poll(time.time())
    assert source.facts.step == step + 2


def test_large_files_by_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LARGE": 200_000, "HEAD": 20_000, "END": 40_000, "SAMPLE": 500, "LINE_MOST": 1000}.items():
        monkeypatch.setattr(tailing, name, value)
    path = tmp_path / "log"
    path.write_text("model_params:5\n" + "".join(line(i) for i in range(1, 20_001)))
    source = LogSource("log", path)
    source.poll(time.time())
    steps = [p.step for p in source.facts.curve]
    assert source.sampled and source.facts.step == 20_000 and steps == sorted(set(steps))
    assert max(b - a for a, b in itertools.pairwise(steps)) < 200
    with open(path, "a") as file:
        file.write(line(20_001))
    source.poll(time.time())
    assert source.facts.step == 20_001


def test_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"{i}\n" for i in range(1000)) + "half")
    assert last_lines(path, 3) == ["998", "999", "half"]
    assert last_lines(path, 3, most=6) == ["half"]
    assert last_lines(tmp_path / "nothing", 3) == []


def test_a_pipe_is_never_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    with pytest.raises(DataError, match="it is no regular file"):
        expect_text(path)
    with pytest.raises(OSError, match="it is no regular file"):
        Tail(path).poll()
    assert last_lines(path, 3) == []
