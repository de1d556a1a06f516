"""What is noticed while a script is read: text that is priced, learned from, summed up, chosen by, and shown."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from niblick.audit.flow_values import Cost, Learned, Place, Region, Value, blend

MOST_STEPS = 600_000
"""Expressions that are looked at before a script counts as too large to follow."""


@dataclass(frozen=True, order=True)
class Finding:
    """A line that matters, and what is on it."""

    line: int
    what: str


class TooLarge(Exception):
    """There is more to follow than is worth while."""


class Events:
    """Keeps what was noticed, in the order in which the script would do it."""

    def __init__(self) -> None:
        self.steps = 0
        self.found: dict[str, dict[Finding, None]] = {}
        self.loads: set[Finding] = set()
        self.uses: set[Finding] = set()
        self.guarded: set[Finding] = set()
        self.unfollowed: set[Finding] = set()
        self.unreached: set[Finding] = set()
        """Learning that stands where nothing was seen to call it."""
        self.backward = 0
        self.scored: dict[Region, int] = {}
        self.followed = False
        """Whether validation data was followed to what it costs."""
        self.late: list[tuple[Cost, bool]] = []
        """Costs of what was learned before, and whether they were summed up."""
        self.trained: set[int] = set()
        """Numbers of costs that gradients were taken of."""
        self.shown: list[frozenset[Cost]] = []
        self.lines: list[int] = []
        """Lines of the calls that lead here."""
        self.loops: list[tuple[object, int]] = []
        self.arms: list[tuple[int, int]] = []
        """The branches that are gone through: (which condition, which branch)."""
        self.cuts: list[Place] = []
        """What the conditions depend on that are gone through."""
        self.forks = 0
        self.hooks: list[Value] = []
        self.extended: dict[int, tuple[Value, int]] = {}
        """Keys that a newer token was mixed into, by the key before."""

    def find(self, check: str, line: int, what: str) -> None:
        """Note something that a person should look at."""
        self.found.setdefault(check, {})[Finding(line, what)] = None

    def fork(self) -> int:
        """A condition is come to: its number."""
        self.forks += 1
        return self.forks

    def scaled(self, node: ast.AST, cost: Value, by: Value) -> None:
        """What targets cost is scaled by whether they are what is stored for them: those that match may be free."""
        if cost.costs and "matched" in by.traits and any(one.region.text == "val" for one in cost.costs):
            what = "what a target costs is changed by whether it equals a stored token"
            self.find("target in predictions", getattr(node, "lineno", 0), what)

    def chosen_by(self, value: Value, tests: Iterable[Place]) -> Place:
        """What else a value belongs to, that is kept under conditions: `if start < end_of_chunk` cuts starts by chunk.

        A condition on another loop alone (`if epoch == 1`) tells nothing of which part of the text a value stands for.
        """
        loops = [loop for loop, _ in value.place]
        own = {mark for mark in value.place if loops.count(mark[0]) == 1}
        return frozenset(mark for test in tests if own & test for mark in test)

    def step(self) -> None:
        """Count what is looked at."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooLarge

    def ask(self, node: ast.AST, who: Value | None, parts: Iterable[Value], name: str = "") -> Value:
        """Something is computed of `parts` by `who`: a model asked, a table looked up, a loss taken."""
        line, parts = getattr(node, "lineno", 0), list(parts)
        given = [part for part in parts if not part.traits & {"text"}]
        out = blend(parts)
        out.traits -= {"const", "text", "key"}
        for part in parts if who is None else [*parts, who]:
            if part.is_state:
                out.makers[id(part.root)] = part.root
        if who is not None:
            out.learned |= who.inner_learned()
            out.makers |= who.makers
            out.chosen |= who.chosen
        if out.regions and not any(part.regions for part in given):
            out.makers, out.costs = {}, set()  # a file by its name
            return out
        for root in out.makers.values():
            if "trained" in root.traits:
                out.trials |= root.trials
        if out.val():
            self.uses.add(Finding(line, f"{name or 'a call'} gets validation data"))
            if out.chosen:
                for chose in out.chosen:
                    self.find("corrections", chose, f"chooses by the cost of validation data what line {line} uses")
                out.chosen = set()
            self._price(out, line)
        return out

    def _price(self, out: Value, line: int) -> None:
        """Settle what the value knows of its own text; from here on it is a cost, and whatever learned is behind it."""
        if not out.makers and not out.learned:
            return
        late = {cost for cost in out.costs if cost.after is not None}
        for region in out.val():
            known = [one for one in out.learned if one.region.overlaps(region) and not one.excludes(self.arms)]
            after = min(known, key=lambda one: one.line) if known else None
            late.add(Cost(self.steps, region, line, after))
        out.costs, out.learned = late, set()

    def learn(self, value: Value, into: Iterable[Value], line: int, how: str, *, must_be_scored: bool = True) -> None:
        """`into` learns from the text in `value`."""
        into = list(into) or [Value()]
        for state in into:
            state.root.traits.add("trained")
        for region in value.val():
            one = Learned(region, line, how, frozenset(self.arms))
            for state in into:
                state.root.learned.add(one)
            if not must_be_scored:
                continue
            before = [at for other, at in self.scored.items() if other.overlaps(region)]
            if before:
                self.guarded.add(Finding(line, f"learns from validation data that line {before[0]} scores before"))
            else:
                self.find("score-first", line, f"{how} validation data{self._from(line)}, with no score of it before")

    def _from(self, line: int) -> str:
        calls = [at for at in self.lines if at not in (0, line)]
        return f" (called in line {calls[0]})" if calls else ""

    def settle(self, value: Value, line: int, *, summed: bool) -> None:
        """A cost becomes a number, or a part of a sum."""
        for cost in value.costs:
            self.followed |= cost.region.text == "val"
            if cost.after is None:
                self.scored.setdefault(cost.region, line)
            else:
                self.late.append((cost, summed))

    def show(self, value: Value) -> None:
        """A value is printed, logged, or returned by what nobody here calls."""
        if value.costs:
            self.shown.append(frozenset(value.costs))

    def choose(self, value: Value, node: ast.AST) -> None:
        """One of several is taken by what it costs."""
        line = getattr(node, "lineno", 0)
        if any(cost.region.text == "val" for cost in value.costs):
            if value.trials:
                self.find("corrections", line, "chooses among models that were trained apart, by what validation costs")
            value.chosen.add(line)

    def finish(self) -> None:
        """Judge the costs that came after learning, then forget: they matter if they are the score, not if a log."""
        for cost, summed in dict.fromkeys(self.late):
            assert cost.after is not None
            own = [shown for shown in self.shown if any(one.region.overlaps(cost.region) for one in shown)]
            last_is_late = not own or any(one.after is not None for one in own[-1])
            if last_is_late or (summed and cost.number not in self.trained):
                what = f"{cost.after.how} validation data before line {cost.line} scores it"
                self.find("score-first", cost.after.line, what)
        for key, line in self.extended.values():
            if "used alone" in key.traits:
                what = "the target (the newest token of a key that is also used without it) goes into a key by XOR"
                self.find("target in keys", line, what)
        self.scored, self.late, self.shown, self.extended, self.hooks = {}, [], [], {}, []
