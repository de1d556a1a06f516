"""The real app in a real browser: against a run that trains, a real log that is replayed, and what may go wrong."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browser import served
from preamble import RULED

from niblick.data.prepare import prepare

pytestmark = pytest.mark.slow

TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.device=cpu"),
    *("train.seq_len=32", "train.batch_tokens=256", "train.micro_batch_tokens=256", "score.seq_len=64"),
    *("train.log_every=1", "train.val_every=1000000", "train.warmup_steps=3", "schedule.steps=100000"),
]
PATIENCE = 120_000
"""Milliseconds: machines that run tests are busy."""
BASELINE, OTHER = "NaiveBaseline__train.txt", "HNet_ByteVsSubword_Study__train_sp1024_best_10_min.txt"

POINTS = "document.querySelector('#curve')?.data?.[0]?.x.length ?? 0"
TRACES = "document.querySelector('#curve')?.data?.filter(t => t.mode === 'lines').length ?? 0"
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "pydocs"
    prepare("pydocs", "byte260", folder, max_docs=16, val_docs=2)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs and logs come to lie."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("runs", "logs"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def app(place: Path, shared: Path) -> Iterator[str]:
    (place / "logs" / BASELINE).write_text("")
    shutil.copy(shared / "data" / "logs" / OTHER, place / "logs")
    with served("--runs", place / "runs", "--logs", place / "logs", cwd=place) as address:
        yield address


@pytest.fixture
def page(chromium: Any, app: str) -> Iterator[Any]:
    with opened(chromium, app) as page:
        yield page


class opened:
    """A page that asks this app for everything, and no other server for anything."""

    def __init__(self, chromium: Any, address: str, **options: Any) -> None:
        self.context = chromium.new_context(base_url=address, **options)
        self.address, self.outside, self.errors = address, [], []

    def __enter__(self) -> Any:
        page = self.context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda r: self._asked(r.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.outside.append(url)

    def __exit__(self, kind: object, *exc: object) -> None:
        self.context.close()
        if kind is None:
            assert (self.outside, self.errors) == ([], [])


def told(page: Any) -> tuple[str, float]:
    """A run's phase and how far it is in it, of one moment: the page changes between two questions."""
    badge = "document.querySelector('main .badge').dataset.phase"
    phase, share = page.evaluate(f"[{badge}, document.querySelector('[role=progressbar]').ariaValueNow]")
    return phase, float(share)


def followed(page: Any) -> tuple[list[str], list[float], list[int]]:
    """Watch a run's page until the run is done: phases in their order, shares of training, points of the curve."""
    phases, shares, points = [], [], []
    page.locator("[role=progressbar]").first.wait_for(state="attached")
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        now, share = told(page)
        if not phases or phases[-1] != now:
            phases.append(now)
        if now == "training":
            shares.append(share)
        if drawn := page.evaluate(POINTS):
            points.append(drawn)
        if now == "done":
            break
        page.wait_for_timeout(200)
    return phases, shares, points


def moves_on(shares: list[float]) -> bool:
    """Whether a bar goes forward; what it ran ahead between two lines it may take back."""
    return shares[-1] > shares[0] and all(b > a - 5 for a, b in itertools.pairwise(shares))


def test_a_run_that_trains(page: Any, data: Path, place: Path) -> None:
    """It appears by itself; its phase changes, its bar moves, its curve grows, its score appears; text is chunked."""
    page.goto("/")
    page.get_by_text("There is no run").wait_for(state="hidden")  # the logs are there
    page.locator("input[aria-label='find a run']").fill("hnet-small")
    page.get_by_text("no run matches").wait_for()
    command = [sys.executable, "-m", "niblick", "train", "hnet-small", "--data", data, "--runs", place / "runs", *TOY]
    with subprocess.Popen([*map(str, command), "schedule.max_seconds=15"], stderr=subprocess.PIPE) as process:
        page.locator(".run-card, .run-row").filter(has_text="hnet-small-1").click()
        page.locator("h1", has_text="hnet-small-1").wait_for()
        phases, shares, points = followed(page)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    order = ["starting", "warmup", "initial_validation", "training", "final_validation", "packaging"]
    order += ["quantized_validation", "done"]
    assert [p for p in order if p in phases] == phases
    assert {"training", "quantized_validation", "done"} <= set(phases)
    assert moves_on(shares)
    assert points == sorted(points) and points[-1] > 10
    result = json.loads((place / "runs" / "hnet-small-1" / "result.json").read_text())
    page.locator(".tile", has_text="final score").get_by_text(f"{result['bpb']:.4f}").wait_for()
    page.locator(".tile", has_text="bytes of the cap").get_by_text(f"{result['total_bytes']:,}").wait_for()
    for chart in ("rate", "boundaries", "speed", "norm", "timings"):
        page.wait_for_function(f"document.querySelector('#{chart}')?.data?.[0]?.x.length > 0")
    page.locator("[aria-label='horizontal axis']").get_by_text("time").click()
    page.wait_for_function("document.querySelector('#curve').layout.xaxis.title.text.includes('time')")
    assert "step:" in page.locator("pre.log").inner_text()


def test_a_typed_sentence_is_chunked(page: Any, place: Path) -> None:
    page.goto("/chunks")
    text = page.locator("textarea")
    page.locator(".chunk").first.wait_for()
    text.fill("")
    page.get_by_text("type something").wait_for()
    text.press_sequentially("So <b>it</b> goes & on.", delay=5)
    joined = "[...document.querySelectorAll('.chunk b')].map(b => b.textContent).join('')"
    page.wait_for_function(f"{joined} === 'So␣<b>it</b>␣goes␣&␣on.'")
    shown = page.locator(".chunk small").all_inner_texts()
    assert shown and all(0 <= float(p) <= 1 for p in shown)
    page.get_by_text(re.compile(r"chunks of [\d.]+ bytes, B [\d.]+ .* multiply-adds a bit")).wait_for()


def test_two_models_cut_one_text_beside_each_other(page: Any, place: Path) -> None:
    [one] = (place / "runs" / "hnet-small-1" / "artifacts").iterdir()
    page.goto("/chunks")
    page.locator(".chunk").first.wait_for()
    assert page.locator(".sides section").count() == 1, "there is no second one to choose"
    copy = shutil.copytree(one, one.parent / "copy")
    try:
        page.goto("/chunks")
        sides = page.locator(".sides section")
        sides.nth(0).locator(".chunk").first.wait_for()
        assert sides.nth(1).locator(".chunk").count() == 0
        sides.nth(1).locator(".q-select").click()
        page.locator(".q-menu .q-item", has_text="hnet-small-1:copy").click()
        sides.nth(1).locator(".chunk").first.wait_for()
        page.locator("textarea").fill("One text for both.")
        for side in range(2):
            cut = f"[...document.querySelectorAll('.sides section:nth-child({side + 1}) .chunk b')]"
            page.wait_for_function(f"{cut}.map(b => b.textContent).join('') === 'One␣text␣for␣both.'")
        sides.nth(1).locator(".q-select").click()
        page.locator(".q-menu .q-item", has_text="none").click()
        sides.nth(1).locator(".chunk").first.wait_for(state="detached")
    finally:
        shutil.rmtree(copy)


def test_what_is_waited_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from niblick.monitor.web import chunks

    clock = [100.0]
    monkeypatch.setattr(chunks.time, "monotonic", lambda: clock[0])
    work = chunks.Work()
    assert work.told() == ""
    work.begin()
    work.say("reading <the> model")
    assert work.told() == "", "nobody waits yet"
    clock[0] += 12
    assert "reading &lt;the&gt; model, 12 s" in work.told()
    work.end()
    assert work.told() == ""


def test_the_leaderboard_shows_the_run(page: Any, place: Path) -> None:
    page.goto("/board")
    page.get_by_text("hnet-small-1:").first.wait_for()
    page.wait_for_function("document.querySelector('#bytes')?.data?.[0]?.x.length === 1")
    page.get_by_text("1.3734").wait_for()  # of the log, apart
    assert not (place / "runs" / ".ledger.sqlite").exists(), "to look is not to write"
    assert sorted(p.name for p in place.iterdir()) == ["logs", "runs"]


def test_a_real_log_replayed(page: Any, place: Path, shared: Path) -> None:
    """The whole script comes first; then lines come as they did, 15 times as fast."""
    lines = (shared / "data" / "logs" / BASELINE).read_text().splitlines(keepends=True)

    def replay() -> None:
        with open(place / "logs" / BASELINE, "a") as file:
            file.write(RULED)
            started = time.monotonic()
            for line in lines:
                clock = line.rpartition("train_time:")[2].partition("ms")[0] if "train_time:" in line else ""
                wait = started + float(clock or 0) / 15_000 - time.monotonic()
                file.write(line[:7])
                file.flush()
                time.sleep(max(0.0, wait))
                file.write(line[7:])
                file.flush()
                if line.startswith(("Code size", "stopping_early")):
                    time.sleep(3)

    page.goto(f"/run?id={BASELINE}")
    page.locator("h1", has_text=BASELINE).wait_for()
    thread = threading.Thread(target=replay)
    thread.start()
    phases, shares, points = followed(page)
    thread.join()
    assert phases[-1] == "done" and "training" in phases and len(phases) >= 3
    assert moves_on(shares) and shares[-1] - shares[0] > 30
    assert points == sorted(points) and points[0] < 100 < points[-1]
    page.locator(".tile", has_text="final score").get_by_text("1.2244").wait_for()
    page.locator(".tile", has_text="bytes of the cap").get_by_text("15,863,489").wait_for()


def test_research_notes(page: Any, place: Path) -> None:
    notes = {"tags": ["idea"], "notes": [{"time": "2026-03-01", "text": "wider <i>encoders</i> help"}]}
    (place / "runs" / "hnet-small-1" / "notes.json").write_text(json.dumps(notes))
    (place / "runs" / "log.md").write_text("# Research log\n\n- 10:00 tried <i>twice</i>\n")
    page.goto("/notes")
    page.get_by_text("wider <i>encoders</i> help").wait_for()
    page.get_by_text("tried <i>twice</i>").wait_for()
    page.locator("input[aria-label='find in notes']").fill("idea narrower")
    page.get_by_text("no note matches").wait_for()


def test_two_runs_compare(page: Any, place: Path) -> None:
    page.goto(f"/compare?run={OTHER}")
    page.wait_for_function(f"{TRACES} === 1")
    choice = page.locator(".find input").first
    choice.click()
    choice.fill("hnet-s")
    page.locator(".q-menu").get_by_text("hnet-small-1").click()
    page.wait_for_function(f"{TRACES} === 2")
    page.wait_for_function("document.querySelector('table.plain tbody').rows.length === 2")
    page.get_by_text("What differs").wait_for()
    page.set_viewport_size({"width": 500, "height": 800})
    heights = page.evaluate("[...document.querySelectorAll('table.whole td')].map(e => e.clientHeight)")
    assert heights and len(set(heights)) == 1, "no phrase is broken: the table is scrolled"


def test_keyboard_themes_and_phones(chromium: Any, app: str, place: Path) -> None:
    with opened(chromium, app, viewport={"width": 390, "height": 800}, color_scheme="dark") as page:
        for key, title in (("1", "Runs"), ("2", "Compare"), ("3", "Leaderboard"), ("4", "Chunks"), ("5", "notes")):
            page.goto("/")
            page.locator("h1").wait_for()
            page.keyboard.press(key)
            page.locator("h1", has_text=title).wait_for()
            page.wait_for_timeout(800)
            assert not page.evaluate(WIDER), f"{title} is wider than a phone"
            tabs = "(e => e.scrollWidth <= e.clientWidth)(document.querySelector('nav.tabs'))"
            assert page.evaluate(tabs), "every page's link is seen whole"
        page.goto("/")
        page.locator(".run-row").first.wait_for()
        assert page.evaluate("document.body.classList.contains('body--dark')")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "find a run"
        page.keyboard.press("Escape")
        page.keyboard.press("d")  # from what the system has to light
        page.wait_for_function("!document.body.classList.contains('body--dark')")
        page.reload()
        page.locator(".run-row").first.wait_for()
        assert not page.evaluate("document.body.classList.contains('body--dark')"), "the choice is kept"
        page.locator(".run-row").first.focus()
        page.keyboard.press("Enter")
        page.locator("h1").wait_for()
        page.wait_for_url("**/run?id=*")
        page.wait_for_timeout(800)
        assert not page.evaluate(WIDER)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """200 runs: each finished, but one."""
    for i in range(200):
        folder = tmp_path / "runs" / f"net-{i}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"preset": "net", "seed": 1, "model": {"levels": []}}')
        start = {"event": "start", "steps": 1000, "batch_tokens": 100, "bytes_per_token": 1.0, "warmup_steps": 0}
        events = [start] + [
            {"event": "step", "step": s, "loss": 3 - s / 100, "train_seconds": s} for s in range(1, 100)
        ]
        if i:
            events.append({"event": "score", "name": "int8", "bpb": 1 + i / 1000, "loss": 1.0, "seconds": 1.0})
        (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    return tmp_path / "runs"


def test_two_hundred_runs_and_one_that_is_deleted(chromium: Any, runs: Path) -> None:
    with served("--runs", runs) as address, opened(chromium, address) as page:
        page.goto("/")
        page.wait_for_function("document.querySelectorAll('.run-row, .run-card').length === 200")
        page.locator(".run-card", has_text="net-0").get_by_text("99 / 1,000").wait_for()
        with open(runs / "net-0" / "events.jsonl", "a") as file:
            file.write('{"event": "step", "step": 123, "loss": 2.0, "train_seconds": 123}\n')
        page.locator(".run-card", has_text="net-0").get_by_text("123 / 1,000").wait_for()
        page.locator("input[aria-label='find a run']").fill("net-17 done")
        page.wait_for_function("document.querySelectorAll('.run-row').length === 11")  # and net-170 to net-179
        page.goto("/run?id=net-5")
        page.locator("h1", has_text="net-5").wait_for()
        shutil.rmtree(runs / "net-5")
        page.get_by_text("has been deleted or moved away").wait_for()


def test_log_text_is_text_and_paths_stay_inside(chromium: Any, tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    log = tmp_path / f"x{quote('<b>', safe='')}.txt"
    log.write_text(
        f"model_params:5\ntrain_path:{bad.replace(' ', '/')}\nstep:1/9 train_loss:2.0 train_time:10ms\nswa:{bad}\n"
        f"Traceback (most recent call last):\nValueError: {bad}\n"
    )
    (tmp_path / "secret.txt").write_text("step:1/9 train_loss:2.0 train_time:10ms\n")
    (tmp_path / "runs").mkdir()
    with served("--runs", tmp_path / "runs", "--logs", log) as address, opened(chromium, address) as page:
        page.on("dialog", lambda dialog: pytest.fail(f"a script of the log ran: {dialog.message}"))
        page.goto(f"/run?id={quote(log.name)}")
        page.get_by_text("onerror=alert(1)").first.wait_for()
        page.wait_for_timeout(500)
        assert page.locator("main img, main script").count() == 0
        for id in ("../secret.txt", str(tmp_path / "secret.txt"), bad):
            page.goto(f"/run?id={quote(id)}")
            page.get_by_text("There is no run").wait_for()
            page.goto(f"/chunks?artifact={quote(id)}")
            page.get_by_text("No run has an artifact").wait_for()
