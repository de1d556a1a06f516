"""Study 1: bytes against subwords in an H-Net, over chunk length N, outer layers E, ratio weight λ and LR diff d."""

from __future__ import annotations

import statistics

from niblick.boundaries.cuts import PUBLISHED_SENTENCE, chunks
from niblick.boundaries.pictures import brackets
from niblick.ledger.seeds import deviation
from niblick.run.loading import build_model
from niblick.run.prepared import config_of
from niblick.studies.study import Done, Lab, Parts, Table

Shape = tuple[int, int, float, float]
"""N, E, λ, d."""

SHAPES: list[Shape] = [
    *((n, e, 0.05, 0.75) for n in (6, 9, 12, 16) for e in (1, 2)),
    (12, 2, 0.03, 0.75),
    (9, 2, 0.05, 0.85),
]
"""Ten shapes, the same for both tokenizers: 20 matched runs, the published best of each among them."""
BASES = {"byte260": "hnet-byte260", "sp1024": "hnet-sp1024"}
SEEDS = [1337, 1234, 2026]


def _settings(lab: Lab, tokenizer: str, shape: Shape) -> list[str]:
    n, e, weight, diff = shape
    main = 2 if lab.toy else 9 - 2 * e
    level = {"target_length": n, "ratio_weight": weight, "lr_diff": diff}
    return [
        BASES[tokenizer],
        f"data.path={lab.data(tokenizer)}",
        *(f"model.levels.0.{key}={value}" for key, value in level.items()),
        *(f"model.levels.0.{stage}.layout=T{e}" for stage in ("encoder", "decoder")),
        f"model.main.layout=T{main}",
    ]


def _name(tokenizer: str, shape: Shape) -> str:
    return f"{tokenizer}-N{shape[0]}-E{shape[1]}-l{shape[2]}-d{shape[3]}"


def study1(lab: Lab) -> Parts:
    """Bytes against subwords in an H-Net: 20 matched runs, and the best of bytes with three seeds."""
    shapes = {_name(t, s): (t, s) for t in BASES for s in SHAPES}
    branch = {name: f"hnet-{tokenizer}" for name, (tokenizer, _) in shapes.items()}
    found = lab.run("hnet-byte260", {n: _settings(lab, *those) for n, those in shapes.items()}, branch=branch)
    rows, runs = [], []
    for name, (tokenizer, shape) in shapes.items():
        done = found[name][0]
        cut = lab.cuts(done)
        rows.append(
            [
                tokenizer,
                *map(str, shape),
                f"{done.bpb:.4f}",
                f"{done.result.artifact_bytes:,}",
                *(cut[key] for key in ("whitespace", "variation", "per_256", "mean_length")),
            ]
        )
        runs.append(done)
    best = min((name for name in shapes if shapes[name][0] == "byte260"), key=lambda name: found[name][0].bpb)
    points = {best: _settings(lab, *shapes[best])}
    seeds = lab.run("hnet-byte260", points, part="best", seeds=SEEDS, branch="hnet-byte260")[best]
    scores = [done.bpb for done in seeds]
    columns = ["tokenizer", "N", "E", "λ", "d", "BPB", "bytes", "whitespace", "CV", "boundaries per 256", "mean chunk"]
    spread = f"{statistics.mean(scores):.4f} ± {deviation(scores):.4f}"
    tables = [
        Table("20 matched runs", columns, rows, "Whitespace: boundaries next to it. CV: of chunk sizes in tokens."),
        Table(
            f"The best of bytes ({best}) with three seeds",
            ["seed", "BPB", "bytes"],
            [[str(s), f"{d.bpb:.4f}", f"{d.result.artifact_bytes:,}"] for s, d in zip(SEEDS, seeds, strict=True)],
            f"{spread} BPB over seeds.",
        ),
        _pictures(lab, seeds[0]),
    ]
    yield tables, [*runs, *seeds]


def _pictures(lab: Lab, done: Done) -> Table:
    """The published sentence in chunks, before and after training."""
    model, dataset = lab.opened(done)
    config = config_of(done.run)
    fresh = build_model(config.model, config.seed).eval()
    rows = []
    for when, shown in (("before", fresh), ("after", model.eval())):
        pieces = chunks(shown, dataset.tokenizer, PUBLISHED_SENTENCE)
        rows.append([when, str(len(pieces)), f"`{brackets(pieces)}`"])
    return Table("Chunks before and after training", ["", "chunks", "text"], rows)
