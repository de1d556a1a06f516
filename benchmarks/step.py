"""Whole training steps against the same model written the plain way: eager PyTorch under bfloat16 autocast.

Same weights, batch, threads, optimizer and `smooth`. The plain way is what one writes first: a stream that autocast
leaves in float32, float32 rotary tables made anew in each block, a Python loop that gathers chunks, logits of the whole
batch at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hnet import CPU, DTYPE, batch
from measure import Row, compare
from niblick.model.chunking import smooth
from niblick.model.layers import TransformerBlock
from niblick.model.level import Level
from niblick.model.lm import LM
from niblick.model.stage import Stage
from niblick.recipes.presets import get_preset
from niblick.train.optim import Optimizers
from niblick.train.precision import DTYPES, autocast
from niblick.train.settings import OptimConfig


def norm(x_D: Tensor) -> Tensor:
    return x_D / torch.sqrt(x_D.pow(2).mean(-1, keepdim=True) + torch.finfo(x_D.dtype).eps)


def turned(x_BHLK: Tensor, base: float) -> Tensor:
    _, _, L, K = x_BHLK.shape
    angle_LK = torch.outer(torch.arange(L).float(), base ** (-torch.arange(0, K, 2).float() / K))
    cos, sin = angle_LK.cos(), angle_LK.sin()
    x1, x2 = x_BHLK[..., : K // 2], x_BHLK[..., K // 2 :]
    return torch.cat((x1 * cos + x2 * sin, x2 * cos - x1 * sin), dim=-1)


def plain_block(block: TransformerBlock, x_BLD: Tensor, x0_BLD: Tensor, base: float) -> Tensor:
    a = block.attn
    x_BLD = block.resid_mix[0] * x_BLD + block.resid_mix[1] * x0_BLD
    y_BLD = norm(x_BLD)
    B, L, D = y_BLD.shape
    q, k, v = (f(y_BLD).view(B, L, -1, a.head_width).transpose(1, 2) for f in (a.q, a.k, a.v))
    q, k = turned(norm(q), base) * a.q_gain[:, None, None], turned(norm(k), base)
    k, v = (x.repeat_interleave(a.heads // a.kv_heads, 1) for x in (k, v))
    out = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
    x_BLD = x_BLD + block.attn_scale * a.out(out.transpose(1, 2).reshape(B, L, D))
    return x_BLD + block.mlp_scale * block.mlp.down(F.relu(block.mlp.up(norm(x_BLD))) ** 2)


def plain_stage(stage: Stage, x_BLD: Tensor) -> Tensor:
    x_BLD = x0_BLD = norm(x_BLD) if stage.norm is not None else x_BLD
    pushed: list[Tensor] = []
    for i in range(len(stage.layout)):
        if i >= stage.skips and pushed:
            x_BLD = x_BLD + stage.skip_weights[i - stage.skips] * pushed.pop()
        x_BLD = plain_block(stage.blocks[i % len(stage.blocks)], x_BLD, x0_BLD, stage.rope_base)
        if i < stage.skips:
            pushed.append(x_BLD)
    return norm(x_BLD)


def slowed(x_BLD: Tensor, factor: float) -> Tensor:
    """The same value, its gradient times `factor`."""
    return x_BLD * factor + (x_BLD * (1 - factor)).detach()


def plain_loss(model: LM, ids_BL: Tensor, targets_BL: Tensor) -> Tensor:
    """The training loss of a one-level H-Net of transformer blocks; the weights are the model's own."""
    level = model.body.levels[0]
    assert isinstance(level, Level)
    x_BLD = plain_stage(level.encoder, norm(model.embed(ids_BL)))
    q_BLD, k_BLD = level.router.q(x_BLD), level.router.k(x_BLD)
    p_BL = 0.5 * (1 - F.cosine_similarity(q_BLD[:, 1:].float(), k_BLD[:, :-1].float(), dim=-1))
    p_BL = F.pad(p_BL, (1, 0), value=1.0)
    boundary_BL = p_BL >= 0.5
    rows = [row.nonzero()[:, 0] for row in boundary_BL]
    chunks_BCD = torch.nn.utils.rnn.pad_sequence([x_BLD[b, at] for b, at in enumerate(rows)], batch_first=True)
    p_BC = torch.nn.utils.rnn.pad_sequence([p_BL[b, at] for b, at in enumerate(rows)], batch_first=True)
    factor = level.config.lr_diff
    chunks_BCD = slowed(chunks_BCD, 1 / factor)
    z_BCD = smooth(plain_stage(model.body.main, chunks_BCD), p_BC)
    at_BL = boundary_BL.cumsum(1) - 1
    spread_BLD = z_BCD.gather(1, at_BL[..., None].expand(-1, -1, z_BCD.shape[-1]))
    sure_BL = torch.where(boundary_BL, p_BL, 1 - p_BL)
    spread_BLD = spread_BLD * (1 + sure_BL - sure_BL.detach())[..., None]
    x_BLD = plain_stage(level.decoder, slowed(spread_BLD + level.residual(x_BLD), factor))
    logits = model.config.softcap * torch.tanh(F.linear(x_BLD, model.embed.weight).float() / model.config.softcap)
    loss = F.cross_entropy(logits.flatten(0, 1), targets_BL.flatten())
    f, g, n = boundary_BL.float().mean(1), p_BL.mean(1), level.config.target_length
    ratio = (n / (n - 1) * ((n - 1) * f * g + (1 - f) * (1 - g))).mean()
    return loss + level.config.ratio_weight * ratio


def our_loss(model: LM, ids_BL: Tensor, targets_BL: Tensor) -> Tensor:
    return model(ids_BL, targets_BL)[0].total


def stepper(
    model: LM, optim: OptimConfig, loss: Callable[[LM, Tensor, Tensor], Tensor], dtype: str, text: tuple[Tensor, Tensor]
) -> Callable[[], None]:
    """Return what takes one optimizer step on `text`."""
    optimizers = Optimizers(model, optim, dtype=DTYPES[DTYPE])

    def step() -> None:
        with autocast(CPU, dtype):
            total = loss(model, *text)
        total.backward()
        optimizers.step(0, 0.0)  # the work of a step, with weights that stay
        model.zero_grad(set_to_none=True)

    return step


def bench_step(quick: bool) -> list[Row]:
    """Rows: a whole step of `hnet-small` and of `hnet-byte260`, as this machine runs it, against the plain way.

    The plain way is in bfloat16; where the processor has none of its own and ours runs in float32, in float32 too, as
    the emulation alone would flatter ours.
    """
    rows = []
    for name, shape in (("hnet-small", (32, 256)), ("hnet-byte260", (1, 1024))):
        config = get_preset(name)
        peers = {DTYPE} if name != "hnet-small" else {DTYPE, "bfloat16"}
        if quick:
            config, shape = replace(config, model=replace(config.model, width=32, heads=2, kv_heads=1)), (2, 64)
        torch.manual_seed(0)
        model = LM(config.model)
        text = batch(*shape)
        rows += [
            compare(
                f"{name}, {shape[0]}×{shape[1]} bytes, a whole step in {DTYPE}",
                stepper(model, config.optim, our_loss, DTYPE, text),
                stepper(model, config.optim, plain_loss, dtype, text),
                peer_name=f"the same, plain eager {dtype}",
                repeats=1 if quick else 3,
                amount=shape[0] * shape[1] / 1000,
                unit="kB/s",
            )
            for dtype in sorted(peers)
        ]
    return rows
