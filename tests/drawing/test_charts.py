"""Charts: plain data that Plotly takes, JSON can hold and matplotlib can draw, whatever a run did not tell."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from rundirs import make_run, training

from niblick.drawing import charts
from niblick.drawing.charts import Figure, History, Level, Validation
from niblick.drawing.static import draw
from niblick.facts.event_lines import read_event
from niblick.reports.histories import MOST_POINTS, history, read_history

RUNS = [
    History(
        "wide-s1",
        step=range(1, 301),
        seconds=[0.5 * i for i in range(300)],
        bytes=[1e6 * i for i in range(300)],
        bpb=[8 / (1 + i / 20) for i in range(300)],
        lr_scale=[1.0] * 300,
        bytes_per_second=[1e5] * 300,
        grad_norm=[0.5] * 300,
        validations=[Validation(100, 50.0, 1e8, 2.4), Validation(300, 150.0, 3e8, 2.2)],
        levels=[Level([1, 100, 300], [0.5, 0.2, 0.17], 6.0), Level([1, 300], [0.6, 0.5])],
        final=2.21,
        group="wide",
    ),
    History("wide-s2", [1, 2], [None, None], [None, None], [8.0, math.nan], group="wide"),
    History("nothing", [], [], [], []),
]
ROWS = [
    {"name": "a", "total_bytes": 15_000_000, "bpb": 1.2, "standing": "legal"},
    {"name": "b", "total_bytes": 16_500_000, "bpb": 1.1, "standing": "over cap"},
    {"name": "c", "total_bytes": 9_000_000, "bpb": 1.3, "standing": "local"},
    {"name": "unscored", "total_bytes": None, "bpb": None, "standing": None},
]
RANKED = [
    {"name": "a", "mean": 1.2, "deviation": 0.01, "scores": [1.19, 1.21]},
    {"name": "b", "mean": 1.3, "deviation": None, "scores": [1.3]},
]
EFFECTS = [{"name": "a", "difference": -0.1, "error": 0.02}, {"name": "b", "difference": 0.1, "error": None}]
TIMES = [{"name": "a", "phases": {"training": 7200.0, "packing": 60.0}}, {"name": "b", "phases": {"scoring": 30.0}}]
OVER = (
    charts.learning_curves,
    charts.boundary_rates,
    charts.learning_rates,
    charts.throughput,
    charts.gradient_norms,
)


def every_chart() -> list[tuple[str, Callable[[], Figure]]]:
    made: list[tuple[str, Callable[[], Figure]]] = []
    for f in OVER:
        for x in ("step", "time", "bytes"):
            made.append((f"{f.__name__}-{x}", lambda f=f, x=x: f(RUNS, x)))  # type: ignore[misc]
        made.append((f"{f.__name__}-empty", lambda f=f: f([])))  # type: ignore[misc]
    made += [
        ("bytes", lambda: charts.bytes_against_bpb(ROWS, 16_000_000)),
        ("no-bytes", lambda: charts.bytes_against_bpb([], 16_000_000)),
        ("ranking", lambda: charts.ranking(RANKED)),
        ("effects", lambda: charts.effects(EFFECTS)),
        ("timings", lambda: charts.timings(TIMES)),
        ("no-timings", lambda: charts.timings([])),
    ]
    return made


@pytest.mark.parametrize("make", [m for _, m in every_chart()], ids=[name for name, _ in every_chart()])
def test_plotly_json_and_matplotlib_take_it(make: Callable[[], Figure]) -> None:
    chart = make()
    go.Figure(chart)  # refuses what is no property of a figure
    json.dumps(chart, allow_nan=False)
    assert draw(chart, "png").startswith(b"\x89PNG")


def test_svg_too() -> None:
    assert b"<svg" in draw(charts.learning_curves(RUNS), "svg")


def test_the_cap_is_a_line_and_standings_are_told_by_symbols() -> None:
    chart = charts.bytes_against_bpb(ROWS, 16_000_000)
    assert [shape["x0"] for shape in chart["layout"]["shapes"]] == [16.0]
    assert len({trace["marker"]["symbol"] for trace in chart["data"]}) == 3
    assert sum(len(trace["x"]) for trace in chart["data"]) == 3, "what has no score is left out"


def test_seeds_share_colour_and_legend() -> None:
    lines = [trace for trace in charts.learning_curves(RUNS)["data"] if trace["mode"] == "lines"]
    assert [line["line"]["color"] for line in lines] == [charts.COLORS[0]] * 2
    assert [(line["name"], line["showlegend"]) for line in lines] == [("wide", True), ("wide", False)]


def test_more_runs_than_colours_are_told_by_dashes() -> None:
    assert len({charts.style(i)[:2] for i in range(32)}) == 32


def test_boundary_rates_show_the_target() -> None:
    chart = charts.boundary_rates(RUNS)
    assert [shape["y0"] for shape in chart["layout"]["shapes"]] == [pytest.approx(1 / 6)]


def test_time_is_in_a_unit_that_people_read() -> None:
    assert charts.timings(TIMES)["layout"]["xaxis"]["title"]["text"] == "time, h"
    assert charts.timings(TIMES)["data"][0]["x"][0] == pytest.approx(2.0)


def test_a_history_of_a_run(tmp_path: Path) -> None:
    path = make_run(tmp_path, "a-1", None)
    with open(path / "events.jsonl", "a") as file:
        file.write('{"event": "step", "st')
    found = read_history(path)
    assert (found.name, found.step[0], found.step[-1]) == ("a-1", 1, 20)
    assert found.bpb[0] == pytest.approx(5.5 / math.log(2))
    assert found.bytes[1] == 512.0
    assert found.levels[0].target_length == 6.0
    assert found.validations[0].bpb == 2.2


def test_a_long_history_is_thinned_and_keeps_its_end() -> None:
    found = history(map(read_event, training(25_000)), "long")
    assert len(found.step) <= MOST_POINTS + 1
    assert found.step[-1] == 25_000


def test_what_a_log_does_not_say_is_left_out() -> None:
    events: list[dict[str, Any]] = [{"event": "step", "step": 5, "loss": float("nan")}, {"event": "score", "bpb": 1.5}]
    found = history(map(read_event, events), "foreign")
    assert (found.bpb, found.seconds, found.bytes, found.final) == ([None], [None], [None], 1.5)
    assert read_history(Path("nowhere")).step == []


def curve(name: str, bpb: list[float], final: float | None = None) -> History:
    steps = list(range(1, len(bpb) + 1))
    return History(name, steps, [float(s) for s in steps], [1e3 * s for s in steps], bpb, final=final)


def test_a_good_run_hides_no_weak_one() -> None:
    """The range holds every run's curve after a tenth of its steps; what lies before may lie above."""
    weak, good = curve("weak", [8.0, 7.6, 7.2, 6.9], 6.8), curve("good", [8.0] * 4 + [2.0] * 96, 1.9)
    for x in ("step", "time", "bytes"):
        low, high = charts.learning_curves([weak, good], x)["layout"]["yaxis"]["range"]
        assert low < 1.9 and 8.0 < high < 8.5
    low, high = charts.learning_curves([good])["layout"]["yaxis"]["range"]
    assert low < 1.9 < 2.0 < high < 5.0


def test_compressors_stand_as_lines_beside_artifacts() -> None:
    figure = charts.bytes_against_bpb(ROWS, 16_000_000, {"zstd -22": 2.13, "xz -9e": 2.125, "ppmd": 1.5})
    assert [shape["y0"] for shape in figure["layout"]["shapes"] if shape.get("xref") == "paper"] == [1.5, 2.125, 2.13]
    words = [note["text"] for note in figure["layout"]["annotations"]]
    assert "ppmd: 1.500" in words and "xz -9e: 2.125, zstd -22: 2.130" in words, "near each other, so put in one"
    assert draw(figure).startswith(b"\x89PNG")
    assert not charts.bytes_against_bpb([], 16_000_000, {"xz -9e": 2.125})["data"]


def test_bars_are_made_of_parts() -> None:
    rows = [{"name": "a", "parts": {"main": 3, "code": 1}}, {"name": "b", "parts": {"embed": 2}}]
    figure = charts.stacked(rows, "bytes", "%{x:,} bytes")
    assert {trace["name"]: trace["x"] for trace in figure["data"]} == {
        "main": [3, 0.0],
        "code": [1, 0.0],
        "embed": [0.0, 2],
    }
