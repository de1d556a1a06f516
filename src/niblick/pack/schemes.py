"""How a tensor is stored, in words: `int6`, `int4:g64:log`, `ecsq4.5:column`, and which tensor gets which.

A scheme is a name and options, joined by colons:

    fp32, fp16, bf16     as floats
    int8-published       the challenge's export, bit for bit (see `published`)
    int2 … int8          codes of -(2^(N-1)-1) … 2^(N-1)-1, times a scale; the scale clips where that costs least
    ternary              codes of -1, 0, 1: another name for int2, whose codes are symmetric too
    ecsq0.5 … ecsq24     an even grid without clipping, its step such that the codes hold so many bits a weight (order-0
                         entropy): entropy-constrained scalar quantization, made for the codec `range`

    row, column, tensor  what shares a scale (int: row, ecsq: tensor by default)
    auto                 row or column, whichever gives the smaller error
    gN                   groups of at most N weights inside that share a scale instead
    log                  scales in 8 bits, evenly spaced in their logarithm, instead of fp16
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from niblick.errors import ConfigError, nearest
from niblick.pack.kinds import Ecsq, Floats, Int, Published, SchemeKind

AXES = ("row", "column", "tensor", "auto")
PUBLISHED = "int8-published"

KINDS: dict[str, SchemeKind] = {
    "fp32": Floats("fp32"),
    "fp16": Floats("fp16"),
    "bf16": Floats("bf16"),
    "int8-published": Published("int8-published"),
    "int": Int("int"),
    "ecsq": Ecsq("ecsq"),
}
"""All kinds of schemes by name."""
FLOATS = tuple(kind.reader for kind in KINDS.values() if kind.floats)
"""Readers of tensors that are not rounded."""


def register_scheme(kind: SchemeKind) -> None:
    """Make the schemes of a kind available in `export.scheme`, rules and `qat.scheme`.

    `artifact.dequantize.register_dequantizer` makes what it writes readable. Raises ConfigError if another kind has
    its name, or owns the name of one of its schemes.
    """
    for other in KINDS.values():
        if other is not kind and (other.name == kind.name or any(other.bits(name) is not None for name in kind.names)):
            raise ConfigError(f"scheme {kind.name!r} is taken: choose another name (taken: {', '.join(KINDS)})")
    KINDS[kind.name] = kind


@dataclass(frozen=True)
class Scheme:
    """How one tensor is stored."""

    kind: str
    """Name of its kind, see `KINDS`."""
    bits: float = 0.0
    """int: bits of a code, 2 to 8; ecsq: entropy of a code."""
    axis: str = "row"
    """What shares a scale: row, column, tensor; auto is row or column."""
    group: int = 0
    """So many weights of a row or column share a scale; 0: all of it."""
    log_scales: bool = False
    """Scales as 8-bit logarithms instead of fp16."""

    @property
    def levels(self) -> int:
        """Largest code of an int scheme."""
        return 2 ** (int(self.bits) - 1) - 1

    def __str__(self) -> str:
        name = f"{self.kind}{self.bits:g}" if self.bits else self.kind
        usual = kind_of(self).axis
        options = [self.axis] * (self.axis != usual) + [f"g{self.group}"] * bool(self.group) + ["log"] * self.log_scales
        return ":".join([name, *options])


def kind_of(scheme: Scheme) -> SchemeKind:
    """Return the kind of a scheme. Raises ConfigError, with the nearest names, if there is none."""
    if scheme.kind not in KINDS:
        raise ConfigError(f"there is no kind of schemes {scheme.kind!r}{nearest(scheme.kind, KINDS)}")
    return KINDS[scheme.kind]


def on_a_grid(scheme: Scheme) -> bool:
    """Whether a scheme rounds to a grid, so that GPTQ has something to say: not floats, nor the published int8."""
    return kind_of(scheme).on_grid


def parse_scheme(text: str) -> Scheme:
    """Return the scheme that `text` names. Raises ConfigError, with the nearest names, if there is none."""
    name, *options = text.split(":")
    kind = next((kind for kind in KINDS.values() if kind.bits(name) is not None), None)
    if kind is None:
        known = [known for kind in KINDS.values() for known in kind.names]
        raise ConfigError(
            f"there is no quantization scheme {text!r}{nearest(name, known)}; write one of "
            f"{', '.join(kind.offer for kind in KINDS.values())}"
        )
    if options and not kind.options:
        raise ConfigError(f"scheme {text!r}: {name} takes no options, found {':'.join(options)!r}; write {name!r}")
    scheme = Scheme(kind=kind.name, bits=kind.bits(name) or 0.0, axis=kind.axis)
    for option in options:
        if option in AXES:
            scheme = replace(scheme, axis=option)
        elif option == "log":
            scheme = replace(scheme, log_scales=True)
        elif re.fullmatch(r"g[1-9]\d{0,8}", option):
            scheme = replace(scheme, group=int(option[1:]))
        else:
            raise ConfigError(
                f"scheme {text!r} has an unknown option {option!r}{nearest(option, (*AXES, 'log'))}; "
                "options are row, column, tensor, auto, gN (weights in a group) and log"
            )
    if refusal := kind.refusal(scheme):
        raise ConfigError(f"scheme {text!r}: {refusal}")
    if scheme.group and scheme.axis == "tensor":
        raise ConfigError(f"scheme {text!r}: groups lie inside a row or a column, not in the whole tensor")
    return scheme


@dataclass(frozen=True)
class Rule:
    """Tensors whose name fits `pattern` (shell wildcards, or a part of the name) are stored by `scheme`."""

    pattern: str
    scheme: Scheme

    def fits(self, name: str) -> bool:
        """Whether the rule holds for the tensor of that name."""
        return fits(self.pattern, name)


def fits(pattern: str, name: str) -> bool:
    """Whether a tensor's name is meant by `pattern`: shell wildcards over the whole name, else any part of it."""
    return fnmatchcase(name, pattern) if any(c in pattern for c in "*?[") else pattern in name


def parse_rules(texts: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules that `PATTERN=SCHEME` texts stand for. Raises ConfigError for what is none."""
    rules = []
    for text in texts:
        pattern, equals, scheme = text.rpartition("=")
        if not equals or not pattern:
            raise ConfigError(f"the rule {text!r} is not PATTERN=SCHEME, as in 'embed*=int8'")
        rules.append(Rule(pattern, parse_scheme(scheme)))
    return tuple(rules)


def expect_matches(rules: Iterable[Rule], names: Iterable[str]) -> None:
    """Raise ConfigError for a rule that fits no tensor."""
    known = list(names)
    for rule in rules:
        if not any(rule.fits(name) for name in known):
            raise ConfigError(
                f"no tensor is named like {rule.pattern!r}{nearest(rule.pattern, known)}; `niblick show` lists them"
            )


def chosen_scheme(name: str, rules: Iterable[Rule]) -> Scheme | None:
    """The scheme of the last rule that fits, or None."""
    found = None
    for rule in rules:
        if rule.fits(name):
            found = rule.scheme
    return found


SchemeOf = Mapping[str, Scheme]
"""Scheme of each tensor by name."""
