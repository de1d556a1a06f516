"""Every way to learn where a chunk ends, on one backbone: equal bytes, target length and parameters."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from niblick.boundaries.cuts import Reader, Row
from niblick.boundaries.measure import level_facts
from niblick.boundaries.sample import make_sample
from niblick.boundaries.stability import flips_between_models
from niblick.compare.groups import DocumentTest, Group, against, read_scored
from niblick.config.run_config import override
from niblick.data.embedded import embedded_documents
from niblick.facts.events import Trouble
from niblick.files import write_bytes
from niblick.ledger.seeds import deviation
from niblick.model.counting import parameter_count
from niblick.model.model_config import EntropyConfig, ModelConfig
from niblick.recipes.presets import get_preset
from niblick.run.loading import load_artifact
from niblick.run.prepared import config_of
from niblick.studies.study import TOY, WINDOWS, Done, Lab, Parts, Table

BASE, REFERENCE = "hnet-small", "cosine"
WORDS = "words-small"
"""The preset with levels of words, two words and four words, which is a row of its own."""
ASKING, SMALL = "entropy", "small"
"""The method that asks a small model, and the point that trains that model before: half as wide, one dense block."""
PLAIN = ["dechunk=plain", "confidence=false"]
"""For methods that decide without p: chunks are taken as they are."""
METHODS = {
    "cosine": ["router=cosine"],
    "cosine, target from 2": ["router=cosine", "target_start=2"],
    "cosine-bias": ["router=cosine-bias"],
    "cosine-threshold": ["router=cosine-threshold"],
    "delayed": ["router=delayed"],
    "score-function": ["router=score-function", *PLAIN],
    "gumbel": ["router=gumbel", "ratio=binomial", "ratio_weight=1"],
    "sombrero": ["router=sombrero", "dechunk=input"],
    "coding-rate": ["router=coding-rate", *PLAIN],
    "fixed": ["router=fixed", "ratio_weight=0", *PLAIN],
    "whitespace": ["router=whitespace", "ratio_weight=0", *PLAIN],
    ASKING: ["router=entropy", "ratio_weight=0", *PLAIN],
}
"""Settings of the level, as published where that is known (docs/routers.md)."""
TEXTS = {"prose": "English", "code": "source code", "multilingual": "many languages", "spaceless": "without spaces"}
TOY_TEXTS = ("prose", "spaceless")
LENGTHS = ("4", "6")
SEEDS, TOY_SEEDS = 3, 1
FULL_BYTES = ["schedule.steps=600", "schedule.max_seconds=null"]
"""600 steps of 8,192 bytes."""


@dataclass(frozen=True)
class Cut:
    """How a finished run cuts the text that it was scored on."""

    rows: list[Row]
    length: float
    """Bytes of an innermost chunk."""
    first: float | None
    """Enrichment at the tokens that chunks start with."""
    after: float | None
    """At those after them."""
    compute: float | None
    """Multiply-adds for a bit of surprisal."""


def routers2026(lab: Lab) -> Parts:
    """Every way to learn where a chunk ends, on one backbone."""
    if lab.toy:
        lab.sources.setdefault("spaceless", spaceless_text(lab))
    domains = [d for d in lab.size(TOY_TEXTS, tuple(TEXTS)) if lab.has(d)]
    for domain in [d for d in TEXTS if not lab.has(d)]:
        lab.say(f"no text for {domain}: give --data byte260-{domain}=DIR" + f", or --source {domain}=FILE" * lab.toy)
    for length in lab.size(LENGTHS[:1], LENGTHS):
        for domain in domains:
            done = _runs(lab, domain, int(length))
            cuts = {name: [_cut(lab, each) for each in those] for name, those in done.items()}
            title = f"{TEXTS[domain]}, target {length}"
            yield [_figures(title, done, cuts), _agreement(title, cuts)], [e for those in done.values() for e in those]


def spaceless_text(lab: Lab) -> str:
    """Write Python's documentation without white space, a document a line; return the path."""
    path = lab.folder / "spaceless.jsonl"
    if not path.is_file():
        texts = [re.sub(r"\s+", "", text) for text, _ in embedded_documents("pydocs")]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, "".join(json.dumps({"text": text}) + "\n" for text in texts if text).encode())
    return str(path)


def _runs(lab: Lab, domain: str, length: int) -> dict[str, list[Done]]:
    """Train all methods on one text, as wide inside as gives all the parameters of the reference."""
    data = f"data.path={lab.data('byte260', domain)}"
    count = lab.seeds or (TOY_SEEDS if lab.toy else SEEDS)
    points = {}
    for name, point in settings(lab, length, _small(lab, domain, data)).items():
        at = int(point[0] == WORDS)  # a preset comes first
        points[name] = [*point[:at], data, *point[at:]]
    seeds, part = [1337 + i for i in range(count)], f"{domain}-{length}"
    return lab.run(BASE, points, part=part, seeds=seeds, branch="{0}", full=FULL_BYTES, track="fixed-step")


def settings(lab: Lab, length: int, small: Path) -> dict[str, list[str]]:
    """Return what makes each method, all with the parameters of the reference; `small` is what `entropy` asks."""
    points = {
        name: [f"model.levels.0.{each}" for each in (*level, f"target_length={length}")]
        for name, level in METHODS.items()
    }
    points[ASKING].append(f"entropy.artifact={small}")
    points["words"] = [WORDS]
    wanted = parameter_count(_model(lab, points[REFERENCE]))
    return {name: [*point, _inside(lab, point, wanted)] for name, point in points.items()}


def _small(lab: Lab, domain: str, data: str) -> Path:
    """Train the small model that `entropy` asks, on the same text for as many steps; return its artifact."""
    width = _model(lab, []).width // 2
    dense = ["model.levels=[]", "model.main.layout=T1", f"model.width={width}", "model.heads=1"]
    [[done]] = lab.run(
        BASE, {SMALL: [data, *dense]}, part=f"{domain}-{SMALL}", full=FULL_BYTES, track="fixed-step"
    ).values()
    return done.artifact


def _model(lab: Lab, point: list[str]) -> ModelConfig:
    """The model of a point; what it asks is in it."""
    base, *rest = point if point[:1] == [WORDS] else [BASE, *point]
    config = override(get_preset(base), [*(TOY if lab.toy else []), *lab.overrides, *rest])
    if not config.entropy.artifact:
        return config.model
    small = load_artifact(Path(config.entropy.artifact))[0].config
    return replace(config.model, entropy=EntropyConfig(small))


def _inside(lab: Lab, point: list[str], wanted: int) -> str:
    """The setting that gives the main stage's MLPs as many hidden units as make up `wanted` parameters."""
    model = _model(lab, point)
    now = model.main.block_config(model).hidden

    def sets(units: int) -> str:
        return f"model.main.mlp_mult={units / model.width}"

    here, more = (parameter_count(_model(lab, [*point, sets(units)])) for units in (now, now + 1))
    return sets(max(1, now + round((wanted - here) / (more - here))))


def _cut(lab: Lab, done: Done) -> Cut:
    model, dataset = lab.opened(done)
    reader = Reader(model, dataset.tokenizer)
    sample = make_sample(reader, dataset.val, WINDOWS, config_of(done.run).score.seq_len, {})
    rows = reader.read(sample.windows, costs=True)
    facts = level_facts(rows, sample, len(rows[0].levels) - 1)
    cost = facts.surprisal
    first, after = (cost.enrichment, cost.enrichment_next) if cost else (None, None)
    spent = cost.compute.all if cost and cost.compute else None
    return Cut(rows, facts.mean_length.bytes, first, after, spent)


def _figures(title: str, done: dict[str, list[Done]], cuts: dict[str, list[Cut]]) -> Table:
    rows = []
    for name, those in done.items():
        scores = [each.bpb for each in those]
        spread = deviation(scores)
        rows.append(
            [
                name,
                f"{statistics.mean(scores):.4f}" + (f" ± {spread:.4f}" if spread is not None else ""),
                "–" if name == REFERENCE else _paired(done[REFERENCE], those),
                f"{statistics.mean(cut.length for cut in cuts[name]):.2f}",
                _mean([cut.first for cut in cuts[name]]),
                _mean([cut.after for cut in cuts[name]]),
                _mean([cut.compute for cut in cuts[name]], 1000, 0),
                f"{statistics.mean(each.milliseconds for each in those):.0f}",
                f"{sum(_collapsed(each) for each in those)} of {len(those)}",
                f"{parameter_count(config_of(those[0].run).model):,}",
            ]
        )
    columns = [
        "method",
        "BPB",
        f"against {REFERENCE}",
        "bytes a chunk",
        "B",
        "B, byte after",
        "kMAC a bit",
        "ms a step",
    ]
    note = (
        "Mean ± deviation over seeds; in brackets the 95% interval of the difference, documents resampled in pairs. "
        "B: surprisal where chunks start (or of the byte after), over that of all bytes. kMAC a bit: thousands of "
        "multiply-adds for each bit of surprisal. Collapsed: runs that were warned of a dead router. entropy has a "
        "small model inside, trained before on the same bytes: its parameters count, its training does not."
    )
    return Table(title, [*columns, "collapsed", "parameters"], rows, note)


def _mean(values: list[float | None], unit: float = 1.0, digits: int = 2) -> str:
    known = [value / unit for value in values if value is not None]
    return f"{statistics.mean(known):.{digits}f}" if known else "–"


def _paired(reference: list[Done], those: list[Done]) -> str:
    """The difference in BPB, and its interval over documents."""
    groups = []
    for label, runs in (("A", reference), ("B", those)):
        groups.append(Group(label, [read_scored(str(done.artifact), done.run.path.parent) for done in runs]))
    test = against(*groups).documents
    if isinstance(test, DocumentTest):
        return f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
    return f"{statistics.mean(d.bpb for d in those) - statistics.mean(d.bpb for d in reference):+.4f}"


def _collapsed(done: Done) -> bool:
    return any(isinstance(event, Trouble) and event.kind == "dead_router" for event in done.run.events())


def _agreement(title: str, cuts: dict[str, list[Cut]]) -> Table:
    """F1 of each method's boundaries against each other's, of the first seeds."""
    rows = []
    for name, mine in cuts.items():
        found = [flips_between_models(mine[0].rows, other[0].rows).f1 for other in cuts.values()]
        rows.append([name, *("–" if f1 is None else f"{f1:.2f}" for f1 in found)])
    note = "F1 of the boundaries of a row's method against a column's, on the same windows, the first seed of each."
    return Table(f"Agreement: {title}", ["method", *cuts], rows, note)
