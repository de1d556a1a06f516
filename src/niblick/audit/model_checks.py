"""Checks of a model that need its inside: gradients, padding, and its other face, one token at a time.

All in float64 on a copy, so that rounding is no excuse and decisions of routers are no knife-edges.

Shapes: B batch, L positions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor

from niblick.audit.checks import Check, failed, not_applicable, passed
from niblick.audit.function_checks import TOLERANCE, Effort, Function, audit_function, difference
from niblick.errors import ConfigError
from niblick.model.level import Level
from niblick.model.lm import LM

GRADIENTS = 8
"""Positions whose gradients are taken."""


def exact(model: LM) -> LM:
    """A copy in float64 on the CPU."""
    return copy.deepcopy(model).cpu().double().eval()


def as_function(model: LM) -> Function:
    """The model as a function from ids (B, L) to log-probabilities (B, L, V)."""

    def f(ids_BL: Tensor) -> Tensor:
        return model.head(model.hidden(ids_BL)[0]).log_softmax(-1)

    return f


def targeted_cuts(model: LM, ids_L: Tensor, bos_id: int) -> list[int]:
    """The cuts that are most telling: before and after boundaries of the outermost router, and document starts."""
    with torch.no_grad():
        _, routings = model.hidden(ids_L[None])
    places = torch.nonzero(ids_L == bos_id).flatten().tolist()
    if routings:
        places += torch.nonzero(routings[0].boundary_BL[0]).flatten().tolist()[:: max(1, len(ids_L) // 64)]
    return [at for place in places for at in (place - 1, place) if at >= 0]


def audit_model(model: LM, ids_BL: Tensor, bos_id: int, effort: Effort | None = None) -> list[Check]:
    """Run all checks of a model: as a function, and those that need its inside, under the same names."""
    model, effort = exact(model), effort or Effort()
    cuts = targeted_cuts(model, ids_BL[0], bos_id)
    causality, normalization, independence = audit_function(
        as_function(model), ids_BL, model.config.vocab_size, effort, cuts
    )
    inside = [("causality", gradients(model, ids_BL[0], cuts)), ("causality", steps_agree(model, ids_BL[:2]))]
    inside.append(("independence", padding(model, ids_BL)))
    merged = {"causality": causality, "normalization": normalization, "independence": independence}
    for name, check in inside:
        if merged[name].status == "pass" and check.status != "not applicable":
            both = f"{merged[name].detail}; {check.detail}"
            detail = check.detail if check.status == "fail" else both
            merged[name] = Check(name, check.status, detail, {**merged[name].facts, **check.facts})
    return list(merged.values())


def gradients(model: LM, ids_L: Tensor, cuts: Iterable[int] = ()) -> Check:
    """The output at position t has no gradient with respect to the embedding of a later token."""
    embedded: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    hook, length = model.embed.register_forward_hook(keep), len(ids_L)
    random = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, length, (GRADIENTS,), generator=random).tolist()
    places = list(dict.fromkeys([length - 2, *cuts, *drawn]))[:GRADIENTS]
    try:
        hidden_1LD, _ = model.hidden(ids_L[None])
        for at in places:
            noise_V = torch.randn(model.config.vocab_size, generator=random, dtype=torch.float64)
            said = (model.head(hidden_1LD[0, at]) * noise_V).sum()
            [grad_1LD] = torch.autograd.grad(said, embedded[:1], retain_graph=True)
            later_L = grad_1LD[0, at + 1 :].abs().amax(-1) if at + 1 < length else torch.zeros(1)
            if float(later_L.max()) > 1e-9:
                ahead = at + 1 + int(later_L.argmax())
                return failed(
                    "causality",
                    f"what position {at} says has a gradient of {float(later_L.max()):.3g} with respect to token "
                    f"{ahead}, which comes later",
                    position=at,
                    gradient_at=ahead,
                    gradient=float(later_L.max()),
                )
    finally:
        hook.remove()
    return passed("causality", f"gradients at {len(places)} positions reach no later token", gradients=len(places))


@torch.no_grad()
def cannot_step(model: LM) -> str:
    """Why a model cannot read one token at a time; "" if it can. A block of the user's may lack that face."""
    device = next(model.parameters()).device
    try:
        state = model.new_state(1, 2)
        model.step(torch.zeros(1, dtype=torch.long, device=device), state)
    except ConfigError as error:
        return str(error)
    except Exception as error:  # the user's code may raise anything
        return f"a part of the model cannot step ({type(error).__name__}: {error})"
    return ""


@torch.no_grad()
def steps_agree(model: LM, ids_BL: Tensor) -> Check:
    """One token at a time, when later ones cannot be known, the model says the same at every position."""
    if why := cannot_step(model):
        return not_applicable("causality", why)
    state = model.new_state(len(ids_BL), ids_BL.shape[1])
    apart = torch.zeros(())
    plain_BLV = as_function(model)(ids_BL)
    for at in range(ids_BL.shape[1]):
        stepped_BV = model.step(ids_BL[:, at], state).log_softmax(-1)
        apart = difference(plain_BLV[:, at], stepped_BV).max()
        if float(apart) > TOLERANCE:
            return failed(
                "causality",
                f"reading one token at a time, position {at} says something else (a log-probability differs by "
                f"{float(apart):.4g}): with the whole row before it, the model knows more",
                position=at,
                difference=float(apart),
            )
    return passed("causality", f"reading one token at a time gives the same at all {ids_BL.shape[1]} positions")


@torch.no_grad()
def padding(model: LM, ids_BL: Tensor) -> Check:
    """A row that is filled up at its end says what it says alone, whatever it is filled up with."""
    name, length = "independence", ids_BL.shape[1]
    if any(isinstance(level, Level) and level.config.divisor is not None for level in model.body.levels):
        return not_applicable(name, "room for chunks goes by the length of a row, so rows are never filled up")
    short = max(1, (2 * length) // 3)
    length_B = torch.full((len(ids_BL),), short)
    alone_BLV = as_function(model)(ids_BL[:, :short])
    for filler in (0, int(ids_BL[0, -1])):
        filled_BL = ids_BL.clone()
        filled_BL[:, short:] = filler
        hidden_BLD, _ = model.hidden(filled_BL, length_B=length_B)
        apart_BL = difference(alone_BLV, model.head(hidden_BLD[:, :short]).log_softmax(-1))
        if float(apart_BL.max()) > TOLERANCE:
            row, place = divmod(int(apart_BL.argmax()), short)
            return failed(
                name,
                f"row {row} of {short} tokens, filled up to {length} with token {filler}, says something else at "
                f"position {place} (a log-probability differs by {float(apart_BL.max()):.4g}): padding leaks",
                row=row,
                position=place,
                difference=float(apart_BL.max()),
            )
    return passed(name, "what rows are filled up with changes nothing")
