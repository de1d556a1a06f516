"""Text that a sidecar knows from before: read as ever, before the first target, and refused where it is damaged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from niblick.errors import ArtifactError, ConfigError
from niblick.score import mixing_coder, mixing_kernels, mixture
from niblick.score.known_text import KnownText
from niblick.score.score_config import SidecarConfig
from niblick.score.sidecars import ADJUSTERS, Sidecar

V, BOS = 9, 1
compiled = pytest.mark.skipif(not mixing_kernels.COMPILED, reason="numba is not installed (pip install 'niblick[mix]')")
MIXTURE = SidecarConfig("mixture", mix="fast", memory=1)
TOKENS = np.random.default_rng(0).integers(0, V, 60).repeat(2)


def packed(config: SidecarConfig = MIXTURE, tokens_N: Any = TOKENS) -> KnownText:
    return KnownText(KnownText.packing(tokens_N, V, config, 0, 0).packed, V)


def scored(config: SidecarConfig, tokens_N: Any, text: KnownText | None) -> np.ndarray:
    """Log-probabilities of tokens beside a model that says something about each."""
    logits_NV = torch.from_numpy(np.random.default_rng(1).normal(size=(len(tokens_N), V)))
    return Sidecar(config, V, BOS, text)(1, logits_NV, torch.from_numpy(tokens_N)).numpy()


CONFIGS = {
    "as it was packed": MIXTURE,
    "more memory": replace(MIXTURE, memory=2),
    "another setting": replace(MIXTURE, mix="strong"),
    "ngram": SidecarConfig("ngram", order=4),
    "cache": SidecarConfig("cache", strength=0.5),
    "bigram": SidecarConfig("bigram", strength=0.5),
}


@compiled
@pytest.mark.parametrize("name", CONFIGS)
@given(text=st.lists(st.integers(0, V - 1), max_size=90), seed=st.integers(0, 9))
@settings(max_examples=6, deadline=None)
def test_knowing_a_text_is_having_read_it(name: str, text: list[int], seed: int) -> None:
    """Whichever way it is read: to the last bit what a sidecar says that was told the text token by token."""
    config, tokens_N = CONFIGS[name], np.random.default_rng(seed).integers(0, V, 40)
    known = packed(tokens_N=np.array(text, np.int64))
    reader = ADJUSTERS[config.name](config, V, BOS)
    for token in [*text, BOS]:
        reader.reveal(token)
    told = Sidecar(config, V, BOS)
    told._adjuster = reader
    logits_NV = torch.from_numpy(np.random.default_rng(1).normal(size=(len(tokens_N), V)))
    expected = told(1, logits_NV, torch.from_numpy(tokens_N)).numpy()
    np.testing.assert_array_equal(scored(config, tokens_N, known), expected)
    np.testing.assert_array_equal(scored(config, tokens_N, known), expected)  # asked again, it is what it was


@compiled
@pytest.mark.parametrize("name", CONFIGS)
def test_all_tokens_sum_to_one_and_nothing_later_matters(name: str) -> None:
    known, tokens_N = packed(), np.random.default_rng(2).integers(0, V, 12)
    total = 0.0
    for token in range(V):
        here = tokens_N.copy()
        here[6] = token
        log_q_N = scored(CONFIGS[name], here, known)
        total += float(np.exp(log_q_N[6]))
        np.testing.assert_array_equal(log_q_N[:6], scored(CONFIGS[name], tokens_N, known)[:6])
    assert total == pytest.approx(1, abs=1e-9)


@compiled
def test_it_is_worth_something() -> None:
    known = packed()
    assert scored(MIXTURE, TOKENS, known).sum() > scored(MIXTURE, TOKENS, None).sum() + 10


def test_a_text_that_is_forgotten_is_refused() -> None:
    with pytest.raises(ConfigError, match="reset=document forgets the artifact's text"):
        Sidecar(replace(MIXTURE, reset="document"), V, BOS, packed())


@compiled
def test_a_text_that_does_not_decode_is_refused() -> None:
    text = packed().packed
    spoilt = replace(text, data=text.data[:-3] + b"xyz")
    with pytest.raises(ArtifactError, match="the artifact's text cannot be read: the packed text decodes to something"):
        scored(MIXTURE, TOKENS, KnownText(spoilt, V))
    with pytest.raises(ArtifactError, match="says it holds 120 tokens, more than 7"):
        scored(MIXTURE, TOKENS, KnownText(replace(text, tokens=7), V))
    with pytest.raises(ArtifactError, match="has 120 tokens and its header says 130: export it again"):
        scored(MIXTURE, TOKENS, KnownText(replace(text, tokens=130), V))
    for wrong in ({"mix": "best"}, {"memory": 3}):
        with pytest.raises(ArtifactError, match="which this niblick does not have: export it again"):
            KnownText(replace(text, **wrong), V)


@compiled
def test_a_beginning_is_the_first_tokens() -> None:
    part = packed().beginning(50, MIXTURE)
    np.testing.assert_array_equal(part.tokens_N, TOKENS[:50])


def test_without_numba_the_speed_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packing and unpacking in plain Python say so at once, and give what numba gives."""
    from test_mixture import plain_kernels

    quick = KnownText.packing(TOKENS, V, MIXTURE, 0, 0).packed.data if mixing_kernels.COMPILED else None
    plain = plain_kernels(monkeypatch)
    for module in (mixture, mixing_coder):
        monkeypatch.setattr(module, "kernels", plain)
    with pytest.warns(UserWarning, match=r"numba is not installed: the mixture reads [\d,]+ tokens a second"):
        slow = KnownText.packing(TOKENS, V, MIXTURE, 0, 0).packed
    assert quick is None or slow.data == quick
    with pytest.warns(UserWarning, match="numba is not installed"):
        np.testing.assert_array_equal(KnownText(slow, V).tokens_N, TOKENS)
