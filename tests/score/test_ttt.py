"""Test-time training: the score comes first, nothing leaks back, and the model returns as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from niblick.data.dataset import Split
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.score import scorers
from niblick.score.score_config import ScoreConfig, TTTConfig
from niblick.score.scorers import Score, score_split
from niblick.score.ttt import Adapter, Stretch, chosen_weights, score_first

TOKENIZER = ByteTokenizer()
TEXTS = ["the same line again and again. " * 12, "12345 54321 " * 20, "short", "the same line again and again. " * 8]

SGD = TTTConfig("sgd", lr=0.1, chunk_tokens=64, step_tokens=64, epochs=2)
VARIANTS = {
    "sgd": SGD,
    "adamw": replace(SGD, optimizer="adamw", lr=0.002),
    "lora": replace(SGD, optimizer="adamw", lr=0.01, lora=2),
    "patterns": replace(SGD, weights="body.main.*,embed.weight"),
}


def stream_of(texts: list[str]) -> np.ndarray:
    return np.concatenate([np.concatenate(([1], tokens)) for tokens in TOKENIZER.encode_batch(texts)])


def split(tokens: np.ndarray) -> Split:
    return Split("val", [Path("memory")], [tokens.astype(np.uint16)])


def make_model() -> LM:
    torch.manual_seed(0)
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=3.0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T1"), embed_std=0.2))
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model.double()


def collected(config: ScoreConfig, tokens: np.ndarray, model: LM | None = None) -> tuple[Score, np.ndarray]:
    seen: list[float] = []
    model = model or make_model()
    score = score_split(model, split(tokens), TOKENIZER, config, observe=lambda _, nats_N: seen.extend(nats_N))
    return score, np.array(seen)


@pytest.mark.parametrize("ttt", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("kind", [("contiguous", 0), ("sliding", 8), ("document", 0)], ids=lambda k: k[0])
def test_learning_helps_and_leaves_no_trace(ttt: TTTConfig, kind: tuple[Any, int]) -> None:
    model, tokens = make_model(), stream_of(TEXTS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = ScoreConfig(32, 256, *kind)
    plain, _ = collected(config, tokens, model)
    score, nats = collected(replace(config, ttt=ttt), tokens, model)
    assert score.bpb < plain.bpb - 0.02
    assert nats.sum() == pytest.approx(score.nats)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("ttt", VARIANTS.values(), ids=VARIANTS)
def test_rate_zero_is_no_learning(ttt: TTTConfig) -> None:
    """To the last bit, where both read the same batches."""
    tokens = stream_of(TEXTS)
    for config in (ScoreConfig(32, 64), ScoreConfig(32, 64, "sliding", 32)):
        plain, expected = collected(config, tokens)
        score, nats = collected(replace(config, ttt=replace(ttt, lr=0.0)), tokens)
        assert np.array_equal(nats, expected)
        assert score.nats == plain.nats
        assert any(line.trained_at is not None for line in score.log)


@given(at=st.integers(2, 600), data=st.data())
@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize(
    "config", [ScoreConfig(32, 64), ScoreConfig(32, 64, "sliding", 8), ScoreConfig(32, 64, "document")]
)
def test_later_text_changes_no_earlier_score(config: ScoreConfig, at: int, data: st.DataObject) -> None:
    tokens = stream_of(TEXTS)
    at = min(at, len(tokens) - 1)
    other = tokens.copy()
    other[at:] = data.draw(st.lists(st.integers(4, 259), min_size=len(tokens) - at, max_size=len(tokens) - at))
    config = replace(config, ttt=SGD)
    before, after = (collected(config, t)[1] for t in (tokens, other))
    np.testing.assert_allclose(after[: at - 1], before[: at - 1], rtol=1e-7)


class Spy:
    """Notes everything that an adapter is given, and how much had been scored by then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scored = 0
        self.shown: list[np.ndarray] = []
        learn, parts = Adapter.learn, scorers._part_nats

        def note(adapter: Adapter, tokens: np.ndarray, share: float) -> None:
            self.shown.append(tokens)
            assert sum(len(t) - 1 for t in self.shown) == self.scored
            learn(adapter, tokens, share)

        def count(*arguments: Any, **options: Any) -> Any:
            nats_N = parts(*arguments, **options)
            self.scored += len(nats_N)
            return nats_N

        monkeypatch.setattr(Adapter, "learn", note)
        monkeypatch.setattr(scorers, "_part_nats", count)


def test_the_adapter_sees_what_is_scored_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, spy = stream_of(TEXTS), Spy(monkeypatch)
    score, _ = collected(ScoreConfig(32, 64, ttt=SGD), tokens)
    shown = np.concatenate([t[1:] for t in spy.shown])
    assert np.array_equal(shown, tokens[1 : 1 + len(shown)])
    assert all(np.array_equal(t, tokens[i * 64 : i * 64 + 65]) for i, t in enumerate(spy.shown))
    assert len(spy.shown) == len(score.log) - 1, "nothing is left that could profit from the last stretch"
    fields = [value for value in vars(Adapter(make_model(), SGD, 32)).values() if isinstance(value, Split)]
    assert not fields


def test_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = stream_of(TEXTS)
    score, _ = collected(ScoreConfig(32, 64, "sliding", 8, ttt=SGD), tokens)
    assert [line.first for line in score.log] == [1, *(line.end for line in score.log[:-1])]
    assert score.log[-1].end == len(tokens)
    assert score.log[-1].trained_at is None
    assert score_first(score.log)
    assert score_first([])
    a, b = Stretch(1, 5, 1.0, 1.5), Stretch(5, 9, 2.0, 2.5)
    assert score_first([a, b])
    for wrong in (
        [a._replace(trained_at=0.5), b],  # learned before it was scored
        [a, b._replace(first=4)],  # scored again after it was learned
        [b, a],
        [a, b._replace(scored_at=1.2)],  # scored before what stands above was learned
        [a._replace(end=1)],
    ):
        assert not score_first(wrong)


def test_documents_start_from_the_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    """With reset, a document's cost does not depend on the ones before it; carried along, it does."""
    reset = ScoreConfig(32, 64, "document", ttt=replace(SGD, reset="document"))
    both, alone = stream_of([TEXTS[0], TEXTS[1]]), stream_of([TEXTS[1]])
    second = collected(reset, both)[1][-(len(alone) - 1) :]
    np.testing.assert_allclose(second, collected(reset, alone)[1], rtol=1e-9)
    carried = replace(reset, ttt=SGD)
    assert not np.allclose(collected(carried, both)[1][-(len(alone) - 1) :], collected(carried, alone)[1], rtol=1e-3)
    with pytest.raises(ConfigError, match=r"score\.scorer=document"):
        replace(reset, scorer="contiguous")


def test_where_a_document_ends_changes_nothing_before() -> None:
    """The rate does not fall towards an end that a decoder would not know."""
    config = ScoreConfig(32, 64, "document", 16, ttt=replace(SGD, reset="document"))
    tokens = stream_of([TEXTS[0]])
    shorter = tokens.copy()
    shorter[150] = 1
    before, after = (collected(config, t)[1] for t in (tokens, shorter))
    np.testing.assert_allclose(after[:149], before[:149], rtol=1e-9)


def test_rates_fall_along_a_cosine() -> None:
    """A stretch at the end of the cosine changes nothing; in the middle it takes half the step."""
    tokens = stream_of(TEXTS)[:65]
    moved = {}
    for share in (0.0, 0.5, 1.0):
        for decay in ("cosine", "constant"):
            model = make_model()
            config = replace(SGD, decay=decay, epochs=1, momentum=0.0)  # type: ignore[arg-type]
            adapter = Adapter(model, config, 32)
            adapter.learn(tokens, share)
            moved[decay, share] = model.embed.weight.detach() - make_model().embed.weight.detach()
    for share, scale in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        torch.testing.assert_close(moved["cosine", share], scale * moved["constant", 0.0])
        assert torch.equal(moved["constant", share], moved["constant", 0.0])


def test_lora_is_the_gradient_of_its_factors() -> None:
    """One SGD step on B·A by the chain rule, against autograd through W + B·A."""
    config = replace(SGD, lora=2, epochs=1, momentum=0.0, grad_clip=0.0, weights="body.main.*", decay="constant")
    tokens = stream_of(TEXTS)[:33]
    model = make_model()
    adapter = Adapter(model, config, 32)
    for one in adapter._low_rank:
        one.b_OR.normal_(generator=torch.Generator().manual_seed(1))
        one.write()
    factors = [(one.a_RC.clone().requires_grad_(), one.b_OR.clone().requires_grad_()) for one in adapter._low_rank]
    names = {id(p): name for name, p in model.named_parameters()}
    maps = {names[id(one.weight)]: one.base + b @ a for one, (a, b) in zip(adapter._low_rank, factors, strict=True)}
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    logits = torch.func.functional_call(model, maps, (ids[:, :-1],))
    torch.nn.functional.cross_entropy(logits[0], ids[0, 1:]).backward()
    adapter.learn(tokens, 0.0)
    for one, (a, b) in zip(adapter._low_rank, factors, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(one.a_RC, a.detach() - config.lr * a.grad)
        torch.testing.assert_close(one.b_OR, b.detach() - config.lr * b.grad)
        torch.testing.assert_close(one.weight.detach(), one.base + one.b_OR @ one.a_RC)


def test_what_learns() -> None:
    model = make_model()
    assert len(chosen_weights(model, SGD)) == len(list(model.parameters()))
    main = chosen_weights(model, replace(SGD, weights="body.main.*"))
    assert {id(p) for p in main} == {id(p) for p in model.body.main.parameters()}
    maps = chosen_weights(model, replace(SGD, lora=1))
    assert {id(p) for p in maps} == {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear)}
    with pytest.raises(ConfigError, match="names no weight"):
        chosen_weights(model, replace(SGD, weights="body.man.*"))
    with pytest.raises(ConfigError, match="names no linear map"):
        chosen_weights(model, replace(SGD, weights="embed.weight", lora=1))


@pytest.mark.parametrize("ttt", VARIANTS.values(), ids=VARIANTS)
def test_bfloat16_sees_what_was_learned(ttt: TTTConfig) -> None:
    """Autocast keeps copies of the weights: they must not outlive a step, and gradients are not its business."""
    tokens, model = stream_of(TEXTS), make_model().float()
    with torch.autocast("cpu", torch.bfloat16):
        plain, _ = collected(ScoreConfig(200, 200), tokens, model)
        score, _ = collected(ScoreConfig(200, 200, ttt=replace(ttt, chunk_tokens=200, step_tokens=200)), tokens, model)
        again, _ = collected(ScoreConfig(200, 200), tokens, model)
    assert score.bpb < plain.bpb - 0.02
    assert again.nats == plain.nats


class Timepiece:
    def __init__(self) -> None:
        self.seconds = 0.0

    def perf_counter(self) -> float:
        self.seconds += 1.0
        return self.seconds


def test_budgets_stop_learning_and_not_scoring(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = stream_of(TEXTS)
    config = ScoreConfig(32, 64, ttt=SGD)
    everything, _ = collected(config, tokens)
    learned = sum(line.trained_at is not None for line in everything.log)
    none, _ = collected(replace(config, ttt=replace(SGD, max_seconds=0.0)), tokens)
    assert all(line.trained_at is None for line in none.log)
    assert none.nats == pytest.approx(collected(replace(config, ttt=TTTConfig()), tokens)[0].nats, rel=1e-9)
    monkeypatch.setattr(scorers, "time", Timepiece())
    some, _ = collected(replace(config, ttt=replace(SGD, max_seconds=learned / 2)), tokens)
    assert 0 < sum(line.trained_at is not None for line in some.log) < learned
    needed, enough = (
        collected(replace(config, ttt=ttt), tokens)[0].seconds for ttt in (replace(SGD, max_seconds=0.0), SGD)
    )
    budget = 0.4 * needed + 0.6 * enough
    tight, _ = collected(replace(config, max_seconds=budget), tokens)
    assert 0 < sum(line.trained_at is not None for line in tight.log) < learned
    assert tight.seconds <= budget + 1  # the last look at the clock comes after the last decision


def test_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"lr=1e\+308 ruined the model"):
        collected(ScoreConfig(32, 64, ttt=replace(SGD, lr=1e308, grad_clip=0.0, decay="constant")), stream_of(TEXTS))
    for bad, words in (
        ({"optimizer": "adam"}, "nearest: adamw"),
        ({"reset": "never"}, "reset='never'"),
        ({"decay": "linear"}, "decay='linear'"),
        ({"lr": -1.0}, "lr=-1 must not be negative"),
        ({"momentum": 1.0}, "momentum=1"),
        ({"epochs": 0}, "epochs=0"),
        ({"max_seconds": -1.0}, "max_seconds=-1"),
    ):
        with pytest.raises(ConfigError, match=words):
            TTTConfig(**bad)  # type: ignore[arg-type]
