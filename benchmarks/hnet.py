"""Training passes of `hnet-byte260` on the CPU against three ways of doing without its chunking code.

Bytes a second of forward and backward in what training takes here (bfloat16 where it is native), on this Python's own
documentation, with untrained weights: the router cuts at 40-odd percent of the positions, more than after training, so
chunking has more to do than later.
"""

from __future__ import annotations

from dataclasses import replace

import h_net_dynamic_chunking as package
import numpy as np
import torch
from torch import Tensor, nn

from measure import Row, compare
from niblick.data.embedded import embedded_documents
from niblick.model import level as level_module
from niblick.model.chunking import P_EPS
from niblick.model.level import Level
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.model.plain_routers import Routing
from niblick.recipes.presets import get_preset
from niblick.train.precision import DTYPES, autocast, pick_dtype

CPU = torch.device("cpu")
DTYPE = pick_dtype("auto", CPU)
"""What training takes here."""


def loop_smooth(z_BCD: Tensor, p_BC: Tensor) -> Tensor:
    """The published dechunk: a Python loop over chunks."""
    p_BC1 = p_BC.to(z_BCD.dtype).clamp(P_EPS, 1 - P_EPS)[..., None]
    states = [z_BCD[:, 0]]
    for t in range(1, z_BCD.shape[1]):
        states.append(p_BC1[:, t] * z_BCD[:, t] + (1 - p_BC1[:, t]) * states[-1])
    return torch.stack(states, 1)


class Wrapped(nn.Module):
    """Our stages inside the HNet of h-net-dynamic-chunking, its router started as ours is."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        level = body.levels[0]
        self.hnet = package.HNet(level.encoder, body.main, level.decoder, width, target_avg_token_length=9.0)
        with torch.no_grad():
            self.hnet.dynamic_sequence_chunker.to_queries_keys.weight.copy_(torch.eye(width).repeat(2, 1))

    def forward(self, x_BLD: Tensor, **unused: object) -> tuple[Tensor, list[Routing]]:
        # The package works in one dtype throughout; its routing keeps autocast's.
        out, *_ = self.hnet(x_BLD)
        return out, []


def batch(rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Windows of real text as byte260 tokens."""
    data = "".join(text for text, _ in embedded_documents("pydocs")[:60]).encode()[: rows * length + 1]
    tokens = torch.from_numpy(np.frombuffer(data, np.uint8).astype(np.int64) + 4)
    return tokens[:-1].view(rows, length), tokens[1:].view(rows, length)


def training_pass(model: LM, ids_BL: Tensor, targets_BL: Tensor, smooth: object = None) -> None:
    """Forward and backward; `smooth` stands in for the level's own."""
    own = level_module.smooth
    if smooth is not None:
        level_module.smooth = smooth  # type: ignore[assignment]
    try:
        with autocast(CPU, DTYPE):
            hidden_BLD, routings = model.hidden(ids_BL)
            nats_BL = model.token_losses(hidden_BLD, targets_BL)
            loss = nats_BL.mean()
            for routing, level in zip(routings, model.body.each_level() if routings else (), strict=True):
                loss = loss + level_module.level_loss(level, routing, level.config.target_length, nats_BL.detach())[1]
        loss.backward()
    finally:
        level_module.smooth = own  # type: ignore[assignment]
    model.zero_grad(set_to_none=True)


def chunking_pass(level: Level, encoded_BLD: Tensor, upstream_BLD: Tensor) -> None:
    """Router with W_q, W_k and W_r, select, smooth and expand alone: a level whose stages do nothing."""
    x_BLD = encoded_BLD.detach().requires_grad_()
    with autocast(CPU, DTYPE):
        chunks, _, passage = level.down(x_BLD, None)
        out_BLD = level.up(chunks, passage)
    out_BLD.backward(upstream_BLD)


def bench_hnet(quick: bool) -> list[Row]:
    """Rows: against a loop, against the package, against no chunking at all; and the share of chunking in a pass."""
    torch.manual_seed(0)
    config = get_preset("hnet-byte260").model
    if quick:
        config = replace(config, width=32, heads=2, kv_heads=1)
    rows, length = (2, 128) if quick else (4, 1024)
    ids_BL, targets_BL = batch(rows, length)
    ours = LM(config)
    wrapped = LM(config)
    wrapped.load_state_dict(ours.state_dict())
    wrapped.body = Wrapped(wrapped.body, config.width)  # type: ignore[assignment]
    layers = ModelConfig(**{**vars(config), "levels": (), "main": StageConfig("T9")})
    dense = LM(layers)
    repeats = 1 if quick else 2
    name = f"hnet-byte260, {rows}×{length} bytes, {DTYPE}, forward + backward"

    def against(peer_name: str, model: LM, smooth: object = None) -> Row:
        return compare(
            name,
            lambda: training_pass(ours, ids_BL, targets_BL),
            lambda: training_pass(model, ids_BL, targets_BL, smooth),
            peer_name=peer_name,
            repeats=repeats,
            amount=rows * length / 1000,
            unit="kB/s",
        )

    level = ours.body.levels[0]
    assert isinstance(level, Level)
    with torch.no_grad(), autocast(CPU, DTYPE):
        encoded_BLD = level.encoder(ours.embed(ids_BL).to(DTYPES[DTYPE]))
    bare = LM(config).body.levels[0]
    assert isinstance(bare, Level)
    bare.encoder = bare.decoder = level_module.Passthrough()  # type: ignore[assignment]
    upstream_BLD = torch.randn_like(encoded_BLD)
    return [
        against("loop over chunks", ours, loop_smooth),
        against("our stages in h-net-dynamic-chunking", wrapped),
        against("the same blocks, all at full resolution", dense),
        compare(
            "of that: router, select, smooth, expand",
            lambda: chunking_pass(bare, encoded_BLD, upstream_BLD),
            lambda: training_pass(ours, ids_BL, targets_BL),
            peer_name="the whole pass (a share of 1/ratio)",
            repeats=repeats,
        ),
    ]
