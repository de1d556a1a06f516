"""The compressors weigh text as their command lines do, and see the training text when they should."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pyppmd
import pytest

from niblick.errors import DataError
from niblick.score import baselines
from niblick.score.baselines import (
    COMPRESSORS,
    bzip2_size,
    compressor_baselines,
    label,
    ppmd_size,
    xz_size,
    zpaq_size,
    zstd_size,
)


def prose(words: int, seed: int) -> bytes:
    """Text with some statistics in it: a Zipf-like draw from 2,000 made-up words, the same for every seed."""
    rng = random.Random(0)
    known = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(2000)]
    return " ".join(random.Random(seed).choices(known, [1 / (i + 1) for i in range(2000)], k=words)).encode()


@pytest.fixture(autouse=True)
def without_zpaq(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are the same wherever the tests run; what is about zpaq itself asks for it."""
    if "zpaq" not in request.node.name:
        monkeypatch.setitem(COMPRESSORS, "zpaq", COMPRESSORS["zpaq"]._replace(installed=lambda: False))


def test_ppmd_decodes_and_learns_more_than_xz() -> None:
    text = prose(20_000, 1)
    encoder = pyppmd.Ppmd7Encoder(16, 2**24)
    coded = encoder.encode(text) + encoder.flush()
    assert pyppmd.Ppmd7Decoder(16, 2**24).decode(coded, len(text)) == text
    assert ppmd_size(text) == len(coded) < xz_size(text)
    assert label("ppmd_prefixed") == "ppmd, order 16, training text as prefix"


@pytest.mark.skipif(shutil.which("zpaq") is None, reason="zpaq is not installed (apt-get install zpaq)")
def test_zpaq_joins_where_it_is_installed() -> None:
    held_out, training = prose(500, 1), prose(1000, 2)
    found = compressor_baselines(held_out, training, slow=1000)
    assert found["zpaq"]["bytes"] == zpaq_size(held_out[:1000])
    assert found["zpaq"]["share"] == pytest.approx(1000 / len(held_out))
    assert found["zpaq_prefixed"]["prefix_bytes"] == 1000 < found["ppmd_prefixed"]["prefix_bytes"]
    assert found["zpaq_prefixed"]["bytes"] == zpaq_size(training[-1000:] + held_out[:1000]) - zpaq_size(
        training[-1000:]
    )
    assert found["ppmd"]["share"] == 1


def test_a_zpaq_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "zpaq"
    broken.write_text("#!/bin/sh\necho no room left >&2\nexit 2\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(DataError, match=r"zpaq a text.zpaq text -m5 -t1. failed .no room left.: remove zpaq"):
        zpaq_size(b"text")


@pytest.mark.parametrize(
    ("command", "size", "slack"),
    [
        ("xz -9e -T1", xz_size, 0.0005),
        ("bzip2 -9", bzip2_size, 0),
        ("zstd -q --ultra -22", zstd_size, 0.01),  # its encoder changes a little with every version
    ],
)
@pytest.mark.parametrize("words", [0, 3, 40_000])
def test_sizes_are_those_of_the_command_lines(command: str, size, slack: float, words: int, tmp_path: Path) -> None:
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed")
    text = tmp_path / "text"
    text.write_bytes(prose(words, 1))
    made = subprocess.run([*command.split(), "-c", str(text)], capture_output=True, check=True).stdout
    assert size(text.read_bytes()) == pytest.approx(len(made), rel=slack, abs=0)


def test_prefix_rule_is_a_difference() -> None:
    held_out, training = prose(2000, 1), prose(30_000, 2)
    found = compressor_baselines(held_out, training)
    assert list(found) == ["bzip2", "ppmd", "ppmd_prefixed", "xz", "xz_prefixed", "zstd", "zstd_prefixed"]
    for name, size in (("ppmd", ppmd_size), ("xz", xz_size), ("zstd", zstd_size)):
        assert found[name]["bytes"] == size(held_out)
        assert found[name + "_prefixed"]["bytes"] == size(training + held_out) - size(training)
        assert found[name + "_prefixed"]["prefix_bytes"] == len(training)
        assert found[name + "_prefixed"]["bits_per_byte"] < found[name]["bits_per_byte"]
    assert found["bzip2"]["bits_per_byte"] == 8 * bzip2_size(held_out) / len(held_out)
    assert json.loads(json.dumps(found)) == found


def test_without_training_text_there_is_no_prefix() -> None:
    assert list(compressor_baselines(b"text", None)) == ["bzip2", "ppmd", "xz", "zstd"]
    assert list(compressor_baselines(b"text", b"")) == ["bzip2", "ppmd", "xz", "zstd"]
    assert list(compressor_baselines(b"text", b"text", prefix=0)) == ["bzip2", "ppmd", "xz", "zstd"]


def test_prefix_is_the_end_of_the_training_text() -> None:
    held_out, training = prose(500, 1), prose(5000, 2)
    found = compressor_baselines(held_out, training, prefix=1000)["xz_prefixed"]
    assert found["bytes"] == xz_size(training[-1000:] + held_out) - xz_size(training[-1000:])


def test_workers_change_nothing() -> None:
    held_out, training = prose(500, 1), prose(5000, 2)
    one, two = (compressor_baselines(held_out, training, workers=n) for n in (1, 2))
    assert {k: v["bytes"] for k, v in one.items()} == {k: v["bytes"] for k, v in two.items()}


def test_windows_reach_back_to_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that comes again after more than the usual window costs nothing the second time."""
    monkeypatch.setattr(baselines, "_XZ_WINDOW", 2**16)
    monkeypatch.setattr(baselines, "_ZSTD_WINDOW_LOG", 16)
    noise, gap = random.Random(0).randbytes(20_000), bytes(200_000)
    for size in (xz_size, zstd_size):
        assert size(noise + gap + noise) < size(noise) + 1000


def test_empty_text_is_refused() -> None:
    with pytest.raises(DataError, match="held-out text is empty"):
        compressor_baselines(b"", b"text")


def test_real_text_in_seconds(webmix: Path) -> None:
    """What quickstart asks for: 2.5 MB of training text, 0.2 MB held out (2 to 4 s on two cores)."""
    with webmix.open(encoding="utf-8") as lines:
        documents = [json.loads(line)["text"].encode() for line, _ in zip(lines, range(900), strict=False)]
    held_out, training = b"\n".join(documents[:220])[:200_000], b"\n".join(documents[220:])[:2_500_000]
    found = compressor_baselines(held_out, training, workers=2)
    assert all(1.5 < row["bits_per_byte"] < 3.5 for row in found.values())
    assert found["xz_prefixed"]["bits_per_byte"] < found["xz"]["bits_per_byte"]
