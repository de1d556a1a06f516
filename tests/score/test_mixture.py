"""The mixture: one distribution everywhere, nothing later matters; compiled, it is what plain Python computes."""

from __future__ import annotations

import importlib.util
import math
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niblick.errors import ArtifactError, ConfigError
from niblick.score import mixing_kernels, mixture
from niblick.score.mixing_coder import pack, unpack
from niblick.score.mixture import FAST, SETTINGS, STRONG, Mixture, new_mind, paths, tree
from niblick.score.score_config import SidecarConfig

compiled = pytest.mark.skipif(not mixing_kernels.COMPILED, reason="numba is not installed (pip install 'niblick[mix]')")
TEXT = (
    b"def one(x):\n    return x + 1\n\n\ndef two(x):\n    return one(one(x))\n\nThe same again: the Same again, 12.\n"
    * 3
)


def bytes_of(text: bytes, control: int = 4) -> np.ndarray:
    return np.concatenate([[1], np.frombuffer(text, np.uint8).astype(np.int64) + control])


def drawn(tokens: int, vocab_size: int, seed: int = 0) -> np.ndarray:
    p_NV = np.random.default_rng(seed).random((tokens, vocab_size)) ** 4 + 1e-6
    return p_NV / p_NV.sum(1, keepdims=True)


def plain_kernels(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The kernels where numba is not installed."""
    monkeypatch.setitem(sys.modules, "numba", None)
    spec = importlib.util.spec_from_file_location("plain_kernels", Path(mixing_kernels.__file__))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "plain_kernels", module)
    spec.loader.exec_module(module)
    assert not module.COMPILED
    return module


@pytest.mark.parametrize("vocab_size", [2, 3, 7, 256, 257, 260, 288, 289, 1024, 1000])
def test_a_tree_leads_to_every_token_once(vocab_size: int) -> None:
    left_V, right_V, path_VD, depth_V = tree(vocab_size)
    assert len(left_V) == len(right_V) == vocab_size - 1
    for token in range(vocab_size):
        node = 0
        for at in range(depth_V[token]):
            assert node >= 0
            node = (right_V if path_VD[token, at] else left_V)[node]
        assert ~node == token
    parents = [(node, child) for side in (left_V, right_V) for node, child in enumerate(side) if child >= 0]
    assert all(node < child for node, child in parents)


def test_bytes_are_their_bits_and_control_tokens_cost_them_nothing() -> None:
    _, _, path_VD, depth_V = tree(260)
    for byte in range(255):
        assert depth_V[4 + byte] == 8
        assert int("".join(map(str, path_VD[4 + byte, :8])), 2) == byte
    assert all(depth_V[token] > 8 for token in (0, 1, 2, 3, 259))
    assert paths(256)[255] == [1] * 8


@compiled
@pytest.mark.parametrize(("name", "vocab_size"), [("strong", 260), ("fast", 260), ("strong", 11), ("fast", 300)])
def test_compiled_is_what_plain_python_computes(name: str, vocab_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = (
        bytes_of(TEXT[:160]) if vocab_size == 260 else np.random.default_rng(1).integers(0, vocab_size, 40).repeat(3)
    )
    p_NV = drawn(len(tokens), vocab_size)
    half = len(tokens) // 2
    found = Mixture(vocab_size, SETTINGS[name], 1)
    quick = [found.read(tokens[:half]), found.read(tokens[half:], p_NV[half:])]
    monkeypatch.setattr(mixture, "kernels", plain_kernels(monkeypatch))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slow_one = Mixture(vocab_size, SETTINGS[name], 1)
        slow = [slow_one.read(tokens[:half]), slow_one.read(tokens[half:], p_NV[half:])]
    np.testing.assert_allclose(np.concatenate(quick), np.concatenate(slow), rtol=0, atol=1e-9)
    for field in ("slots", "maps_CR", "match_maps_MR", "history", "state"):
        np.testing.assert_array_equal(getattr(found.mind, field), getattr(slow_one.mind, field))


@compiled
@pytest.mark.parametrize(("vocab_size", "setting"), [(260, STRONG), (7, STRONG), (260, FAST), (40, FAST)])
def test_probabilities_of_all_tokens_sum_to_one(vocab_size: int, setting: mixture.Setting) -> None:
    """At a few places: every token that could stand there, each read by a mixture that knows the same."""
    rng = np.random.default_rng(2)
    tokens = bytes_of(TEXT)[:200] if vocab_size == 260 else rng.integers(0, vocab_size, 30).repeat(2)
    p_NV = drawn(len(tokens) + 1, vocab_size)
    for at in (0, 1, len(tokens) // 2, len(tokens)):
        for p_here in (None, p_NV[at : at + 1]):
            known = Mixture(vocab_size, setting, 1)
            known.read(tokens[:at], None if p_here is None else p_NV[:at])
            total = 0.0
            for token in range(vocab_size):
                mind = known.mind._replace(**{name: getattr(known.mind, name).copy() for name in CHANGED})
                nats_N = np.zeros(1)
                mixing_kernels.read(mind, np.zeros((1, 0)) if p_here is None else p_here, np.array([token]), nats_N)
                total += math.exp(-nats_N[0])
            assert total == pytest.approx(1, abs=1e-9)


CHANGED = (
    "slots",
    "maps_CR",
    "match_M4",
    "match_maps_MR",
    "weights_SRX",
    "final_RS",
    "stages_TRB",
    "state",
    "history",
    "last_MH",
    "knobs",
)


@compiled
@given(seed=st.integers(0, 99), cut=st.integers(1, 150), name=st.sampled_from(["strong", "fast"]))
@settings(max_examples=8, deadline=None)
def test_nothing_later_matters_and_pieces_do_not(seed: int, cut: int, name: str) -> None:
    tokens = bytes_of(TEXT)[:200]
    p_NV = drawn(len(tokens), 260, seed)
    whole = Mixture(260, SETTINGS[name], 1).read(tokens, p_NV)
    parts = Mixture(260, SETTINGS[name], 1)
    np.testing.assert_array_equal(whole[:cut], parts.read(tokens[:cut], p_NV[:cut]))
    np.testing.assert_array_equal(whole[cut:], parts.read(tokens[cut:], p_NV[cut:]))
    other, rows = tokens.copy(), p_NV.copy()
    other[cut:], rows[cut + 1 :] = np.random.default_rng(seed).permutation(tokens[cut:]), 1 / 260
    changed = Mixture(260, SETTINGS[name], 1).read(other, rows)
    np.testing.assert_array_equal(whole[:cut], changed[:cut])


@compiled
def test_text_read_before_helps_and_is_read_like_any_other() -> None:
    """A mixture that read a text beforehand is one that scored it without a model."""
    text = bytes_of(TEXT)
    primed, scored = Mixture(260, STRONG, 1), Mixture(260, STRONG, 1)
    primed.read(text)
    for token in text.tolist():
        scored.reveal(token)
    p_NV = drawn(len(text), 260)
    again = primed.read(text, p_NV)
    np.testing.assert_array_equal(again, scored.read(text, p_NV))
    assert again.sum() < 0.5 * Mixture(260, STRONG, 1).read(text, p_NV).sum()


@compiled
def test_a_model_that_knows_is_believed() -> None:
    text = np.random.default_rng(3).integers(4, 260, 1500)
    p_NV = np.full((len(text), 260), 0.1 / 259)
    p_NV[np.arange(len(text)), text] = 0.9
    with_it, without = (Mixture(260, STRONG, 1).read(text, p)[500:].mean() for p in (p_NV, None))
    assert without > math.log(200)
    assert with_it < 0.3  # the model alone: 0.105


@compiled
@pytest.mark.parametrize(("vocab_size", "setting"), [(260, STRONG), (260, FAST), (1000, STRONG), (5, FAST)])
def test_packed_text_comes_back_and_is_as_small_as_its_score(vocab_size: int, setting: mixture.Setting) -> None:
    tokens = bytes_of(TEXT * 3) if vocab_size == 260 else np.random.default_rng(4).integers(0, vocab_size, 900)

    def new() -> Mixture:
        return Mixture(vocab_size, setting, 1)

    writer, reader, scorer = new(), new(), new()
    packed = pack(tokens, writer)
    np.testing.assert_array_equal(unpack(packed, reader), tokens)
    score = scorer.read(tokens).sum() / math.log(2) / 8
    assert 0 <= len(packed) - 16 - score < 6 + 0.005 * score
    for field in CHANGED:  # who packed or unpacked a text has read it
        np.testing.assert_array_equal(getattr(writer.mind, field), getattr(scorer.mind, field))
        np.testing.assert_array_equal(getattr(reader.mind, field), getattr(scorer.mind, field))
    assert len(unpack(pack(tokens[:0], new()), new())) == 0


@compiled
def test_packed_text_that_is_damaged_is_refused() -> None:
    packed = pack(bytes_of(TEXT), Mixture(260, FAST, 1))
    with pytest.raises(ArtifactError, match="holds 7 bytes, less than its head of 16"):
        unpack(packed[:7], Mixture(260, FAST, 1))
    for wrong in (packed[:-20], packed[:40] + bytes([packed[40] ^ 8]) + packed[41:], packed[:16]):
        with pytest.raises(ArtifactError, match="decodes to something else than was packed"):
            unpack(wrong, Mixture(260, FAST, 1))
    with pytest.raises(ArtifactError, match="decodes to something else"):
        unpack(packed, Mixture(260, STRONG, 1))
    with pytest.raises(ArtifactError, match="says it holds 1,099,511,627,776 tokens, more than 4,294,967,296"):
        unpack(packed[:8] + (1 << 40).to_bytes(8, "little") + packed[16:], Mixture(260, FAST, 1))
    with pytest.raises(ArtifactError, match="more than 10: it is damaged"):
        unpack(packed, Mixture(260, FAST, 1), most=10)


def test_without_numba_the_speed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "kernels", plain_kernels(monkeypatch))
    reader = Mixture(260, FAST, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader.read(bytes_of(TEXT)[:90])
    with pytest.warns(UserWarning, match=r"numba is not installed: the mixture reads [\d,]+ tokens a second"):
        reader.read(bytes_of(TEXT)[90:105])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader.read(bytes_of(TEXT)[105:110])


def test_tables_are_as_large_as_they_say() -> None:
    for memory in (1, 4):
        mind = new_mind(260, STRONG, memory)
        assert mind.slots.nbytes == memory << 20


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mix": "weak"}, "mix='weak': choose strong or fast"),
        ({"memory": 100}, "memory=100 must be a power of two between 1 and 8192 MiB"),
        ({"memory": 0}, "memory=0 must be"),
    ],
)
def test_bad_settings(keys: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SidecarConfig("mixture", **keys)


def test_tokens_outside_are_refused() -> None:
    with pytest.raises(ConfigError, match="a token is outside of the mixture's vocabulary of 260"):
        Mixture(260, FAST, 1).read(np.array([260]))
    with pytest.raises(ConfigError, match="for 2 to 65,536 tokens, not 70,000"):
        Mixture(70_000, FAST, 1)
