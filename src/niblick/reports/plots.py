"""`niblick plot`: curves, boundaries and bytes of runs as PNG, SVG or HTML files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from niblick.challenge import rules
from niblick.data.dataset import Dataset
from niblick.drawing import charts, page
from niblick.drawing.charts import Axis, Figure
from niblick.drawing.static import draw
from niblick.errors import ConfigError, NiblickError
from niblick.files import write_together
from niblick.ledger.ledger import Ledger, find_rows
from niblick.ledger.rows import Row
from niblick.reports.material import history_of
from niblick.reports.run_report import plotly_script
from niblick.run.artifacts import ArtifactFacts, describe_artifact
from niblick.run.directory import Run
from niblick.score.baselines import compressor_baselines, label

KINDS = ("png", "svg", "html")
AXES: dict[str, Axis] = {"step": "step", "time": "time", "bytes": "bytes"}
MOST = 40
"""So many runs are drawn at once."""


def figures(targets: Sequence[str], runs: Path, *, x: str = "time", compressors: bool = False) -> dict[str, Figure]:
    """Return the figures of runs by name: `curves`, `boundaries`, `bytes` and `cap`, where there is something in them.

    `targets` are runs by path, id or `latest`, and sweeps. `x` is what curves run over. `compressors` stand as lines
    across in `cap`: they compress the text that the first run was scored on. Raises ConfigError for a target that is
    not there, or if none has anything to draw.
    """
    axis = AXES.get(x)
    if axis is None:
        raise ConfigError(f"curves cannot run over {x!r}: choose step, time or bytes")
    rows = find_rows(Ledger(runs), targets or ["latest"])[:MOST]
    told = [history_of(row) for row in rows if (Path(row.path) / "events.jsonl").is_file()]
    lines = _compressors(rows) if compressors else {}
    drawn = {
        "curves": charts.learning_curves(told, axis),
        "boundaries": charts.boundary_rates(told, axis),
        "bytes": charts.stacked(
            [{"name": row.id, "parts": parts} for row in rows if (parts := bytes_by_part(row))], "bytes", "%{x:,} bytes"
        ),
        "cap": charts.bytes_against_bpb(_scores(rows), rules.CAP_BYTES, compressors=lines),
    }
    found = {name: chart for name, chart in drawn.items() if any(len(trace["x"]) for trace in chart["data"])}
    if not found:
        told_of = ", ".join(f"{row.id} is {row.status}" for row in rows[:3])
        raise ConfigError(f"there is nothing to draw yet ({told_of}): `niblick runs` lists the runs that got further")
    return found


def write_figures(found: Mapping[str, Figure], out: Path, kind: str) -> list[Path]:
    """Write figures into the folder `out` as png, svg or html, and return the files.

    Raises ConfigError for another kind, for an `out` that is a file, and for html where Plotly is missing.
    """
    if kind not in KINDS:
        raise ConfigError(f"a picture cannot be {kind!r}: choose {', '.join(KINDS)}")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: --out names a folder for the pictures")
    files = {out / f"{name}.{kind}": _file(name, figure, kind) for name, figure in found.items()}
    out.mkdir(parents=True, exist_ok=True)
    write_together(files)
    return list(files)


def _file(name: str, figure: Figure, kind: str) -> bytes:
    if kind != "html":
        return draw(figure, kind)
    section = page.section(name, page.chart(name, figure, name))
    return page.page(name, "niblick plot", [section], script=plotly_script() + page.CHART_SCRIPT).encode()


def _scores(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Every scored artifact of these runs, as the figure of the cap takes them."""
    return [vars(score) | {"name": f"{row.id}:{score.artifact}"} for row in rows for score in row.scores]


def bytes_by_part(row: Row) -> dict[str, int]:
    """Bytes of a run's official artifact by part of the model, and its code; {} where it has none."""
    if row.score is None:
        return {}
    try:
        facts = describe_artifact(Run(Path(row.path)).artifact(row.score.artifact))
    except NiblickError:
        return {}
    parts = {"code": row.score.code_bytes or 0, "header": facts.bytes.header, "text": facts.bytes.text}
    for name, size in _tensor_bytes(facts).items():
        parts[part_of(name)] = parts.get(part_of(name), 0) + size
    return {name: size for name, size in parts.items() if size}


def _tensor_bytes(facts: ArtifactFacts) -> dict[str, int]:
    """What each tensor takes; where the codec cannot tell, its share of the payload by its bytes before coding."""
    whole = sum(t.raw_bytes for t in facts.tensors) or 1
    shares = {t.name: round(facts.bytes.payload * t.raw_bytes / whole) for t in facts.tensors}
    return {t.name: shares[t.name] if t.stored_bytes is None else t.stored_bytes for t in facts.tensors}


def part_of(name: str) -> str:
    """The part of a model that a tensor belongs to: `embed`, `main`, `encoder 0`, `n-grams`, …"""
    if found := re.match(r"body\.levels\.(\d+)\.(\w+)", name):
        return f"{found[2]} {found[1]}"
    first = name.removeprefix("body.").partition(".")[0]
    return {"ngrams": "n-grams"}.get(first, first)


def _compressors(rows: Sequence[Row]) -> dict[str, float]:
    """Bits per byte of the compressors alone, on the text that the first run was scored on."""
    folder = Run(Path(rows[0].path)).config().data.path
    dataset = Dataset.open(folder)
    held_out = dataset.tokenizer.decode(dataset.val.slice(0, dataset.val.tokens))
    return {label(name): found["bits_per_byte"] for name, found in compressor_baselines(held_out, workers=2).items()}
