"""Studies of boundaries as a terminal shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from niblick.boundaries.pictures import visible

Print = Callable[[list[str], list[list[str]]], None]

SHOWN_CHUNKS = 12
SHOWN_GROUPS = 12


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share in percent, or a dash where there is none."""
    return "–" if value is None else f"{value:.1%}"


def word_excess(group: dict[str, Any]) -> float | None:
    """Excess over chance against Unicode words, either side of spaces; against word starts where uniseg is not here."""
    return group["excess"].get("Unicode words", group["excess"].get("word starts"))


def main_rows(level: dict[str, Any]) -> list[tuple[str, str]]:
    """The main figures of a level by their names."""
    cut = level["truncated"]
    rows = [
        (
            "boundaries per window",
            f"{level['boundaries_per_window']:.1f} ± {level['boundaries_per_window_deviation']:.1f}",
        ),
        ("mean chunk, tokens", number(level["mean_length"]["tokens"], 2)),
        ("mean chunk, bytes", number(level["mean_length"]["bytes"], 2)),
        ("CV of lengths, tokens", number(level["variation"]["tokens"])),
        ("CV of lengths, bytes", number(level["variation"]["bytes"])),
        ("beside whitespace", percent(level["whitespace_agreement"])),
        (
            "inside characters",
            f"{level['inside_characters']['count']:,} ({percent(level['inside_characters']['share'])})",
        ),
    ]
    if level["surprisal"]:
        cost = level["surprisal"]
        rows += [
            ("bits a token at boundaries", number(cost["boundary"]["bits_per_token"], 2)),
            ("bits a token inside", number(cost["inside"]["bits_per_token"], 2)),
            ("share of bits at boundaries", percent(cost["share_of_bits"])),
        ]
    rows += [(f"cut off by {name}", percent(cut[name]["boundaries"])) for name in cut if name != "dropped"]
    return [*rows, ("cut off by its own capacity", percent(cut["dropped"]))]


def print_study(facts: dict[str, Any], table: Print) -> None:
    """Show what `study` returns."""
    print(f"{facts['model']}: {facts['windows']} windows of {facts['window']} tokens of {facts['tokenizer']}")
    before = facts.get("before", {"levels": [None] * len(facts["levels"])})
    for level, was in zip(facts["levels"], before["levels"], strict=True):
        router = facts["routers"][level["level"]]
        print(f"\nlevel {level['level']}, router {router}\n")
        _print_level(level, was, table)
        print()
        for name, each in (("before", facts.get("before")), ("", facts)):
            if each:
                label = f"{name or ('after' if was else 'chunks'):<8}"
                print(label + each["sentence"][level["level"]]["brackets"])
    for name, show in (("training", _training), ("stability", _stability), ("robustness", _robustness)):
        if name in facts:
            print(f"\n{name}\n")
            show(facts[name], table)
    if "against" in facts:
        _against(facts["against"])
    for sentence in facts["unavailable"]:
        print(f"\nunknown   {sentence}")


def _print_level(level: dict[str, Any], was: dict[str, Any] | None, table: Print) -> None:
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
            [name, *(number(each[key]) for key in ("precision", "recall", "f1", "chance_f1", "excess"))]
            + ([number(was["references"][name]["excess"])] if was else [])
            for name, each in level["references"].items()
        ],
    )
    print(
        "\ncommonest chunks  "
        + "  ".join(f"[{visible(c['text'])}] {c['share']:.1%}" for c in level["common"][:SHOWN_CHUNKS])
    )
    for kind in ("sources", "scripts"):
        groups = level[kind]
        if len(groups) > 1:
            print()
            table(
                [kind[:-1], "bytes", "mean chunk", "beside whitespace", "inside characters", "excess, words"],
                [
                    [
                        group["name"] or "–",
                        f"{group['bytes']:,}",
                        number(group["mean_length_bytes"], 2),
                        percent(group["whitespace_agreement"]),
                        percent(group["inside_characters"]["share"]),
                        number(word_excess(group)),
                    ]
                    for group in groups[:SHOWN_GROUPS]
                ],
            )


def _training(facts: dict[str, Any], table: Print) -> None:
    table(
        ["step", "a window", "CV", "beside whitespace", "F1 word starts", "F1 with the end", "flips since last"],
        [
            [
                f"{p['step']:,}",
                number(p["boundaries_per_window"], 1),
                number(p["variation"]),
                percent(p["whitespace_agreement"]),
                number(p["f1"]["word starts"]),
                number(p["f1_with_final"]),
                number(p["flips_since_last"], 1),
            ]
            for p in facts["points"]
        ],
    )
    when = "only at the end" if facts["settled"] == facts["points"][-1]["step"] else f"from step {facts['settled']:,}"
    print(f"\nF1 with the final boundaries stays at {facts['settled_at']} or more {when}")


def _stability(facts: dict[str, Any], table: Print) -> None:
    table(
        ["windows that begin later by", "flips a window", "of positions", "of them near its start"],
        [
            [f"{s['shift']}", number(s["flips_per_window"], 2), percent(s["share"]), percent(s["flips_near_start"])]
            for s in facts["shifts"]
        ],
    )
    if found := facts.get("float_against_packed"):
        print(f"\nfloat against packed weights: {found['flips_per_window']:.2f} flips a window ({found['share']:.2%})")


def _robustness(facts: dict[str, Any], table: Print) -> None:
    table(
        ["change", "moves any", "flips", "mean reach, bytes", "median", "at most", "flips in front"],
        [
            [
                name,
                percent(e["moved"]),
                number(e["flips"], 2),
                number(e["mean_reach"], 1),
                number(e["median_reach"], 0),
                f"{e['largest_reach']}",
                f"{e['flips_before']}",
            ]
            for name, e in facts["edits"].items()
            if e
        ],
    )
    print()
    table(
        ["over and over", "bytes", "boundaries", "longest chunk"],
        [
            [visible(r["unit"]).replace(" ", "␣"), f"{r['bytes']}", f"{r['boundaries']}", f"{r['longest']}"]
            for r in facts["repeated"]
        ],
    )
    if spaces := facts["without_spaces"]:
        print()
        table(
            ["text", "mean chunk, bytes", "F1 word starts", "excess"],
            [
                [name, number(each["mean_length_bytes"], 2), number(each["f1"]), number(each["excess"])]
                for name, each in (("as it is", spaces["spaced"]), ("without its spaces", spaces["spaceless"]))
            ],
        )


def _against(found: dict[str, Any]) -> None:
    print(f"\nagainst {found['model']}\n\n        {found['sentence'][0]['brackets']}")
    if found["same_tokens"]:
        print(
            f"{found['flips_per_window']:.1f} flips a window ({found['share']:.1%} of positions), "
            f"F1 {number(found['f1'])}, {number(found['excess'])} over chance"
        )
    else:
        print(
            f"other tokens, compared byte by byte in {found['windows']} windows: F1 {number(found['f1'])}, "
            f"{number(found['excess'])} over chance"
        )
