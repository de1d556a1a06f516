"""Studies of boundaries as a terminal shows them."""

from __future__ import annotations

from collections.abc import Callable

from niblick.boundaries.measure import Group, Level
from niblick.boundaries.pictures import visible
from niblick.reports.boundary_report import (
    AgainstOtherTokens,
    AgainstSameTokens,
    Course,
    Robustness,
    Stability,
    Studied,
)

Print = Callable[[list[str], list[list[str]]], None]

SHOWN_CHUNKS = 12
SHOWN_GROUPS = 12


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def percent(value: float | None) -> str:
    """A share in percent, or a dash where there is none."""
    return "–" if value is None else f"{value:.1%}"


def word_excess(group: Group) -> float | None:
    """Excess over chance against Unicode words, either side of spaces; against word starts where uniseg is not here."""
    return group.excess.get("Unicode words", group.excess.get("word starts"))


def main_rows(level: Level) -> list[tuple[str, str]]:
    """The main figures of a level by their names."""
    inside = level.inside_characters
    rows = [
        (
            "boundaries per window",
            f"{level.boundaries_per_window:.1f} ± {level.boundaries_per_window_deviation:.1f}",
        ),
        ("mean chunk, tokens", number(level.mean_length.tokens, 2)),
        ("mean chunk, bytes", number(level.mean_length.bytes, 2)),
        ("CV of lengths, tokens", number(level.variation.tokens)),
        ("CV of lengths, bytes", number(level.variation.bytes)),
        ("beside whitespace", percent(level.whitespace_agreement)),
        ("inside characters", f"{inside.count:,} ({percent(inside.share)})"),
    ]
    if cost := level.surprisal:
        rows += [
            ("bits a token at boundaries", number(cost.boundary.bits_per_token, 2)),
            ("bits a token inside", number(cost.inside.bits_per_token, 2)),
            ("share of bits at boundaries", percent(cost.share_of_bits)),
            ("enrichment B at first tokens", number(cost.enrichment, 2)),
            ("enrichment B at the tokens after", number(cost.enrichment_next, 2)),
        ]
        if spent := cost.compute:
            rows += [
                ("multiply-adds a bit", number(spent.all, 0)),
                ("multiply-adds a bit, at boundaries", number(spent.boundary, 0)),
                ("multiply-adds a bit, inside", number(spent.inside, 0)),
            ]
    rows += [(f"cut off by {name}", percent(cap.boundaries)) for name, cap in level.caps.items()]
    return [*rows, ("cut off by its own capacity", percent(level.dropped))]


def print_study(facts: Studied, table: Print) -> None:
    """Show what `study` returns."""
    print(f"{facts.model}: {facts.windows} windows of {facts.window} tokens of {facts.tokenizer}")
    print(f"{facts.levels[-1].mean_length.bytes:.2f} bytes per innermost chunk")
    first = facts.before
    for i, level in enumerate(facts.levels):
        print(f"\nlevel {level.level}, router {facts.routers[level.level]}\n")
        _print_level(level, first.levels[i] if first else None, table)
        print()
        if first:
            print(f"{'before':<8}" + first.sentence[level.level].brackets)
        print(f"{'after' if first else 'chunks':<8}" + facts.sentence[level.level].brackets)
    if facts.training:
        print("\ntraining\n")
        _training(facts.training, table)
    if facts.stability:
        print("\nstability\n")
        _stability(facts.stability, table)
    if facts.robustness:
        print("\nrobustness\n")
        _robustness(facts.robustness, table)
    if facts.against:
        _against(facts.against)
    for sentence in facts.unavailable:
        print(f"\nunknown   {sentence}")


def _print_level(level: Level, was: Level | None, table: Print) -> None:
    rows = main_rows(level)
    if was:
        table(
            ["", "before", "after"],
            [[name, old, new] for (name, new), (_, old) in zip(rows, main_rows(was), strict=True)],
        )
    else:
        table(["", "value"], [list(row) for row in rows])
    print()
    columns = ["against", "precision", "recall", "F1", "by chance", "excess"]
    table(
        [*columns, *(["excess before"] if was else [])],
        [
            [name, *map(number, (each.precision, each.recall, each.f1, each.chance_f1, each.excess))]
            + ([number(was.references[name].excess)] if was else [])
            for name, each in level.references.items()
        ],
    )
    if level.surprisal and level.surprisal.classes:
        print()
        table(
            ["chunks that start with", "of chunks", "of their bits", "enrichment B"],
            [
                [each.name, percent(each.boundaries), percent(each.bits), number(each.enrichment, 2)]
                for each in level.surprisal.classes
            ],
        )
    print("\ncommonest chunks  " + "  ".join(f"[{visible(c.text)}] {c.share:.1%}" for c in level.common[:SHOWN_CHUNKS]))
    for kind, groups in (("source", level.sources), ("script", level.scripts)):
        if len(groups) > 1:
            print()
            table(
                [kind, "bytes", "mean chunk", "beside whitespace", "inside characters", "excess, words"],
                [
                    [
                        group.name or "–",
                        f"{group.bytes:,}",
                        number(group.mean_length_bytes, 2),
                        percent(group.whitespace_agreement),
                        percent(group.inside_characters.share),
                        number(word_excess(group)),
                    ]
                    for group in groups[:SHOWN_GROUPS]
                ],
            )


def _training(facts: Course, table: Print) -> None:
    table(
        ["step", "a window", "CV", "beside whitespace", "F1 word starts", "F1 with the end", "flips since last"],
        [
            [
                f"{p.step:,}",
                number(p.boundaries_per_window, 1),
                number(p.variation),
                percent(p.whitespace_agreement),
                number(p.f1["word starts"]),
                number(p.f1_with_final),
                number(p.flips_since_last, 1),
            ]
            for p in facts.points
        ],
    )
    when = "only at the end" if facts.settled == facts.points[-1].step else f"from step {facts.settled:,}"
    print(f"\nF1 with the final boundaries stays at {facts.settled_at} or more {when}")


def _stability(facts: Stability, table: Print) -> None:
    table(
        ["windows that begin later by", "flips a window", "of positions", "of them near its start"],
        [
            [f"{s.shift}", number(s.flips_per_window, 2), percent(s.share), percent(s.flips_near_start)]
            for s in facts.shifts
        ],
    )
    if found := facts.float_against_packed:
        print(f"\nfloat against packed weights: {found.flips_per_window:.2f} flips a window ({found.share:.2%})")


def _robustness(facts: Robustness, table: Print) -> None:
    table(
        ["change", "moves any", "flips", "mean reach, bytes", "median", "at most", "flips in front"],
        [
            [
                name,
                percent(e.moved),
                number(e.flips, 2),
                number(e.mean_reach, 1),
                number(e.median_reach, 0),
                f"{e.largest_reach}",
                f"{e.flips_before}",
            ]
            for name, e in facts.edits.items()
            if e
        ],
    )
    print()
    table(
        ["over and over", "bytes", "boundaries", "longest chunk"],
        [[visible(r.unit).replace(" ", "␣"), f"{r.bytes}", f"{r.boundaries}", f"{r.longest}"] for r in facts.repeated],
    )
    if spaces := facts.without_spaces:
        print()
        table(
            ["text", "mean chunk, bytes", "F1 word starts", "excess"],
            [
                [name, number(each.mean_length_bytes, 2), number(each.f1), number(each.excess)]
                for name, each in (("as it is", spaces.spaced), ("without its spaces", spaces.spaceless))
            ],
        )


def _against(found: AgainstSameTokens | AgainstOtherTokens) -> None:
    print(f"\nagainst {found.model}\n\n        {found.sentence[0].brackets}")
    if isinstance(found, AgainstSameTokens):
        print(
            f"{found.flips_per_window:.1f} flips a window ({found.share:.1%} of positions), "
            f"F1 {number(found.f1)}, {number(found.excess)} over chance"
        )
    else:
        print(
            f"other tokens, compared byte by byte in {found.windows} windows: F1 {number(found.f1)}, "
            f"{number(found.excess)} over chance"
        )
