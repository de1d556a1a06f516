"""Hessians: what the linear maps of a model see, H = mean x xᵀ over their inputs.

Every linear map has one, at byte and at chunk rate, the tied head too; maps that read the same input (q, k, v) share
it. Positions that only fill up a bucket or a packed row do not count: nothing reads what comes of them. Without a
Hessian are tables that are only looked up (n-grams, the embedding of an untied model), vectors, and the taps of
convolutions: a channel's few taps have an input of their own each, and as small tensors they stay fp16 as a rule.

A Hessian is named by the weight that it is for, as in the state dict.

Shapes: B batch, L positions, C chunks, S chunks of all rows, D width, N positions that count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from niblick.data.dataset import Split
from niblick.data.loader import Batches
from niblick.errors import ConfigError
from niblick.model.level import SoftLevel
from niblick.model.lm import LM
from niblick.model.plain_routers import Routing
from niblick.pack.export_config import ExportConfig
from niblick.pack.quantize import quantize, schemes_of

Hessians = dict[str, Tensor]
"""(D, D) float32 on the CPU by name of the weight; those of weights with the same input are one tensor."""

SEED = 0
"""Draws the calibration windows."""
BATCH_TOKENS = 8_192
"""Tokens of a calibration batch: the inputs of all maps are held for one at a time."""


def calibration_batches(
    train: Split, val: Split, *, vocab_size: int, seq_len: int, tokens: int, seed: int = SEED
) -> list[Tensor]:
    """Return ids_BL of windows drawn from all over the training split, at least `tokens` of them if it has so many.

    Another `seed` draws others.

    Raises ConfigError if the first split is the validation split or has its text: weights must not be fitted to what
    they are scored on. DataError if it is shorter than one window.
    """
    why = "is the validation split" if train.name == "val" else ""
    for key, word in (("text_hash", "text"), ("stream_hash", "tokens")):
        if not why and getattr(train, key) is not None and getattr(train, key) == getattr(val, key):
            why = f"holds the same {word} as the validation split"
    if why:
        raise ConfigError(
            f"Hessians come from training text, and this split ({train.name}) {why}: give the train split"
        )
    source = Batches(train, vocab_size=vocab_size, seq_len=seq_len, rows=1, order="shuffle", seed=seed)
    source.rows = min(max(1, min(BATCH_TOKENS, tokens) // seq_len), source.windows)
    count = max(1, min(-(-tokens // (source.rows * seq_len)), source.windows // source.rows))
    return [source.next()[0] for _ in range(count)]


def calibrate(model: LM, batches: Iterable[Tensor], names: Iterable[str] | None = None) -> Hessians:
    """Return the Hessian of every weight that a linear map of `model` multiplies with, in order of execution.

    `batches` are ids_BL of training text; it runs on the model's device under the caller's autocast. With `names`
    only those weights' are collected. Raises ConfigError if there is no batch.
    """
    sums = _Sums(None if names is None else set(names))
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), sums.listening(model):
            for ids_BL in batches:
                model.hidden(ids_BL.to(device))
    finally:
        model.train(was_training)
    if not sums.products:
        raise ConfigError("no batch was given: Hessians are collected from at least one batch of training text")
    return sums.means()


def calibrate_quantized(model: LM, batches: list[Tensor], config: ExportConfig) -> Hessians:
    """Return Hessians of inputs as the quantized model gives them, `config` saying how it is quantized.

    What is no linear map (vectors, tables, a tied embedding by the float model's Hessian) is quantized first; then
    block after block in order of execution: its Hessians are collected with all before it quantized, then it is
    quantized itself. Each block takes one pass over the batches. `pack` with these Hessians makes the same tensors;
    `model` is left as it was.
    """
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    schemes, work = schemes_of(state, config), deepcopy(model)
    live = work.state_dict()

    def put(name: str) -> None:
        if name in schemes:
            hessian = hessians.get(name)
            encoded = quantize(name, state[name], schemes[name], config.prune, hessian=hessian, damping=config.damping)
            live[name].copy_(encoded.dequantize())

    hessians = calibrate(work, batches)
    maps = {f"{name}.weight" for name, module in work.named_modules() if isinstance(module, nn.Linear)}
    for name in state.keys() - (maps & hessians.keys()):
        put(name)
    for group in _blocks(name for name in hessians if name in maps):
        hessians |= calibrate(work, batches, group)
        for name in group:
            put(name)
    return hessians


def _blocks(names: Iterable[str]) -> list[list[str]]:
    """Weights of each block together (else of each module), in the order in which the first of them comes."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        block = re.match(r".*?blocks\.\d+\.", name)
        blocks.setdefault(block[0] if block else name.rsplit(".", 2)[0], []).append(name)
    return list(blocks.values())


class _Sums:
    """Σ x xᵀ and the number of x for each set of weights that read the same input."""

    def __init__(self, names: set[str] | None) -> None:
        self.names = names
        self.pending: list[tuple[Tensor, list[tuple[str, int]]]] = []
        """Inputs of the running batch, each with the weights that read it and how many levels they lie inside."""
        self.products: dict[tuple[str, ...], Tensor] = {}
        self.counts: dict[tuple[str, ...], int] = {}

    @contextmanager
    def listening(self, model: LM) -> Iterator[None]:
        """Hear of the inputs of all linear maps of `model`, and of the models inside it, while the context lasts."""
        handles = []
        for prefix, lm in model.named_modules():
            if isinstance(lm, LM):
                dot = f"{prefix}." if prefix else ""
                handles += [
                    module.register_forward_pre_hook(
                        self._hear(f"{dot}{name}.weight", _depth(name, len(lm.body.levels)))
                    )
                    for name, module in lm.named_modules()
                    if isinstance(module, nn.Linear) and not name.startswith("provider.")
                ]
                handles.append(lm.body.register_forward_hook(self._end(lm, dot)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hear(self, name: str, depth: int) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._note(inputs[0], name, depth)

        return hook

    def _note(self, x: Tensor, name: str, depth: int) -> None:
        if self.names is not None and name not in self.names:
            return
        for seen, readers in self.pending:
            if seen is x:
                readers.append((name, depth))
                return
        self.pending.append((x, [(name, depth)]))

    def _end(self, lm: LM, dot: str) -> Callable[[nn.Module, Any, tuple[Tensor, list[Routing]]], None]:
        def hook(body: nn.Module, inputs: Any, output: tuple[Tensor, list[Routing]]) -> None:
            hidden_BLD, routings = output
            if lm.unembed is not None:
                self._note(hidden_BLD, f"{dot}unembed.weight", 0)
            elif lm.embed_up is None:
                self._note(hidden_BLD, f"{dot}embed.weight", 0)
            else:
                self._note(hidden_BLD @ lm.embed_up.weight.to(hidden_BLD.dtype), f"{dot}embed.weight", 0)
            levels = list(lm.body.levels)
            for x, readers in self.pending:
                self._add(x, valid(levels, routings, readers[0][1], x), tuple(name for name, _ in readers))
            self.pending.clear()

        return hook

    def _add(self, x: Tensor, valid_BC: Tensor | None, key: tuple[str, ...]) -> None:
        x_ND = (x.flatten(0, -2) if valid_BC is None else x[valid_BC]).float()
        with torch.autocast(x.device.type, enabled=False):
            product_DD = (x_ND.t() @ x_ND).cpu().double()  # on the CPU: not every device has float64
        self.products[key] = self.products[key] + product_DD if key in self.products else product_DD
        self.counts[key] = self.counts.get(key, 0) + len(x_ND)

    def means(self) -> Hessians:
        """Return the mean over all inputs that each weight has read; blocks used several times read several."""
        keys_of: dict[str, list[tuple[str, ...]]] = {}
        for key in self.products:
            for name in key:
                keys_of.setdefault(name, []).append(key)
        shared: dict[tuple[tuple[str, ...], ...], Tensor] = {}
        for keys in map(tuple, keys_of.values()):
            if keys not in shared:
                count = sum(self.counts[key] for key in keys)
                total_DD = torch.stack([self.products[key] for key in keys]).sum(0)
                shared[keys] = (total_DD / max(count, 1)).float()
        return {name: shared[tuple(keys)] for name, keys in keys_of.items()}


def _depth(name: str, levels: int) -> int:
    """The number of levels that a module of an LM lies inside: 0 at byte rate."""
    if name.startswith("body.main."):
        return levels
    return int(name.split(".")[2]) if name.startswith("body.levels.") else 0


def valid(levels: list[Any], routings: list[Routing], depth: int, x: Tensor) -> Tensor | None:
    """Return which positions of `x`, (B, C, D) or packed (1, S, D), inside so many levels, are no filling.

    None where all are: at byte rate, and inside levels that cut nothing.
    """
    for i in reversed(range(depth)):
        if isinstance(levels[i], SoftLevel):
            continue
        count_B = routings[i].chunks_B()
        if levels[i].config.capacity == "packed":
            count_B = count_B.sum()[None]
        return torch.arange(x.shape[1], device=x.device) < count_B[:, None]
    return None
