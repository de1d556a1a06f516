"""The best weights that a number of bytes can hold: bits go where they save most, until the cap is full.

Rounder a tensor of n weights to an even grid of step s costs about c·s² of BPB, and its codes take about b − log2(s)
bits each: halving the step quarters the loss for one bit a weight. For a given sum of bits the least loss is reached
where the next bit buys the same everywhere (reverse water-filling), that is, with c measured at b0 bits,

    bits_i = b0 + ½·log2(c_i / n_i) + λ

with one λ for all. λ is then searched until the artifact, really packed and coded, fills the cap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ArtifactError
from niblick.pack.export_config import ExportConfig, ResidualConfig
from niblick.pack.kinds import SMALL_ELEMENTS
from niblick.pack.quantize import quantize
from niblick.pack.residuals import add_residuals
from niblick.pack.schemes import Scheme
from niblick.pack.sensitivity import Evaluate

PROBE_BITS = 3.0
"""Sensitivities are measured with codes of so many bits: coarse enough to be told from the noise of the text."""
LEAST_BITS, MOST_BITS = 0.5, 24.0
FULL = 0.995
"""A fit uses at least this share of its cap."""
ROUNDS = 24
RESIDUAL_SHARES = (0.0, 0.03)
"""Shares of the cap, before coding, that go into low-rank corrections. Both are tried."""
LADDER = (0.6, 0.8)
"""Shares of the cap that the frontier shows besides the cap itself."""

Round = Callable[[str, Tensor, Scheme], EncodedTensor]
"""(name, weights, scheme) → stored form: plain rounding, or GPTQ where there are Hessians."""
Measure = Callable[[Mapping[str, EncodedTensor]], int]
"""Bytes of the artifact that would hold these tensors."""


@dataclass(frozen=True)
class Point:
    """One way to spend bytes."""

    cap: int
    bytes: int
    bpb: float
    residual_bytes: int


@dataclass(frozen=True)
class Fit:
    """What `fit` found: tensors that fill the cap, the bits of each, and the frontier of bytes against BPB."""

    encoded: dict[str, EncodedTensor]
    bytes: int
    bits: dict[str, float]
    """Wanted entropy of each tensor's codes; empty where float weights fit."""
    probe: dict[str, float]
    """BPB that each tensor loses at `PROBE_BITS`, alone."""
    frontier: tuple[Point, ...]
    residual: ResidualConfig = field(default_factory=ResidualConfig)

    def mean_bits(self) -> float:
        """Wanted entropy of a code, over all weights that have codes."""
        elements = {name: math.prod(self.encoded[name].shape) for name in self.bits}
        return sum(self.bits[name] * n for name, n in elements.items()) / sum(elements.values())


def fitted_export(given: ExportConfig, codec: str, gptq: bool, found: Fit | None = None) -> ExportConfig:
    """Return a fit as an export: what its code must read, at the mean of its bits; calibration and text are as given.

    Before it is `found`, with all that it may come to need.
    """
    made = replace(given, rules=(), codec=codec, prune=0.0, permute=False)
    if found is not None and not found.bits:
        return replace(made, scheme="fp32", gptq="off", residual=ResidualConfig())
    bits, residual = (found.mean_bits(), found.residual) if found else (PROBE_BITS, ResidualConfig(1))
    scheme = str(Scheme("ecsq", round(bits, 2), "column" if gptq else "tensor"))
    return replace(made, scheme=scheme, gptq="float" if gptq else "off", residual=residual)


@dataclass(frozen=True)
class Rounder:
    """How tensors are rounded: by `round_tensor`, which knows these Hessians."""

    round_tensor: Round = quantize
    hessians: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Telling:
    """Who hears how far a fit is."""

    say: Callable[[str], None] = lambda line: None
    """Hears what was found, in lines."""
    count: Callable[[int, int], None] = lambda done, total: None
    """Hears how many tensors of how many are measured."""


def fit(
    state: Mapping[str, Tensor],
    cap: int,
    evaluate: Evaluate,
    measure: Measure,
    *,
    rounding: Rounder | None = None,
    ladder: tuple[float, ...] = LADDER,
    told: Telling | None = None,
    probe: Mapping[str, float] | None = None,
) -> Fit:
    """Return tensors whose artifact has at most `cap` bytes and at least 99.5% of them, at the least BPB found.

    `state` are float weights, tied ones once. If they fit as float32 they are kept so. `evaluate` should see text that
    is neither the validation split nor what the Hessians of `rounding` are of: with these each column has its own step,
    else a tensor has one. `ladder` are shares of the cap that the frontier shows
    beside it, and `probe` what an earlier fit of the same weights measured. Raises ArtifactError if the cap is too
    small for anything.
    """
    told = told or Telling()
    plain = {name: quantize(name, tensor, Scheme("fp32")) for name, tensor in state.items()}
    if (size := measure(plain)) <= cap:
        return Fit(plain, size, {}, {}, (Point(cap, size, evaluate(dequantized(plain)), 0),))
    large = [n for n, t in state.items() if t.ndim >= 2 and t.numel() > SMALL_ELEMENTS]
    small = {name: quantize(name, t, Scheme("fp16")) for name, t in state.items() if name not in large}
    packer = _Packer(state, large, small, measure, rounding or Rounder())
    least = packer.size(packer.at(dict.fromkeys(large, LEAST_BITS), ResidualConfig()))
    if least > cap:
        raise ArtifactError(
            f"a cap of {cap:,} bytes is too small: the coarsest weights of this model take {least:,}; "
            "give more bytes or make the model smaller"
        )
    probe = dict(probe) if probe else _probe(state, packer, evaluate, told)
    frontier, best, chosen = [], math.inf, None
    for share in (*ladder, 1.0):
        target = int(share * cap)
        for residual in RESIDUAL_SHARES if share == 1.0 else (0.0,):
            if target < least:
                continue
            config = ResidualConfig(int(residual * cap))
            filled = packer.fill(probe, target, config)
            if filled is None:  # residuals find no room: the weights do
                continue
            bits, encoded, size = filled
            bpb = evaluate(dequantized(encoded))
            frontier.append(Point(target, size, bpb, config.bytes))
            told.say(f"{size:>12,} bytes  {bpb:.4f} BPB  {config.bytes:,} of them for residuals")
            if share == 1.0 and bpb < best:
                best, chosen = bpb, (bits, encoded, size, config)
    assert chosen is not None
    bits, encoded, size, config = chosen
    return Fit(encoded, size, bits, probe, tuple(frontier), config)


def allocate(cost: Mapping[str, float], elements: Mapping[str, int], level: float) -> dict[str, float]:
    """Return the bits of each tensor's codes at water level λ = `level`.

    `cost` is the BPB that each loses at `PROBE_BITS`. What was measured as next to nothing, or as a gain, counts as the
    least loss a weight that is told from noise: a hundredth of the mean.
    """
    mean = sum(max(c, 0.0) for c in cost.values()) / sum(elements.values())
    floor = max(mean / 100, 1e-15)
    bits = {n: PROBE_BITS + 0.5 * math.log2(max(c / elements[n], floor) / max(mean, 1e-15)) for n, c in cost.items()}
    return {name: min(max(b + level, LEAST_BITS), MOST_BITS) for name, b in bits.items()}


def _probe(state: Mapping[str, Tensor], packer: _Packer, evaluate: Evaluate, told: Telling) -> dict[str, float]:
    """BPB that each tensor loses if only it has codes of `PROBE_BITS`."""
    full = {name: tensor.detach().float().cpu() for name, tensor in state.items()}
    base = evaluate(full)
    told.say(f"float weights: {base:.4f} BPB; measuring {len(packer.large)} tensors at {PROBE_BITS:g} bits")
    lost = {}
    for number, name in enumerate(packer.large):
        told.count(number, len(packer.large))
        lost[name] = evaluate(full | {name: packer.round(name, PROBE_BITS).dequantize()}) - base
    return lost


@dataclass
class _Packer:
    state: Mapping[str, Tensor]
    large: list[str]
    small: dict[str, EncodedTensor]
    size: Measure
    rounding: Rounder

    def round(self, name: str, bits: float) -> EncodedTensor:
        """Pack one tensor at its bits, with a step for each column where a Hessian says what columns are worth."""
        axis = "column" if name in (self.rounding.hessians or {}) else "tensor"
        return self.rounding.round_tensor(name, self.state[name], Scheme("ecsq", bits, axis))

    def at(self, bits: Mapping[str, float], residual: ResidualConfig) -> dict[str, EncodedTensor]:
        """Pack every large tensor at its bits."""
        packed = {name: self.round(name, bits[name]) for name in self.large}
        encoded = {name: packed.get(name) or self.small[name] for name in self.state}
        return add_residuals(encoded, self.state, residual, self.rounding.hessians)

    def fill(
        self, cost: Mapping[str, float], cap: int, residual: ResidualConfig
    ) -> tuple[dict[str, float], dict[str, EncodedTensor], int] | None:
        """Find the water level at which the artifact takes `FULL` to all of `cap` bytes.

        Without residuals the coarsest weights are one that fits; with them there may be None.
        """
        elements = {name: self.state[name].numel() for name in self.large}
        low, high = -MOST_BITS, MOST_BITS
        level, found = 1.0, None
        for _ in range(ROUNDS):
            bits = allocate(cost, elements, level)
            encoded = self.at(bits, residual)
            size = self.size(encoded)
            if size <= cap:
                low, found = level, (bits, encoded, size)
                if size >= FULL * cap:
                    break
            else:
                high = level
            # One more level is one more bit for each weight; aim just under the cap.
            step = (0.998 * cap - size) * 8 / sum(elements.values())
            level = level + step if low < level + step < high else (max(low, level - 4) + min(high, level + 4)) / 2
        if found is None and not residual.bytes:
            bits = dict.fromkeys(self.large, LEAST_BITS)
            found = bits, (encoded := self.at(bits, residual)), self.size(encoded)
        return found


def dequantized(encoded: Mapping[str, EncodedTensor]) -> dict[str, Tensor]:
    """Return the weights that a model reads from these tensors."""
    return {name: tensor.dequantize() for name, tensor in encoded.items()}
