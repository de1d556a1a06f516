"""A real `niblick train` process, killed again and again: it ends as if nothing had happened, no file is damaged."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import Any

import forked
import pytest
from told import told

from niblick.artifact.container import read_artifact
from niblick.data.prepare import prepare
from niblick.run.directory import Run, source_snapshot
from niblick.train.checkpoint import list_checkpoints, read_tensors

TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.device=cpu"),
    *("train.seq_len=32", "train.batch_tokens=64", "train.micro_batch_tokens=64", "score.seq_len=64"),
    *("schedule.steps=120", "schedule.max_seconds=null", "schedule.warmdown_share=null", "schedule.warmdown_steps=60"),
    *("train.checkpoint_every=4", "train.val_every=60", "train.log_every=1", "train.average=best"),
]
"""A few thousand weights, 120 steps of milliseconds, a checkpoint every 4."""

# Runs the command line in this process and kills it, by a real SIGKILL, before or after the n-th call of a function.
KILLER = """
import importlib, os, signal, sys
module, name, when, number = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
owner = importlib.import_module(module)
real, calls = getattr(owner, name), [0]

def counted(*arguments, **named):
    calls[0] += 1
    if calls[0] == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **named)
    if calls[0] == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, counted)
from niblick.cli import main
sys.argv = ["niblick", *sys.argv[5:]]
main()
"""

LIMITED = """
import resource, sys
from niblick.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.argv = ["niblick", *sys.argv[2:]]
main()
"""

MOMENTS = {  # where a kill may fall: the function and the most calls to let pass
    "making the run": ("os", "replace", 3),
    "a step": ("niblick.train.loop", "gradients", 16),
    "the update": ("niblick.train.optim", "orthogonalize", 30),
    "an event": ("niblick.run.directory", "append_line", 30),
    "a file being written": ("niblick.train.checkpoint", "save_file", 4),
    "a checkpoint on its way": ("os", "replace", 6),
    "an old checkpoint going": ("niblick.train.checkpoint", "list_checkpoints", 4),
    "choosing an average": ("niblick.run.training", "plain_score", 3),
    "the last validation": ("niblick.run.pipeline", "validate_weights", 1),
    "packing": ("niblick.run.packing", "pack", 1),
    "the artifact being written": ("os", "fsync", 3),
    "scoring": ("niblick.run.pipeline", "official_score", 1),
    "the result": ("niblick.run.pipeline", "write_file", 1),
}
ORDER = [
    *("making the run", "a step", "the update", "an event", "a file being written", "a checkpoint on its way"),
    *("an old checkpoint going", "a step", "a file being written", "an event", "a checkpoint on its way", "a step"),
    *("the update", "choosing an average", "the last validation", "packing", "the artifact being written"),
    *("scoring", "scoring", "the result"),
]
"""20 kills, in the order in which a run comes to them; those of training at random calls."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survival") / "pydocs"
    prepare("pydocs", "byte260", folder, max_docs=24, val_docs=2)
    return folder


def niblick(*arguments: object, killed: tuple[str, str, str, int] | None = None, limit: int = 0) -> forked.Ended:
    """Run the command line; `limit`: the most bytes that its files may take."""
    command = ["-c", LIMITED, limit] if limit else ["-c", KILLER, *killed] if killed else ["-m", "niblick"]
    return forked.run([*command, *arguments], variables=os.environ | {"OMP_NUM_THREADS": "1"})


def check_files(run: Run) -> None:
    """Every file under its final name is whole."""
    for path in [*list_checkpoints(run.checkpoints), *([run.weights] if run.weights.exists() else [])]:
        read_tensors(path)
    for name in run.artifact_names():
        read_artifact(run.artifact(name))
    for path in run.path.rglob("*.json"):
        json.loads(path.read_text())
    for path in [run.path / "events.jsonl", *run.path.rglob("scores.jsonl")]:
        for line in path.read_text().splitlines() if path.exists() else []:
            json.loads(line)
    log = run.path / "train.log"
    assert not log.exists() or not log.read_text() or log.read_text().endswith("\n")


CLOCKS = {"train_seconds", "wall_seconds", "eta_seconds", "tokens_per_second", "seconds", "export_seconds", "legality"}
CLOCKS |= {"time", "document_costs"}  # numbered by the score, and a kill may fall after one


def story(run: Run) -> list[dict[str, Any]]:
    """The events without what differs from run to run: clocks, that it was resumed, and how often it was scored."""
    return [
        {key: value for key, value in event.items() if key not in CLOCKS}
        for event in told(run)
        if event["event"] != "resume" and event.get("kind") != "throughput"
    ]


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(data: Path, tmp_path: Path) -> None:
    """SIGKILL in training, checkpointing, choosing, packing, scoring: same bits, same log as without."""
    started = ["train", "hnet-small", "--data", data, "--runs"]
    whole = niblick(*started, tmp_path / "whole", *TOY)
    assert whole.returncode == 0, whole.stderr
    run, draw, kills = Run(tmp_path / "killed" / "hnet-small-1"), random.Random(7), 0
    for moment in ORDER:
        module, name, most = MOMENTS[moment]
        number = draw.randint(1, most)
        made = (run.path / "config.json").exists()
        command = ["train", "--resume", run.path] if made else [*started, tmp_path / "killed", *TOY]
        done = niblick(*command, killed=(module, name, draw.choice(["before", "after"]), number))
        assert done.returncode == -signal.SIGKILL, f"{moment}, call {number}: {done.stderr}"
        kills += 1
        if not (run.path / "config.json").exists():
            run = Run(tmp_path / "killed" / "hnet-small-2")
        else:
            check_files(run)
    assert kills == 20
    ended = niblick("train", "--resume", run.path)
    assert ended.returncode == 0, ended.stderr
    check_files(run)
    assert not list(run.path.rglob("*.tmp"))
    other = Run(tmp_path / "whole" / "hnet-small-1")
    assert read_tensors(run.weights)[0].keys() == read_tensors(other.weights)[0].keys()
    for name, tensor in read_tensors(run.weights)[0].items():
        assert tensor.equal(read_tensors(other.weights)[0][name]), name
    [artifact] = run.artifact_names()
    assert run.artifact(artifact).read_bytes() == other.artifact(artifact).read_bytes()
    assert story(run) == story(other)
    lines, others = ((r.path / "train.log").read_text().splitlines() for r in (run, other))
    assert [line.split(" train_time")[0] for line in lines if line.startswith("step:")] == [
        line.split(" train_time")[0] for line in others if line.startswith("step:")
    ]
    result, expected = run.result(), other.result()
    assert result and expected
    assert [getattr(result, key) for key in ("bits", "average", "step", "text_hash")] == [
        getattr(expected, key) for key in ("bits", "average", "step", "text_hash")
    ]


def full_disk(folder: Path) -> bool:
    """Mount a file system of two megabytes there, if this machine lets us."""
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def expect_full(done: Any, run: Run) -> None:
    assert done.returncode == 2, done.stderr
    [message] = [line for line in done.stderr.splitlines() if line.startswith("niblick: ")]
    kept = list_checkpoints(run.checkpoints)
    assert kept
    assert f"the last good checkpoint is {kept[-1]}" in message
    assert f"niblick train --resume {run.path}" in message
    assert "Traceback" not in done.stderr
    check_files(run)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint(data: Path, tmp_path: Path) -> None:
    """A real file system that runs full; with room again the run goes on to the same end."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not full_disk(folder):
        pytest.skip("needs the right to mount a small tmpfs; the limit on file sizes below is tested everywhere")
    try:
        filler = folder / "filler"
        quick = [*TOY, "train.average=raw", "train.checkpoint_every=2"]
        first = niblick("train", "hnet-small", "--data", data, "--runs", folder, *quick, "schedule.steps=6")
        assert first.returncode == 0, first.stderr
        run = Run(folder / "hnet-small-1")
        for path in (run.weights, run.path / "result.json"):
            path.unlink()
        config = json.loads((run.path / "config.json").read_text())
        config["schedule"]["steps"] = 40
        (run.path / "config.json").write_text(json.dumps(config))
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize
        filler.write_bytes(bytes(free - 20_000))  # too little for a third checkpoint
        done = niblick("train", "--resume", run.path)
        expect_full(done, run)
        assert "No space left on device" in done.stderr
        filler.unlink()
        assert niblick("train", "--resume", run.path).returncode == 0
        result = run.result()
        assert result and result.step == 40
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_files_that_may_not_grow(data: Path, tmp_path: Path) -> None:
    """The same through the limit on file sizes, which needs no rights: here the log is what cannot grow."""
    run = Run(tmp_path / "hnet-small-1")
    size = len(source_snapshot(None)) + 50_000  # room for the sources and a checkpoint, not for the log of all steps
    done = niblick(
        *("train", "hnet-small", "--data", data, "--runs", tmp_path, *TOY, "schedule.steps=6000"),
        limit=size,
    )
    expect_full(done, run)
