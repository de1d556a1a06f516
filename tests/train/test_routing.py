"""What training tells of its routers, how they are steered, and how often stages are compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from niblick.model.hnet import COMPILED_SHARES
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.model.plain_routers import Routing
from niblick.model.stage import Stage
from niblick.train.guides import make_guide
from niblick.train.optim import Optimizers
from niblick.train.routing import PATIENCE, CollapseWatch, routing_facts
from niblick.train.settings import OptimConfig
from niblick.train.step import compile_stages

SMALL: dict[str, Any] = {"width": 16, "heads": 2, "kv_heads": 1}


def model(*levels: LevelConfig) -> LM:
    torch.manual_seed(0)
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"))
    return LM(ModelConfig(**SMALL, levels=levels or (level,), main=StageConfig("T1")))


@pytest.mark.parametrize(
    ("p", "says"),
    [
        (torch.full((2, 9), 0.9), "cuts nothing"),
        (torch.full((2, 9), 0.1), "one chunk"),
        (torch.tensor([[1.0, *[0.499, 0.501] * 4]]), "no longer depend"),
        (torch.tensor([[1.0, *[0.2, 0.8] * 4]]), None),
    ],
)
def test_collapse_is_seen_once_it_lasts(p: torch.Tensor, says: str | None) -> None:
    watch, facts = CollapseWatch(), routing_facts(Routing(p, p >= 0.5), p.numel())
    told = [watch.warnings([facts], step, ["cosine"]) for step in range(2 * PATIENCE)]
    assert [bool(t) for t in told] == [says is not None and i == PATIENCE - 1 for i in range(2 * PATIENCE)]
    if says:
        assert says in told[PATIENCE - 1][0].message


def test_a_rule_that_cuts_nothing_is_not_told_to_learn() -> None:
    watch, p = CollapseWatch(), torch.zeros(2, 9)
    facts = routing_facts(Routing(p, p > 0), p.numel())
    told = [watch.warnings([facts] * 2, step, ["cosine", "whitespace"]) for step in range(PATIENCE)][-1]
    assert "ratio_weight" in told[0].message
    assert "ratio_weight" not in told[1].message
    assert "choose a router that learns, such as model.levels.1.router=cosine" in told[1].message


def test_facts_leave_padding_out() -> None:
    p = torch.tensor([[1.0, 0.99, 0.0, 0.7], [1.0, 0.9, 0.5, 0.5]])
    boundary = torch.tensor([[True, True, False, True], [True, True, False, False]])
    facts = routing_facts(Routing(p, boundary, torch.tensor([4, 2]), capacity=2), 6)
    assert facts["tokens_per_chunk"] == pytest.approx(6 / 4)
    assert facts["boundary_rate"] == pytest.approx(3 / 4)
    assert facts["mean_p"] == pytest.approx((0.99 + 0.0 + 0.7 + 0.9) / 4)
    assert facts["near_certain"] == pytest.approx(0.5)
    assert facts["truncated"] == pytest.approx(0.5)


def test_a_router_learns_given_boundaries() -> None:
    lm = model()
    guide = make_guide("whitespace", lm.config)
    words = b"the cat sat on a mat and so it did, all day long; " * 4
    ids_BL = torch.tensor([b + 4 for b in words])[None, :129]
    optimizers = Optimizers(lm, OptimConfig(muon_momentum_steps=10))

    def agreement() -> float:
        return float((lm.hidden(ids_BL)[1][0].boundary_BL == guide(ids_BL))[:, 1:].float().mean())

    before = agreement()
    for step in range(40):
        losses, _ = lm(ids_BL[:, :-1], ids_BL[:, 1:], guide_BL=guide(ids_BL[:, :-1]))
        losses.total.backward()
        optimizers.step(step, 0.5)
        lm.zero_grad()
    assert agreement() > max(0.95, before)


def test_levels_have_their_own_learning_rates() -> None:
    lm = model(LevelConfig(StageConfig("T1"), StageConfig("T1"), lr_mult=0.5))
    optimizers = Optimizers(lm, OptimConfig())
    optimizers.step(0, 0.1)
    groups = [group for part in optimizers.parts for group in part.param_groups]
    rate = {optimizers.names[p]: group["lr"] for group in groups for p in group["params"]}
    assert set(rate) == {n for n, _ in lm.named_parameters()}
    assert rate["body.levels.0.router.q.weight"] == pytest.approx(0.5 * 0.1 * 0.04)
    assert rate["body.levels.0.encoder.blocks.0.attn_scale"] == pytest.approx(0.5 * 0.1 * 0.04)
    assert rate["body.main.blocks.0.attn.q.weight"] == pytest.approx(0.1 * 0.04)
    assert rate["embed.weight"] == pytest.approx(0.1 * 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 2])
def test_few_compilations(levels: int) -> None:
    """200 training steps with changing chunk counts: one compilation a stage and shape, at most 8 for each stage."""
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), router="cosine-bias", target_length=3.0)
    lm = model(*[level] * levels)
    compiled: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph

    torch._dynamo.reset()
    compile_stages(lm, "always", torch.device("cpu"), lambda event: None, count)
    seen: dict[str, set[torch.Size]] = {}
    for name, module in lm.named_modules():
        if isinstance(module, Stage):
            module.register_forward_pre_hook(lambda m, inputs, n=name: seen.setdefault(n, set()).add(inputs[0].shape))
    optimizers = Optimizers(lm, OptimConfig())
    generator = torch.Generator().manual_seed(0)
    for step in range(200):
        with torch.no_grad():  # the rate of boundaries goes from nearly all to nearly none
            for each in lm.body.levels:
                each.router.threshold.fill_(-6.0 + 12.0 * step / 200)
        ids_BL = torch.randint(4, 260, (2, 65), generator=generator)
        losses, _ = lm(ids_BL[:, :-1], ids_BL[:, 1:])
        losses.total.backward()
        optimizers.step(step, 0.01)
        lm.zero_grad()
    assert len(seen["body.main"]) >= 4
    assert max(map(len, seen.values())) <= 8
    assert len(compiled) <= sum(map(len, seen.values()))  # stages alike may share what is compiled


@pytest.mark.slow
def test_few_compilations_for_real() -> None:
    """By inductor: each chunk count that occurs compiles the main stage once; decoder and loss's halves once in all."""
    from torch._dynamo.testing import CompileCounterWithBackend
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        pytest.skip("needs a C++ compiler, with which torch.compile builds for the CPU")
    level = LevelConfig(None, StageConfig("c1"), router="cosine-bias", target_length=3.0)
    config = ModelConfig(**SMALL, levels=(level,), main=StageConfig("t1"))
    lm, eager = LM(config), LM(config)
    counter = CompileCounterWithBackend("inductor")
    torch._dynamo.reset()
    compile_stages(lm, "always", torch.device("cpu"), lambda event: None, counter)
    optimizers = Optimizers(lm, OptimConfig())
    generator = torch.Generator().manual_seed(0)
    rooms = set()
    for step, threshold in enumerate((-6.0, 6.0, 0.0) * 5):
        with torch.no_grad():  # nearly all positions are boundaries, nearly none, about half
            lm.body.levels[0].router.threshold.fill_(threshold)
        ids_BL = torch.randint(4, 260, (2, 65), generator=generator)
        losses, routings = lm(ids_BL[:, :-1], ids_BL[:, 1:])
        losses.total.backward()
        eager.load_state_dict(lm.state_dict())
        eager.zero_grad()
        expected, _ = eager(ids_BL[:, :-1], ids_BL[:, 1:])
        expected.total.backward()
        assert losses.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
        for (name, ours), theirs in zip(lm.named_parameters(), eager.parameters(), strict=True):
            if theirs.grad is not None:
                assert ours.grad is not None and torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5), name
        optimizers.step(step, 0.01)
        lm.zero_grad()
        longest = int(routings[0].chunks_B().max())
        rooms.add(min(room for share in COMPILED_SHARES if (room := round(64 * share)) >= longest))
    assert 3 <= len(rooms) <= len(COMPILED_SHARES) == 8
    assert counter.frame_count == len(rooms) + 1 + 2
