"""Mutants of every kind of file that niblick reads, each read by its own reader: refused in a sentence, or read.

`python tests/fuzz/fuzzer.py 30000` prints what became of them as one JSON object. A mutant is *refused* by an error of
niblick's of one line, *read* otherwise. Of kinds whose content is under a digest (`SEALED`), a mutant that is read must
give what the file gave before it was changed: anything else is a silent change. Of free-form facts, another value
that fits its types is another value. All else is a fault: an exception of another class, more than SECONDS, more
memory than MEMORY above what the process had.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from niblick.artifact.container import parse_tensors, read_artifact
from niblick.challenge.log_reader import read_runs
from niblick.data.dataset import Dataset
from niblick.data.shards import file_hash
from niblick.data.subword_training import train_subwords
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import NiblickError
from niblick.facts.event_lines import read_events
from niblick.facts.reading import plain, read_objects
from niblick.files import write_json
from niblick.ledger.rows import read_audit, read_notes, read_run
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.monitor.finding import LogSource, RunSource
from niblick.monitor.timing import Lengths
from niblick.monitor.watcher import view
from niblick.remote.address import Address
from niblick.remote.records import Machine, Records, RemoteRun
from niblick.run.directory import Run
from niblick.score.coded_file import Model, compress, decompress, model_stream
from niblick.score.score_config import ScoreConfig
from niblick.submission.forms import read_form
from niblick.sweeps.job import Job, read_job
from niblick.sweeps.listed import PointRecord, SweepRecord
from niblick.sweeps.results import finished_runs
from niblick.train.checkpoint import Progress, load_checkpoint, save_checkpoint

SECONDS = 10
MEMORY = 600 << 20
GOLDEN = Path(__file__).parents[1] / "run" / "golden_runs.zip"
SEALED = ("artifact", "stream", "shard", "index", "checkpoint", "tokenizer")
NUMBERS = [
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"4294967296",
    b"9" * 400,
    b"1e308",
    b"null",
    b"[]",
    b"{}",
    b'"x"',
    b"[" * 300,
]


@dataclass(frozen=True)
class Kind:
    """A file, and what its verb reads it by."""

    path: Path
    read: Callable[[], Any]


class Hang(Exception):
    """A reader that takes longer than SECONDS."""


def mutant(data: bytes, draw: random.Random) -> bytes:
    """Return the file with bits flipped, cut off, with blocks doubled or swapped, or with other numbers in it."""
    held = bytearray(data)
    how = draw.randrange(6)
    if how == 0 or len(held) < 8:
        for _ in range(draw.choice([1, 1, 2, 8])):
            place = draw.randrange(8 * max(1, len(held)))
            if held:
                held[place // 8] ^= 1 << place % 8
    elif how == 1:
        del held[draw.randrange(len(held)) :]
    elif how in (2, 3):
        size = min(draw.choice([1, 4, 16, 256]), len(held) // 3)
        one, other = sorted(draw.sample(range(len(held) - size), 2))
        first, second = held[one : one + size], held[other : other + size]
        if how == 2:
            held[other:other] = first
        elif one + size <= other:
            held[one : one + size], held[other : other + size] = second, first
    elif how == 4:
        digits = [place for place in range(len(held)) if 48 <= held[place] <= 57]
        place = draw.choice(digits or [draw.randrange(len(held))])
        end = place
        while end < len(held) and held[end : end + 1].isdigit():
            end += 1
        held[place : max(end, place + 1)] = draw.choice(NUMBERS)
    else:
        size = draw.choice([1, 2, 4, 8])
        place = draw.randrange(max(1, len(held) - size))
        held[place : place + size] = draw.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * size
    return bytes(held)


def told(value: Any) -> str:
    """A value as text, to be compared."""
    return json.dumps(value, sort_keys=True, default=str)


def kinds(place: Path) -> dict[str, Kind]:
    """Make one file of each kind in `place`, by niblick's own writers."""
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(place)
    return _runs(place) | _data(place / "data") | _scored(place) | _recorded(place)


def _runs(place: Path) -> dict[str, Kind]:
    run = place / "runs" / "finished"
    artifact = next(run.glob("artifacts/*/artifact.nib"))
    (run / "notes.json").write_text('{"tags": ["keep"], "notes": [{"time": "2026-01-01", "text": "wide"}]}')
    (artifact.parent / "audit.json").write_text('{"checks": [{"name": "score", "status": "pass"}]}')

    def ledger() -> Any:
        row, _ = read_run(str(run), "finished")
        row.facts()
        source = RunSource("finished", run)
        source.poll(2e9)
        view(source, Lengths(), 2e9).snapshot()
        source.facts.history("finished")
        if row.status == "broken":
            raise NiblickError(row.message)
        return [row.facts(), list(row.notes)]

    def both(read: Callable[[], Any]) -> Callable[[], Any]:
        def read_both() -> Any:
            with contextlib.suppress(NiblickError):
                ledger()
            return read()

        return read_both

    def artifact_held() -> Any:
        held = read_artifact(artifact)
        tensors = {
            k: [v.scheme, v.shape, [p.tolist() for p in v.parts.values()]]
            for k, v in parse_tensors(artifact.read_bytes()).items()
        }
        return [held.config, tensors]

    def notes() -> Any:
        try:
            return read_notes(run / "notes.json")
        except ValueError as error:  # the verbs' own refusal
            raise NiblickError(str(error)) from error

    return {
        "artifact": Kind(artifact, artifact_held),
        "events": Kind(run / "events.jsonl", both(lambda: [plain(e) for e in read_events(run / "events.jsonl")])),
        "result": Kind(run / "result.json", ledger),
        "config": Kind(run / "config.json", both(lambda: str(Run(run).config()))),
        "notes": Kind(run / "notes.json", both(notes)),
        "scores": Kind(artifact.parent / "scores.jsonl", both(lambda: read_objects(artifact.parent / "scores.jsonl"))),
        "audit": Kind(artifact.parent / "audit.json", both(lambda: read_audit(str(artifact.parent)))),
    }


def _data(data: Path) -> dict[str, Kind]:
    folder = next(data.glob("datasets/*"))

    def tokens() -> Any:
        dataset = Dataset.open(data)
        found: dict[str, Any] = {"tokenizer": dataset.tokenizer.name}
        for split in (dataset.train, dataset.val):
            held = split.slice(0, split.tokens)
            split.check_vocabulary(held, 0, dataset.tokenizer.vocab_size)
            found[split.name] = [held.tolist(), None if split.index is None else split.index.tolist()]
        return found

    return {
        "shard": Kind(next(folder.glob("fineweb_val_*.bin")), tokens),
        "index": Kind(folder / "fineweb_val.documents.npy", tokens),
        "manifest": Kind(data / "manifest.json", tokens),
    }


class _Moments:
    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {"moments": torch.ones(3)}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        pass


def _scored(place: Path) -> dict[str, Kind]:
    small = nn.Linear(3, 2)
    checkpoint = save_checkpoint(place / "checkpoints", small, {"optimizer": _Moments()}, Progress(step=3))

    def resumed() -> Any:
        progress = load_checkpoint(checkpoint, small, {"optimizer": _Moments()})
        return [asdict(progress), [p.tolist() for p in small.parameters()]]

    torch.manual_seed(0)
    lm = LM(ModelConfig(width=8, heads=1, kv_heads=1, main=StageConfig("c1"))).eval()
    model = Model(lm, ByteTokenizer(), "tiny", "ab" * 32)
    stream = place / "text.nbt"
    stream.write_bytes(model_stream(b"the quick brown fox", model, ScoreConfig(seq_len=16))[0])
    stored = stream.with_name("stored.nbt")
    stored.write_bytes(compress(b"the quick brown fox, the quick brown fox", model, ScoreConfig(seq_len=16))[0])
    words = [f"the quick brown fox {n} jumps over the lazy dog" for n in range(200)]
    tokenizer = place / "words.model"
    tokenizer.write_bytes(train_subwords(words, 400))
    digest = file_hash(tokenizer)
    return {
        "checkpoint": Kind(checkpoint, resumed),
        "stream": Kind(stream, lambda: decompress(stream.read_bytes(), model).hex()),
        "stored file": Kind(stored, lambda: decompress(stored.read_bytes(), model).hex()),
        "tokenizer": Kind(tokenizer, lambda: SentencePieceTokenizer.read(tokenizer, "words", digest).vocab_size),
    }


def _recorded(place: Path) -> dict[str, Kind]:
    runs = place / "remote"
    records = Records(runs)
    machine = runs / ".remote" / "machines" / "box.json"
    records.save_machine(Machine("box", "ssh", Address("box.example")))
    (runs / "far").mkdir()
    records.save(RemoteRun("far", "box", "running", "/far", "python3", 1.0, lines=("a line",)))
    sweep = place / "sweep"
    sweep.mkdir()
    point = PointRecord(name="base", branch="b", settings={"seed": "1"})
    write_json(sweep / "sweep.json", plain(SweepRecord(points=(point,), seeds=(1, 2), runs={"base-s1": "0" * 64})))
    job = sweep / "job.json"
    held = Job("base-s1", str(sweep), {"seed": 1}, None, {"name": "base"}, 1, 0, [[1, 2.0]])
    job.write_text(json.dumps(asdict(held)))
    log = place / "train.txt"
    shutil.copy(place / "runs" / "finished" / "train.log", log)
    form = place / "submission.json"
    form.write_text(json.dumps({"val_bpb": 1.25, "bytes_total": 15_000_000, "seed_results": {"1": {"val_bpb": 1.24}}}))

    def read_log() -> Any:
        source = LogSource("log", log)
        source.poll(2e9)
        view(source, Lengths(), 2e9).snapshot()
        source.facts.history("log")
        return str(read_runs(log.read_text(errors="replace")))

    def read_submission() -> Any:
        try:
            return str(read_form(form))
        except ValueError as error:  # its caller's own refusal
            raise NiblickError(str(error)) from error

    return {
        "machines": Kind(machine, lambda: [asdict(each) for each in records.machines()]),
        "remote records": Kind(runs / "far" / "remote.json", lambda: [asdict(each) for each in records.all()]),
        "sweep state": Kind(sweep / "sweep.json", lambda: list(finished_runs(sweep))),
        "jobs": Kind(job, lambda: asdict(read_job(job))),
        "logs": Kind(log, read_log),
        "submission.json": Kind(form, read_submission),
    }


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise Hang in what takes longer."""

    def ring(number: int, frame: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def outcome(name: str, kind: Kind, before: str) -> tuple[str, str]:
    """What becomes of the file as it is now: `refused`, `read`, or what is wrong, and a word about that."""
    try:
        with within(SECONDS):
            value = told(kind.read())
    except NiblickError as error:
        text = str(error)
        return ("refused", "") if text and "\n" not in text else ("many lines", text[:300])
    except Hang:
        return "hangs", ""
    except BaseException as error:
        return "tracebacks", f"{type(error).__name__}: {error}"[:300]
    if name in SEALED and value != before:
        return "silent changes", value[:200]
    return "read", ""


def main(count: int, seed: int) -> dict[str, Any]:
    """Read `count` mutants, spread evenly over the kinds."""
    found: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        every = kinds(Path(name))
        started = {key: (kind.path.read_bytes(), told(kind.read())) for key, kind in every.items()}
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
        for number in range(count):
            key = list(every)[number % len(every)]
            data, before = started[key]
            each = seed * 1_000_003 + number
            every[key].path.write_bytes(mutant(data, random.Random(each)))
            what, why = outcome(key, every[key], before)
            every[key].path.write_bytes(data)
            found[what] += 1
            if what not in ("refused", "read"):
                faults.append({"kind": key, "seed": each, "what": what, "why": why})
    [peak] = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return {"mutants": count, "kinds": len(every), **found, "peak_bytes": int(peak) << 10, "faults": faults[:40]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    np.seterr(all="ignore")
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0), indent=2))
