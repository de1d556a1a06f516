"""The language model: embedding, body, head, and the loss terms of training.

Shapes: B batch, L positions, D width, E embedding width, V vocabulary, N rows (batch × positions).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niblick.model.chunking import guide_loss
from niblick.model.fused import rms_norm
from niblick.model.hnet import HNet, HNetState
from niblick.model.level import at_starts, inner_costs, level_loss
from niblick.model.loss import PLAIN, logits, softcapped_nats
from niblick.model.model_config import ModelConfig, is_soft
from niblick.model.ngrams import NgramState, WordState, hashed_table
from niblick.model.plain_routers import Routing
from niblick.model.providers import Entropy, Provider, Whitespace
from niblick.model.stepping import PLAIN as STEPS
from niblick.model.stepping import Steps, make_room


@dataclass(frozen=True)
class Losses:
    """Terms of the training loss, scalars in nats."""

    lm: Tensor
    """Mean cross-entropy of the targets, nats per token."""
    ratio: tuple[Tensor, ...]
    """Ratio loss of each level, unweighted: 1 where the router meets its target."""
    total: Tensor
    """What training minimizes."""


@dataclass
class LMState:
    """Inference state of a whole model, for a batch of rows. `copy.deepcopy` forks it."""

    body: HNetState
    ngrams: list[NgramState | WordState]
    provider: Any
    steps: Steps


class LM(nn.Module):
    """A language model over token ids. Weights in float32; runs in the autocast dtype where one is set."""

    def __init__(self, config: ModelConfig) -> None:
        """Raises ConfigError if the router asks a small model that is not there."""
        super().__init__()
        config.expect_entropy()
        router = config.levels[0].router if config.levels else None
        self.config = config
        self.halves = PLAIN
        """The element-wise parts of the loss."""
        self.progress = 1.0
        """Share of the training budget that is used up: whoever trains sets it, and curricula go by it."""
        narrow = config.embed_width or config.width
        self.embed = nn.Embedding(config.vocab_size, narrow)
        nn.init.normal_(self.embed.weight, std=config.embed_std)
        self.embed_up = nn.Linear(narrow, config.width, bias=False) if config.embed_width else None
        self.ngrams = nn.ModuleList(
            hashed_table(n, config.width, config.bos_id, config.vocab_size) for n in config.ngrams
        )
        self.body = HNet(config.levels, config.main, config)
        self.unembed: nn.Linear | None = None
        if not config.tie_embeddings:
            self.unembed = nn.Linear(config.width, config.vocab_size, bias=False)
            nn.init.zeros_(self.unembed.weight)
        self.provider: Provider | None = None
        if router == "whitespace":
            self.provider = Whitespace(config.vocab_size)
        elif config.entropy:
            self.provider = Entropy(LM(config.entropy.model), config.entropy.threshold)

    def hidden(
        self,
        ids_BL: Tensor,
        given_BL: Tensor | None = None,
        *,
        length_B: Tensor | None = None,
        last: int | None = None,
        aims: Sequence[float] = (),
    ) -> tuple[Tensor, list[Routing]]:
        """Return the states that the head reads, (B, L, D), and the routing of each level.

        `given_BL` are boundaries for an outermost router that takes them from outside; without them `provider` is
        asked. `length_B` counts the valid positions of rows that are filled up at their end: what stands there starts
        no chunks. With `last`, only so many states at the end are returned, (B, last, D), and whatever they do not
        depend on is left out: the last blocks' queries and MLPs, and more where blocks see few positions. With `aims`,
        a chunk length for each level, routers decide as in training. Raises ConfigError for a router of that kind
        without either.
        """
        x_BLD = self._enter(ids_BL, [ngram(ids_BL) for ngram in self.ngrams])
        if given_BL is None and self.provider is not None:
            given_BL = self.provider(ids_BL)
        return self.body(x_BLD, given_BL=given_BL, length_B=length_B, last=last, aims=aims)

    def _enter(self, ids: Tensor, ngrams: list[Tensor]) -> Tensor:
        """Embed tokens, in the autocast dtype where one is set, normalized as the first stage wants them."""
        x_D = self.embed(ids)
        if self.embed_up is not None:
            x_D = self.embed_up(x_D)
        for ngram_D in ngrams:
            x_D = x_D + ngram_D
        device = x_D.device.type
        if torch.is_autocast_enabled(device):
            x_D = x_D.to(torch.get_autocast_dtype(device))
        return rms_norm(x_D) if self._normalizes else x_D

    @property
    def _normalizes(self) -> bool:
        """Whether embeddings are normalized: not where the first module inside normalizes by itself."""
        first = self.config.levels[0].encoder if self.config.levels else self.config.main
        return self.config.embed_norm and (first is None or not first.norm_in)

    def new_state(self, rows: int, context: int | None = None, steps: Steps = STEPS) -> LMState:
        """Return the state before the first token of `rows` rows.

        `context` is the number of positions that capacities with a divisor refer to; None leaves them without bound.
        `steps` says how it goes on: plainly, or compiled.
        """
        like = self.embed.weight.detach()
        device = like.device.type
        if torch.is_autocast_enabled(device):
            like = like.to(torch.get_autocast_dtype(device))
        body = self.body.new_state(rows, like, context)
        make_room(body, steps.slots)
        return LMState(
            body,
            [ngram.new_state(rows, like) for ngram in self.ngrams],  # type: ignore[operator]
            None if self.provider is None else self.provider.new_state(rows, like),
            steps,
        )

    def step(self, token_B: Tensor, state: LMState, given_B: Tensor | None = None) -> Tensor:
        """Read one more token of every row. Returns the logits of the next one, (B, V); updates `state` in place."""
        return state.steps.head(self, self.step_hidden(token_B, state, given_B)[0])

    def step_hidden(
        self, token_B: Tensor, state: LMState, given_B: Tensor | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Like `step`, but returns the state that the head reads, (B, D), and each level's p and boundary."""
        x_BD = state.steps.enter(self, token_B, state.ngrams)
        if given_B is None and self.provider is not None:
            given_B = self.provider.step(token_B, state.provider)
        return self.body.step(x_BD, state.body, given_B, state.steps)

    def step_in(self, token_B: Tensor, ngrams: list[NgramState | WordState]) -> Tensor:
        """Return one more token of every row as the outermost stage reads it, (B, D); updates `ngrams` in place."""
        added = [n.step(token_B, s) for n, s in zip(self.ngrams, ngrams, strict=True)]  # type: ignore[operator]
        return self._enter(token_B, added)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Return logits (…, V) in float32 or wider."""
        return logits(F.linear(*self._head(hidden_ND)), self.config.softcap)

    def _head(self, hidden_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the table of outputs reads, and the table, (V, E)."""
        if self.unembed is not None:
            return hidden_ND, self.unembed.weight
        if self.embed_up is not None:
            hidden_ND = F.linear(hidden_ND, self.embed_up.weight.t())
        return hidden_ND, self.embed.weight

    def token_losses(self, hidden_BLD: Tensor, targets_BL: Tensor) -> Tensor:
        """Return the cross-entropy of each target, nats, (B, L) in float32; logits are held a slice at a time."""
        hidden_ND, weight_VE = self._head(hidden_BLD.flatten(0, 1))
        nats_N = softcapped_nats(hidden_ND, weight_VE, targets_BL.flatten(), self.config.softcap, self.halves)
        return nats_N.view_as(targets_BL)

    def forward(
        self,
        ids_BL: Tensor,
        targets_BL: Tensor | None = None,
        *,
        given_BL: Tensor | None = None,
        guide_BL: Tensor | None = None,
    ) -> Any:
        """Return logits (B, L, V); with targets the terms of the training loss instead, and the routings.

        `guide_BL` are boundaries that the outermost router is to be trained towards, in place of its own loss.
        """
        if targets_BL is None:
            return self.head(self.hidden(ids_BL, given_BL)[0])
        aims = [level.target_at(self.progress) for level in self.config.levels]
        hidden_BLD, routings = self.hidden(ids_BL, given_BL, aims=aims)
        nats_BL = self.token_losses(hidden_BLD, targets_BL)
        total = lm = nats_BL.mean()
        cost_BL = nats_BL.detach() / nats_BL.numel()
        ratios = []
        for i, (level, routing, aim) in enumerate(zip(self.body.each_level(), routings, aims, strict=True)):
            ratio, weighted = level_loss(level, routing, aim, cost_BL)
            ratios.append(ratio)
            total = total + (weighted if i or guide_BL is None else guide_loss(routing.p_BL, guide_BL))
            if i + 1 < len(routings):
                cost_BL = inner_costs(level, routing, cost_BL, routings[i + 1].p_BL.shape[1])
        if any(level.ahead_weight for level in self.config.levels):
            total = total + self.ahead_loss(routings, targets_BL)
        return Losses(lm, tuple(ratios), total), routings

    def ahead_loss(self, routings: Sequence[Routing], targets_BL: Tensor) -> Tensor:
        """Return what states of chunks say of the token after the start of the next chunk, weighted; nats, a scalar.

        For each level that asks for it that is a mean over all chunks that have a next one. States are read through the
        table of outputs with channels shifted by half the width, apart from what is said of the next token: no weight
        is added to the model.
        """
        total, seen_BL, width = self.embed.weight.new_zeros(()), targets_BL, self.config.width
        for level, routing in zip(self.config.levels, routings, strict=True):
            if is_soft(level.router):
                continue
            seen_BL = at_starts(routing, seen_BL[:, : routing.p_BL.shape[1]])
            if routing.inside_BCD is not None:
                state_BCD = rms_norm(routing.inside_BCD[:, :-1, :width]).roll(width // 2, -1)
                chunk_C = torch.arange(1, 1 + state_BCD.shape[1], device=seen_BL.device)
                next_BC = chunk_C < routing.chunks_B()[:, None]
                nats_BC = self.token_losses(state_BCD, seen_BL[:, chunk_C])
                total = total + level.ahead_weight * (nats_BC * next_BC).sum() / next_BC.sum().clamp_min(1)
        return total
