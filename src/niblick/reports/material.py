"""All that a report on runs is made of, read from their directories: curves, charts, chunks, failures, notes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from niblick.challenge import rules
from niblick.compare.ablation import Ablation, ablation
from niblick.drawing import charts
from niblick.drawing.charts import Figure, History
from niblick.errors import DataError, NiblickError
from niblick.facts.event_lines import read_events
from niblick.facts.events import Failure, Rollback, Trouble
from niblick.files import read_json
from niblick.ledger.leaderboard import Leaderboard, leaderboard
from niblick.ledger.ledger import Ledger
from niblick.ledger.notes import read_log
from niblick.ledger.rows import Row, failed_job
from niblick.reports.histories import read_history

if TYPE_CHECKING:
    from niblick.run.generate import Loaded

MOST_CURVES = 24
"""So many runs are drawn as curves, the best first; tables have all."""

MOST_CHUNKED = 6
"""So many runs are asked for their chunks."""
WINDOWS = 8
"""Windows of held-out text on which boundaries are counted."""


@dataclass(frozen=True)
class Picture:
    """Chunks of the published sentence, as one run cuts it."""

    run: str
    title: str
    pieces: list[tuple[str, float]]
    """Text and boundary probability."""
    figures: str = ""
    """What held-out text says of them."""


@dataclass(frozen=True)
class Material:
    """All that a page is made of."""

    title: str
    rows: list[Row]
    board: Leaderboard
    ablation: Ablation
    histories: list[History]
    pictures: list[Picture]
    events: dict[str, list[Trouble | Rollback | Failure]]
    """Warnings and the like by run id."""
    failures: dict[str, list[str]]
    """Last lines of failed jobs by run id."""
    log: str
    config: dict[str, object] | None
    """Of the only run, by dotted keys."""
    notes: list[str]
    """What the page must say about itself."""


def gather(ledger: Ledger, rows: list[Row], targets: list[str], runs: Path) -> Material:
    """Read all that a page about these runs is made of."""
    from niblick.config.run_config import dotted

    configs = {row.id: dotted(ledger.config(row)) for row in rows}
    best = sorted(rows, key=lambda row: (row.score is None, row.score.bpb if row.score else 0.0, row.id))
    drawn = [row for row in best if (Path(row.path) / "events.jsonl").is_file()][:MOST_CURVES]
    notes = [] if len(drawn) in (len(rows), 0) else [f"curves show {len(drawn)} of {len(rows)} runs, the best first"]
    pictures, missing = _pictures(best, configs)
    sweeps = {row.sweep for row in rows}
    control = _control(runs, sweeps.pop()) if len(sweeps) == 1 else ""
    return Material(
        title=_title(rows, targets),
        rows=rows,
        board=leaderboard(ledger, only={row.id for row in rows}),
        ablation=ablation(rows, configs, control),
        histories=[history_of(row) for row in drawn],
        pictures=pictures,
        events={row.id: _warnings(row) for row in drawn},
        failures={row.id: lines for row in rows if (lines := _last_lines(row))},
        log=read_log(runs),
        config=configs[rows[0].id] if len(rows) == 1 else None,
        notes=notes + missing,
    )


def all_charts(material: Material) -> dict[str, Figure]:
    """Return every chart of the page by name; those with nothing in them are left out."""
    runs, rows = material.histories, material.rows
    found: dict[str, Figure] = {}
    axes: tuple[charts.Axis, ...] = ("step", "time", "bytes")
    for x in axes:
        found[f"curves-{x}"] = charts.learning_curves(runs, x)
    found["boundaries"] = charts.boundary_rates(runs)
    found["bytes-bpb"] = charts.bytes_against_bpb([row.facts() | {"name": row.id} for row in rows], rules.CAP_BYTES)
    for number, board in enumerate(material.board.boards):
        if len(board.ranked) > 1:
            named = [vars(row) | {"name": row.branch} for row in board.ranked]
            found[f"leaderboard-{number + 1}"] = charts.ranking(named)
    others = [vars(row) for row in material.ablation.rows if not row.reference]
    if others:
        found["ablation"] = charts.effects(others)
    found["timings"] = charts.timings([{"name": row.id, "phases": phases(row)} for row in rows if phases(row)])
    found["throughput"] = charts.throughput(runs)
    found["learning-rate"] = charts.learning_rates(runs)
    found["gradients"] = charts.gradient_norms(runs)
    return {name: chart for name, chart in found.items() if any(len(trace["x"]) for trace in chart["data"])}


def phases(row: Row) -> dict[str, float]:
    """Seconds of each phase of a run, where they are known."""
    score = row.score
    known = {
        "training": row.train_seconds,
        "validation and checkpoints": (row.wall_seconds or 0.0) - (row.train_seconds or 0.0) if row.wall_seconds else 0,
        "packing": row.export_seconds,
        "scoring": score.eval_seconds if score else None,
    }
    return {name: seconds for name, seconds in known.items() if seconds and seconds > 0}


def history_of(row: Row) -> History:
    """What a run told while it trained, under its id, with its official score."""
    group = f"{row.sweep}/{row.name}" if row.name else ""
    return read_history(Path(row.path), row.id, row.score.bpb if row.score else None, group)


def _title(rows: list[Row], targets: list[str]) -> str:
    if len(rows) == 1:
        return rows[0].id
    sweeps = {row.sweep for row in rows}
    if targets and len(sweeps) == 1 and (sweep := sweeps.pop()):
        return f"Sweep {sweep}"
    return f"{len(rows)} runs"


def _control(runs: Path, sweep: str) -> str:
    """What a sweep calls the point that the others are compared with."""
    try:
        facts = read_json(runs / sweep / "sweep.json")
        return str(facts.get("control") or "") if sweep else ""
    except (DataError, AttributeError):
        return ""


def _warnings(row: Row) -> list[Trouble | Rollback | Failure]:
    events = read_events(Path(row.path) / "events.jsonl")
    return [event for event in events if isinstance(event, Trouble | Rollback | Failure)]


def _last_lines(row: Row) -> list[str]:
    if row.status != "failed":
        return []
    try:
        lines = read_json(Path(failed_job(row.path)))["lines"]
        return [str(line) for line in lines][-12:]
    except (DataError, KeyError, TypeError):
        return [row.message]


def _pictures(rows: list[Row], configs: dict[str, dict[str, object]]) -> tuple[list[Picture], list[str]]:
    """Chunks of the published sentence by the best run of each recipe that has a router; and what could not be read."""
    recipes: dict[str, Row] = {}
    for row in rows:
        if row.score and any(key.startswith("model.levels.0") for key in configs[row.id]):
            recipes.setdefault(row.recipe, row)
    chosen = list(recipes.values())[:MOST_CHUNKED]
    if not chosen:
        return [], []
    from niblick.boundaries.cuts import PUBLISHED_SENTENCE, chunks
    from niblick.run.directory import Run
    from niblick.run.generate import data_of, load_file
    from niblick.run.loading import build_model
    from niblick.run.prepared import config_of

    pictures, missing = [], []
    for row in chosen:
        run = Run(Path(row.path))
        try:
            config = config_of(run)
            loaded = load_file(run.artifact(row.score.artifact if row.score else ""), trained_on=data_of(run))
            if len(rows) == 1:
                before = chunks(build_model(config.model, config.seed), loaded.tokenizer, PUBLISHED_SENTENCE)
                pictures.append(Picture(row.id, "before training", [(c.text, c.p) for c in before]))
            after = chunks(loaded.model, loaded.tokenizer, PUBLISHED_SENTENCE)
        except NiblickError as error:
            missing.append(f"no chunks of {row.id}: {error}")
            continue
        title = "after training" if len(rows) == 1 else row.id
        pictures.append(Picture(row.id, title, [(c.text, c.p) for c in after], _figures(loaded, data_of(run))))
    return pictures, missing


def _figures(loaded: Loaded, data: str) -> str:
    """Bytes of an innermost chunk, enrichment and compute for a bit, where held-out text is there still."""
    from niblick.boundaries.cuts import Reader
    from niblick.boundaries.measure import level_facts
    from niblick.boundaries.sample import make_sample
    from niblick.boundaries.surprisal import told
    from niblick.data.dataset import Dataset

    if not data:
        return ""
    reader = Reader(loaded.model, loaded.tokenizer)
    sample = make_sample(reader, Dataset.open(data).val, WINDOWS, loaded.context, {})
    rows = reader.read(sample.windows, costs=True)
    facts = level_facts(rows, sample, len(rows[0].levels) - 1)
    return ", ".join(filter(None, (f"{facts.mean_length.bytes:.2f} bytes per innermost chunk", told(facts.surprisal))))
