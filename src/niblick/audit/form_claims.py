"""What a form says of itself: its numbers held against each other, before any file is looked at.

A score is the mean of the seeds beside it, its standard deviation theirs, and every loss has the same ratio to the
score beside it, which is what the text has of bytes and tokens. Whoever changes one by hand leaves the others behind.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from niblick.audit.checks import Check, Status, Strength
from niblick.challenge import rules
from niblick.submission.forms import Form, Stated

EXACT = 5e-7
"""By how much a stated number may differ from another's beside what its digits leave open."""

RATIO = 1e-3
"""Share by which the ratios of losses to scores may differ: windows of other lengths leave out other tails."""


def row(name: str, claim: str, evidence: str, status: Status, strength: Strength = "stated") -> Check:
    """A claim beside its evidence; these are shown as a table at the end of the report."""
    detail = f"{claim}; {evidence}" if claim else evidence
    return Check(f"claim: {name}", status, detail, {"claim": claim, "evidence": evidence}, strength)


def absent(name: str, form: Form) -> Check:
    """What a form leaves out."""
    return row(name, "", f"{form.path.name} does not state it", "not applicable")


def over_cap(name: str, claim: str, form: Form) -> Check:
    """A total over the cap: a failure, unless the form says itself that it is no entry under the cap."""
    said = f"that is over the cap of {rules.CAP_BYTES:,}"
    if form.beyond:
        return row(name, claim, f"{said}, which the form says itself ({form.beyond})", "look", "look")
    return row(name, claim, said, "fail")


def agrees(stated: Stated, values: Sequence[float]) -> bool:
    """Whether a stated number is one of these."""
    return any(abs(stated.value - value) <= stated.slack + EXACT for value in values)


def agrees_on_average(stated: Stated, values: Sequence[float]) -> bool:
    """Whether it is their mean or median; a mean of numbers that were rounded first is off by half a digit more."""
    if not values:
        return False
    near = Stated(stated.name, stated.value, 2 * stated.slack)
    return agrees(near, [statistics.mean(values), statistics.median(values)])


def inner_claims(form: Form) -> Iterator[Check]:
    """The standard deviation over seeds, and the ratios of losses to scores."""
    yield from _spread(form)
    yield from _ratio(form)


def _spread(form: Form) -> Iterator[Check]:
    stated, own = form.spread, form.own_scores
    if stated is None or len(own) < 2:
        return
    values = [one.value for one in own]
    spreads = [statistics.stdev(values), statistics.pstdev(values)]
    slack = stated.slack + EXACT + 2 * max(one.slack for one in own)
    claim = f"{form.path.name} says {stated.name} {stated.text}"
    told = f"its own {len(own)} seeds have {spreads[0]:.3g}"
    same = any(abs(stated.value - spread) <= slack for spread in spreads)
    yield row("spread", claim, told, "pass" if same else "fail")


def _ratio(form: Form) -> Iterator[Check]:
    """Loss and score stand in one ratio throughout a form; the pair with the most digits is the measure."""
    if len(form.pairs) < 2:
        return
    spans = [(loss, bpb, loss.value / bpb.value, _open(loss) + _open(bpb)) for loss, bpb in form.pairs]
    _, _, measure, slack = min(spans, key=lambda span: span[3])
    claim = f"{form.path.name} says {len(spans)} losses in nats per token beside scores in BPB"
    for loss, bpb, ratio, digits in spans:
        if abs(ratio / measure - 1) > RATIO + digits + slack:
            told = f"{loss.name} {loss.text} is {ratio:.4f} times {bpb.name} {bpb.text}, the others {measure:.4f} times"
            yield row("loss and score", claim, f"{told}: one of them is not of this text", "fail")
            return
    yield row("loss and score", claim, f"all in a ratio of {measure:.4f}, as one text gives them", "pass")


def _open(stated: Stated) -> float:
    """The share that a number's digits leave open."""
    return stated.slack / stated.value
