"""The parts of the family: what each setting does to shapes, counts and dependence, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from niblick.config.run_config import model_config, to_dict
from niblick.errors import ConfigError
from niblick.model.hnet import read_nested, write_nested
from niblick.model.lm import LM
from niblick.model.model_config import BlockConfig, EntropyConfig, LevelConfig, ModelConfig, NgramConfig, StageConfig
from niblick.model.ngrams import NgramEmbedding, WordEmbedding, hashed_table
from niblick.model.providers import Whitespace
from niblick.model.stage import Stage

SMALL: dict[str, Any] = {"width": 16, "heads": 2, "kv_heads": 1}


def rough(module: torch.nn.Module, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    module = module.double()
    for p in module.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return module


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def reach(stage: Stage, length: int) -> Tensor:
    """Which inputs (columns) change which outputs (rows)."""
    x_LD = torch.randn(1, length, 16, dtype=torch.float64)
    before = stage(x_LD)
    changed = []
    for t in range(length):
        other = x_LD.clone()
        other[0, t] += torch.randn(16)
        changed.append((stage(other) - before).abs().amax(-1)[0] > 1e-12)
    return torch.stack(changed, 1)


@pytest.mark.parametrize("layout", ["T2", "t2", "C2", "c2", "T1c1t1"])
def test_stages_are_causal(layout: str) -> None:
    stage = rough(Stage(StageConfig(layout), BlockConfig(**SMALL)))
    assert not reach(stage, 8).triu(1).any()


def test_a_parallel_block_reads_the_stream_twice() -> None:
    """Attention and MLP each add what they make of the same vectors; otherwise the MLP reads attention's sum."""
    stage = rough(Stage(StageConfig("T1", parallel=True), BlockConfig(**SMALL)))
    block, sums = stage.blocks[0], []
    hooks = [
        norm.register_forward_pre_hook(lambda _, x: sums.append(x[0])) for norm in (block.attn_norm, block.mlp_norm)
    ]
    stage(torch.randn(1, 5, 16, dtype=torch.float64))
    assert torch.equal(*sums)
    block.parallel = False
    stage(torch.randn(1, 5, 16, dtype=torch.float64))
    assert not torch.allclose(*sums[2:])
    assert len(hooks) == 2


def test_window_and_kernel_bound_what_is_seen() -> None:
    back = torch.arange(9)[:, None] - torch.arange(9)
    for stage, far in ((StageConfig("t1", window=3), 2), (StageConfig("c2", conv_kernel=3), 4)):
        seen = reach(rough(Stage(stage, BlockConfig(**SMALL))), 9)
        assert torch.equal(seen, (back >= 0) & (back <= far))


def test_shared_blocks_have_the_weights_of_one() -> None:
    shared = Stage(StageConfig("T6", unique=2, skips=False), BlockConfig(**SMALL))
    plain = Stage(StageConfig("T2", skips=False), BlockConfig(**SMALL))
    assert count(shared) == count(plain) and len(shared.blocks) == 2
    shared = rough(shared)
    unshared = Stage(StageConfig("T6", skips=False), BlockConfig(**SMALL)).double()
    for i, block in enumerate(unshared.blocks):
        block.load_state_dict(shared.blocks[i % 2].state_dict())
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    assert torch.equal(shared(x), unshared(x))
    with pytest.raises(ConfigError, match="do not repeat"):
        StageConfig("T2c2", unique=2)


@pytest.mark.parametrize(
    ("stage", "without"),
    [
        (StageConfig("T2", skips=False), ["skip_weights"]),
        (StageConfig("T2", residual_mix=False), ["resid_mix"]),
        (StageConfig("t2"), ["mlp"]),
    ],
)
def test_what_is_off_has_no_weights(stage: StageConfig, without: list[str]) -> None:
    names = list(Stage(stage, BlockConfig(**SMALL)).state_dict())
    assert not [n for n in names if any(w in n for w in without)]


def test_swiglu_has_two_ways_up() -> None:
    kinds = {mlp: count(Stage(StageConfig("T1", mlp=mlp), BlockConfig(**SMALL))) for mlp in ("relu2", "swiglu")}
    assert kinds["swiglu"] - kinds["relu2"] == 16 * 32


def test_factorized_embedding() -> None:
    model = LM(ModelConfig(**SMALL, embed_width=4, main=StageConfig("T1")))
    assert model.embed.weight.shape == (260, 4)
    assert model(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 260)


def test_ngrams_stop_at_a_bos() -> None:
    ngram = rough(NgramEmbedding(NgramConfig(3, 1000, 8), 16, bos_id=1))
    ids_BL = torch.tensor([[1, 40, 41, 42, 1, 41, 42, 43]])
    there_L = ngram(ids_BL)[0].abs().amax(-1) > 0
    assert there_L.tolist() == [False, False, True, True, False, False, True, True]
    other_BL = ids_BL.clone()
    other_BL[0, 1:4] = 50
    assert torch.equal(ngram(ids_BL)[0, 4:], ngram(other_BL)[0, 4:])


def words_before(text: bytes, t: int, n: int) -> tuple[bytes, ...] | None:
    """What a table of n words looks up at byte t: the word so far, or what stands between, and n − 1 words before."""
    document = text[text.rfind(b"\x00", 0, t + 1) + 1 : t + 1]
    current = re.search(rb"[a-z0-9\x80-\xff]*\Z", document.lower())[0]  # type: ignore[index]
    words = re.findall(rb"[a-z0-9\x80-\xff]+", document[: len(document) - len(current)].lower())
    return (current or b" " + text[t : t + 1], *words[len(words) - n + 1 :]) if len(words) >= n - 1 else None


@pytest.mark.parametrize("n", [1, 2, 3])
def test_ngrams_of_words(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two positions have one hash if and only if they have the same words."""
    text = b"The fox, the Fox.  THE fox\nand 12 caf\xc3\xa9s: caf\xc3\xa9 the\x00 the fox and\x00\x00the fox, the"
    monkeypatch.setattr(WordEmbedding, "added", lambda self, hashed, whole: torch.where(whole, hashed, 0))
    table = hashed_table(NgramConfig(n, 1000, 8, words=True), 16, 1, 260)
    ids_BL = torch.tensor([[b + 4 if b else 1 for b in text]])
    hashes = table(ids_BL)[0].tolist()
    keys = [words_before(text, t, n) for t in range(len(text))]
    assert [h != 0 for h in hashes] == [key is not None for key in keys]
    assert len({*zip(hashes, keys, strict=True)}) == len(set(hashes)) == len(set(keys)) > 10


def test_ngrams_of_words_need_bytes() -> None:
    with pytest.raises(ConfigError, match="vocab_size=1024 is no byte vocabulary"):
        LM(ModelConfig(**SMALL, vocab_size=1024, ngrams=(NgramConfig(1, 50, 8, words=True),)))
    with pytest.raises(ConfigError, match="n=1 must be between 2 and 8"):
        NgramConfig(1, 50, 8)


def test_nested_layouts() -> None:
    nested = ["T2", ["c1T1", ["T4"], "T1c1"], "T3"]
    levels, main = read_nested(nested, LevelConfig(target_length=4.0))
    assert [level.encoder for level in levels] == [StageConfig("T2"), StageConfig("c1T1")]
    assert levels[0].decoder == StageConfig("T3") and levels[1].target_length == 4.0
    assert write_nested(levels, main) == nested
    assert write_nested((), StageConfig("T9")) == ["T9"] and read_nested(["T9"]) == ((), StageConfig("T9"))
    for wrong in ([], ["T2", ["T4"]], ["T2", "T4", "T2"], ["T2", ["T2", [], "T1"], "T2"]):
        with pytest.raises(ConfigError, match="neither"):
            read_nested(wrong)


TEXT = torch.randint(4, 260, (3, 48), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", ["T2", "c2T1", "C2"])
@pytest.mark.parametrize("levels", [1, 2])
def test_capacities_agree(layout: str, levels: int) -> None:
    """Bucketed, packed and a divisor that drops nothing: the same loss and gradients."""
    found: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}
    for capacity in ("bucketed", "packed", "divisor:1"):
        inner = LevelConfig(StageConfig("T1"), StageConfig("T1"), capacity=capacity, bucket=4)
        outer = replace(inner, capacity="bucketed" if capacity == "packed" else capacity)
        config = ModelConfig(**SMALL, levels=(outer, inner)[2 - levels :], main=StageConfig(layout, window=5))
        torch.manual_seed(0)
        model = rough(LM(config))
        losses, _ = model(TEXT[:, :-1], TEXT[:, 1:])
        losses.total.backward()
        found[capacity] = losses.total, {n: p.grad for n, p in model.named_parameters()}
    for capacity in ("packed", "divisor:1"):
        assert torch.allclose(found[capacity][0], found["bucketed"][0], rtol=1e-12)
        for name, gradient in found["bucketed"][1].items():
            assert torch.allclose(found[capacity][1][name], gradient, rtol=1e-8, atol=1e-12), name


def test_a_divisor_drops_what_has_no_room() -> None:
    model = rough(
        LM(ModelConfig(**SMALL, levels=(LevelConfig(router="fixed", target_length=2.0, capacity="divisor:4"),)))
    )
    _, routings = model.hidden(TEXT)
    assert routings[0].chunks_B().tolist() == [12, 12, 12] and routings[0].dropped_B().tolist() == [12, 12, 12]


def test_wider_inside_is_padded_by_a_learned_vector() -> None:
    model = LM(ModelConfig(**SMALL, levels=(LevelConfig(),), main=StageConfig("T1", width=24)))
    pad = model.body.levels[0].pad
    assert pad.shape == (8,)
    model = rough(model)
    losses, _ = model(TEXT[:, :-1], TEXT[:, 1:])
    losses.total.backward()
    assert pad.grad is not None and pad.grad.abs().min() > 0


def test_whitespace_starts() -> None:
    provider, text = Whitespace(260), "Hi,  you: é 12\nx"
    ids_BL = torch.tensor([[1, *(b + 4 for b in text.encode())]])
    starts = [text.encode()[i - 1 :].decode()[:1] if i else "BOS" for i in provider(ids_BL)[0].nonzero()[:, 0].tolist()]
    assert starts == ["BOS", ",", ":", " ", "\n"]  # the é after a space is space-like itself, so no new run starts
    with pytest.raises(ConfigError, match="no byte vocabulary"):
        Whitespace(1024)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StageConfig("T2x3"), "unknown block 'x' \\(character 3\\)"),
        (lambda: StageConfig("T2-"), "at '-' \\(character 3\\)"),
        (lambda: StageConfig("T2", unique=3), "unique=3"),
        (lambda: BlockConfig(mlp="relu"), "unknown mlp 'relu' \\(nearest: relu2"),
        (lambda: BlockConfig(window=-1), "window=-1"),
        (lambda: BlockConfig(rope_fraction=1.5), "rope_fraction"),
        (lambda: LevelConfig(target_length=1.0), "target_length=1.0"),
        (lambda: LevelConfig(router="cosin"), "unknown router 'cosin' \\(nearest: cosine"),
        (lambda: LevelConfig(capacity="divisor:0"), "divisor:k"),
        (lambda: LevelConfig(dechunk="smoth"), "nearest: smooth"),
        (lambda: ModelConfig(**SMALL, levels=(LevelConfig(),), main=StageConfig("T1", width=8)), "main has width 8"),
        (lambda: ModelConfig(**SMALL, levels=(LevelConfig(width=32), LevelConfig())), "levels.1 has width 16"),
        (
            lambda: ModelConfig(**SMALL, levels=(LevelConfig(width=32),), main=StageConfig("T1", width=32)),
            "set width=32",
        ),
        (lambda: ModelConfig(**SMALL, levels=(LevelConfig(StageConfig("T1", width=32)),)), "set levels.0.width"),
        (lambda: ModelConfig(**SMALL, levels=(LevelConfig(), LevelConfig(router="given"))), "outermost"),
        (lambda: ModelConfig(**SMALL, levels=(LevelConfig(capacity="packed"), LevelConfig())), "innermost"),
        (lambda: ModelConfig(**SMALL, levels=(LevelConfig(), LevelConfig(capacity="divisor:2"))), "needs a divisor"),
        (lambda: LM(ModelConfig(**SMALL, levels=(LevelConfig(router="entropy"),))), "entropy.artifact=FILE"),
        (
            lambda: ModelConfig(**SMALL, levels=(LevelConfig(),), entropy=EntropyConfig(ModelConfig(**SMALL))),
            "only the router 'entropy'",
        ),
        (lambda: ModelConfig(**SMALL, vocab_size=1024, levels=(LevelConfig(router="whitespace"),)), "no byte vocab"),
        (lambda: ModelConfig(**SMALL, embed_width=17), "embed_width=17"),
        (lambda: NgramConfig(n=1), "n=1"),
        (
            lambda: ModelConfig(
                **SMALL,
                levels=(LevelConfig(router="entropy"),),
                entropy=EntropyConfig(ModelConfig(**SMALL, vocab_size=300)),
            ),
            "same tokens",
        ),
    ],
)
def test_refusals(build: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_configs_come_back_from_plain_data() -> None:
    """Every field of the family, small models inside models included, survives JSON."""
    level = LevelConfig(None, StageConfig("C1", window=4), router="entropy", capacity="divisor:2", lr_mult=0.5)
    config = ModelConfig(
        **SMALL,
        levels=(level, LevelConfig(width=24, capacity="divisor:2")),
        main=StageConfig("T4", width=32, unique=2, skips=False),
        ngrams=(NgramConfig(2, 100, 8),),
        entropy=EntropyConfig(ModelConfig(**SMALL, main=StageConfig("T1")), 1.5),
    )
    assert model_config(json.loads(json.dumps(to_dict(config)))) == config
    names = [name for name, _ in LM(config).named_parameters()]
    assert any(name.startswith("provider.lm.") for name in names)  # the small model is part of what is packed


def test_nothing_looks_ahead() -> None:
    """A change of one token changes no logits before it: two levels, every capacity, n-grams."""
    inner = LevelConfig(StageConfig("T1"), StageConfig("c1"), capacity="packed", target_length=2.0)
    config = ModelConfig(
        **SMALL,
        levels=(LevelConfig(), inner),
        ngrams=(NgramConfig(3, 50, 8), NgramConfig(2, 50, 8, words=True)),
        main=StageConfig("C1"),
    )
    model = rough(LM(config))
    ids_BL, other_BL = TEXT[:1], TEXT[:1].clone()
    other_BL[0, 20] = 7
    with torch.no_grad():
        changed_L = (model(ids_BL) - model(other_BL)).abs().amax(-1)[0] > 1e-12
    assert not changed_L[:20].any() and changed_L[20]
