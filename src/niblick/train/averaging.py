"""Averages of the weights over training, and which of them is kept in the end.

- "ema": an exponential moving average over all steps. Its decay ramps up, so that the start is soon forgotten.
- "swa": the plain mean over the steps of the warmdown, where the learning rate falls (stochastic weight averaging,
  Izmailov et al., 2018).
- "best": whichever of those and the weights as they are ("raw") costs least on training text that was held back.

Averages are float32 beside the weights; what is not trained (frozen weights, buffers) is never averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from niblick.errors import ArtifactError, TrainingError
from niblick.train.settings import Average

HOLDOUT_SHARE = 200
"""`best` holds back one part in so many of the training text, from its end,"""
HOLDOUT_TOKENS = 65_536
"""and no more tokens than this."""


class Averages:
    """The averages that one run keeps. `update` follows every step; state goes through checkpoints."""

    def __init__(self, model: nn.Module, choice: Average, ema_decay: float) -> None:
        self.model, self.choice, self.ema_decay = model, choice, ema_decay
        self.kinds: tuple[str, ...] = {"raw": (), "ema": ("ema",), "swa": ("swa",), "best": ("ema", "swa")}[choice]
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._weights = [p for p in model.parameters() if p.requires_grad]
        self.load_state_tensors({})

    @torch.no_grad()
    def update(self, step: int, lr_scale: float) -> None:
        """Take in the weights after step number `step` (from 0), which was taken at `lr_scale`."""
        for kind in self.kinds:
            count = int(self._counts[kind])
            if kind == "swa" and lr_scale >= 1:
                continue
            weight = 1 / (count + 1) if kind == "swa" else 1 - min(self.ema_decay, (1 + count) / (10 + count))
            if not count:
                self._means[kind] = [p.detach().clone() for p in self._weights]
            else:
                torch._foreach_lerp_(self._means[kind], [p.detach() for p in self._weights], weight)
            self._counts[kind] += 1

    def candidates(self) -> list[str]:
        """What `best` chooses among so far: averages that hold at least one step, and the weights as they are."""
        return ["raw", *(kind for kind in self.kinds if self._counts[kind])]

    @contextmanager
    def in_place(self, kind: str) -> Iterator[None]:
        """Inside, the model has the weights of `kind`."""
        own = [p.detach().clone() for p in self._weights]
        self._put(self._means[kind] if kind != "raw" else own)
        try:
            yield
        finally:
            self._put(own)

    def finish(self, held_back: Callable[[], float] | None) -> tuple[str, dict[str, float]]:
        """Give the model its final weights. Returns the kind, and for `best` the nats per token of each candidate.

        `held_back` scores the model as it is on the text held back. Raises TrainingError if no candidate's is finite.
        """
        kind: str = self.choice if self.choice in self.candidates() else "raw"
        costs: dict[str, float] = {}
        if self.choice == "best":
            assert held_back is not None
            for candidate in self.candidates():
                with self.in_place(candidate):
                    costs[candidate] = held_back()
            finite = {k: cost for k, cost in costs.items() if math.isfinite(cost)}
            if not finite:
                raise TrainingError(
                    f"none of the weights {', '.join(costs)} gives a finite loss on the training text held back: "
                    "start anew with a lower learning rate"
                )
            kind = min(finite, key=finite.__getitem__)
        if kind != "raw":
            self._put(self._means[kind])
        return kind, costs

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        torch._foreach_copy_([p.detach() for p in self._weights], values)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return averages and how many steps each holds."""
        tensors = {f"count/{kind}": self._counts[kind] for kind in self.kinds}
        for kind, means in self._means.items():
            tensors |= {f"{kind}/{name}": mean for name, mean in zip(self._names, means, strict=True)}
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state_tensors` gave. Raises ArtifactError if it is of other averages."""
        counts = {name.removeprefix("count/"): t for name, t in tensors.items() if name.startswith("count/")}
        if tensors and counts.keys() != set(self.kinds):
            found = ", ".join(sorted(counts)) or "no averages"
            raise ArtifactError(f"the checkpoint holds {found}, and train.average={self.choice} needs other ones")
        zero = torch.zeros((), dtype=torch.long)
        self._counts = {kind: counts.get(kind, zero).clone() for kind in self.kinds}
        self._means: dict[str, list[Tensor]] = {}
        for kind in self.kinds:
            if self._counts[kind]:
                pairs = zip(self._names, self._weights, strict=True)
                self._means[kind] = [tensors[f"{kind}/{name}"].to(p.device, copy=True) for name, p in pairs]
