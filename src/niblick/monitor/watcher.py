"""All runs that are looked at, read over and over by one thread; what views show of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from niblick.challenge import rules
from niblick.console import weighed
from niblick.drawing.charts import History
from niblick.errors import ConfigError
from niblick.monitor.finding import LogSource, RunSource, Source, find_logs, find_runs
from niblick.monitor.run_facts import PHASES, Facts, FinalScore, Note
from niblick.monitor.timing import ENDED, Lengths, Timing, phase_seconds, timing

POLL_SECONDS = 0.4
LOOK_SECONDS = 2.0
"""Between two looks for new run directories."""
SPARK_POINTS = 60
_OPTIONAL = ("warmup", "initial_validation", "sliding", "ttt", "audit")
"""Phases that not every run has."""
_IDLE_POLLS = 10
"""A run that is over is looked at in one of so many polls."""

LABELS = {
    "starting": "starting",
    "warmup": "warmup",
    "initial_validation": "initial validation",
    "training": "training",
    "final_validation": "final validation",
    "packaging": "packaging",
    "quantized_validation": "quantized validation",
    "sliding": "sliding scoring",
    "ttt": "test-time training",
    "audit": "audit",
    "done": "done",
    "failed": "failed",
    "stalled": "stalled",
    "stopped": "stopped",
}
"""Phases in words."""


@dataclass(frozen=True)
class View:
    """One run at one moment, for people and programs."""

    id: str
    kind: str
    path: str
    group: str
    timing: Timing
    step: int | None
    steps: int | None
    train_loss: float | None
    train_bpb: float | None
    val_bpb: float | None
    final: FinalScore | None
    scores: tuple[FinalScore, ...]
    artifact_bytes: int | None
    total_bytes: int | None
    parameters: int | None
    seed: int | None
    train_seconds: float | None
    bytes_per_second: float | None
    spark: tuple[float, ...]
    """The last thinned training curve: BPB where known, else nats per token."""
    seconds: dict[str, float]
    """Of phases that are over, where known."""
    starts: dict[str, float | None]
    """Phases that were seen, with when they first began, where known."""
    notes: tuple[Note, ...]
    message: str
    gone: bool
    sampled: bool
    last_at: float
    version: int

    @property
    def phase(self) -> str:
        """What it does now."""
        return self.timing.phase

    @property
    def strip(self) -> list[tuple[str, str]]:
        """Its phases in their order, each `behind`, `now` or `ahead`; without those that this run does not have."""
        now = self.timing.working
        place = PHASES.index(now) if now in PHASES else -1
        shown = [(i, p) for i, p in enumerate(PHASES) if p not in _OPTIONAL or p in self.starts or p == now]
        done = self.phase == "done"
        return [(p, "behind" if i < place or done else "now" if i == place else "ahead") for i, p in shown]

    @property
    def active(self) -> bool:
        """Whether something may still happen."""
        return self.phase not in (*ENDED, "stalled") and not self.gone

    @property
    def size(self) -> str:
        """Bytes of code and artifact in words, empty where there are none yet. A log does not say why it has none."""
        if self.total_bytes is None and (self.kind == "log" or self.artifact_bytes is None):
            return ""
        return weighed(self.total_bytes)

    def snapshot(self) -> dict[str, object]:
        """Return what `niblick watch --once --json` prints."""
        final, spent = self.final, self.timing
        return {
            "name": self.id,
            "source": self.kind,
            "phase": spent.phase,
            "working": spent.working,
            "step": self.step,
            "steps": self.steps,
            "train_loss": self.train_loss,
            "train_bpb": self.train_bpb,
            "val_bpb": self.val_bpb,
            "final_bpb": final.bpb if final else None,
            "final_metric": final.name if final else None,
            "final_kind": final.kind if final else None,
            "scores": [{"name": s.name, "kind": s.kind, "bpb": s.bpb, "seconds": s.seconds} for s in self.scores],
            "artifact_bytes": self.artifact_bytes,
            "total_bytes": self.total_bytes,
            "cap_bytes": rules.CAP_BYTES,
            "model_params": self.parameters,
            "seed": self.seed,
            "train_time_ms": None if self.train_seconds is None else round(1000 * self.train_seconds),
            "bytes_per_second": self.bytes_per_second,
            "eta_seconds": spent.eta,
            "phase_eta_seconds": spent.phase_eta,
            "phase_share": spent.share,
            "phase_seconds": self.seconds,
            "age_seconds": round(spent.age, 1),
            "sampled": self.sampled,
            "gone": self.gone,
            "message": self.message,
        }


def view(source: Source, lengths: Lengths, now: float, spark: tuple[float, ...] | None = None) -> View:
    """Return what a source shows at `now`; `spark` is the one from before, where nothing has changed."""
    facts = source.facts
    spent = timing(facts, now, source.last_at, source.pace, lengths, source.group, source.id)
    return View(
        id=source.id,
        kind=source.kind,
        path=str(source.path),
        group=source.group,
        timing=spent,
        step=facts.step,
        steps=facts.steps,
        train_loss=facts.train_loss,
        train_bpb=facts.train_bpb,
        val_bpb=facts.val_bpb,
        final=facts.final,
        scores=tuple(facts.scores),
        artifact_bytes=facts.bytes.artifact_bytes,
        total_bytes=facts.bytes.total_bytes,
        parameters=facts.parameters,
        seed=facts.seed,
        train_seconds=facts.train_seconds,
        bytes_per_second=facts.bytes_per_second,
        spark=_spark(facts) if spark is None else spark,
        seconds=_ordered(phase_seconds(facts), spent, now, facts),
        starts={span.phase: span.start for span in reversed(facts.spans)},
        notes=tuple(facts.notes),
        message=facts.message,
        gone=source.gone,
        sampled=source.sampled,
        last_at=source.last_at,
        version=source.version,
    )


def _ordered(seconds: dict[str, float], spent: Timing, now: float, facts: Facts) -> dict[str, float]:
    """Seconds by phase in their order, with what the present one has taken so far."""
    start = facts.spans[-1].start if facts.spans else None
    if spent.working == facts.phase and start is not None and spent.phase not in ENDED:
        seconds[facts.phase] = seconds.get(facts.phase, 0.0) + max(0.0, now - start)
    elif spent.working == "training" and facts.train_seconds is not None:
        seconds.setdefault("training", facts.train_seconds)
    return {phase: seconds[phase] for phase in PHASES if phase in seconds}


def _spark(facts: Facts) -> tuple[float, ...]:
    """The last loss in each of SPARK_POINTS equal stretches of steps."""
    points = list(facts.curve)
    if not points:
        return ()
    wide = max(1.0, (points[-1].step - points[0].step) / SPARK_POINTS)
    return tuple({int((p.step - points[0].step) / wide): p.loss for p in points}.values())


class Watcher:
    """Follows run directories below `roots` and the given logs; `views` is always the newest of all of them."""

    def __init__(
        self,
        roots: Sequence[Path] = (),
        logs: Sequence[Path] = (),
        clock: Callable[[], float] = time.time,
        data: Sequence[Path] = (),
    ) -> None:
        self.roots, self.data = tuple(roots), tuple(data)
        self._clock = clock
        self._lock = threading.RLock()
        self._sources: dict[str, Source] = {}
        self._views: dict[str, View] = {}
        self._lengths = Lengths()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._polls = 0
        self._looked = 0.0
        self.failures: dict[str, int] = {}
        """How often each run could not be read; after each time it is read anew, from its beginning."""
        self.faults = 0
        """How often looking for runs failed."""
        for path in find_logs(logs):
            id = self._free_name(path.name, path)
            self._sources[id] = LogSource(id, path)

    def __enter__(self) -> Watcher:
        self.poll()
        self._thread = threading.Thread(target=self._work, name="niblick-watcher", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    def poll(self) -> None:
        """Look at everything once."""
        now = self._clock()
        with self._lock:
            if now - self._looked >= LOOK_SECONDS or self._looked > now:
                self._looked = now
                self._find()
            views = {}
            for id, source in list(self._sources.items()):
                shown = self._views.get(id)
                if shown and not shown.active and not source.gone and self._polls % _IDLE_POLLS:
                    views[id] = shown
                    continue
                try:
                    views[id] = self._look(source, shown, now)
                except Exception as error:  # of whatever form a stranger's files are, the other runs are shown
                    views[id] = self._failed(source, error, now)
            self._views = views
            self._polls += 1

    def _look(self, source: Source, shown: View | None, now: float) -> View:
        """Read what is new of a run."""
        source.poll(now)
        self._lengths.learn(source.id, source.group, source.facts)
        spark = shown.spark if shown and shown.version == source.version else None
        return view(source, self._lengths, now, spark)

    def _failed(self, source: Source, error: Exception, now: float) -> View:
        """Count a run that cannot be read, have it read anew the next time, and show it as failed."""
        count = self.failures[source.id] = self.failures.get(source.id, 0) + 1
        self._sources[source.id] = source.anew()
        blank = source.anew()
        blank.refuse(f"{type(error).__name__}: {error} (tried {count} times)")
        return view(blank, self._lengths, now)

    @property
    def views(self) -> dict[str, View]:
        """The newest view of each run by its id."""
        return self._views

    def history(self, id: str) -> History | None:
        """The curves of a run; None if there is none of this id."""
        with self._lock:
            source = self._sources.get(id)
            return source.facts.history(id) if source else None

    def source(self, id: str) -> Source | None:
        """The source of this id."""
        return self._sources.get(id)

    def run_folders(self) -> dict[str, RunSource]:
        """Run directories that are there, by id."""
        return {id: s for id, s in self._sources.items() if isinstance(s, RunSource) and not s.gone}

    def named(self, name: str) -> str:
        """Return the id that a name, a path or `latest` stands for. Raises ConfigError if there is none."""
        if name == "latest" and self._views:
            shown = [v for v in self._views.values() if v.step or v.final or v.phase not in ENDED]
            return max(shown or self._views.values(), key=lambda v: v.last_at).id
        for id, source in self._sources.items():
            if name in (id, str(source.path)) or source.path == Path(name):
                return id
        raise ConfigError(f"there is no run {name!r} here")

    def _work(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            try:
                self.poll()
            except Exception:  # it looks again: the runs that it knows are shown as they were
                self.faults += 1

    def _find(self) -> None:
        known = {s.path for s in self._sources.values() if isinstance(s, RunSource)}
        for root in self.roots:
            for name, path in find_runs(root):
                if path not in known:
                    id = self._free_name(name, path)
                    self._sources[id] = RunSource(id, path, root)

    def _free_name(self, name: str, path: Path) -> str:
        """The name, or one with more of the path before it where another source has that."""
        parents = [p.name for p in path.resolve().parents if p.name]
        candidates = [name] + ["/".join([*parents[:n][::-1], name]) for n in range(1, len(parents) + 1)]
        for candidate in candidates:
            if candidate not in self._sources:
                return candidate
        return str(path)
