"""The tools of a study: data by name, sweeps that are run to their end, tables in the published form.

A study is a function from a `Lab` to tables. Its runs lie in `runs/<study>/` and further sweeps beside it, so a study
that was killed goes on where it was, and its tables come out the same. At toy size everything is small, on the CPU, and
on the fixed-step track: minutes on two cores, and no figure of it means anything but that the study works.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from niblick.boundaries.cuts import Reader
from niblick.boundaries.measure import level_facts
from niblick.boundaries.sample import make_sample
from niblick.compare.groups import read_records
from niblick.config.run_config import dotted
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.drawing import page as report
from niblick.errors import ConfigError, NiblickError
from niblick.facts.reading import merged, plain
from niblick.facts.record import Record
from niblick.facts.result import Result
from niblick.facts.scores import ScoreRecord
from niblick.files import json_bytes, write_together
from niblick.model.lm import LM
from niblick.run.directory import Run
from niblick.run.loading import load_artifact
from niblick.run.prepared import config_of, scored_slice
from niblick.run.scoring import score_artifact
from niblick.score.baselines import xz_size
from niblick.sweeps.executors import Executor
from niblick.sweeps.running import run_sweep
from niblick.sweeps.sweep import Sweep, listed

TOY = [
    *("model.width=32", "model.heads=2", "model.kv_heads=1", "data.order=shuffle", "train.device=cpu"),
    *("train.dtype=float32", "train.compile=never", "train.seq_len=64", "train.batch_tokens=512"),
    *("train.micro_batch_tokens=512", "train.warmup_steps=0", "train.val_every=0", "schedule.steps=300"),
    *("schedule.warmdown_share=0.5", "optim.matrix_lr=0.02", "score.seq_len=128", "score.documents=3"),
]
FULL = ["schedule.max_seconds=600"]
FULL_STEPS = ["schedule.steps=2000"]
"""The same on the fixed-step track."""
TOY_DOCUMENTS, TOY_HELD_OUT = 60, 4
WINDOWS = 32
"""Windows of the scored text on which boundaries are counted."""
DOMAINS = {"prose": "pydocs", "code": "pysource"}
"""Text that every Python has; other domains need a file of the user's."""


@dataclass(frozen=True)
class Table:
    """One table of a study."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""

    def markdown(self) -> str:
        """The table in Markdown, numbers to the right."""
        numeric = [bool(self.rows) and all(_numeric(row[i]) for row in self.rows) for i in range(len(self.columns))]
        marks = ["---:" if right else "---" for right in numeric]
        lines = [self.columns, marks, *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"### {self.title}\n\n{text}\n" + (f"\n{self.note}\n" if self.note else "")


def _numeric(text: str) -> bool:
    return not text.strip("+-−±%.,0123456789 —")


@dataclass(frozen=True)
class Done:
    """A finished run of a study."""

    run: Run
    result: Result

    @property
    def bpb(self) -> float:
        """Its score from the artifact."""
        return self.result.bpb

    @property
    def artifact(self) -> Path:
        """Its artifact."""
        return self.run.artifact(self.result.artifact)

    @property
    def milliseconds(self) -> float:
        """Milliseconds of a training step."""
        return 1000 * (self.result.train_seconds or 0.0) / (self.result.step or 1)


Points = Mapping[str, Sequence[str]]


@dataclass
class Lab:
    """The bench that a study is given."""

    study: str
    toy: bool
    runs: Path
    folder: Path
    """Where data is prepared that nobody named."""
    executor: Callable[[int], Executor]
    """From threads of a run to where it is executed."""
    data_given: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    seeds: int = 0
    """How many seeds a study takes that can take any number; 0: as many as it says."""
    say: Callable[[str], None] = print
    used: dict[str, str] = field(default_factory=dict)
    """Datasets that were asked for, by name."""

    @property
    def name(self) -> str:
        """The name of the study's first sweep."""
        return self.study + ("-toy" if self.toy else "")

    @property
    def timed(self) -> bool:
        """Whether the user gives all runs the same seconds."""
        given = dict(each.split("=", 1) for each in self.overrides if "=" in each)
        return given.get("schedule.max_seconds", "null") != "null"

    def size(self, toy: Sequence[str], full: Sequence[str] = ()) -> list[str]:
        """Return settings by size."""
        return [*(toy if self.toy else full)]

    def has(self, domain: str) -> bool:
        """Whether there is text of a domain. Every study has prose; at full size the others are data that was named."""
        named = any(name.endswith(f"-{domain}") for name in self.data_given)
        return domain == "prose" or named or (self.toy and (domain in DOMAINS or domain in self.sources))

    def data(self, tokenizer: str, domain: str = "prose") -> str:
        """Return the dataset of a tokenizer (byte260, sp1024, …) and domain; at toy size it is made if nobody named it.

        Raises ConfigError where there is none.
        """
        name = tokenizer if domain == "prose" else f"{tokenizer}-{domain}"
        if name not in self.used:
            self.used[name] = self.data_given.get(name) or self._prepare(name, tokenizer, domain)
        return self.used[name]

    def _prepare(self, name: str, tokenizer: str, domain: str) -> str:
        source = self.sources.get(domain) or DOMAINS.get(domain)
        if not self.toy:
            raise ConfigError(
                f"the study {self.study} needs data of {name}: give --data {name}=DIR (`niblick data prepare` makes "
                "it), or --toy for a small one"
            )
        if source is None:
            raise ConfigError(f"there is no text for {domain}: give --source {domain}=FILE")
        out = self.folder / f"toy-{Path(source).stem}-{tokenizer}"
        if not out.exists():
            self.say(f"preparing {out}")
            kind = tokenizer if tokenizer == "byte260" else f"sp:{tokenizer.removeprefix('sp')}"
            prepare(source, kind, out, val_docs=TOY_HELD_OUT, max_docs=TOY_DOCUMENTS, workers=1)
        return str(out)

    def run(
        self,
        base: str,
        points: Points,
        *,
        part: str = "",
        seeds: Sequence[int] = (1337,),
        branch: str | Mapping[str, str] = "",
        sets: Sequence[str] = (),
        toy: Sequence[str] = (),
        full: Sequence[str] = FULL,
        track: str = "wallclock",
    ) -> dict[str, list[Done]]:
        """Train all points, as the sweep `<study>[-<part>]`; `toy` and `full` are settings of that size alone.

        At toy size the track is always fixed-step, so that the tables come out the same each time; else it is wallclock
        where the user gives `schedule.max_seconds`.

        Returns the runs by point. Raises NiblickError if one failed.
        """
        common = [*TOY, *sets, *toy] if self.toy else [*full, *sets]
        sweep = Sweep(
            base=base,
            axes=[listed(points)],
            name=f"{self.name}-{part}" if part else self.name,
            sets=[*common, *self.overrides],
            seeds=seeds,
            track="fixed-step" if self.toy else "wallclock" if self.timed else track,
            branch=branch,
            summary=f"study {self.study}{' at toy size' if self.toy else ''}",
        )
        self.say(f"{sweep.name}: {len(points) * len(seeds)} runs")
        again = f"niblick study {self.study}"
        states = run_sweep(sweep, self.runs, self.executor(sweep.cpus), source=again, retry=True, say=self.say)
        found: dict[str, list[Done]] = {}
        for state in states:
            if state.kind != "done" or state.result is None:
                last = state.lines[-1] if state.lines else "see its log"
                raise NiblickError(f"{sweep.name}/{state.member.id} is {state.kind}: {last}; `{again}` goes on")
            run = Run(self.runs / sweep.name / state.member.id)
            found.setdefault(state.member.point.name, []).append(Done(run, state.result))
        return found

    def rescored(self, done: Done, overrides: Sequence[str]) -> ScoreRecord:
        """Return the score of a finished run's artifact with other settings; it is made once and kept beside it."""
        wanted = dict(entry.removeprefix("score.").split("=", 1) for entry in overrides)
        for record in read_records(done.artifact.with_name("scores.jsonl")):
            had = dotted(plain(record.scorer))
            if all(str(had.get(key)) == value for key, value in wanted.items()):
                return record
        return score_artifact(done.artifact, config_of(done.run).data.path, run=done.run, overrides=overrides)

    def cuts(self, done: Done) -> dict[str, str]:
        """Tell, for a table, how the outermost router of a finished run cuts the scored text."""
        model, dataset = self.opened(done)
        if model.config.levels[0].router == "soft":
            return dict.fromkeys(("per_256", "mean_length", "variation", "whitespace", "dropped"), "–")
        length, reader = config_of(done.run).score.seq_len, Reader(model, dataset.tokenizer)
        sample = make_sample(reader, dataset.val, WINDOWS, length, {})
        facts = level_facts(reader.read(sample.windows), sample, 0)
        whitespace = facts.whitespace_agreement
        return {
            "per_256": f"{facts.boundaries_per_window * 256 / length:.1f}",
            "mean_length": f"{facts.mean_length.tokens:.2f}",
            "variation": f"{facts.variation.tokens:.2f}",
            "whitespace": "–" if whitespace is None else f"{whitespace:.1%}",
            "dropped": f"{facts.dropped:.1%}",
        }

    def opened(self, done: Done) -> tuple[LM, Dataset]:
        """Return the model of a run's artifact, and its data with the scored slice."""
        config = config_of(done.run)
        return load_artifact(done.artifact)[0], scored_slice(Dataset.open(config.data.path), config.score)

    def xz(self, done: Done) -> float:
        """Bits per byte of `xz -9e` on the text that a run was scored on, as its tokenizer gives it back."""
        _, dataset = self.opened(done)
        text = dataset.tokenizer.decode(dataset.val.slice(0, dataset.val.tokens))
        return 8 * xz_size(text) / len(text)


Parts = Iterator[tuple[list[Table], list[Done]]]
"""Tables as they come, and the runs of each part: the best of all is set against xz."""
Study = Callable[[Lab], Parts]


@dataclass(frozen=True, kw_only=True)
class Best(Record):
    """The best run of a study."""

    run: str
    bpb: float


@dataclass(frozen=True, kw_only=True)
class StudyRecord(Record):
    """tables.json."""

    study: str
    toy: bool
    lines: tuple[str, ...]
    """What must be said before any table."""
    best: Best
    xz: float
    tables: tuple[Mapping[str, object], ...]
    """Each `Table`."""


@dataclass(frozen=True, kw_only=True)
class Studied(StudyRecord):
    """A study that was run."""

    markdown: str
    folder: str
    seconds: float


def run_study(study: Study, lab: Lab) -> Studied:
    """Run a study; after each part write tables.md, tables.json, report.html into its directory.

    Returns what they say.
    """
    started, tables, runs = time.perf_counter(), [], []
    title = f"{lab.study}: {(study.__doc__ or '').strip().splitlines()[0]}"
    for more, done in study(lab):
        tables += more
        runs += done
        found = _write(lab, title, tables, runs)
    return replace(found, seconds=time.perf_counter() - started)


def _write(lab: Lab, title: str, tables: list[Table], runs: list[Done]) -> Studied:
    best = min(runs, key=lambda done: done.bpb)
    xz = lab.xz(best)
    lines = standing(lab, best, xz)
    facts = StudyRecord(
        study=lab.study,
        toy=lab.toy,
        lines=tuple(lines),
        best=Best(run=best.run.id, bpb=best.bpb),
        xz=xz,
        tables=tuple(asdict(table) for table in tables),
    )
    folder = lab.runs / lab.name
    text = "\n".join([f"## {title}\n", *(f"{line}\n" for line in lines), *(table.markdown() for table in tables)])
    sections = [
        report.section(t.title, report.table(t.columns, t.rows) + f'<p class="soft">{t.note}</p>') for t in tables
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_together(
        {
            folder / "tables.md": (text + "\n").encode(),
            folder / "tables.json": json_bytes(plain(facts)),
            folder / "report.html": report.page(title, " ".join(lines), sections).encode(),
        }
    )
    return merged(Studied, facts, markdown=text, folder=str(folder), seconds=0.0)


def standing(lab: Lab, best: Done, xz: float) -> list[str]:
    """What must be said before any table: its size, and how its best stands against xz."""
    size = "Toy size: these figures show that the study runs, and rank nothing. " if lab.toy else ""
    options = [*["--toy"][: lab.toy], *[f"--seeds {lab.seeds}"][: bool(lab.seeds)], *lab.overrides]
    made = f"`niblick study {' '.join([lab.study, *options])}`"
    behind = "behind it" if best.bpb >= xz else "ahead of it"
    against = f"{best.bpb:.4f} BPB ({best.run.id}) against {xz:.4f} of `xz -9e` on the same text: {behind}"
    return [f"{size}Made by {made}; the best run has {against}."]
