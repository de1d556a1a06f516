"""Kills, killed ranks and several writers, for as long as one has patience: is anything lost?

    python benchmarks/soak.py [--kills 100] [--only VERB …] [--ranks 20] [--writes 1000] [--seed 0] [--docs]

Each verb is run once undisturbed, and then again and again beside it: killed by SIGKILL at a random moment of its time,
with all its processes, and called again until it ends. What it leaves must be the same to the bit, and no temporary
file may lie about. Ranks are killed one at a time, and the run goes on. Writers add notes to one run, and lines to one
file.

Pulls go over a real connection: the tests' own server on 127.0.0.1 (OpenSSH, rsync). The last result stands in
docs/training.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from measure import put_into_docs
from niblick.config.run_config import override
from niblick.data.prepare import prepare
from niblick.facts.event_lines import read_events
from niblick.facts.events import Step
from niblick.ledger.ledger import Ledger
from niblick.recipes.presets import get_preset
from niblick.remote import launching
from niblick.remote.records import Records, RemoteRun
from niblick.run.directory import create_run

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests" / "remote"))

from sshd import Server  # noqa: E402

PAGE = ROOT / "docs" / "training.md"
TOY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.device=cpu"),
    *("train.seq_len=32", "train.batch_tokens=64", "train.micro_batch_tokens=32", "train.warmup_steps=0"),
    *("schedule.steps=60", "schedule.max_seconds=null", "train.checkpoint_every=10", "train.val_every=0"),
    *("score.seq_len=64", "score.documents=2", "train.log_every=1", "export.calibration_tokens=512"),
]
SWEEP = """
from niblick.sweeps.sweep import Sweep, grid

sweep = Sweep(
    base="hnet-small",
    name="soaked",
    sets={sets!r},
    axes=[grid({{"optim.matrix_lr": [0.02, 0.04]}})],
    track="fixed-step",
)
"""
NOTE = """
import sys
from pathlib import Path
from niblick.ledger.ledger import Ledger
from niblick.ledger.notes import note
folder = Path(sys.argv[1])
[row] = Ledger(folder).rows()
for i in range(int(sys.argv[3])):
    note(folder, f"{sys.argv[2]}{i}", row)
"""
APPEND = """
import sys
from pathlib import Path
from niblick.files import append_line
for i in range(int(sys.argv[3])):
    append_line(Path(sys.argv[1]) / "lines.jsonl", sys.argv[2] * 50 + str(i))
"""
MOST_CALLS = 40
"""Calls of one verb after which it must have ended."""


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """Start a command in a group of its own, which can be killed together."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for a command that must end well."""
    _, err = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args} ended with {process.returncode}: {err.decode()[-2000:]}")


@dataclass(frozen=True)
class Verb:
    """One verb: its words, and which of its files must be the same to the bit."""

    name: str
    words: Callable[[Path], list[object]]
    """In a folder; called anew for each call, because a run that is there is gone on with."""
    same: str
    """Pattern of files below the folder."""
    lines: str = ""
    """Pattern of files of JSON lines, which must be whole."""


def trained(folder: Path, data: Path) -> list[object]:
    """The words that begin a run in a folder, or go on with the one that is there."""
    for config in folder.glob("runs/*/config.json"):
        return ["train", "--resume", config.parent]
    return ["train", "hnet-small", "--data", data, "--runs", folder / "runs", *TOY]


def verbs(data: Path, run: Path) -> list[Verb]:
    """All verbs, on this dataset and this finished run, of which each folder has a copy."""
    copied = ("runs", run.name)
    return [
        Verb(
            "prepare",
            lambda folder: [
                *("data", "prepare", "--source", "pydocs", "--tokenizer", "byte260", "--val-docs", "2"),
                *("--max-docs", "400", "--out", folder / "data"),
            ],
            "data/**/*.bin",
        ),
        Verb("train", lambda folder: trained(folder, data), "runs/*/artifacts/*/artifact.nib", "runs/*/events.jsonl"),
        Verb(
            "export",
            lambda folder: ["export", folder.joinpath(*copied), "scheme=int6", "codec=range", "--name", "second"],
            "runs/*/artifacts/second/artifact.nib",
            "runs/*/artifacts/second/scores.jsonl",
        ),
        Verb(
            "fit",
            lambda folder: [
                *("fit", folder.joinpath(*copied), "--artifact-bytes", "20000", "--codec", "zlib", "--no-gptq"),
                *("--tokens", "512"),
            ],
            "runs/*/artifacts/fit*/artifact.nib",
        ),
        Verb(
            "eval",
            lambda folder: ["eval", folder.joinpath(*copied), "score.stride=32", "score.scorer=sliding"],
            "runs/*/artifacts/*/artifact.nib",
            "runs/*/artifacts/*/scores.jsonl",
        ),
        Verb(
            "submit",
            lambda folder: ["submit", folder.joinpath(*copied), "--out", folder / "sent", "--force", "--author", "A"],
            "sent/final_model.nib",
        ),
        Verb(
            "sweep",
            lambda folder: ["sweep", "run", folder / "soaked.py", "--runs", folder / "sweeps"],
            "sweeps/soaked/*/artifacts/*/artifact.nib",
            "sweeps/soaked/*/events.jsonl",
        ),
    ]


@dataclass(frozen=True)
class Far:
    """A run that has ended on another machine, and a server that hands it out."""

    server: Server
    run: RemoteRun

    @classmethod
    def launched(cls, folder: Path, data: Path) -> Far:
        """Launch a run and wait until it has ended there."""
        server, records = Server.make(folder / "server"), Records(folder / "runs")
        config = override(get_preset("hnet-small"), [*TOY, f"data.path={json.dumps(str(data))}"])
        order = launching.Order(stop_machine="touch stopped", stop_machine_after=1)
        run = launching.launch(records, server.machine(), config, None, order, lambda text: None)
        while not (Path(run.folder) / "stopped").exists():
            time.sleep(0.2)
        return cls(server, replace(run, python=sys.executable))

    def told(self, folder: Path) -> Path:
        """Make a folder that knows of the run and has nothing of it."""
        (folder / "runs" / self.run.run).mkdir(parents=True)
        records = Records(folder / "runs")
        records.save_machine(self.server.machine())
        records.save(self.run)
        return folder

    @property
    def verb(self) -> Verb:
        return Verb(
            "pull",
            lambda folder: ["remote", "pull", self.run.run, "--runs", folder / "runs"],
            f"runs/{self.run.run}/**/*.*",
            "runs/*/events.jsonl",
        )


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """The SHA-256 of all files of a pattern."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob(pattern))
        if path.is_file() and path.name != "remote.json"  # home's own record says when it asked
    }


def faults(folder: Path, verb: Verb, wanted: dict[str, str]) -> Iterator[str]:
    """What a killed verb left that it should not have."""
    found = {*digests(folder, verb.same).values()}  # a run that was killed while it was made has left its number
    yield from (f"{name} is not the same" for name in wanted if wanted[name] not in found)
    yield from (f"{path.name} lies about" for path in folder.rglob("*.tmp"))
    for path in folder.glob(verb.lines) if verb.lines else ():
        for line in path.read_text().splitlines():
            try:
                json.loads(line)
            except ValueError:
                yield f"{path.name} has a line that is not whole"


def killed(verb: Verb, made: Callable[[Path], Path], folder: Path, kills: int, draw: random.Random) -> tuple[int, int]:
    """Kill a verb so many times, in folders made anew. Returns (kills that fell, faults)."""
    whole = made(folder / "whole")
    began = time.monotonic()
    ended(start("-m", "niblick", *verb.words(whole)))
    seconds, wanted = time.monotonic() - began, digests(whole, verb.same)
    if not wanted:
        raise SystemExit(f"{verb.name} left no {verb.same}")
    fell = wrong = rounds = 0
    while fell < kills and rounds < 3 * kills:
        place, rounds = made(folder / f"round{rounds}"), rounds + 1
        for _ in range(MOST_CALLS):
            process = start("-m", "niblick", *verb.words(place))
            try:
                process.communicate(timeout=draw.uniform(0.02, 1.0) * seconds if fell < kills else None)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                fell += 1
                continue
            if process.returncode == 0:
                break
        found = [*faults(place, verb, wanted)]
        wrong += len(found)
        for fault in found:
            print(f"{verb.name}: {fault}", flush=True)
    return fell, wrong


def ranks_killed(data: Path, folder: Path, kills: int, draw: random.Random) -> tuple[int, int]:
    """Kill one of two ranks so many times; the run goes on each time, to the end of an undisturbed one."""
    words = ["--devices", "2", *TOY, "schedule.steps=400", "schedule.warmdown_steps=10"]
    ended(start("-m", "niblick", "train", "hnet-small", "--data", data, "--runs", folder / "whole", *words))
    run, fell = folder / "killed" / "hnet-small-1", 0
    while True:
        resumed = (run / "config.json").is_file()
        command = ["--resume", run, "--devices", "2"] if resumed else ["hnet-small", "--data", data, *words]
        command += [] if resumed else ["--runs", folder / "killed"]
        before = last_step(run)
        process = start("-m", "niblick", "train", *command)
        while fell < kills and process.poll() is None and last_step(run) <= before + draw.randint(1, 12):
            time.sleep(0.02)
        workers = children(process.pid)
        if fell < kills and process.poll() is None and len(workers) >= 2:
            os.kill(draw.choice(workers), signal.SIGKILL)
            fell += 1
        process.communicate()
        if process.returncode == 0:
            break
    whole, other = ({*digests(folder / kind, "*/artifacts/*/artifact.nib").values()} for kind in ("whole", "killed"))
    return fell, int(not whole <= other or not whole)


def last_step(run: Path) -> int:
    """The last step that a run's log tells of."""
    return max((event.step for event in read_events(run / "events.jsonl") if isinstance(event, Step)), default=0)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def written(folder: Path, writes: int) -> tuple[int, int]:
    """Two writers of notes and two of lines, so many each. Returns (writes, lost)."""
    run = create_run(folder / "runs", get_preset("hnet-small"))
    for program, place in ((NOTE, run.path.parent), (APPEND, folder)):
        for process in [start("-c", program, place, name, writes) for name in ("a", "b")]:
            ended(process)
    [row] = Ledger(run.path.parent).rows()
    wanted = {f"{name}{i}" for name in "ab" for i in range(writes)}
    lines = {name * 50 + str(i) for name in "ab" for i in range(writes)}
    kept = {str(note["text"]) for note in row.notes} & wanted
    return 4 * writes, len(wanted - kept) + len(lines - set((folder / "lines.jsonl").read_text().splitlines()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="verbs among which the kills are shared; all without it")
    parser.add_argument("--ranks", type=int, default=20)
    parser.add_argument("--writes", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--docs", action="store_true", help="write the table into docs/training.md")
    args = parser.parse_args()
    draw, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        data = place / "data"
        prepare("pydocs", "byte260", data, max_docs=24, val_docs=2)
        ended(start("-m", "niblick", *trained(place, data)))
        run = place / "runs" / "hnet-small-1"

        def made(folder: Path) -> Path:
            folder.mkdir(parents=True)
            subprocess.run(["cp", "-r", place / "runs", folder / "runs"], check=True)
            sets = [*TOY, f"data.path={json.dumps(str(data))}", "schedule.warmdown_steps=5"]
            (folder / "soaked.py").write_text(SWEEP.format(sets=sets))
            return folder

        def empty(folder: Path) -> Path:
            folder.mkdir(parents=True)
            return folder

        far = Far.launched(place / "far", data)
        makers = {"prepare": empty, "train": empty, "pull": far.told}
        listed = [verb for verb in (*verbs(data, run), far.verb) if args.only is None or verb.name in args.only]
        for number, verb in enumerate(listed):
            kills = args.kills * (number + 1) // len(listed) - args.kills * number // len(listed)
            fell, wrong = killed(verb, makers.get(verb.name, made), place / verb.name, kills, draw)
            rows.append((f"`{verb.name}` killed", fell, wrong))
            print(*rows[-1], flush=True)
        far.server.stop()
        if args.ranks:
            rows.append(("one of two ranks killed", *ranks_killed(data, place / "ranks", args.ranks, draw)))
            print(*rows[-1], flush=True)
        if args.writes:
            rows.append(("notes and lines by two writers at once", *written(place / "writers", args.writes)))
    table = ["| what | times | lost or different |", "| --- | ---: | ---: |"]
    table += [f"| {what} | {times:,} | {wrong} |" for what, times, wrong in rows]
    print("\n".join(table))
    if args.docs:
        put_into_docs("soak", "\n".join(table), PAGE)
    return int(any(wrong for _, _, wrong in rows))


if __name__ == "__main__":
    sys.exit(main())
