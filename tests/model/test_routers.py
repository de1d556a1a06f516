"""Routers beside slow forms in float64: draws and what they learn from, coding rates, alignment, curricula, costs."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from niblick.audit.model_checks import audit_model
from niblick.boundaries.cuts import Reader
from niblick.config.run_config import RunConfig, override
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError
from niblick.model.chunking import binomial_loss, confidence
from niblick.model.level import Level, inner_costs
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.model.plain_routers import CosineRouter, FixedRouter, Routing
from niblick.model.taught_routers import (
    DelayedRouter,
    GumbelRouter,
    RateRouter,
    ScoreRouter,
    SombreroRouter,
    advantage,
    decided,
)
from niblick.recipes.presets import get_preset
from niblick.run.prepared import expect_chunks_fit

NEW = ("score-function", "gumbel", "sombrero", "coding-rate", "delayed")
D = torch.float64


def small(router: str, **level: object) -> ModelConfig:
    values = {"target_length": 3.0, "bucket": 4} | level
    one = LevelConfig(StageConfig("T1"), StageConfig("T1"), router, **values)  # type: ignore[arg-type]
    return ModelConfig(width=16, heads=2, kv_heads=1, levels=(one,), main=StageConfig("T1"))


def rough(config: ModelConfig) -> LM:
    torch.manual_seed(0)
    model = LM(config).double()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


# The score function


def test_returns_are_discounted_and_measured_against_the_other_rows() -> None:
    torch.manual_seed(0)
    cost, length, discount = torch.rand(3, 7, dtype=D), [7, 4, 6], 0.9
    chosen = decided(cost, torch.tensor(length))
    found = advantage(cost, chosen, discount)
    returns = [[sum(discount ** (s - t) * cost[b, s] for s in range(t, 7)) for t in range(7)] for b in range(3)]
    for b, t in itertools.product(range(3), range(1, 7)):
        others = [returns[o][t] for o in range(3) if o != b and t < length[o]]
        baseline = sum(others) / len(others) if others else 0.0
        assert float(found[b, t]) == pytest.approx(float(returns[b][t] - baseline))
    alone = advantage(cost[:1], chosen[:1], discount)[0]
    mean = sum(returns[0][1:]) / 6
    assert float(alone[3]) == pytest.approx(float(returns[0][3] - mean))


class Undiscounted(ScoreRouter):
    discount = 1.0


def test_the_estimate_agrees_with_finite_differences_of_the_expected_loss() -> None:
    """10,000 draws of one row of 8 tokens; the expectation is a sum over all 128 ways to cut it."""
    samples, length, h = 10_000, 8, 1e-4
    plain = {"dechunk": "plain", "confidence": False, "ratio_weight": 0.0}
    model, given = rough(small("score-function", **plain)), rough(small("given", **plain))
    level = model.body.levels[0]
    assert isinstance(level, Level)
    router = Undiscounted(16, 3.0).double()
    router.gate.weight.data.mul_(3)
    level.router = router
    given.load_state_dict({name: t for name, t in model.state_dict().items() if ".router." not in name})
    ids = torch.randint(4, 260, (1, length + 1), generator=torch.Generator().manual_seed(1))
    found: list[Tensor] = []

    def kept(module: torch.nn.Module, inputs: object, output: Tensor) -> None:
        output.retain_grad()
        found.append(output)

    router.gate.register_forward_hook(kept)
    losses, _ = model(ids[:, :-1].expand(samples, -1), ids[:, 1:].expand(samples, -1))
    losses.total.backward()
    assert found[0].grad is not None
    estimate_BL = samples * found[0].grad[:, 1:, 0]
    cuts = torch.tensor([[1, *bits] for bits in itertools.product((0, 1), repeat=length - 1)]).bool()
    with torch.no_grad():
        hidden, _ = given.hidden(ids[:, :-1].expand(len(cuts), -1), cuts)
        loss_S = given.token_losses(hidden, ids[:, 1:].expand(len(cuts), -1)).mean(1)

    def expected(z_L: Tensor) -> Tensor:
        p_L = torch.sigmoid(z_L)
        return (torch.where(cuts[:, 1:], p_L, 1 - p_L).prod(1) * loss_S).sum()

    z_L = found[0].detach()[0, 1:, 0]
    assert float(losses.lm.detach()) == pytest.approx(float(expected(z_L)), rel=1e-3)
    steps = h * torch.eye(length - 1, dtype=D)
    slope_L = torch.stack([(expected(z_L + step) - expected(z_L - step)) / (2 * h) for step in steps])
    error_L = estimate_BL.std(0) / math.sqrt(samples)
    assert ((estimate_BL.mean(0) - slope_L).abs() < 3 * error_L).all()
    assert (slope_L.abs() > 3 * error_L).any(), "else an estimate of zero would pass"


def test_discounting_lowers_the_variance() -> None:
    torch.manual_seed(0)
    cost = torch.rand(200, 64)
    chosen = decided(cost, None)
    near, far = (advantage(cost, chosen, discount)[:, 8].var() for discount in (0.9, 1.0))
    assert near < 0.2 * far


def test_what_is_drawn_is_drawn_with_p_and_the_edge_lets_as_many_through() -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 256, 16)
    for kind in (ScoreRouter, GumbelRouter):
        router = kind(16, 4.0)
        share = float(torch.sigmoid(router.gate(x))[:, 1:].mean().detach())
        for _ in range(120):
            _, boundary = router.explore(x, None, 4.0)
        assert float(boundary[:, 1:].float().mean()) == pytest.approx(share, abs=0.02)
        p, cut = router(x)
        assert float(cut[:, 1:].float().mean()) == pytest.approx(share, abs=0.02)
        assert torch.equal(cut, p >= 0.5) and bool(cut[:, 0].all() & boundary[:, 0].all())
        again, _ = router(x)
        assert torch.equal(p, again), "outside training nothing is drawn"


def test_relaxed_bits_carry_gradients() -> None:
    torch.manual_seed(0)
    router = GumbelRouter(8, 4.0)
    p, boundary = router.explore(torch.randn(4, 32, 8), None, 4.0)
    assert torch.equal(boundary, p >= 0.5) and ((p > 0) & (p <= 1)).all()
    p.sum().backward()
    assert router.gate.weight.grad is not None and router.gate.weight.grad.abs().sum() > 0


def test_the_binomial_prior() -> None:
    torch.manual_seed(0)
    p = torch.rand(3, 20, dtype=D, requires_grad=True)
    boundary, length = p.detach() > 0.6, torch.tensor([20, 11, 5])
    found = binomial_loss(p, boundary, 4.0, length)
    terms = []
    for b, n in enumerate(length.tolist()):
        count = int(boundary[b, :n].sum())
        terms.append(-math.log(math.comb(n, count) * 0.25**count * 0.75 ** (n - count)) / n)
    assert float(found.detach()) == pytest.approx(sum(terms) / 3)
    found.backward()
    assert p.grad is not None and (p.grad[1, 11:] == 0).all() and (p.grad[1, :11] != 0).all()
    few, many = (binomial_loss(p, torch.rand(3, 20) < share, 4.0) for share in (0.25, 0.9))
    assert few < many


# Sombrero


def test_alignment_asks_for_the_dearest_positions() -> None:
    torch.manual_seed(0)
    p, cost, length = torch.rand(2, 9, dtype=D), torch.rand(2, 9, dtype=D), torch.tensor([9, 6])
    found = SombreroRouter(4, 3.0).loss(Routing(p, p > 0.5, length), cost, 3.0)
    places = [(b, t) for b in range(2) for t in range(1, int(length[b]))]
    edge = torch.quantile(torch.stack([cost[b, t] for b, t in places]), 2 / 3)
    terms = [-torch.log(p[b, t] if cost[b, t] > edge else 1 - p[b, t]) for b, t in places]
    assert float(found) == pytest.approx(float(0.1 * sum(terms) / len(terms)))
    assert sum(bool(cost[b, t] > edge) for b, t in places) in (4, 5)


def test_states_are_smoothed_before_chunks_are_selected() -> None:
    model = rough(small("cosine", dechunk="input"))
    level = model.body.levels[0]
    assert isinstance(level, Level)
    x = torch.randn(2, 40, 16, dtype=D)
    p, boundary = level.router(x)
    c = confidence(p, boundary)
    found = level._pooled(x, Routing(p, boundary))
    state = x[:, 0]
    for t in range(1, 40):
        state = c[:, t, None] * x[:, t] + (1 - c[:, t, None]) * state
        torch.testing.assert_close(found[:, t], state)


# Coding rate


def test_the_coding_rate_is_a_difference_of_log_determinants() -> None:
    torch.manual_seed(0)
    router, x = RateRouter(12, 4.0), torch.randn(1, 14, 12, dtype=D)
    found = router.growth(x)[0]
    z = torch.nn.functional.normalize(x[0], dim=-1)
    gain = 12 / (8 * 0.5**2)

    def rate(rows: Tensor) -> Tensor:
        return 0.5 * torch.logdet(torch.eye(12, dtype=D) + gain * rows.T @ rows)

    for t in range(14):
        window = torch.stack([z[max(s, 0)] for s in range(t - 7, t + 1)])
        assert float(found[t]) == pytest.approx(float(rate(window) - rate(window[:-1])))


def test_in_training_every_row_has_its_number_of_chunks() -> None:
    torch.manual_seed(0)
    router, x, length = RateRouter(12, 4.0), torch.randn(3, 40, 12), torch.tensor([40, 23, 1])
    score = router.growth(x)
    for aim, counts in ((4.0, [10, 6, 1]), (8.0, [5, 3, 1])):
        _, boundary = router.explore(x, length, aim)
        assert boundary.sum(1).tolist() == counts and bool(boundary[:, 0].all())
        for b in range(2):
            inside = score[b, 1 : length[b]]
            assert inside[boundary[b, 1 : length[b]]].min() >= inside[~boundary[b, 1 : length[b]]].max()
    for _ in range(150):
        router.explore(x[:1], None, 4.0)
    assert router(x[:1])[1].sum() == pytest.approx(10, abs=1)


# Delayed


def test_a_delayed_router_starts_as_the_cosine_router_one_position_late() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 20, 8)
    late, early = DelayedRouter(8, 4.0), CosineRouter(8, 4.0)
    torch.testing.assert_close(late(x)[0][:, 2:], early(x)[0][:, 1:-1])
    late.ahead.weight.data.normal_()
    changed = x.clone()
    changed[:, 10] += 1.0
    before, after = late(x)[0], late(changed)[0]
    assert torch.equal(before[:, :10], after[:, :10]) and not torch.equal(before[:, 10], after[:, 10])


# All of them


@pytest.mark.parametrize("router", NEW)
def test_nothing_looks_ahead(router: str) -> None:
    """Every check of `niblick audit` that asks the model: causality, rows by themselves, steps equal sequences."""
    model = rough(small(router, dechunk="input" if router == "sombrero" else "smooth"))
    ids = torch.randint(4, 260, (3, 48), generator=torch.Generator().manual_seed(1))
    assert {check.name: check.status for check in audit_model(model, ids, 1)} == {
        "causality": "pass",
        "normalization": "pass",
        "independence": "pass",
    }
    rate = model.hidden(ids)[1][0].boundary_BL[:, 1:].float().mean()
    assert 0.02 < rate < 0.98


@pytest.mark.parametrize("router", NEW)
def test_capacities_agree(router: str) -> None:
    ids = torch.randint(4, 260, (3, 49), generator=torch.Generator().manual_seed(1))
    found = []
    for capacity in ("bucketed", "packed"):
        model = rough(small(router, capacity=capacity))
        torch.manual_seed(3)
        losses, _ = model(ids[:, :-1], ids[:, 1:])
        losses.total.backward()
        found.append((losses.total.detach(), {n: p.grad for n, p in model.named_parameters()}))
    torch.testing.assert_close(found[0], found[1])


def test_costs_of_chunks_are_sums_of_their_tokens() -> None:
    level = rough(small("cosine")).body.levels[0]
    assert isinstance(level, Level)
    boundary = torch.tensor([[1, 0, 1, 1, 0], [1, 0, 0, 0, 1]]).bool()
    cost = torch.arange(10.0).view(2, 5)
    found = inner_costs(level, Routing(boundary.float(), boundary), cost, 4)
    assert found.tolist() == [[1, 2, 7, 0], [26, 9, 0, 0]]


def test_words_then_two_then_four() -> None:
    """The levels of an autoregressive U-Net: a chunk of the third level starts with every fourth word."""
    text = b"one two three four five six seven eight nine ten"
    rules = (("whitespace", 6.0), ("fixed", 2.0), ("fixed", 2.0))
    levels = tuple(LevelConfig(None, None, router, target_length=length) for router, length in rules)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=levels, main=StageConfig("t1")))
    words = [0, *(i for i, byte in enumerate(text) if byte == 32)]
    row = Reader(model, ByteTokenizer()).read([torch.tensor([b + 4 for b in text]).numpy()])[0]
    found = [decisions.boundary_L.nonzero()[0].tolist() for decisions in row.levels]
    assert found == [words, words[::2], words[::4]]


def words(**level: object) -> ModelConfig:
    rules = (("whitespace", 6.0), ("fixed", 2.0), ("fixed", 2.0))
    levels = tuple(
        LevelConfig(StageConfig("t1"), None, router, target_length=length, bucket=4, **level)  # type: ignore[arg-type]
        for router, length in rules
    )
    return ModelConfig(width=16, heads=2, kv_heads=1, levels=levels, main=StageConfig("t1"))


@pytest.mark.parametrize(
    "config", [words(), words(capacity="divisor:2"), small("cosine"), small("cosine", capacity="packed")]
)
def test_a_chunk_tells_what_comes_after_the_start_of_the_next(
    config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss for units ahead, beside loops over chunks: one, two and four words ahead at three levels of words."""
    asked = replace(config, levels=tuple(replace(level, ahead_weight=0.5 + i) for i, level in enumerate(config.levels)))
    plain, model = rough(config), rough(asked)
    assert model.state_dict().keys() == plain.state_dict().keys(), "the loss has no weights of its own"
    text = b"one two three four five six seven eight nine ten. on and on and on!"
    ids = torch.tensor([[b + 4 for b in part] for part in (text[:50], text[-50:])])
    inside: dict[int, Tensor] = {}
    for i, level in enumerate(model.body.levels):
        assert isinstance(level, Level)
        up = level.up
        monkeypatch.setattr(
            level,
            "up",
            lambda x, passage, last, i=i, up=up: (inside.update({i: passage.rows(x)}), up(x, passage, last))[1],
        )
    losses, routings = model(ids[:, :-1], ids[:, 1:])
    expected = plain(ids[:, :-1], ids[:, 1:])[0].total
    place = [[*range(49)] for _ in ids]
    for i, routing in enumerate(routings):
        terms = []
        for b in range(2):
            cuts = routing.boundary_BL[b].nonzero()[:, 0].tolist()[: routing.capacity]
            place[b] = [place[b][t] for t in cuts]
            for c, start in enumerate(place[b][1:]):
                state = inside[i][b, c]
                state = state / state.square().mean().sqrt()
                logits = model.head(torch.cat((state[8:], state[:8])))
                terms.append(-logits.log_softmax(-1)[ids[b, start + 1]])
        assert len(terms) >= 4
        expected = expected + (0.5 + i) * torch.stack(terms).mean()
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    assert all(p.grad is not None for p in model.body.main.parameters())
    assert torch.equal(model.hidden(ids)[0], plain.hidden(ids)[0]), "scores know nothing of it"
    check = {check.name: check.status for check in audit_model(model, ids, 1)}
    assert set(check.values()) == {"pass"}


def test_a_target_moves_over_the_budget() -> None:
    config = LevelConfig(target_length=6.0, target_start=2.0, target_share=0.5)
    assert [config.target_at(at) for at in (0.0, 0.25, 0.5, 1.0)] == [2.0, 4.0, 6.0, 6.0]
    round_off = LevelConfig(target_length=6.0, target_start=2.0, target_share=0.5, target_shape="cosine")
    assert round_off.target_at(0.125) == pytest.approx(2 + 2 * (1 - math.cos(math.pi / 4)))
    assert LevelConfig(target_length=6.0).target_at(0.0) == 6.0


@pytest.mark.parametrize(("router", "lengths"), [("fixed", (2, 6)), ("coding-rate", (2, 6)), ("cosine", None)])
def test_every_router_hears_of_the_target(router: str, lengths: tuple[int, int] | None) -> None:
    model = rough(small(router, target_start=2.0, target_length=6.0))
    ids = torch.randint(4, 260, (2, 49), generator=torch.Generator().manual_seed(1))
    told = []
    for progress in (0.0, 1.0):
        model.progress = progress
        losses, routings = model(ids[:, :-1], ids[:, 1:])
        told.append((float(losses.ratio[0].detach()), 48 / float(routings[0].chunks_B().double().mean())))
    if lengths:
        assert (told[0][1], told[1][1]) == lengths
        return
    assert told[0][0] != told[1][0]
    model.progress = 0.0
    assert torch.equal(model.hidden(ids[:, :-1])[1][0].boundary_BL, routings[0].boundary_BL), (
        "scores know no curriculum"
    )


def test_a_fixed_chunk_has_two_positions_at_least() -> None:
    """A target just above 1 is no level where every position is a chunk."""
    boundary_BL = FixedRouter(8, 1.2)(torch.zeros(1, 6, 8))[1]
    assert boundary_BL.tolist() == [[True, False] * 3]


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("router=whitespace target_start=2", "moves the target of a router, and 'whitespace' has none"),
        ("target_start=1", "a chunk of 1 position is no chunk"),
        ("target_share=0", "target_share=0.* must be a share of the budget"),
        ("target_shape=square", "unknown target_shape 'square'"),
        ("router_weight=-1", "must not be negative"),
        ("ratio_weight=-1", "must not be negative"),
        ("ahead_weight=-1", "must not be negative"),
        ("router=soft ahead_weight=1", "asks for the next chunk, and the router 'soft' cuts none"),
        ("router=coding-rate width=4", "compares the last 8 states"),
    ],
)
def test_what_a_level_cannot_serve(assignment: str, words: str) -> None:
    config = RunConfig("x", model=ModelConfig(width=4, heads=1, kv_heads=1, levels=(LevelConfig(),)))
    with pytest.raises(ConfigError, match=words):
        override(config, [f"model.levels.0.{each}" for each in assignment.split()])


def test_chunks_have_room_in_a_window() -> None:
    config = override(get_preset("hnet-small"), ["train.seq_len=128", "train.micro_batch_tokens=8192"])
    expect_chunks_fit(config)
    for assignment in ("target_length=200", "target_start=200"):
        with pytest.raises(ConfigError, match=r"levels.0 aims at chunks of 200 tokens, and train.seq_len=128"):
            expect_chunks_fit(override(config, [f"model.levels.0.{assignment}"]))
