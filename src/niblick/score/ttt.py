"""Test-time training: learning from text that has been scored already.

Legal by construction. The scorer hands out a stretch of the stream for scoring, freezes its cost, and only then shows
its tokens to the adapter. The adapter holds the model and what it was shown; it never gets the split. The log says
when each stretch was scored and when it was shown, and `score_first` reads legality off it.

Defaults and the cosine over stretches follow the score-first training of the challenge's records: SGD with momentum
0.9, three epochs a stretch of 32,768 tokens, gradients clipped at norm 1.

Shapes: B batch, L positions; weights (out, in) of rank R are (out, R) times (R, in).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from niblick.errors import ConfigError, nearest
from niblick.model.lm import LM
from niblick.score.score_config import TTTConfig


class Stretch(NamedTuple):
    """One line of the log: the targets [first, end), and when in seconds since scoring began."""

    first: int
    end: int
    scored_at: float
    """Their cost was known, and never touched again."""
    trained_at: float | None
    """Learning from them began; None if nothing was learned from them."""


def score_first(log: Iterable[Stretch]) -> bool:
    """Whether every target was scored once, and before anything was learned from it.

    Lines stand in the order in which they were scored. It is enough that targets ascend, so that none comes back, and
    that no line was learned before it was scored.
    """
    end, now = 0, 0.0
    for line in log:
        if line.first < end or line.end <= line.first or line.scored_at < now:
            return False
        end, now = line.end, line.scored_at
        if line.trained_at is not None:
            if line.trained_at < line.scored_at:
                return False
            now = line.trained_at
    return True


class _LowRank:
    """What LoRA adds to one weight: B·A, A drawn and B zero (Hu et al. 2021). The sum is written into the weight."""

    def __init__(self, weight: nn.Parameter, rank: int, generator: torch.Generator) -> None:
        rows, columns = weight.shape
        drawn = torch.randn(rank, columns, generator=generator, dtype=torch.float64) / math.sqrt(columns)
        self.weight, self.base = weight, weight.detach().clone()
        self.a_RC = drawn.to(weight.device, weight.dtype)
        self.b_OR = weight.new_zeros(rows, rank).detach()

    def take_gradients(self) -> None:
        """Turn the weight's gradient into those of the two factors."""
        grad = self.weight.grad
        assert grad is not None
        self.a_RC.grad, self.b_OR.grad = self.b_OR.t() @ grad, grad @ self.a_RC.t()

    def write(self) -> None:
        torch.addmm(self.base, self.b_OR, self.a_RC, out=self.weight.data)


class Adapter:
    """A model that learns from the tokens it is shown, and from nothing else."""

    def __init__(
        self,
        model: LM,
        config: TTTConfig,
        seq_len: int,
        *,
        reduce: Callable[[Tensor], None] | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """`seq_len` is the window that it learns in. Of several processes each learns from its share of the windows,
        and `reduce` sums a tensor over all. Raises ConfigError if the patterns name no weight.
        """
        self.model, self.config, self.seq_len = model, config, seq_len
        self._reduce, self._rank, self._ranks = reduce, rank, ranks
        self._weights = chosen_weights(model, config)
        self._initial = [p.detach().clone() for p in self._weights]
        self.reset()

    def reset(self) -> None:
        """Forget everything: weights as they came, a fresh optimizer."""
        self.restore()
        c = self.config
        self._low_rank: list[_LowRank] = []
        leaves: list[Tensor] = list(self._weights)
        if c.lora:
            generator = torch.Generator().manual_seed(0)
            self._low_rank = [_LowRank(p, c.lora, generator) for p in self._weights]
            leaves = [leaf for one in self._low_rank for leaf in (one.a_RC, one.b_OR)]
        self._leaves = leaves
        self._optimizer: torch.optim.Optimizer
        if c.optimizer == "sgd":
            self._optimizer = torch.optim.SGD(leaves, lr=c.lr, momentum=c.momentum)
        else:
            self._optimizer = torch.optim.AdamW(leaves, lr=c.lr, betas=(c.momentum, 0.95), weight_decay=0.0)

    def restore(self) -> None:
        """Put the weights back as they came."""
        for p, initial in zip(self._weights, self._initial, strict=True):
            p.data.copy_(initial)
        torch.clear_autocast_cache()

    def learn(self, tokens: npt.NDArray[Any], done: float) -> None:
        """Train on `tokens`, all of which have been scored (but the first, which is context), at the rate for `done`,
        the share of the stretches that come before.
        """
        c = self.config
        for group in self._optimizer.param_groups:
            group["lr"] = c.lr * (0.5 * (1 + math.cos(math.pi * done)) if c.decay == "cosine" else 1.0)
        stream = torch.from_numpy(np.ascontiguousarray(tokens, np.int64)).to(self._weights[0].device)
        per_step = max(1, c.step_tokens // self.seq_len) * self.seq_len
        with torch.enable_grad():
            for _ in range(c.epochs):
                for at in range(0, len(stream) - 1, per_step):
                    self._step(stream[at : at + per_step + 1])

    def _step(self, stream: Tensor) -> None:
        """One optimizer step on the targets of a piece of the stream."""
        targets = len(stream) - 1
        torch.clear_autocast_cache()
        for p in self._weights:
            p.grad = torch.zeros_like(p)
        whole = targets // self.seq_len
        rows = [(n * self.seq_len, self.seq_len) for n in range(whole)]
        mine = rows[self._rank :: self._ranks]
        if mine:
            place_BL = torch.tensor([at for at, _ in mine], device=stream.device)[:, None] + torch.arange(
                self.seq_len, device=stream.device
            )
            self._backward(stream[place_BL], stream[place_BL + 1], targets)
        rest = whole * self.seq_len
        if rest < targets and whole % self._ranks == self._rank:
            self._backward(stream[None, rest:-1], stream[None, rest + 1 :], targets)
        with torch.autocast(stream.device.type, enabled=False):  # the caller's is for forward passes
            self._update()
        torch.clear_autocast_cache()  # it holds the weights as they were

    def _update(self) -> None:
        """From the gradients of the weights to new weights."""
        for p in self._weights:
            if self._reduce is not None and p.grad is not None:
                self._reduce(p.grad)
        for low_rank in self._low_rank:
            low_rank.take_gradients()
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self._leaves, self.config.grad_clip)
        self._optimizer.step()
        for low_rank in self._low_rank:
            low_rank.write()
        for p in self._weights:
            p.grad = None

    def _backward(self, ids_BL: Tensor, targets_BL: Tensor, targets: int) -> None:
        hidden_BLD, _ = self.model.hidden(ids_BL)
        loss = self.model.token_losses(hidden_BLD, targets_BL).sum() / targets
        with torch.autocast(loss.device.type, enabled=False):
            loss.backward(inputs=self._weights)


def chosen_weights(model: LM, config: TTTConfig) -> list[nn.Parameter]:
    """Return the weights that learn. Raises ConfigError if a pattern names none, or LoRA finds no linear map."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    patterns = ["*"] if config.weights == "all" else [word.strip() for word in config.weights.split(",")]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            raise ConfigError(
                f"score.ttt.weights={pattern!r} names no weight of the model"
                f"{nearest(pattern, [name for name, _ in named])}; write all, or patterns such as body.main.*"
            )
    maps = {id(module.weight) for module in model.modules() if isinstance(module, nn.Linear)}
    chosen = [
        p
        for name, p in named
        if any(fnmatchcase(name, pattern) for pattern in patterns) and (not config.lora or id(p) in maps)
    ]
    if not chosen:
        raise ConfigError(f"score.ttt.weights={config.weights!r} names no linear map, and LoRA adds to nothing else")
    return chosen
