"""Every verb that writes, on disks that are full, read-only or moved away: one sentence, nothing lost, nothing left."""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from command import Niblick
from disks import at_most, failing, renamed
from tiny import TINY, Here, score_in_process

from niblick import files
from niblick.audit import auditor
from niblick.audit.checks import Check
from niblick.bundle import Script, make_script
from niblick.config.run_config import override
from niblick.drawing import figures
from niblick.recipes.presets import get_preset
from niblick.reports import breakdown, run_report
from niblick.run import exports, packing, pipeline
from niblick.run.compressor import open_model
from niblick.score.coded_file import compress
from niblick.submission import folder
from niblick.sweeps import executors

WHOLE = {
    "tag": ["tag", "keep", "one"],
    "note": ["note", "wider is not better", "--run", "one"],
    "trust": ["trust", "pulled"],
    "audit": ["audit", "one"],
    "compress": ["compress", "{text}", "-o", "{out}", "--model", "one"],
    "decompress": ["decompress", "{stream}", "-o", "{out}", "--model", "one"],
    "report": ["report", "one"],
    "boundaries": ["boundaries", "one", "--windows", "1", "--out", "{out}"],
    "boundaries --text": ["boundaries", "one", "--text", "a b", "--out", "{out}"],
    "sensitivity": ["sensitivity", "one", "--out", "{out}", "--tokens", "128"],
    "submit": ["submit", "one", "--out", "{out}", "--force"],
    "data prepare": ["data", "prepare", "--source", "{text}", "--out", "{out}"],
    "data convert": ["data", "convert", "{data}", "--out", "{out}"],
}
"""Verbs that write all of what they make, or nothing."""
VERBS = WHOLE | {
    "eval": ["eval", "one"],
    "eval --breakdown": ["eval", "one", "--breakdown"],
    "export": ["export", "one", "scheme=int4"],
    "train": ["train", "hnet-small", *TINY, "schedule.steps=1", "--data", "{data}"],
    "sweep run": ["sweep", "run", "{sweep}", "--workers", "1"],
}
READING = [["runs"], ["leaderboard"], ["show", "one"], ["watch", "--once"], ["note"], ["generate", "one"]]

SWEEP = """
from niblick.sweeps.sweep import Sweep, grid
sweep = Sweep("hnet-small", [grid({{"optim.matrix_lr": [0.02]}})], seeds=[1], sets={sets!r}, name="lengths")
"""


@pytest.fixture(scope="module")
def script() -> Script:
    return make_script(override(get_preset("hnet-small"), TINY), None)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, script: Script, score_here: None) -> None:
    """What takes long and writes nothing is left out: audits, pictures, other processes."""
    monkeypatch.setattr(exports, "official_score", pipeline.official_score)
    monkeypatch.setattr(auditor, "opened", lambda *given: contextlib.nullcontext(SimpleNamespace(record=None)))
    monkeypatch.setattr(auditor, "all_checks", lambda audited: [Check("causality", "pass", "")])
    monkeypatch.setattr(run_report, "draw", lambda chart: b"<svg/>")
    for drawing in ("chunk_lengths", "sensitivity_bars"):
        monkeypatch.setattr(figures, drawing, lambda *given: b"<svg/>")
    monkeypatch.setattr(folder, "requirements", lambda script: "torch\n")
    monkeypatch.setattr(breakdown, "_pictures", lambda *given: {"bits": b"<svg/>"})
    monkeypatch.setattr(executors, "LocalPool", lambda *given: Here())
    monkeypatch.setattr(folder, "make_script", lambda *given: script)
    monkeypatch.setattr(packing, "closure_bytes", lambda *given: script.total)


@pytest.fixture(scope="module")
def finished(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, a research log, and a file that was coded with the run's model."""
    runs = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "official_score", score_in_process)
        config = override(get_preset("hnet-small"), [*TINY, "schedule.steps=2", f"data.path={toy_data}"])
        pipeline.run(config, runs, lambda event: None, name="one")
    (runs / "pulled").mkdir()
    shutil.copy(runs / "one" / "config.json", runs / "pulled")
    (runs / "pulled" / "recipe.py").write_text("def recipe():\n    return None\n")
    (runs / "one" / "notes.json").write_text('{"tags": ["old"], "notes": []}')
    (runs / "log.md").write_text("# Research log\n\n- by hand\n")
    model, config = open_model("one", runs, "")
    (runs / "coded.nbt").write_bytes(compress(b"what was written", model, config)[0])
    return runs


class Disk:
    """A folder with that run in it, made anew for each time that a verb is called on it."""

    def __init__(self, finished: Path, data: Path, place: Path) -> None:
        self.finished, self.place, self.path, self.moved = finished, place, place / "disk", place / "moved"
        (place / "text.txt").write_text("What is written is written.\n\n" * 30)
        (place / "lengths.py").write_text(SWEEP.format(sets=[*TINY, "schedule.steps=1", f"data.path={data}"]))
        names = {"text": place / "text.txt", "sweep": place / "lengths.py", "data": data, "out": self.path / "out"}
        self.names = names | {"stream": finished / "coded.nbt"}

    def fresh(self) -> dict[str, bytes]:
        """Make it anew, and return what it holds."""
        for old in (self.path, self.moved):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(self.finished, self.path / "runs")
        return self.held(self.path)

    def arguments(self, words: list[str]) -> list[str]:
        """The words of a verb, with the names of files in them."""
        apart = words[0] == "data"
        return [word.format(**self.names) for word in words] + ([] if apart else ["--runs", str(self.path / "runs")])

    def held(self, folder: Path) -> dict[str, bytes]:
        """All files below a folder that hold anything, but the cache, which may be thrown away."""
        found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".ledger"))
        return {path.relative_to(folder).as_posix(): data for path in found if (data := path.read_bytes())}

    def expect_kept(self, before: dict[str, bytes], folder: Path, done: bool = False) -> dict[str, bytes]:
        """What was there is there, with lines added at most, and nothing is left that nobody asked for.

        Only what is `done` changes tags and notes.
        """
        after = self.held(folder)
        changed = [name for name, data in before.items() if not after.get(name, b"").startswith(data)]
        assert changed in ([], ["runs/one/notes.json"] if done else [])
        left = [path.name for path in folder.rglob("*") if path.suffix in (".tmp", ".lock", ".partial")]
        assert not [name for name in left if not name.startswith(".ledger")]
        return after


@pytest.fixture
def disk(finished: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "disk" / "state"))
    return Disk(finished, toy_data, tmp_path)


def expect_sentence(done: tuple[int, str, str]) -> str:
    code, _, err = done
    said = [line for line in err.splitlines() if line.startswith("niblick: ")]
    assert code == 2 and len(said) == 1, err
    assert ".tmp" not in said[0], "a name that nobody knows"
    return said[0]


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk(verb: str, disk: Disk, niblick: Niblick, quick: None) -> None:
    """There is room for nothing, for one file, for two …, until it suffices; of more every 17th number."""
    for room in (*range(4 if verb in WHOLE else 1), *range(5, 300, 17)):
        before = disk.fresh()
        with failing(disk.path, errno.ENOSPC, after=room) as refused:
            done = niblick(*disk.arguments(VERBS[verb]))
        after = disk.expect_kept(before, disk.path, done=not refused)
        if not refused:
            break
        said = expect_sentence(done)
        assert "disk is full" in said or "No space left" in said
        assert verb not in WHOLE or after == before
    assert done[0] == 0 and room and after != before


@pytest.mark.parametrize("size", [0, 1100])
@pytest.mark.parametrize("verb", VERBS)
def test_a_file_that_there_is_no_room_for(verb: str, size: int, disk: Disk, niblick: Niblick, quick: None) -> None:
    before = disk.fresh()
    with at_most(size):
        done = niblick(*disk.arguments(VERBS[verb]))
    after = disk.expect_kept(before, disk.path, done=not done[0])
    if done[0] or not size:
        said = expect_sentence(done)
        assert "larger than is allowed" in said or "File too large" in said or "os error 27" in said
        assert verb not in WHOLE or after == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_read_only_disk(verb: str, disk: Disk, niblick: Niblick, quick: None) -> None:
    before = disk.fresh()
    with failing(disk.path, errno.EROFS) as refused:
        said = expect_sentence(niblick(*disk.arguments(VERBS[verb])))
    assert refused and disk.held(disk.path) == before
    assert files._TROUBLE[errno.EROFS] in said or "Read-only file system" in said


@pytest.mark.parametrize("words", READING, ids=lambda words: words[0])
def test_what_only_reads_needs_no_disk_that_can_be_written(words: list[str], disk: Disk, niblick: Niblick) -> None:
    before = disk.fresh()
    with failing(disk.path, errno.EROFS):
        code, out, err = niblick(*disk.arguments(words))
    assert (code, disk.held(disk.path)) == (0, before), err
    assert out


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_is_moved_away(verb: str, disk: Disk, niblick: Niblick, quick: None) -> None:
    """Either the verb makes a new one in its place, or it says that it is not there."""
    before = disk.fresh()
    with renamed(disk.path, disk.moved):
        done = niblick(*disk.arguments(VERBS[verb]))
    if done[0]:
        assert "not there" in (said := expect_sentence(done)) or "No such file" in said
    assert disk.expect_kept(before, disk.moved).keys() == before.keys()
    with contextlib.suppress(FileNotFoundError):
        disk.expect_kept({}, disk.path)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if not verb.startswith("data")])
def test_a_folder_that_is_gone(verb: str, disk: Disk, niblick: Niblick, quick: None) -> None:
    disk.fresh()
    shutil.rmtree(disk.path / "runs")
    done = niblick(*disk.arguments(VERBS[verb]))
    if verb in ("train", "sweep run"):  # which make it
        assert done[0] == 0
    else:
        assert "no run" in (said := expect_sentence(done)) or "no folder" in said


def test_standard_output_on_a_full_disk(niblick: Niblick, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with full.open("w") as output:
        monkeypatch.setattr("sys.stdout", output)
        code, _, err = niblick("presets", "--json")
        assert code == 2 and "disk is full" in err and err.startswith("niblick: ")
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            output.close()
