"""Quantization-aware training: the last part of a run sees its weights as the export will round them.

Forward and backward use rounded weights; gradients pass straight through the rounding (Bengio et al., 2013) to the
float weights, which alone are trained, averaged and kept. Study 2 switches it on late, once the learning rate is low.

The grid is the export's own, clips and all, fitted when it starts and again every `refresh` steps; in between weights
move on a grid that stands still. Compiled stages see tensors of one kind before and after the switch, so none of them
is compiled again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from niblick.errors import ArtifactError, ConfigError
from niblick.pack.export_config import ExportConfig
from niblick.pack.quantize import schemes_of
from niblick.pack.rounding import Rounding, is_rounded, rounding_of
from niblick.pack.schemes import Scheme
from niblick.train.settings import QATConfig


def rounded_parameters(model: nn.Module, export: ExportConfig) -> dict[str, tuple[nn.Parameter, Scheme]]:
    """Return the parameters that an export would round to a grid, with their schemes; tied ones once.

    Raises ConfigError for a rule that fits no tensor.
    """
    state: dict[str, Tensor] = model.state_dict(keep_vars=True)
    schemes = schemes_of(state, export)
    return {
        name: (p, scheme)
        for name, scheme in schemes.items()
        if isinstance(p := state[name], nn.Parameter) and is_rounded(scheme, p)
    }


class QAT:
    """The rounding of one model's weights in training. `prepare` precedes every step; checkpoints keep the state."""

    def __init__(self, model: nn.Module, config: QATConfig, export: ExportConfig) -> None:
        """Raises ConfigError for a rule that fits no tensor, or if there is nothing to round."""
        self.config, self.prune = config, export.prune
        wanted = replace(export, scheme=config.scheme, rules=()) if config.scheme else export
        self.weights = rounded_parameters(model, wanted)
        if not self.weights:
            raise ConfigError(
                f"qat has nothing to round: of this model, {wanted.name} keeps all tensors as floats; "
                "set export.scheme or qat.scheme to int4, say"
            )
        names = {id(p): name for name, (p, _) in self.weights.items()}
        self._places = [
            (module, key, names[id(p)])
            for module in model.modules()
            for key, p in module._parameters.items()
            if p is not None and id(p) in names
        ]
        self._values: dict[str, Tensor] = {}
        self._start: int | None = None
        self._roundings: dict[str, Rounding] = {}

    @property
    def started(self) -> bool:
        """Whether weights are rounded by now."""
        return self._start is not None

    def prepare(self, step: int, lr_scale: float, left: float) -> bool:
        """Round the weights for step number `step` (from 0) if it is time. Returns whether this is the first such step.

        `left` is the share of the budget that is left before the step.
        """
        first = self._start is None and self.config.starts(lr_scale, left)
        if first:
            self._start = step
        if self._start is None:
            return False
        if (step - self._start) % self.config.refresh == 0:
            self._roundings = {n: rounding_of(p.detach(), s, self.prune) for n, (p, s) in self.weights.items()}
        self._round()
        return first

    def _round(self) -> None:
        for name, (p, _) in self.weights.items():
            into = self._values.setdefault(name, torch.empty_like(p, requires_grad=False))
            self._roundings[name].round(p.detach(), out=into)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, for one forward and backward pass, the model computes with what `prepare` rounded.

        It lasts through the backward pass, because checkpointed parts of the model read weights again there.
        """
        given = {name: self._seen(name, p) for name, (p, _) in self.weights.items()}
        own = [module._parameters[key] for module, key, _ in self._places]
        for module, key, name in self._places:
            module._parameters[key] = given[name]  # type: ignore[assignment]
        try:
            yield
        finally:
            for (module, key, _), p in zip(self._places, own, strict=True):
                module._parameters[key] = p

    def _seen(self, name: str, p: nn.Parameter) -> Tensor:
        """The tensor that the model computes with. It passes its gradient on to `p`, before the start and after it."""
        return _Through.apply(p, self._values[name]) if self.started else p.view_as(p)

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the step that it started at and the grids; nothing before that."""
        if self._start is None:
            return {}
        tensors = {f"{name}/{k}": t for name, r in self._roundings.items() for k, t in r.tensors().items()}
        return tensors | {"start": torch.tensor(self._start)}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state_tensors` gave. Raises ArtifactError if it is of other tensors."""
        self._start = int(tensors["start"]) if "start" in tensors else None
        self._roundings = {}
        if self._start is None:
            return
        found = {name.rpartition("/")[0] for name in tensors} - {""}
        if wrong := sorted(found ^ self.weights.keys()):
            here = "does" if wrong[0] in self.weights else "does not"
            raise ArtifactError(
                f"the checkpoint rounds other weights than this run, which {here} round {wrong[0]}: another config?"
            )
        for name, (p, _) in self.weights.items():
            divide_RC, step_RC, limit_RC = (
                tensors[f"{name}/{k}"].to(p.device, copy=True) for k in ("divide", "step", "limit")
            )
            self._roundings[name] = Rounding(divide_RC, step_RC, limit_RC, float(tensors[f"{name}/floor"]))
        self._round()  # priming takes passes before the first step is prepared


class _Through(torch.autograd.Function):
    """Rounded values forward; backward the gradient goes straight to the weights."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, rounded: Tensor) -> Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
