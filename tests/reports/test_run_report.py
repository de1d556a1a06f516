"""`niblick report`: one page that needs nothing else, pictures beside it, and what goes wrong said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rundirs import make_run

from niblick import cli
from niblick.compare.ablation import ablation
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.files import write_json
from niblick.ledger.ledger import Ledger
from niblick.ledger.notes import note, tag
from niblick.reports.run_report import write_report

NASTY = "</script><script>document.title='owned'</script>"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A sweep of two points and three seeds, one run over the cap and one that failed."""
    folder = tmp_path / "runs"
    for name, bpb, width in (("control", 2.0, 128), ("wide", 1.9, 192)):
        for seed in (1, 2, 3):
            member = {"sweep": "width", "name": name, "branch": name}
            settings = (f"model.width={width}",)
            make_run(folder, f"width/{name}-s{seed}", bpb + seed / 100, seed=seed, member=member, overrides=settings)
    big = {"sweep": "width", "name": "big"}
    make_run(folder, "width/big-s1", 1.8, member=big, total_bytes=17_000_000, overrides=("model.width=256",))
    make_run(folder, "width/bad-s1", None, member={"sweep": "width", "name": "bad"})
    failed = {"run": "bad-s1", "code": 1, "lines": ["step 3", f"the loss is nan {NASTY}"]}
    (folder / "width" / "jobs").mkdir()
    write_json(folder / "width" / "jobs" / "bad-s1.failed.json", failed)
    write_json(folder / "width" / "sweep.json", {"sweep": "width", "control": "control"})
    return folder


def test_a_page_of_a_sweep(runs: Path) -> None:
    rows = Ledger(runs).rows()
    tag(rows[:1], "keep")
    note(runs, f"wider is better {NASTY}", rows[0])
    facts = write_report(["width"], runs)
    page = Path(facts.report).read_text()
    assert Path(facts.report) == runs / "width" / "report" / "report.html"
    for said in ("Leaderboard", "Bytes against BPB", "Ablation", "Failures and warnings", "the loss is nan", "keep"):
        assert said in page
    assert "reference" in page
    assert "-0.1000" in page, "wide against control"
    assert "over the cap of 16,000,000 bytes" in page
    for picture in facts.pictures:
        assert (runs / "width" / "report" / picture).read_bytes().startswith(b"\x89PNG")
    assert {"curves-step.png", "bytes-bpb.png", "ablation.png", "timings.png"} <= set(facts.pictures)


def test_code_that_was_not_weighed_is_said_where_bytes_would_stand(runs: Path) -> None:
    member = {"sweep": "width", "name": "odd", "branch": "odd"}
    make_run(runs, "width/odd-s1", 1.5, member=member, weighed=False, overrides=("model.width=64",))
    for target in ("width", "width/odd-s1"):
        page = Path(write_report([target], runs).report).read_text()
        assert "code not weighed" in page
        assert "1.5000" in page


def test_the_page_loads_nothing_and_has_plotly_once(runs: Path) -> None:
    page = Path(write_report(["width"], runs).report).read_text()
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)\s*=\s*["\']?(?!#)', markup)
    assert "default-src 'none'" in page
    assert page.count("plotly.js v") == 1
    assert 3_000_000 < len(page) < 8_000_000


def test_what_people_and_logs_wrote_is_only_text(runs: Path) -> None:
    note(runs, NASTY)
    (runs / "width" / f"evil{NASTY.replace('/', '')}-s1").mkdir()
    page = Path(write_report([], runs).report).read_text()
    assert NASTY not in page
    assert NASTY.replace("<", "&lt;").replace(">", "&gt;")[:12] in page


def test_broken_chunks_are_said_and_the_rest_is_there(runs: Path) -> None:
    facts = write_report(["width"], runs)
    assert any("no chunks of width/" in sentence for sentence in facts.notes), "these artifacts hold no model"


@pytest.mark.parametrize(("targets", "said"), [(["no-such"], "no run or sweep"), (["widht"], "nearest: width")])
def test_targets_that_are_not_there(runs: Path, targets: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        write_report(targets, runs)
    assert not (runs / "report").exists()


def test_no_runs_no_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="niblick train"):
        write_report([], tmp_path)


def test_out_that_is_a_file(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="is a file"):
        write_report([], runs, file)
    assert file.read_text() == "mine"


def test_without_plotly_it_says_what_to_install(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ConfigError, match=r"niblick\[report\]"):
        write_report(["width"], runs)
    assert not (runs / "width" / "report").exists(), "nothing half-written"


def test_the_command(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["report", "width/wide-s1", "--runs", str(runs), "--out", str(out), "--json"]
    cli.app(command, standalone_mode=False)
    facts = json.loads(capsys.readouterr().out)
    assert facts["runs"] == ["width/wide-s1"]
    assert (out / "report.html").is_file()


def test_ablation_is_against_the_control_of_the_sweep(runs: Path) -> None:
    ledger = Ledger(runs)
    rows = ledger.rows()
    configs = {row.id: {"model.width": ledger.config(row)["model"]["width"]} for row in rows if row.status == "done"}
    facts = ablation(rows, configs, "control")
    assert (facts.reference, facts.keys) == ("control", ("model.width",))
    wide = next(row for row in facts.rows if row.name == "wide")
    assert wide.difference == pytest.approx(-0.1)
    assert 0 < wide.p < 0.01
    assert wide.error > 0
    assert ablation([], {}).rows == ()


@pytest.mark.slow
def test_the_page_draws_its_charts_in_a_browser(runs: Path, chromium_path: str) -> None:
    """Headless Chromium runs the page: every visible chart becomes an SVG, and no script that a note holds runs."""
    note(runs, NASTY)
    page = write_report(["width"], runs).report
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    dom = subprocess.run(
        [chromium_path, *options, f"file://{page}"], capture_output=True, text=True, timeout=300
    ).stdout
    assert dom.count("main-svg") >= 2 * 6
    assert "<title>Sweep width</title>" in dom


@pytest.mark.slow
def test_from_training_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real run: listed, told to TensorBoard, ranked once it is audited, its chunks shown before and after."""
    prepare("pydocs", "byte260", tmp_path / "data", max_docs=12, val_docs=3)
    runs = ["--runs", str(tmp_path / "runs")]
    toy = ["model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.seq_len=32"]
    toy += ["train.batch_tokens=256", "train.micro_batch_tokens=256", "train.warmup_steps=0", "schedule.steps=3"]
    command = ["train", "hnet-small", "--data", str(tmp_path / "data"), *toy, "score.seq_len=64"]
    cli.app([*command, "--log", "tensorboard", *runs], standalone_mode=False)
    path = tmp_path / "runs" / "hnet-small-1"
    assert list(path.glob("tensorboard/events.out.tfevents.*"))
    row = Ledger(tmp_path / "runs").row("hnet-small-1")
    assert row is not None
    assert row.score is not None
    assert (row.status, row.step, Ledger(tmp_path / "runs").altered(row)) == ("done", 3, [])
    write_json(path / "artifacts" / row.score.artifact / "audit.json", {"checks": [{"name": "x", "status": "pass"}]})
    capsys.readouterr()
    cli.app(["leaderboard", "--json", *runs], standalone_mode=False)
    (board,) = json.loads(capsys.readouterr().out)["boards"]
    assert [entry["scores"] for entry in board["ranked"]] == [[row.score.bpb]]
    facts = write_report(["latest"], tmp_path / "runs")
    assert facts.notes == ()
    page = Path(facts.report).read_text()
    assert "before training" in page
    assert "after training" in page
    assert re.search(
        r"[\d.]+ bytes per innermost chunk, B [\d.]+ \([\d.]+ at the token after\), [\d,]+ multiply-adds a bit", page
    )
