"""A mixture of contexts that learns as it reads, with a model among what it mixes: the compressors' way to predict.

What is predicted, and how, is in `mixing_kernels`. Here are its parts: the tree, the settings, the tables and their
sizes; and the sidecar that reads a stream with them.

Shapes: N tokens, V vocabulary; those of `mixing_kernels`.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from niblick.errors import ConfigError
from niblick.score import mixing_kernels as kernels
from niblick.score.mixing_kernels import Array, Mind

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_HISTORY = 2**16, 2**26
_WARN_AFTER = 100
"""Tokens by which the speed without numba is measured."""
_ROWS = 2048
"""Rows of a set of the mixer's weights, at most."""


@dataclass(frozen=True)
class Setting:
    """What is mixed, and how fast the mixer learns. The numbers were chosen on `pydocs` (docs/scoring.md)."""

    orders: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20)
    """Lengths of the contexts of last symbols."""
    text: bool = True
    """Contexts of words, lines, columns and gaps; for bytes."""
    guess: bool = True
    """Contexts of the model's best guess."""
    matches: tuple[int, ...] = (24, 12, 6)
    """Least lengths of what the match models look for, each longer than the next."""
    sets: int = 7
    """Sets of the mixer's weights, of which each chooses a row by something else."""
    stages: bool = True
    """Whether the last stages correct what the mixer says."""
    confidence: bool = True
    """Whether a slot's own probability is an input too, the larger the more it has seen."""
    rate: float = 0.02
    """Of the mixer at the start; it falls to `least_rate`."""
    least_rate: float = 0.004

    def fitted(self, vocab_size: int) -> Setting:
        """Return the setting for a vocabulary: subwords are some three bytes long, and fewer to learn from."""
        if is_bytes(vocab_size):
            return self
        return replace(
            self,
            orders=tuple(length for length in self.orders if length <= 6),
            text=False,
            matches=tuple(length // 3 for length in self.matches),
            rate=1.5 * self.rate,
            least_rate=2 * self.least_rate,
        )


def is_bytes(vocab_size: int) -> bool:
    """Whether a vocabulary is that of bytes and a few control tokens."""
    return 0 <= vocab_size - 256 <= kernels.CONTROL


STRONG = Setting()
FAST = Setting(orders=(1, 2, 3, 4, 6, 16), text=False, guess=False, matches=(8,), sets=2)
SETTINGS = {"strong": STRONG, "fast": FAST}


def paths(vocab_size: int) -> list[list[int]]:
    """Return the decisions towards each token, where some may have one outcome only.

    Of a vocabulary of bytes, those of its bytes are their bits; its control tokens come first and share a leaf with
    the byte 255, which no text has. Of another vocabulary they are the bits of the token's number.
    """
    control = vocab_size - 256
    if not is_bytes(vocab_size):
        width = max(1, (vocab_size - 1).bit_length())
        return [_bits(token, width) for token in range(vocab_size)]
    below = control.bit_length()
    codes = [[1] * 8 + _bits(token, below) for token in range(control)]
    return codes + [_bits(byte, 8) for byte in range(255)] + [[1] * (8 + below)]


def _bits(value: int, width: int) -> list[int]:
    return [value >> (width - 1 - at) & 1 for at in range(width)]


def tree(vocab_size: int) -> tuple[Array, Array, Array, Array]:
    """Return left_V, right_V, path_VD and depth_V of `Mind`: the paths, without decisions of one outcome only."""
    codes = paths(vocab_size)
    left: list[int] = []
    right: list[int] = []
    taken: list[list[int]] = [[] for _ in codes]
    todo = [(list(range(vocab_size)), 0, left, -1)]
    for members, depth, side, parent in todo:  # breadth first: grows while it is read
        halves = [members, []]
        while len(members) > 1 and not (halves[0] and halves[1]):
            halves = [[token for token in members if codes[token][depth] == bit] for bit in (0, 1)]
            depth += 1
        if len(members) > 1:
            for bit, (half, further) in enumerate(zip(halves, (left, right), strict=True)):
                todo.append((half, depth, further, len(left)))
                for token in half:
                    taken[token].append(bit)
            if parent >= 0:
                side[parent] = len(left)
            left.append(0)
            right.append(0)
        elif parent >= 0:
            side[parent] = ~members[0]
    path_VD = np.zeros((vocab_size, max(map(len, taken))), np.int64)
    for token, bits in enumerate(taken):
        path_VD[token, : len(bits)] = bits
    return np.array(left), np.array(right), path_VD, np.array([len(bits) for bits in taken])


def new_mind(vocab_size: int, setting: Setting, memory: int) -> Mind:
    """Return what a mixture knows before it has read anything: `memory` MiB of slots, and smaller tables by them."""
    left_V, right_V, path_VD, depth_V = tree(vocab_size)
    control, slots = vocab_size - 256, memory << 19
    symbol_V = np.arange(vocab_size)
    if is_bytes(vocab_size):
        symbol_V = np.where(symbol_V < control, 256 + symbol_V, symbol_V - control)
    contexts = len(setting.orders) + kernels.TEXT_CONTEXTS * setting.text + kernels.GUESS_CONTEXTS * setting.guess
    matches, history = len(setting.matches), int(np.clip(slots >> 3, *_HISTORY))
    knobs = np.array([setting.rate, setting.least_rate, 0.9999, 0.0005, 0.01, 0.5 * setting.stages, 1023, 0.07])
    knobs[kernels.CONFIDENT] *= setting.confidence
    q = (np.arange(4096) + 0.5) / 4096
    bins = 1 / (1 + np.exp(-(np.arange(kernels.BINS) / 2 - 8)))
    return Mind(
        *(left_V, right_V, path_VD, depth_V, symbol_V),
        orders_K=np.array(setting.orders),
        least_M=np.array(setting.matches, np.int64),
        extras=np.array([setting.text, setting.guess], np.int64),
        slots=np.zeros(slots, np.uint16),
        last_MH=np.zeros((matches, history >> 1), np.int32),
        history=np.zeros(history, np.uint16),
        maps_CR=np.tile(_cells((np.arange(1024) % 64 + 0.5) / 64), (contexts, 1)),
        match_maps_MR=np.tile(_cells(1 - 1 / (2 + 2 * (np.arange(24 * 16) // 16))), (matches, 1)),
        weights_SRX=_weights(setting, contexts, vocab_size),
        final_RS=np.full((min(vocab_size, _ROWS), setting.sets), 1 / setting.sets),
        stages_TRB=np.tile(bins, (3, int(np.clip(slots >> 10, 1024, 2**16)), 1)),
        state=np.zeros(16, np.int64),
        hash_C=np.zeros(contexts, np.int64),
        base_C=np.zeros(contexts, np.int64),
        match_M4=np.zeros((matches, 4), np.int64),
        input_X=np.zeros(_inputs(contexts, matches)),
        mass_V=np.zeros(len(left_V)),
        set_S=np.zeros(setting.sets, np.int64),
        out_S=np.zeros(setting.sets + 1),
        stage_T=np.zeros(4, np.int64),
        stretch=np.log(q / (1 - q)),
        rate_N=1 / (np.arange(1024) + 1.5),
        knobs=knobs,
    )


def _cells(p: Floats) -> Array:
    """Return probabilities of 22 bits with counts of 0."""
    return ((p * 2**22).astype(np.int64) << 10).astype(np.uint32)


def _inputs(contexts: int, matches: int) -> int:
    count = kernels.INPUTS * contexts + 2 * matches + kernels.MODEL_INPUTS
    return count + -count % 4


def _weights(setting: Setting, contexts: int, vocab_size: int) -> Floats:
    """Return weights that believe everyone a little, and the model more."""
    count, matches = kernels.INPUTS * contexts, 2 * len(setting.matches)
    rows = max(256, min(vocab_size, _ROWS), 16 * (len(setting.orders) + 1))
    weights_SRX = np.zeros((setting.sets, rows, _inputs(contexts, len(setting.matches))))
    weights_SRX[:, :, 0 : count : kernels.INPUTS] = min(0.3, 2.2 / contexts)
    weights_SRX[:, :, count : count + matches : 2] = 0.2
    weights_SRX[:, :, count + matches] = 0.4
    return weights_SRX


class Mixture:
    """A mixture on its way through a stream; an `Adjuster` that gives the tokens' probabilities alone."""

    def __init__(self, vocab_size: int, setting: Setting = STRONG, memory: int = 128) -> None:
        if not 2 <= vocab_size <= 2**16:
            raise ConfigError(f"a mixture is for 2 to 65,536 tokens, not {vocab_size:,}")
        self._vocab_size, self._setting, self._tokens, self._seconds = vocab_size, setting, 0, 0.0
        self.mind = new_mind(vocab_size, setting.fitted(vocab_size), memory)

    def reveal(self, token: int) -> None:
        """Read a token of the stream that needs no prediction."""
        self.read(np.array([token]))

    def read(self, tokens_N: Integers, p_NV: Floats | None = None) -> Floats:
        """Return the nats of each token, given those before it, and learn it; `p_NV` is what the model says.

        Without a model, the same way: so text is read beforehand, for what can be learned of it.
        """
        tokens_N = np.ascontiguousarray(tokens_N, np.int64)
        self.expect(tokens_N)
        p_NV = np.zeros((len(tokens_N), 0)) if p_NV is None else np.ascontiguousarray(p_NV, np.float64)
        nats_N, start = np.zeros(len(tokens_N)), time.perf_counter()
        kernels.read(self.mind, p_NV, tokens_N, nats_N)
        if not kernels.COMPILED:
            self._warn(len(tokens_N), time.perf_counter() - start)
        return nats_N

    def expect(self, tokens_N: Integers) -> None:
        """Raise ConfigError if a token is outside of the vocabulary: the kernels do not look."""
        if len(tokens_N) and not 0 <= tokens_N.min() <= tokens_N.max() < self._vocab_size:
            raise ConfigError(f"a token is outside of the mixture's vocabulary of {self._vocab_size:,}")

    def tell_speed(self, tokens: int) -> None:
        """Without numba, say once how slow it is, before so many tokens are packed or unpacked: by reading a few."""
        if not kernels.COMPILED and tokens > _WARN_AFTER:
            Mixture(self._vocab_size, self._setting, 1).read(np.zeros(_WARN_AFTER, np.int64))

    def adjust(self, log_p_NV: Floats, tokens_N: Integers) -> Floats:
        """Return log q_N of the tokens: each from the model's row and the tokens before it alone."""
        return -self.read(tokens_N, np.exp(log_p_NV))

    def _warn(self, tokens: int, seconds: float) -> None:
        """Say once how slow it is without numba."""
        before, self._tokens, self._seconds = self._tokens, self._tokens + tokens, self._seconds + seconds
        if before < _WARN_AFTER <= self._tokens:
            speed = self._tokens / max(1e-9, self._seconds)
            warnings.warn(
                f"numba is not installed: the mixture reads {speed:,.0f} tokens a second in plain Python, where it "
                "would read tens of thousands; pip install 'niblick[mix]'",
                stacklevel=3,
            )
