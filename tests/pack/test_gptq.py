"""GPTQ against a slow float64 loop; Hessians against runs without filling; both on a trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
from torch import Tensor

from niblick.config.run_config import override
from niblick.data.dataset import Split
from niblick.data.loader import Batches
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError, DataError
from niblick.model.lm import LM
from niblick.model.model_config import EntropyConfig, LevelConfig, ModelConfig, NgramConfig, StageConfig
from niblick.pack.export_config import ExportConfig
from niblick.pack.gptq import column_weights, gptq_codes
from niblick.pack.grid import Grid, code_entropy, fit_grid
from niblick.pack.hessians import calibrate, calibrate_quantized, calibration_batches
from niblick.pack.quantize import pack, quantize
from niblick.pack.schemes import parse_scheme
from niblick.recipes.presets import PRESETS, get_preset
from niblick.train.optim import Optimizers
from niblick.train.settings import OptimConfig

ROWS, COLUMNS = 24, 40


def correlated(columns: int = COLUMNS, seed: int = 0, samples: int = 400) -> Tensor:
    """The Hessian of inputs that depend on each other and differ in size."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    scale = torch.logspace(-1, 1, columns, dtype=torch.float64)[torch.randperm(columns, generator=generator)]
    x = torch.randn(samples, columns, generator=generator, dtype=torch.float64) @ mix * scale
    return x.t() @ x / samples


def matrix(seed: int = 0, rows: int = ROWS, columns: int = COLUMNS) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def slow_codes(weights_RC: Tensor, grid: Grid, hessian_CC: Tensor, damping: float) -> Tensor:
    """GPTQ as published, without blocks and Cholesky: the whole inverse, shrunk by elimination column by column."""
    columns = weights_RC.shape[1]
    step_RC = grid.step_RC().double().expand(weights_RC.shape)
    damped_CC = hessian_CC.double() + damping * hessian_CC.diagonal().mean() * torch.eye(columns)
    inverse_CC = torch.linalg.inv(damped_CC)
    moved_RC, codes_RC = weights_RC.double().clone(), torch.zeros(weights_RC.shape)
    for j in hessian_CC.diagonal().argsort(descending=True, stable=True).tolist():
        code_R = (moved_RC[:, j] / step_RC[:, j]).round().clamp(-grid.levels, grid.levels)
        error_R = (moved_RC[:, j] - code_R * step_RC[:, j]) / inverse_CC[j, j]
        moved_RC -= error_R[:, None] * inverse_CC[j]
        inverse_CC -= torch.outer(inverse_CC[:, j], inverse_CC[j]) / inverse_CC[j, j]
        inverse_CC[j] = inverse_CC[:, j] = 0
        inverse_CC[j, j] = 1
        codes_RC[:, j] = code_R.float()
    return codes_RC


def row_errors(error_RC: Tensor, hessian_CC: Tensor) -> Tensor:
    """Return eᵀ H e of each row, (R,) float64: the mean squared error of each output."""
    error_RC = error_RC.double()
    return (error_RC @ hessian_CC.double() * error_RC).sum(1)


def errors(weights_RC: Tensor, codes_RC: Tensor, grid: Grid, hessian_CC: Tensor) -> Tensor:
    return row_errors(weights_RC - codes_RC * grid.step_RC(), hessian_CC)


SCHEMES = ["int6", "int4:column", "int3:g16", "int4:tensor", "int4:column:g7:log", "ternary", "ecsq3", "ecsq4:column"]


@pytest.mark.parametrize("block", [1, 7, 128])
@pytest.mark.parametrize("text", SCHEMES)
def test_codes_are_those_of_the_slow_loop(text: str, block: int) -> None:
    hessian_CC, weights_RC = correlated(), matrix()
    grid = fit_grid(weights_RC, parse_scheme(text))
    found = gptq_codes(weights_RC.double(), grid, hessian_CC, block=block)
    slow, plain = slow_codes(weights_RC, grid, hessian_CC, 0.01), grid.codes(weights_RC)
    better_R = errors(weights_RC, slow, grid, hessian_CC) < errors(weights_RC, plain, grid, hessian_CC)
    assert torch.equal(found.float(), torch.where(better_R[:, None], slow, plain))
    assert bool(better_R.float().mean() > 0.8)  # the plain rows must not be what is compared


@pytest.mark.parametrize("text", SCHEMES)
@pytest.mark.parametrize("seed", range(4))
def test_no_row_is_worse_and_the_whole_is_better(text: str, seed: int) -> None:
    hessian_CC, weights_RC = correlated(seed=seed).float(), matrix(seed)
    grid = fit_grid(weights_RC, parse_scheme(text), column_weights(hessian_CC))
    codes_RC = gptq_codes(weights_RC, grid, hessian_CC)
    assert torch.equal(codes_RC, codes_RC.round()) and float(codes_RC.abs().max()) <= grid.levels
    found_R = errors(weights_RC, codes_RC, grid, hessian_CC)
    plain_R = errors(weights_RC, grid.codes(weights_RC), grid, hessian_CC)
    assert bool((found_R <= plain_R).all())
    assert float(found_R.sum()) < 0.8 * float(plain_R.sum())


def test_neither_autocast_nor_inference_mode_matters() -> None:
    hessian_CC, weights_RC = correlated().float(), matrix()
    grid = fit_grid(weights_RC, parse_scheme("int4"))
    codes_RC = gptq_codes(weights_RC, grid, hessian_CC, block=8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(gptq_codes(weights_RC, grid, hessian_CC, block=8), codes_RC)
    with torch.inference_mode():
        assert torch.equal(gptq_codes(weights_RC, grid, hessian_CC.clone(), block=8), codes_RC)


def test_a_hessian_that_changes_is_factored_anew() -> None:
    hessian_CC, weights_RC = correlated().float(), matrix()
    grid = fit_grid(weights_RC, parse_scheme("int4"))
    before, same = (gptq_codes(weights_RC, grid, hessian_CC) for _ in range(2))
    assert torch.equal(before, same)
    hessian_CC.copy_(correlated(seed=5))
    after = gptq_codes(weights_RC, grid, hessian_CC)
    assert torch.equal(after, gptq_codes(weights_RC, grid, correlated(seed=5).float()))
    assert not torch.equal(after, before)


def test_a_diagonal_hessian_changes_nothing() -> None:
    weights_RC = matrix()
    grid = fit_grid(weights_RC, parse_scheme("int4"))
    codes_RC = gptq_codes(weights_RC, grid, torch.linspace(0.1, 9, COLUMNS).diag())
    assert torch.equal(codes_RC, grid.codes(weights_RC))


def test_inputs_that_never_come_are_rounded_plainly() -> None:
    hessian_CC, weights_RC = correlated(), matrix()
    dead = [3, 17, 39]
    hessian_CC[dead] = hessian_CC[:, dead] = 0
    grid = fit_grid(weights_RC, parse_scheme("int4"))
    codes_RC, notes = gptq_codes(weights_RC, grid, hessian_CC, tell=(notes := []).append), notes
    plain_RC = grid.codes(weights_RC)
    assert torch.equal(codes_RC[:, dead], plain_RC[:, dead]) and not torch.equal(codes_RC, plain_RC)
    assert not notes


def test_singular_hessians_fall_back_and_say_so() -> None:
    weights_RC = matrix()
    grid = fit_grid(weights_RC, parse_scheme("int4"))
    few = correlated(samples=10)  # of rank 10
    notes: list[str] = []
    damped_RC = gptq_codes(weights_RC, grid, few, damping=0.0, tell=notes.append)
    assert len(notes) == 1 and "singular" in notes[0] and "damped by" in notes[0]
    assert float(errors(weights_RC, damped_RC, grid, few).sum()) < float(
        errors(weights_RC, grid.codes(weights_RC), grid, few).sum()
    )
    assert not gptq_notes(weights_RC, grid, few)  # the usual damping copes
    for hessian_CC, word in (
        (torch.zeros(COLUMNS, COLUMNS), "all zero"),
        (torch.full((COLUMNS, COLUMNS), torch.nan), "not finite"),
        (correlated() - 1e4 * torch.eye(COLUMNS), "plain rounding"),
        (9 * torch.eye(COLUMNS).flip(0) + torch.eye(COLUMNS), "plain rounding"),
    ):
        notes = gptq_notes(weights_RC, grid, hessian_CC)
        assert len(notes) == 1 and word in notes[0] and "plain rounding" in notes[0]
        assert torch.equal(gptq_codes(weights_RC, grid, hessian_CC), grid.codes(weights_RC))


def gptq_notes(weights_RC: Tensor, grid: Grid, hessian_CC: Tensor) -> list[str]:
    notes: list[str] = []
    gptq_codes(weights_RC, grid, hessian_CC, tell=notes.append)
    return notes


def test_a_hessian_of_another_matrix_is_refused() -> None:
    grid = fit_grid(matrix(), parse_scheme("int4"))
    with pytest.raises(ConfigError, match=r"\[41, 41\] was given for weights of 40 columns"):
        gptq_codes(matrix(), grid, correlated(41))


def test_pruned_weights_stay_zero_and_are_made_up_for() -> None:
    weights_RC, hessian_CC = matrix(), correlated().float()
    plain = quantize("w", weights_RC, parse_scheme("int6"), 0.3)
    found = quantize("w", weights_RC, parse_scheme("int6"), 0.3, hessian=hessian_CC)
    smallest = weights_RC.abs().flatten().topk(int(0.3 * weights_RC.numel()), largest=False).indices
    assert not found.parts["codes"].flatten()[smallest.numpy()].any()
    plain_R, found_R = (row_errors(e.dequantize() - weights_RC, hessian_CC) for e in (plain, found))
    assert float(found_R.sum()) < 0.8 * float(plain_R.sum())


def test_column_steps_by_the_hessian_beat_one_step_at_equal_entropy() -> None:
    weights_RC, hessian_CC = matrix(rows=400), correlated().float()
    even = quantize("w", weights_RC, parse_scheme("ecsq4"), hessian=hessian_CC)
    column = quantize("w", weights_RC, parse_scheme("ecsq4:column"), hessian=hessian_CC)
    for encoded in (even, column):
        assert abs(code_entropy(torch.from_numpy(encoded.parts["codes"]).float().flatten()) - 4) < 0.05
    even_R, column_R = (row_errors(e.dequantize() - weights_RC, hessian_CC) for e in (even, column))
    assert float(column_R.sum()) < 0.8 * float(even_R.sum())


def randomized(config: ModelConfig, seed: int = 0) -> LM:
    """A model whose output maps are not zero, so that all inputs differ."""
    torch.manual_seed(seed)
    model = LM(config)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


INNER = LevelConfig(StageConfig("T1"), StageConfig("C1"), bucket=8, target_length=3.0)
NARROW = ModelConfig(width=16, heads=2, kv_heads=1, levels=(INNER,), main=StageConfig("T2"))


def ids(rows: int = 5, length: int = 48) -> Tensor:
    return torch.randint(4, 260, (rows, length), generator=torch.Generator().manual_seed(1))


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.allclose(found[n], expected[n], rtol=2e-4, atol=2e-5 * float(expected[n].abs().max())) for n in expected
    )


@pytest.mark.parametrize("capacity", ["bucketed", "packed"])
@pytest.mark.parametrize("levels", [1, 2])
def test_filling_does_not_count(capacity: str, levels: int) -> None:
    """Rows of different chunk counts together, against each row alone with room for its own chunks only."""
    inside = tuple(replace(INNER, capacity=capacity if i + 1 == levels else "bucketed") for i in range(levels))
    model = randomized(replace(NARROW, levels=inside))
    alone = LM(replace(NARROW, levels=tuple(replace(INNER, bucket=1) for _ in range(levels))))
    alone.load_state_dict(model.state_dict())
    _, routings = model.hidden(ids())
    assert len(set(routings[0].chunks_B().tolist())) > 1  # else there is no filling to leave out
    assert close(calibrate(model, [ids()]), calibrate(alone, list(ids().split(1))))


def test_chunks_past_a_capacity_do_not_count() -> None:
    model = randomized(replace(NARROW, levels=(replace(INNER, capacity="divisor:2"),)))
    seen: list[Tensor] = []
    model.body.main.blocks[0].attn.q.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    hessian = calibrate(model, [ids()])["body.main.blocks.0.attn.q.weight"]
    count_B = model.hidden(ids())[1][0].chunks_B()
    assert int(count_B.min()) < seen[0].shape[1]  # some rows do not fill their room
    x_ND = torch.cat([x_CD[:n] for x_CD, n in zip(seen[0], count_B.tolist(), strict=True)])
    assert torch.allclose(hessian, x_ND.t() @ x_ND / len(x_ND), rtol=1e-4, atol=1e-5)


def test_the_head_and_factorized_embeddings() -> None:
    for model in (randomized(NARROW), randomized(replace(NARROW, embed_width=8))):
        h_ND = model.hidden(ids())[0].flatten(0, 1).detach()
        if model.embed_up is not None:
            h_ND = h_ND @ model.embed_up.weight
        found = calibrate(model, [ids()])["embed.weight"]
        assert torch.allclose(found, (h_ND.t() @ h_ND / len(h_ND)).detach(), rtol=1e-4, atol=1e-5)
    untied = randomized(replace(NARROW, tie_embeddings=False, ngrams=(NgramConfig(rows=32, width=8),)))
    found = calibrate(untied, [ids()])
    assert "unembed.weight" in found and found["ngrams.0.out.weight"].shape == (8, 8)
    assert "embed.weight" not in found and "ngrams.0.table.weight" not in found


def test_maps_with_one_input_share_one_hessian() -> None:
    found = calibrate(randomized(replace(NARROW, main=StageConfig("T4", unique=2))), [ids(), ids()[:, :32]])
    for block in ("body.main.blocks.0", "body.main.blocks.1", "body.levels.0.encoder.blocks.0"):
        q, k, v, out = (found[f"{block}.attn.{name}.weight"] for name in ("q", "k", "v", "out"))
        assert q is k and q is v and q is not out
    assert found["body.levels.0.router.q.weight"] is found["body.levels.0.router.k.weight"]


def test_blocks_used_twice_see_both_inputs() -> None:
    model = randomized(replace(NARROW, levels=(), main=StageConfig("T2", unique=1, skips=False)))
    seen: list[Tensor] = []
    model.body.main.blocks[0].mlp.up.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    found = calibrate(model, [ids()])["body.main.blocks.0.mlp.up.weight"]
    x_ND = torch.cat(seen).flatten(0, 1)
    assert len(seen) == 2 and torch.allclose(found, x_ND.t() @ x_ND / len(x_ND), rtol=1e-4, atol=1e-5)


def test_a_model_inside_has_hessians_too() -> None:
    small = ModelConfig(width=8, heads=2, kv_heads=1, main=StageConfig("T1"))
    level = replace(INNER, router="entropy")
    model = randomized(replace(NARROW, levels=(level,), entropy=EntropyConfig(small, 5.4)))
    found = calibrate(model, [ids()])
    alone = calibrate(model.provider.lm, [ids()])  # type: ignore[union-attr]
    assert close(
        {n: h for n, h in found.items() if n.startswith("provider.")}, {f"provider.lm.{n}": h for n, h in alone.items()}
    )


def without_hessian(name: str) -> bool:
    """What no linear map multiplies with: stacks of vectors, taps of convolutions, tables that are looked up."""
    return name.endswith(("resid_mix", "skip_weights", "conv.weight")) or ".table." in name


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_covered(name: str) -> None:
    shape = ["model.width=32", "model.heads=2", "model.kv_heads=1", "model.vocab_size=260"]
    model = randomized(override(get_preset(name), shape).model)
    found = calibrate(model, [ids(2, 32)])
    matrices = {n: w for n, w in model.state_dict().items() if w.ndim >= 2}
    assert {n for n in matrices if not without_hessian(n)} == set(found)
    assert all(h.shape == (matrices[n].shape[1],) * 2 for n, h in found.items())


def split(name: str, text: str, **hashes: str) -> Split:
    tokens = np.concatenate(([1], ByteTokenizer().encode_batch([text])[0])).astype(np.uint16)
    return Split(name, [Path("memory")], [tokens], **hashes)  # type: ignore[arg-type]


TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, " * 40


def test_validation_text_is_refused() -> None:
    train, val = split("train", TEXT, text_hash="a", stream_hash="b"), split("val", TEXT, text_hash="c")
    settings = {"vocab_size": 260, "seq_len": 64, "tokens": 512}
    assert calibration_batches(train, val, **settings)[0].shape == (8, 64)
    with pytest.raises(ConfigError, match="is the validation split: give the train split"):
        calibration_batches(val, val, **settings)
    for key, word in (("text_hash", "text"), ("stream_hash", "tokens")):
        with pytest.raises(ConfigError, match=f"holds the same {word} as the validation split"):
            calibration_batches(train, replace(val, **{key: getattr(train, key)}), **settings)
    with pytest.raises(DataError, match="prepare more text or choose a shorter seq_len"):
        calibration_batches(train, val, **(settings | {"seq_len": 9_999}))
    with pytest.raises(ConfigError, match="no batch was given"):
        calibrate(LM(NARROW), [])


def test_batches_come_from_all_over_the_split_and_are_the_same_every_time() -> None:
    train, val = split("train", TEXT), split("val", "x")
    settings = {"vocab_size": 260, "seq_len": 32}
    every = calibration_batches(train, val, tokens=1 << 20, **settings)
    assert sum(b.numel() for b in every) <= train.tokens  # a split is not read twice
    some = torch.cat(calibration_batches(train, val, tokens=1_024, **settings))
    assert some.shape == (32, 32)
    assert torch.equal(some, torch.cat(calibration_batches(train, val, tokens=1_024, **settings)))
    tokens = torch.from_numpy(train.slice(0, train.tokens).astype(np.int64))
    assert not torch.equal(some.flatten(), tokens[: some.numel()])  # not just the beginning


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "int6", "gptq": "flaot"}, "unknown export.gptq='flaot'.*float"),
        ({"gptq": "float"}, "rounds to grids, and export.scheme=int8-published has none"),
        ({"scheme": "int6", "gptq": "float", "calibration_tokens": 0}, "calibration_tokens=0 must be at least 1"),
        ({"scheme": "int6", "gptq": "float", "damping": -1.0}, "damping=-1.0 must not be negative"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExportConfig(**settings)  # type: ignore[arg-type]


def test_packing_with_hessians() -> None:
    model = randomized(replace(NARROW, tie_embeddings=False))
    state = dict(model.state_dict())
    config = ExportConfig("int4", rules=("embed.weight=int4",), gptq="float")
    assert config.name == "int4-mixed-gptq+zlib"
    with pytest.raises(ConfigError, match="needs Hessians"):
        pack(state, config)
    hessians, notes = calibrate(model, [ids()]), {}
    packed = pack(state, config, hessians=hessians, tell=notes.__setitem__)
    assert notes == {"embed.weight": "it has no Hessian: plain rounding"}
    assert torch.equal(
        packed["embed.weight"].dequantize(), pack(state, replace(config, gptq="off"))["embed.weight"].dequantize()
    )


def test_inputs_from_the_quantized_model_are_what_the_packed_model_sees() -> None:
    """Whatever stands before a layer is quantized when its inputs are collected: collecting again changes nothing."""
    config = ExportConfig("int3", rules=("*weight=int3",), gptq="quantized")
    assert config.name == "int3-mixed-gptq.quantized+zlib"
    for shape in (NARROW, replace(NARROW, levels=(), main=StageConfig("T3"), embed_width=8)):
        model = randomized(shape)
        state = {name: w.clone() for name, w in model.state_dict().items()}
        hessians = calibrate_quantized(model, [ids()], config)
        assert all(torch.equal(w, state[name]) for name, w in model.state_dict().items())
        packed = LM(shape)
        packed.load_state_dict({n: e.dequantize() for n, e in pack(state, config, hessians=hessians).items()})
        again = calibrate(packed, [ids()])
        blocks = [n for n in hessians if ".blocks." in n and "attn.q" in n]
        assert len(blocks) > 2
        for name in blocks:  # inside a block, maps are quantized together
            assert torch.allclose(again[name], hessians[name], rtol=1e-3, atol=1e-4 * float(again[name].max())), name
        assert not close(hessians, calibrate(model, [ids()]))


@pytest.mark.slow
def test_on_a_trained_model() -> None:
    """Strictly below plain rounding in every map, and a better score, at a few bits."""
    text = "\n".join(text for _, text in sorted(topics.items()))  # what Python's help() says: English, and code
    train, val = split("train", text[20_000:]), split("val", text[:20_000])
    held_BL = torch.from_numpy(val.slice(0, 129 * 150).astype(np.int64)).view(-1, 129)
    torch.manual_seed(0)
    config = ModelConfig(width=64, heads=2, kv_heads=1, levels=(INNER,), main=StageConfig("T2"))
    model = LM(config)
    optimizers = Optimizers(model, OptimConfig(matrix_lr=0.02, vector_lr=0.01, embed_lr=0.01, muon_momentum_steps=20))
    batches = Batches(train, vocab_size=260, seq_len=128, rows=16, order="shuffle")
    for step in range(120):
        model.zero_grad()
        losses, _ = model(*batches.next())
        losses.total.backward()
        optimizers.step(step, min(1.0, (120 - step) / 60))
    hessians = calibrate(model, calibration_batches(train, val, vocab_size=260, seq_len=128, tokens=16_384))
    state = {name: w.clone() for name, w in model.state_dict().items()}

    def score(packed: dict[str, Tensor]) -> float:
        model.load_state_dict(packed)
        with torch.no_grad():
            return float(model.token_losses(model.hidden(held_BL[:, :-1])[0], held_BL[:, 1:]).mean())

    assert score(state) < 2.6  # nats a byte: it has learned more than how often each byte comes (about 3.2)
    for scheme in ("int4", "int3", "ecsq3:column"):
        plain = pack(state, ExportConfig(scheme))
        gptq = pack(state, ExportConfig(scheme, gptq="float"), hessians=hessians)
        below = []
        for name, encoded in gptq.items():
            if encoded.scheme == "grid" and name in hessians:
                weights = state[name]
                grid = fit_grid(weights, parse_scheme(scheme), column_weights(hessians[name]))
                plain_R = errors(weights, grid.codes(weights), grid, hessians[name])
                found_R = row_errors(encoded.dequantize() - weights, hessians[name])
                assert bool((found_R <= plain_R).all()), name
                assert float(found_R.sum()) < float(plain_R.sum()), name
                below.append(name)
        assert len(below) == 18  # all but k and v, which are so small that they stay fp16
        unpacked = [{n: e.dequantize() for n, e in packed.items()} for packed in (plain, gptq)]
        assert score(unpacked[1]) < score(unpacked[0]), scheme
