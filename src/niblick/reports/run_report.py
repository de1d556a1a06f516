"""`niblick report`: runs or a sweep as one HTML page that needs no network, and every chart of it as a PNG."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from niblick.drawing import page as report
from niblick.drawing.static import draw
from niblick.errors import ConfigError
from niblick.facts.record import Record
from niblick.files import write_together
from niblick.ledger.ledger import Ledger, find_rows
from niblick.ledger.rows import Row
from niblick.reports.material import all_charts, gather
from niblick.reports.sections import sections

PAGE = "report.html"
FOLDER = "report"


@dataclass(frozen=True, kw_only=True)
class Report(Record):
    """Where a page and its pictures are, and what they are about."""

    report: str
    folder: str
    runs: tuple[str, ...]
    pictures: tuple[str, ...]
    notes: tuple[str, ...]


def write_report(targets: list[str], runs: Path, out: Path | None = None) -> Report:
    """Write the page and its pictures; return where they are.

    `targets` are runs and sweeps, none for all runs. By default the folder is `report` in the folder of the run, of the
    sweep or of the runs. Raises ConfigError for a target that is not there, no runs at all, or where Plotly is missing;
    nothing is written then.
    """
    ledger = Ledger(runs)
    rows = find_rows(ledger, targets) if targets else ledger.rows()
    if not rows:
        raise ConfigError(f"there is no run in {runs} to report on: `niblick train` makes one")
    folder = out or _default_folder(rows, targets, runs) / FOLDER
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: --out names the folder of the page and its pictures")
    script = plotly_script()
    material = gather(ledger, rows, targets, runs)
    figures = all_charts(material)
    drawn = {folder / f"{name}.png": draw(chart) for name, chart in figures.items()}
    page = report.page(
        material.title, _lead(rows), sections(material, figures), script=script + report.CHART_SCRIPT, wide=True
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_together(drawn | {folder / PAGE: page.encode()})
    return Report(
        report=str(folder / PAGE),
        folder=str(folder),
        runs=tuple(row.id for row in rows),
        pictures=tuple(f"{name}.png" for name in figures),
        notes=tuple(material.notes),
    )


def plotly_script() -> str:
    """Return plotly.js, to be embedded. Raises ConfigError where the package is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ConfigError("a report needs plotly for its charts: pip install 'niblick[report]'") from None
    return str(get_plotlyjs())


def _default_folder(rows: list[Row], targets: list[str], runs: Path) -> Path:
    if len(targets) != 1:
        return runs
    return Path(rows[0].path) if len(rows) == 1 else runs / rows[0].sweep


def _lead(rows: list[Row]) -> str:
    counts = {status: sum(row.status == status for row in rows) for status in dict.fromkeys(r.status for r in rows)}
    return ", ".join(f"{count} {status}" for status, count in counts.items()) + f" · niblick report, {date.today()}"
