"""Tokens ↔ bits: arithmetic coding under a model, by the windows that a scorer reads.

A score is what a text would cost if somebody coded it with the model's probabilities. Here it is coded, and decoded
again by one who has the model and the bits alone: whatever looked ahead, or gave more than one in all to the choices,
would decode to something else. So the size of what `encode` returns is a proof of the score.

The windows are those of `plan`, worked off by step inference, one token after the other. Consecutive windows make a
lane, and the lanes of a block go side by side: one step reads one token of every lane, and one coder takes the targets
of all lanes in turn. What a lane's first window reads first, no other lane has decoded before: unless it begins a
document, that one token is coded by itself, at log₂ V bits, which is all that proving costs beyond the score:
`Layout.opening_bits`.

Where a mixture reads along (`mixed_coding`), it has to have read all before, so nothing goes side by side: a block is
one lane, which opens with what was decoded last.

Encoder and decoder must come to the same probabilities, so both read the same tokens in batches of the same shapes in
the same order, in float32 on the CPU, and what the coder sees is integers that sum to 2**24. A machine that rounds
otherwise would decode nonsense: the check of every block tells.

Shapes: N windows or targets, R lanes (rows) of a block, L positions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from constriction import stream

from niblick.artifact.range_models import PRECISION, coder_weights, frequencies
from niblick.errors import ArtifactError, ConfigError
from niblick.model.level import Level
from niblick.model.lm import LM
from niblick.model.stepping import PLAIN, Steps, can_compile, compiled
from niblick.score.plan import Integers, Windows, cut
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import room_for_chunks

if TYPE_CHECKING:
    from niblick.score.known_text import KnownText
    from niblick.score.mixed_coding import Along

LANE = 1024
"""Targets of a lane, at least: the more, the fewer tokens are coded to open lanes, the fewer lanes go side by side."""

MIXED_LANE = 1 << 16
"""The same where a mixture reads along: a block is then one lane, and costs the bytes that end it."""

MAX_LANES = 256
"""Lanes of a block, at most; fewer where the vocabulary is large."""

_LANE_LOGITS = 1 << 21
"""Lanes times vocabulary, at most: tables of a step are then a few dozen megabytes."""

CHECK_BYTES = 8
"""Of a SHA-256, for each block."""

COMPILED_FROM = 50_000
"""Tokens of a text whose steps are compiled, where nothing goes side by side: compiling takes as long as 25,000."""

ALONE_WIDTH = 256
"""Where one row is stepped, models up to this width get one thread: several would mostly wait for each other."""

_ONE = 30
"""Probabilities count in 2**-30 before they become frequencies."""

Tokens = npt.NDArray[np.uint16]

Report = Callable[[int, int], None]
"""Called with the targets done and those in all."""


class Block(NamedTuple):
    """The windows of a number of lanes, coded together."""

    data: bytes
    """What the coder wrote."""
    check: bytes
    """CHECK_BYTES of the SHA-256 of the tokens that `data` stands for."""


@dataclass(frozen=True)
class Layout:
    """What both sides must know of a stream of `tokens` tokens to cut it alike: `begin_D` are where documents begin."""

    tokens: int
    begin_D: Integers
    config: ScoreConfig
    bos_id: int
    vocab_size: int
    compiled: bool = False
    """Whether the model's steps are compiled, which rounds otherwise: see `worth_compiling`."""

    def __post_init__(self) -> None:
        refuse_unprovable(self.config)

    def blocks(self) -> list[list[Windows]]:
        """Return the lanes of every block, in stream order; [] where there is no target."""
        if self.tokens < 2:
            return []
        begin_D = self.opened_D()
        count_D = np.diff(begin_D, append=self.tokens - 1)
        windows = cut(begin_D[count_D > 0], count_D[count_D > 0], self.config.seq_len, self.config.step)
        if self.config.sidecar.name:  # which reads in the order of the stream, so that nothing goes side by side
            begin_D = begin_D[:0]
        lanes = list(_lanes(windows, begin_D, self.depth))
        return [lanes[at : at + self.most_lanes] for at in range(0, len(lanes), self.most_lanes)]

    def room(self, blocks: int, payload: int) -> int:
        """Tokens that so many blocks of `payload` bytes together can stand for, at most.

        A lane has no more windows than `_lanes` gives it, and no token costs less than the likeliest one can.
        """
        dearest = 1 / 2**16 if self.config.sidecar.name else (self.vocab_size - 1) / 2**PRECISION
        least = -math.log2(1 - dearest)
        most = 1 + int(8 * (payload + 8 * blocks) / least)
        if self.config.step == self.config.seq_len:
            most = min(most, 1 + blocks * self.most_lanes * self.depth * self.config.seq_len)
        return most

    @property
    def depth(self) -> int:
        """Windows of a lane."""
        return -(-(MIXED_LANE if self.config.sidecar.name else LANE) // self.config.seq_len)

    @property
    def most_lanes(self) -> int:
        """Lanes of a block, at most."""
        if self.config.sidecar.name:
            return 1
        return max(1, min(MAX_LANES, _LANE_LOGITS // self.vocab_size))

    def opened_D(self) -> Integers:
        """Where a token needs no coding: a document's BOS, of the first alone where windows ignore the others."""
        return self.begin_D if self.config.windows.by_document else np.zeros(1, np.int64)

    def opening(self, lanes: list[Windows]) -> Integers:
        """Return where the tokens stand that open a block's lanes and are coded by themselves."""
        start_R = np.array([own.start_N[0] for own in lanes[1:]], np.int64)  # the first lane's was decoded before
        return start_R[~np.isin(start_R, self.opened_D())]

    def opening_bits(self) -> float:
        """Bits that the openings of all lanes cost beyond the score: log₂ V each."""
        return sum(len(self.opening(lanes)) for lanes in self.blocks()) * math.log2(self.vocab_size)


def worth_compiling(tokens: int, config: ScoreConfig) -> bool:
    """Whether so many tokens are coded sooner with compiled steps, and this machine can compile.

    Lanes side by side are not compiled: their rows go on to the inside in ever other numbers.
    """
    return bool(config.sidecar.name) and tokens >= COMPILED_FROM and can_compile()


def refuse_unprovable(config: ScoreConfig) -> None:
    """Raise ConfigError, saying why, for a way of scoring that is not provable by decoding."""
    reason = ""
    if config.windows.overlap == "always":
        reason = f"score.scorer={config.scorer} reads every token many times; score.scorer=contiguous or document is"
    elif config.ttt.optimizer:
        reason = "with score.ttt the model changes while it scores; without it, it is"
    elif config.sidecar.name not in ("", "mixture"):
        reason = (
            f"with score.sidecar.name={config.sidecar.name} the probabilities are not the model's alone; without a "
        )
        reason += "sidecar they are, and with mixture it is"
    if reason:
        raise ConfigError(f"this score is not provable by decoding: {reason}")


def _lanes(windows: Windows, begin_D: Integers, depth: int) -> Iterator[Windows]:
    """Cut windows into lanes of `depth`; where they overlap, a lane is a whole document."""
    begin = 0
    may_open_N = windows.first_N == 0
    must_open_N = np.isin(windows.start_N, begin_D)
    for n in range(1, len(windows.start_N)):
        if must_open_N[n] or (may_open_N[n] and n - begin >= depth):
            yield windows.part(begin, n)
            begin = n
    yield windows.part(begin, len(windows.start_N))


def encode(
    model: LM, tokens: Tokens, layout: Layout, report: Report | None = None, text: KnownText | None = None
) -> Iterator[Block]:
    """Code `tokens`, whose first is known to the decoder (BOS), block by block; a mixture may know a text before.

    Raises ConfigError if a document does not begin with BOS or a token is outside the vocabulary.
    """
    if len(tokens) and int(tokens.max()) >= layout.vocab_size:
        raise ConfigError(f"token {int(tokens.max())} is outside the vocabulary of {layout.vocab_size}")
    if len(tokens) and not (tokens[layout.opened_D()] == layout.bos_id).all():
        raise ConfigError(f"every document must begin with BOS ({layout.bos_id}) to be coded")
    along = _along(layout, text)
    for lanes, coder in _work(model, layout, report, along.writer if along else _Writer):
        _code(model, lanes, coder, tokens, layout)
        yield Block(coder.data(), _check(lanes, tokens))


def decode(
    model: LM, blocks: Iterator[Block], layout: Layout, report: Report | None = None, text: KnownText | None = None
) -> Tokens:
    """Return the tokens that `encode` was given. Raises ArtifactError where they are not: see `Differs`."""
    tokens = np.zeros(layout.tokens, np.uint16)
    opened_D = layout.opened_D()
    tokens[opened_D[opened_D < layout.tokens]] = layout.bos_id
    taken, checks, along = iter(blocks), [], _along(layout, text)

    def reader() -> Any:
        block = next(taken)
        checks.append(block.check)
        return along.reader(block.data) if along else _Reader(block.data)

    for number, (lanes, coder) in enumerate(_work(model, layout, report, reader)):
        _code(model, lanes, coder, tokens, layout)
        if _check(lanes, tokens) != checks[number]:
            raise Differs(number)
    return tokens


def _along(layout: Layout, text: KnownText | None) -> Along | None:
    """What codes where a mixture reads along."""
    if not layout.config.sidecar.name:
        return None
    from niblick.score.mixed_coding import Along  # which compiles: only where it is used

    return Along(layout.config.sidecar, layout.vocab_size, layout.bos_id, text)


class Differs(ArtifactError):
    """A block that is whole, but decodes to other tokens here than where it was written."""

    def __init__(self, block: int) -> None:
        self.block = block
        super().__init__(
            f"block {block} decodes to something else than was coded: this machine computes other probabilities"
        )


class _Writer:
    """Takes the targets of an encoder."""

    def __init__(self) -> None:
        self._coder = stream.queue.RangeEncoder()

    def code(self, logits_RV: torch.Tensor, known_R: Tokens) -> Tokens:
        """Write tokens under a model's distributions, and return them."""
        return self.code_under(_tables(logits_RV), known_R)

    def code_under(self, tables_RV: npt.NDArray[np.int64], known_R: Tokens) -> Tokens:
        """Write tokens under integer frequencies, and return them."""
        self._coder.encode(known_R.astype(np.int32), _FAMILY, coder_weights(tables_RV))
        return known_R

    def data(self) -> bytes:
        """What was written; a reader adds the zeros at its end by itself."""
        return self._coder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")


class _Reader:
    """Gives the tokens of a decoder."""

    def __init__(self, data: bytes) -> None:
        words = data + bytes(-len(data) % 4)
        self._coder = stream.queue.RangeDecoder(np.frombuffer(words, ">u4").astype(np.uint32))

    def code(self, logits_RV: torch.Tensor, known_R: Tokens) -> Tokens:
        """Read tokens under a model's distributions."""
        return self.code_under(_tables(logits_RV), known_R)

    def code_under(self, tables_RV: npt.NDArray[np.int64], known_R: Tokens) -> Tokens:
        """Read tokens. What no encoder writes gives some token or other: the block's check will tell."""
        try:
            return self._coder.decode(_FAMILY, coder_weights(tables_RV)).astype(np.uint16)
        except (AssertionError, ValueError):
            return np.zeros_like(known_R)


# Float weights that are integers with the sum 2**24 − V are taken as they are: the coder's tables are our integers.
_FAMILY = stream.model.Categorical(perfect=False)


def _work(model: LM, layout: Layout, report: Report | None, coder: Callable[[], Any]) -> Iterator[Any]:
    """Give every block's lanes and its coder, with the model ready for them."""
    was_training, threads, done = model.training, torch.get_num_threads(), 0
    dtype = next(model.parameters()).dtype
    if next(model.parameters()).device.type != "cpu" or dtype != torch.float32:
        raise ConfigError("coding is done in float32 on the CPU, where encoder and decoder round alike")
    model.eval()
    try:
        if layout.most_lanes == 1 and model.config.width <= ALONE_WIDTH:
            torch.set_num_threads(1)
        with torch.inference_mode(), room_for_chunks(model, layout.config.capacity):
            for lanes in layout.blocks():
                yield lanes, coder()
                done += sum(int((own.length_N - own.first_N).sum()) for own in lanes)
                if report is not None:
                    report(done, max(0, layout.tokens - 1))
    finally:
        model.train(was_training)
        torch.set_num_threads(threads)


def _check(lanes: list[Windows], tokens: Tokens) -> bytes:
    first, end = lanes[0].targets()[0], lanes[-1].targets()[1]
    return hashlib.sha256(tokens[first:end].astype("<u2").tobytes()).digest()[:CHECK_BYTES]


def _code(model: LM, lanes: list[Windows], coder: Any, tokens: Tokens, layout: Layout) -> None:
    """Code a block: read what is coded from `tokens`, or write it there, as the coder is."""
    start_R = layout.opening(lanes)
    if len(start_R):
        even_1V = frequencies(np.ones((1, layout.vocab_size), np.int64))
        tokens[start_R] = coder.code_under(even_1V.repeat(len(start_R), 0), tokens[start_R])
    steps = compiled(layout.config.seq_len) if layout.compiled else PLAIN
    by_room = any(isinstance(level, Level) and level.config.divisor is not None for level in model.body.levels)
    for number in range(max(len(own.start_N) for own in lanes)):
        going = [own.part(number, number + 1) for own in lanes if number < len(own.start_N)]
        going.sort(key=lambda own: -int(own.length_N[0]))
        # A divisor gives room by the length of a window: windows of unlike length then go one group after the other.
        groups = itertools.groupby(going, key=lambda own: int(own.length_N[0]) if by_room else 0)
        for _, group in groups:
            _code_windows(model, Windows(*map(np.concatenate, zip(*group, strict=True))), coder, tokens, steps)


def _code_windows(model: LM, windows: Windows, coder: Any, tokens: Tokens, steps: Steps) -> None:
    """Code windows side by side, the longest first; they score from the same input on."""
    first, rows = int(windows.first_N[0]), len(windows.start_N)
    state = model.new_state(rows, int(windows.length_N[0]), steps)
    for at in range(int(windows.length_N[0])):
        active = int((windows.length_N > at).sum())
        if active <= rows // 2:
            rows, state = active, first_rows(state, active)
        place_R = windows.start_N[:active] + at
        read_R = np.zeros(rows, np.int64)  # rows that are done read what the decoder has too
        read_R[:active] = tokens[place_R]
        hidden_RD, _ = model.step_hidden(torch.from_numpy(read_R), state)
        if at >= first:
            targets_R = place_R + 1
            tokens[targets_R] = coder.code(steps.head(model, hidden_RD)[:active], tokens[targets_R])


def _tables(logits_RV: torch.Tensor) -> npt.NDArray[np.int64]:
    """Return integer frequencies, each at least 1, that sum to 2**24 in every row."""
    p_RV = logits_RV.double().softmax(-1)
    return frequencies((p_RV * (1 << _ONE)).long().numpy())


def first_rows(state: Any, rows: int) -> Any:
    """Return the state of the first rows of a batch: every tensor of a state has its rows first."""
    if isinstance(state, torch.Tensor):
        return state[:rows].clone() if state.ndim else state
    if isinstance(state, list):
        return [first_rows(item, rows) for item in state]
    if is_dataclass(state) and not isinstance(state, type):
        return replace(state, **{f.name: first_rows(getattr(state, f.name), rows) for f in fields(state)})
    return state
