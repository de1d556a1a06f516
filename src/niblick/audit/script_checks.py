"""Reading a training script without running it: what it does with validation tokens, targets and bytes.

The script is unpacked where it is packed (`unpacking`), and gone through value by value (`flow`): what comes from files
or variables called `val…` is validation data, and so is what follows from it, through calls, loops and containers. That
is a reading, not a proof: it says where to look, with line and reason. What cannot be followed is never a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from niblick.audit.byte_tables import read_tables
from niblick.audit.checks import Check, look, not_applicable, passed
from niblick.audit.flow import Flow
from niblick.audit.flow_events import Finding
from niblick.audit.unpacking import Layer, Unpacked, unpack
from niblick.memory import uncollected

_MOST_LINES = 12


@dataclass(frozen=True)
class _Read:
    """One text of the script, gone through."""

    layer: Layer
    flow: Flow
    tables: int
    counted: tuple[Finding, ...]
    """What is wrong with its tables of bytes."""


@uncollected()
def audit_script(source: str | bytes, name: str = "the script") -> list[Check]:
    """All checks of a script, whatever is packed in it. Raises ConfigError if it is no Python."""
    unpacked = unpack(source, name)
    read = [_read(layer) for layer in unpacked.layers]
    checks = [
        _validation(read),
        _learning(read),
        _simple(read, "target in keys", "no hash or XOR key has a target in it"),
        _simple(read, "target in predictions", "no distribution is changed by something of its own target"),
        _simple(read, "corrections", "nothing is fitted to validation data or chosen by its cost"),
        _bytes(read),
    ]
    return [_whole(unpacked, read), *_unless_unread(checks, unpacked, read)]


def _read(layer: Layer) -> _Read:
    tables, counted = read_tables([layer.tree, *layer.modules.values()])
    return _Read(layer, Flow(layer).run(), tables, tuple(counted))


def _whole(unpacked: Unpacked, read: Sequence[_Read]) -> Check:
    """Whether the whole program was read."""
    name = "program"
    packed = [layer for layer in unpacked.layers if layer.where]
    lines = sum(layer.text.count("\n") + 1 for layer in unpacked.layers)
    if unpacked.unread:
        line, what = unpacked.unread[0]
        own = unpacked.layers[0]
        said = f"line {line}: {what}: the program is packed, or made as it runs, and was not read"
        if len(own.tree.body) <= 4 and not packed:
            return not_applicable(name, said)
        return look(name, said, lines=[{"line": at, "what": why} for at, why in unpacked.unread[:_MOST_LINES]])
    if any(one.flow.too_large for one in read):
        return look(name, f"{lines:,} lines are too many ways to follow: most checks say nothing")
    how = f", {len(packed)} packed texts among them," if packed else ""
    return passed(name, f"{lines:,} lines{how} were read", "look")


def _unless_unread(checks: Iterable[Check], unpacked: Unpacked, read: Sequence[_Read]) -> list[Check]:
    """Turn passes into "not applicable" where the program was not read as a whole."""
    why = ""
    if unpacked.unread:
        why = f"the program is packed, or made as it runs, and was not read (line {unpacked.unread[0][0]})"
    elif any(one.flow.too_large for one in read):
        why = "the program is too large to be followed"
    return [not_applicable(c.name, why, "look") if why and c.status == "pass" else c for c in checks]


def _lines(findings: Iterable[tuple[str, Finding]]) -> list[dict[str, object]]:
    rows = list(dict.fromkeys(findings))[:_MOST_LINES]
    return [{"line": f.line, "what": f.what} | ({"where": where.rstrip(", ")} if where else {}) for where, f in rows]


def _found(read: Sequence[_Read], check: str) -> list[tuple[str, Finding]]:
    return [(one.layer.where, finding) for one in read for finding in one.flow.found.get(check, {})]


def _look(name: str, found: Sequence[tuple[str, Finding]]) -> Check:
    where, first = found[0]
    return look(name, f"{where}line {first.line}: {first.what}", lines=_lines(found))


def _validation(read: Sequence[_Read]) -> Check:
    """Where validation tokens are loaded and used: shown, not judged."""
    name = "validation tokens"
    loads = [(one.layer.where, f) for one in read for f in sorted(one.flow.loads)]
    uses = [(one.layer.where, f) for one in read for f in sorted(one.flow.uses)]
    if not loads and not uses:
        return not_applicable(name, "the script names no validation data", "look")
    if strange := [(one.layer.where, f) for one in read for f in sorted(one.flow.unfollowed)]:
        return _look(name, strange)
    shown = [", ".join(dict.fromkeys(str(f.line) for _, f in some)) for some in (loads[:6], uses[:12])]
    detail = f"loaded near line {shown[0] or '?'}; used in lines {shown[1]}"
    return passed(name, detail, "look", loaded=_lines(loads), used=_lines(uses))


def _learning(read: Sequence[_Read]) -> Check:
    """Validation data is learned from after it was scored, and what is scored was not learned before."""
    name = "score-first"
    if found := _found(read, name):
        return _look(name, found)
    unreached = [(one.layer.where, f) for one in read for f in sorted(one.flow.unreached)]
    if unreached and any(one.flow.uses for one in read):
        where, first = unreached[0]
        return not_applicable(name, f"{where}line {first.line}: {first.what}", "look")
    guarded = [(one.layer.where, f) for one in read for f in sorted(one.flow.guarded)]
    if guarded:
        where, first = guarded[0]
        return passed(name, f"{where}line {first.line} {first.what}", "look", lines=_lines(guarded))
    if any(one.flow.uses for one in read) and not any(one.flow.followed for one in read):
        return not_applicable(name, "validation data was not followed to any score of it", "look")
    passes = sum(one.flow.backward for one in read)
    if not passes and not any(one.flow.uses for one in read):
        return not_applicable(name, "the script learns nothing and uses no validation data", "look")
    return passed(name, "nothing that is scored was learned from validation data before", "look")


def _simple(read: Sequence[_Read], name: str, fine: str) -> Check:
    found = _found(read, name)
    return _look(name, found) if found else passed(name, fine, "look")


def _bytes(read: Sequence[_Read]) -> Check:
    """A table of token bytes: a leading space counts once, a byte piece counts one."""
    name = "byte table"
    if found := [(one.layer.where, f) for one in read for f in one.counted]:
        return _look(name, found)
    if not any(one.tables for one in read):
        return not_applicable(name, "the script makes no table of token bytes", "look")
    return passed(name, "the table counts a leading space once and a byte piece as one byte", "look")
