"""The compiled heart of the mixture: how a token is predicted decision by decision, and what is learned of it.

A token is a path of binary decisions down a tree over the vocabulary. For each decision every context says how likely
a 1 is, a mixer weighs what they say in the logistic domain, and the last stage corrects by what came of such
predictions before. The probability of a token is the product along its path: it sums to one whatever is learned.
Everything is learned after its decision is scored.

The same decisions are coded: the coder divides the numbers of 32 bits between `low` and `high` by the probability of
each and keeps the part that was taken; bytes on which both ends agree are written.

Without numba the same functions run in plain Python: slowly, and with the same result. They are all in this file
because numba keeps what it compiled until the file of the function that is called changes, and looks at no other.

Sources: Mahoney, "Adaptive weighing of context models for lossless data compression" (2005), for hashed contexts,
match models, logistic mixing and the stages at the end; Mattern, "Mixing strategies in data compression" (2012), for
what such mixing minimizes; Witten, Neal and Cleary, "Arithmetic coding for data compression" (1987).

Shapes: N tokens, V vocabulary, C contexts, M match models, X inputs of the mixer, S sets of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])


ENTRIES = ("read", "write_bits", "read_bits")
"""What is called from Python; all else is inlined into these."""


def compiled(function: Function) -> Function:
    """Compile with numba where it is installed, in strict floating point; else leave the function as it is.

    All is inlined into what Python calls, and nobody counts references on the way, since the arrays are the caller's:
    half of the time went there, and more with few contexts.
    """
    try:
        from numba import njit
    except ImportError:
        return function
    settings: dict[str, Any] = {"error_model": "numpy", "forceinline": function.__name__ not in ENTRIES, "_nrt": False}
    try:
        return njit(cache=True, **settings)(function)
    except RuntimeError:  # there is no file beside which to keep what was compiled, as in a submission
        return njit(**settings)(function)


class Mind(NamedTuple):
    """All that is known, as arrays that are changed in place."""

    left_V: Array
    """Tree: what the 0 of a node leads to, another node or ~token; nodes are numbered from 0, parents first."""
    right_V: Array
    path_VD: Array
    """The decisions towards each token."""
    depth_V: Array
    symbol_V: Array
    """What contexts know of a token: its byte, or the token itself where tokens are no bytes."""
    orders_K: Array
    """Lengths of the contexts of last symbols, ascending."""
    least_M: Array
    """Least length of each match model's context."""
    extras: Array
    """Whether there are contexts of text (words, columns, gaps), and of the model's best guess."""
    slots: Array
    """Buckets of 16: a check, then a slot for each node of four decisions: a probability of 12 bits, a count of 4."""
    last_MH: Array
    """Where each match model's context was last, by hash."""
    history: Array
    """The last tokens, in a ring."""
    maps_CR: Array
    """What came of the content of a slot, for each context: probabilities of 22 bits with counts of 10."""
    match_maps_MR: Array
    weights_SRX: Array
    final_RS: Array
    """Weights of what the sets say."""
    stages_TRB: Array
    """Probabilities of the last stages, between which they interpolate."""
    state: Array
    """Integers, named below."""
    hash_C: Array
    base_C: Array
    """Where the bucket of each context begins."""
    match_M4: Array
    """Of each match: where it continues, its length, whether it agreed so far in this token, and its row of the map."""
    input_X: Array
    mass_V: Array
    """The model's probability of every node."""
    set_S: Array
    """The row of each set of weights that is used here."""
    out_S: Array
    stage_T: Array
    stretch: Array
    """ln(p/(1−p)) for 4,096 values of p."""
    rate_N: Array
    """1/(n + 1.5): how far a probability moves that has seen n decisions."""
    knobs: Array
    """Settings, named below."""


PLACE, WORD, WORD1, WORD2, WORD3, COLUMN, INDENT, FIRST, SHAPE, ABOVE, LINE, LINE1, GUESS, SURE, HIT, LONGEST = range(
    16
)
"""Places of `Mind.state`."""
RATE, LEAST_RATE, DECAY, FINAL_RATE, STAGE_RATE, STAGE_SHARE, MAP_LIMIT, CONFIDENT = range(8)
"""Places of `Mind.knobs`."""
LOW, HIGH, AT, CODE = range(4)
"""Places of a coder's state: the numbers it still has, its place in the bytes, and what it has read of them."""
INPUTS = 3
"""Of each context."""
MODEL_INPUTS = 3
"""Two of the model, and one that is always the same."""
WIDE = np.int64(0)
"""Added to a small integer, it makes a large one of it, whoever runs the function."""
ONE, TWO, THREE, FOUR = (np.uint64(n) for n in range(1, 5))
"""With numbers that cannot be negative nobody asks whether an index counts from the end: the mixer's sums take half."""
CONTROL = 32
"""A vocabulary of bytes has at most so many tokens besides."""
BINS = 33
TEXT_CONTEXTS = 14
GUESS_CONTEXTS = 2
LONGEST_MATCH = 400
SHARES = 65_536
"""The coder knows probabilities of 16 bits."""
MASK = 0xFFFFFFFF


@compiled
def squash(x: float) -> float:
    """Return 1/(1 + e^−x), for x up to 20."""
    return 1.0 / (1.0 + math.exp(-min(20.0, max(-20.0, x))))


@compiled
def mixed(h: int, x: int) -> int:
    """Return a hash of 32 bits of a hash and a number."""
    h = ((h ^ x) * 0x2F0B4C47 + 0x3C6EF372) & MASK
    return h ^ (h >> 15)


@compiled
def back(m: Mind, steps: int) -> int:
    """Return the symbol so many places before the next one."""
    return int(m.symbol_V[m.history[(m.state[PLACE] - steps) & (len(m.history) - 1)]])


@compiled
def set_text_contexts(m: Mind, at: int) -> int:
    """Hash words, gaps, lines and columns, from `at` on; return where they end."""
    s, h = m.state, m.hash_C
    c1, c2, c3, c4 = back(m, 1), back(m, 2), back(m, 3), back(m, 4)
    word, word1, word2 = s[WORD], s[WORD1], s[WORD2]
    h[at] = mixed(mixed(101, word), c1)
    h[at + 1] = mixed(mixed(102, word), word1)
    h[at + 2] = mixed(mixed(mixed(103, word), word1), word2)
    h[at + 3] = mixed(mixed(104, word), word2)
    h[at + 4] = mixed(mixed(105, c2), c3)
    h[at + 5] = mixed(mixed(mixed(106, c2), c3), c4)
    h[at + 6] = mixed(mixed(107, c1), c3)
    h[at + 7] = mixed(mixed(108, s[ABOVE]), c1)
    h[at + 8] = mixed(mixed(109, s[ABOVE]), min(s[COLUMN], 255))
    h[at + 9] = mixed(mixed(110, s[FIRST]), word)
    h[at + 10] = mixed(111, s[SHAPE])
    h[at + 11] = mixed(mixed(112, s[SHAPE] & 0xFFFF), word)
    h[at + 12] = mixed(mixed(mixed(113, word), s[INDENT]), c1)
    h[at + 13] = mixed(mixed(mixed(mixed(114, word), word1), word2), s[WORD3])
    return at + TEXT_CONTEXTS


@compiled
def set_contexts(m: Mind) -> None:
    """Hash all contexts of the token that comes next."""
    h, at = 0x1234567, 0
    for k in range(m.orders_K[-1] + 1):
        if k:
            h = mixed(h, back(m, k) + 1)
        if k == m.orders_K[at]:
            m.hash_C[at] = mixed(h, 7919 * (k + 1))
            at += 1
    if m.extras[0]:
        at = set_text_contexts(m, at)
    if m.extras[1]:
        m.hash_C[at] = mixed(mixed(201, m.state[GUESS]), back(m, 1))
        m.hash_C[at + 1] = mixed(mixed(mixed(202, m.state[GUESS]), m.state[SURE]), m.state[WORD])


@compiled
def follow_text(m: Mind, symbol: int) -> None:
    """Follow words, lines and shapes past a symbol; `PLACE` is already behind it."""
    s = m.state
    lower = symbol + 32 if 65 <= symbol <= 90 else symbol
    letter = 97 <= lower <= 122 or 128 <= symbol < 256
    kind = symbol
    if letter:
        s[WORD] = mixed(s[WORD], lower)
        kind = 1 if symbol == lower else 2
    elif s[WORD]:
        s[WORD3], s[WORD2], s[WORD1], s[WORD] = s[WORD2], s[WORD1], s[WORD], 0
    if 48 <= symbol <= 57:
        kind = 3
    if kind != 1 or (s[SHAPE] & 0xFF) != 1:  # small letters in a row count once
        s[SHAPE] = ((s[SHAPE] << 8) | (kind & 0xFF)) & MASK
    if symbol == 10:
        s[LINE1], s[LINE] = s[LINE], s[PLACE]
        s[FIRST], s[INDENT], s[COLUMN] = 0, 0, 0
    else:
        if s[COLUMN] == s[INDENT]:
            if symbol == 32:
                s[INDENT] += 1
            else:
                s[FIRST] = symbol
        s[COLUMN] += 1
    above = s[LINE1] + s[COLUMN]
    s[ABOVE] = back(m, s[PLACE] - above) if above < s[LINE] else 0


@compiled
def find_bucket(m: Mind, h: int) -> int:
    """Return where the bucket of a hash begins: its own, or the less used one of two, cleared."""
    slots = m.slots
    check = ((h >> 16) & 0xFFFF) | 1
    one = ((h * 0x1E35A7BD >> 5) & ((len(slots) >> 4) - 1)) << 4
    two = one ^ 16
    if slots[one] == check:
        return one
    if slots[two] == check:
        return two
    if (slots[two + 1] & 15) < (slots[one + 1] & 15):
        one = two
    slots[one] = check
    for i in range(1, 16):
        slots[one + i] = 0
    return one


@compiled
def set_buckets(m: Mind, node: int) -> None:
    """Find the buckets of all contexts for the next four decisions."""
    for c in range(len(m.hash_C)):
        m.base_C[c] = find_bucket(m, mixed(m.hash_C[c], 40503 * node + 77 * c + 1))


@compiled
def set_mass(m: Mind, p_V: Array) -> None:
    """Sum the model's distribution up the tree, and note its best token."""
    best, top = 0, 0.0
    for node in range(len(m.left_V) - 1, -1, -1):
        total = 0.0
        for child in (m.left_V[node], m.right_V[node]):
            if child >= 0:
                total += m.mass_V[child]
            else:
                total += p_V[~child]
                if p_V[~child] > top:
                    best, top = ~child, p_V[~child]
        m.mass_V[node] = total
    m.state[GUESS] = best
    m.state[SURE] = int(top * 4)


@compiled
def find_matches(m: Mind) -> None:
    """Let the match models that have no match look for one, and remember this place."""
    p, ring = m.state[PLACE], len(m.history) - 1
    for k in range(len(m.least_M)):
        least, match = m.least_M[k], m.match_M4[k]
        match[2] = 1
        if p < least:
            continue
        h = 0
        for j in range(1, least + 1):
            h = mixed(h, back(m, j) + 1)
        row = h & (m.last_MH.shape[1] - 1)
        if match[1] == 0:
            there, length = m.last_MH[k, row], 0
            if there > 0 and p - there < ring - LONGEST_MATCH:
                while length < min(there, LONGEST_MATCH):
                    if m.history[(there - 1 - length) & ring] != m.history[(p - 1 - length) & ring]:
                        break
                    length += 1
            if length >= least:
                match[0], match[1] = there, length
        m.last_MH[k, row] = p


@compiled
def length_class(length: int) -> int:
    """Return which of 24 classes the length of a match is in."""
    if length < 16:
        return length
    if length < 32:
        return 16 + ((length - 16) >> 3)
    if length < 64:
        return 18 + ((length - 32) >> 4)
    if length < 256:
        return 20 + (length >> 7)
    return 22 if length < LONGEST_MATCH else 23


@compiled
def ask_contexts(m: Mind, within: int) -> int:
    """Write what the contexts say to the mixer's inputs; return how many there are."""
    x, at, hit = m.input_X, 0, 0
    for c in range(len(m.hash_C)):
        slot = m.slots[m.base_C[c] + within] + WIDE
        n = slot & 15
        if n == 0:
            x[at], x[at + 1], x[at + 2] = 0.0, 0.0, 0.0
        else:
            q = (m.maps_CR[c, (n << 6) | (slot >> 10)] + WIDE) >> 20
            x[at] = m.stretch[q]
            x[at + 1] = (q - 2048) * (1.0 / 1024)
            x[at + 2] = m.stretch[slot >> 4] * m.knobs[CONFIDENT] * n
            if c < len(m.orders_K):
                hit = c + 1
        at += INPUTS
    m.state[HIT] = hit
    return at


@compiled
def ask_matches(m: Mind, depth: int, at: int) -> int:
    """Write what the match models say to the mixer's inputs; return where it ends."""
    x, ring = m.input_X, len(m.history) - 1
    m.state[LONGEST] = 0
    for k in range(len(m.least_M)):
        x[at], x[at + 1] = 0.0, 0.0
        match = m.match_M4[k]
        match[3] = -1
        guess = m.history[match[0] & ring]
        if match[1] > 0 and match[2] and depth < m.depth_V[guess]:
            sign = 2.0 * m.path_VD[guess, depth] - 1.0
            match[3] = length_class(match[1]) * 16 + min(depth, 15)
            q = (m.match_maps_MR[k, match[3]] + WIDE) >> 20
            x[at] = m.stretch[q] * sign
            x[at + 1] = (q - 2048) * (1.0 / 1024) * sign
            if m.state[LONGEST] == 0:
                m.state[LONGEST] = 2 * length_class(match[1]) + m.path_VD[guess, depth]
        at += 2
    return at


@compiled
def ask_model(m: Mind, p_V: Array, node: int, at: int) -> int:
    """Write what the model says to the mixer's inputs; return how sure it is, 0 without a model."""
    x = m.input_X
    x[at], x[at + 1], x[at + 2] = 0.0, 0.0, 0.4
    if len(p_V) == 0:
        return 0
    child = m.right_V[node]
    mass = m.mass_V[child] if child >= 0 else p_V[~child]
    p1 = min(1 - 1e-6, max(1e-6, mass / max(m.mass_V[node], 1e-300)))
    x[at] = math.log(p1 / (1 - p1))
    x[at + 1] = (p1 - 0.5) * 4
    return min(6, int(abs(x[at]))) + (8 if p1 > 0.5 else 1)


@compiled
def mix(m: Mind, node: int) -> float:
    """Return the probability of a 1, from the inputs and the sets that are chosen."""
    x, total = m.input_X, 0.0
    for s in range(len(m.set_S)):
        w = m.weights_SRX[s, m.set_S[s]]
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        for k in range(ONE * (len(x) // 4)):
            i = FOUR * k
            a += w[i] * x[i]
            b += w[i + ONE] * x[i + ONE]
            c += w[i + TWO] * x[i + TWO]
            d += w[i + THREE] * x[i + THREE]
        m.out_S[s] = min(12.0, max(-12.0, (a + b) + (c + d)))
        total += m.final_RS[node % len(m.final_RS), s] * m.out_S[s]
    m.out_S[-1] = min(12.0, max(-12.0, total))
    return refined(m, node, m.out_S[-1])


@compiled
def refined(m: Mind, node: int, s: float) -> float:
    """Return the probability after the last stages: what came of such predictions in such places."""
    place = (min(7.999, max(-7.999, s)) + 8) * 2
    low = int(place)
    share = place - low
    last = m.stages_TRB.shape[1] - 1
    m.stage_T[0], m.stage_T[1] = node & last, mixed(mixed(1, back(m, 1)), node) & last
    m.stage_T[2] = mixed(mixed(mixed(2, back(m, 1)), back(m, 2)), node) & last
    m.stage_T[-1] = low + (1 if share > 0.5 else 0)
    p = squash(s)
    total = 0.0
    for t in range(len(m.stages_TRB)):
        row = m.stages_TRB[t, m.stage_T[t]]
        total += row[low] * (1 - share) + row[low + 1] * share
    p = p * (1 - m.knobs[STAGE_SHARE]) + total / len(m.stages_TRB) * m.knobs[STAGE_SHARE]
    return min(1 - 1e-6, max(1e-6, p))


@compiled
def predict(m: Mind, p_V: Array, node: int, depth: int, within: int) -> float:
    """Return the probability of a 1 at a node."""
    if within == 1:
        set_buckets(m, node)
    at = ask_matches(m, depth, ask_contexts(m, within))
    sure = ask_model(m, p_V, node, at)
    by_order, by_depth = m.state[HIT] * 16 + sure, min(depth, 15) * 16 + sure
    kind = m.state[SHAPE] & 0xFF
    rows = (by_order, m.state[LONGEST], node, back(m, 1), by_depth, kind, back(m, 2))
    for s in range(len(m.set_S)):
        m.set_S[s] = rows[s] % m.weights_SRX.shape[1]
    return mix(m, node)


@compiled
def nudged(cell: int, bit: int, limit: int, rate_N: Array) -> int:
    """Return a probability of 22 bits with a count of 10, after a decision."""
    n, p = cell & 1023, cell >> 10
    p += int(((4194303 if bit else 0) - p) * rate_N[n])
    return (p << 10) | min(n + 1, limit)


@compiled
def learn_slots(m: Mind, bit: int, within: int) -> None:
    """Let the contexts learn a decision: what came of their slots first, then the slots."""
    limit = int(m.knobs[MAP_LIMIT])
    for c in range(len(m.hash_C)):
        at = m.base_C[c] + within
        slot = m.slots[at] + WIDE
        n, p = slot & 15, slot >> 4
        if n == 0:
            p = 2048
        else:
            row = (n << 6) | (slot >> 10)
            m.maps_CR[c, row] = nudged(m.maps_CR[c, row] + WIDE, bit, limit, m.rate_N)
        step = max(1, int((4095 * bit - p) * (2 * bit - 1) * m.rate_N[n]))
        p = min(4095, max(0, p + (2 * bit - 1) * step))
        m.slots[at] = (p << 4) | min(n + 1, 15)


@compiled
def learn_mixer(m: Mind, bit: int, node: int) -> None:
    """Let the weights climb the gradient of the log-probability of a decision, and the last stages follow it."""
    x, rate = m.input_X, m.knobs[RATE]
    step = (bit - squash(m.out_S[-1])) * m.knobs[FINAL_RATE]
    for s in range(len(m.set_S)):
        m.final_RS[node % len(m.final_RS), s] += step * m.out_S[s]
        w = m.weights_SRX[s, m.set_S[s]]
        push = (bit - squash(m.out_S[s])) * rate
        for i in range(ONE * len(x)):
            w[i] += push * x[i]
    for t in range(len(m.stages_TRB)):
        row = m.stages_TRB[t, m.stage_T[t]]
        row[m.stage_T[-1]] += (bit - row[m.stage_T[-1]]) * m.knobs[STAGE_RATE]


@compiled
def learn_matches(m: Mind, bit: int, depth: int) -> None:
    """Let the match models learn whether they were right; those that were not say nothing more in this token."""
    ring = len(m.history) - 1
    for k in range(len(m.least_M)):
        match = m.match_M4[k]
        if match[3] >= 0:
            right = 1 if m.path_VD[m.history[match[0] & ring], depth] == bit else 0
            m.match_maps_MR[k, match[3]] = nudged(m.match_maps_MR[k, match[3]] + WIDE, right, 1023, m.rate_N)
            match[2] = right


@compiled
def learn(m: Mind, bit: int, node: int, depth: int, within: int) -> None:
    """Let everyone learn a decision that was predicted."""
    learn_slots(m, bit, within)
    learn_mixer(m, bit, node)
    learn_matches(m, bit, depth)


@compiled
def start_token(m: Mind, p_V: Array) -> None:
    """Make ready for the next token."""
    if len(p_V):
        set_mass(m, p_V)
    set_contexts(m)
    find_matches(m)


@compiled
def end_token(m: Mind, token: int) -> None:
    """Take a token into the history."""
    ring = len(m.history) - 1
    for k in range(len(m.least_M)):
        match = m.match_M4[k]
        if match[1] > 0 and m.history[match[0] & ring] == token:
            match[0] += 1
            match[1] = min(match[1] + 1, LONGEST_MATCH)
        else:
            match[1] = 0
    m.history[m.state[PLACE] & ring] = token
    m.state[PLACE] += 1
    if m.extras[0]:
        follow_text(m, m.symbol_V[token])
    if m.knobs[RATE] > m.knobs[LEAST_RATE]:
        m.knobs[RATE] *= m.knobs[DECAY]


@compiled
def read(m: Mind, p_NV: Array, tokens_N: Array, nats_N: Array) -> None:
    """Read tokens, writing what each costs before it is learned. Without a model p_NV has no columns."""
    for i in range(len(tokens_N)):
        token, p_V = tokens_N[i], p_NV[i]
        start_token(m, p_V)
        node, within, nats = 0, 1, 0.0
        for depth in range(m.depth_V[token]):
            p1 = predict(m, p_V, node, depth, within)
            bit = m.path_VD[token, depth]
            nats -= math.log(p1 if bit else 1 - p1)
            learn(m, bit, node, depth, within)
            node = m.right_V[node] if bit else m.left_V[node]
            within = 1 if depth % 4 == 3 else 2 * within + bit
        nats_N[i] = nats
        end_token(m, token)


@compiled
def split(low: int, high: int, p1: float) -> int:
    """Return the last number that stands for a 1."""
    share = min(SHARES - 1, max(1, int(p1 * SHARES)))
    return low + ((high - low) >> 16) * share + ((((high - low) & 0xFFFF) * share) >> 16)


@compiled
def write_bits(m: Mind, p_NV: Array, tokens_N: Array, out: Array, coder: Array) -> None:
    """Write tokens to `out`, which is large enough, from the coder's `AT` on. Without a model p_NV has no columns."""
    low, high, at = coder[LOW], coder[HIGH], coder[AT]
    for i in range(len(tokens_N)):
        token, p_V = tokens_N[i], p_NV[i]
        start_token(m, p_V)
        node, within = 0, 1
        for depth in range(m.depth_V[token]):
            middle = split(low, high, predict(m, p_V, node, depth, within))
            bit = m.path_VD[token, depth]
            if bit:
                high = middle
            else:
                low = middle + 1
            while (low ^ high) < 1 << 24:
                out[at] = high >> 24
                low, high, at = (low & 0xFFFFFF) << 8, ((high & 0xFFFFFF) << 8) | 255, at + 1
            learn(m, bit, node, depth, within)
            node = m.right_V[node] if bit else m.left_V[node]
            within = 1 if depth % 4 == 3 else 2 * within + bit
        end_token(m, token)
    coder[LOW], coder[HIGH], coder[AT] = low, high, at


@compiled
def read_bits(m: Mind, p_NV: Array, data: Array, tokens_N: Array, coder: Array) -> None:
    """Read as many tokens as `tokens_N` has room for; behind the end of `data` come zeros."""
    low, high, at, code = coder[LOW], coder[HIGH], coder[AT], coder[CODE]
    for i in range(len(tokens_N)):
        p_V = p_NV[i]
        start_token(m, p_V)
        node, within, depth = 0, 1, 0
        while node >= 0:
            middle = split(low, high, predict(m, p_V, node, depth, within))
            bit = 1 if code <= middle else 0
            if bit:
                high = middle
            else:
                low = middle + 1
            while (low ^ high) < 1 << 24:
                low, high = (low & 0xFFFFFF) << 8, ((high & 0xFFFFFF) << 8) | 255
                code, at = ((code & 0xFFFFFF) << 8) | (data[at] if at < len(data) else 0), at + 1
            learn(m, bit, node, depth, within)
            node = m.right_V[node] if bit else m.left_V[node]
            within = 1 if depth % 4 == 3 else 2 * within + bit
            depth += 1
        tokens_N[i] = ~node
        end_token(m, ~node)
    coder[LOW], coder[HIGH], coder[AT], coder[CODE] = low, high, at, code


COMPILED = hasattr(read, "py_func")
