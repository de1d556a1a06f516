"""A sweep's directory: what state its runs are in, and how they are brought to their end.

    runs/<sweep>/sweep.json       the sweep: points, seeds, a digest of every run
                 jobs/            job files, outputs, failed ones
                 <point>-s<seed>/ run directories

Files alone say how far a sweep is, so it may be killed anywhere and is gone on with by the same call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from niblick.challenge.tracks import UNWEIGHED
from niblick.config.run_config import to_dict
from niblick.errors import ENDING, ConfigError, DataError, NiblickError
from niblick.facts.events import Start, Validation
from niblick.facts.reading import merged, plain, read, read_file, typed
from niblick.facts.result import Result
from niblick.files import read_json, write_json
from niblick.run.directory import STOPPED, Run
from niblick.sweeps import job as jobs
from niblick.sweeps.executors import Ended, Executor
from niblick.sweeps.job import Job
from niblick.sweeps.listed import DoneFacts, Owner, PointRecord, StateFacts, SweepRecord
from niblick.sweeps.stopping import Halving, KeepUp
from niblick.sweeps.sweep import Member, Sweep

BEAT, SILENCE = 0.5, 5.0
"""Seconds between signs of life of a running sweep, and after how many without one it is taken for dead."""
POLL = 0.2
"""Seconds between looks at the jobs."""

Say = Callable[[str], None]


class SweepStopped(NiblickError):
    """A sweep that was told to stop; all that its runs have is kept."""

    exit_code = 130


@dataclass(frozen=True)
class _Ending:
    """What stopped.json and a failed job's file say."""

    lines: tuple[str, ...] = ()
    reason: str = "stopped by its sweep"


@dataclass(frozen=True)
class State:
    """How far a run is: waiting, begun, failed, stopped (as a loser), changed (by hand) or done."""

    member: Member
    kind: str
    result: Result | None = None
    lines: tuple[str, ...] = ()
    """Of a failed run: the last it printed. Of a stopped one: why. Of a changed one: the files."""


class SweepFolder:
    """The directory of one sweep."""

    def __init__(self, sweep: Sweep, runs: Path) -> None:
        self.sweep, self.path = sweep, runs / sweep.name

    def run(self, member: Member) -> Run:
        """The run directory of a member."""
        return Run(self.path / member.id)

    def failure(self, member: Member) -> Path:
        """Where it is noted that a run failed."""
        return self.path / "jobs" / f"{member.id}.failed.json"

    def claim(self, members: list[Member], source: str) -> None:
        """Write sweep.json. Raises ConfigError if the directory holds another sweep: one may grow, but not change."""
        digests = {member.id: member.digest for member in members}
        recorded = self.recorded()
        if recorded is None and self.path.is_dir() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path} is in use and holds no sweep: give the sweep another name=…")
        if recorded is not None:
            gone = [run for run in recorded.runs if run not in digests]
            other = [run for run, digest in recorded.runs.items() if digests.get(run, digest) != digest]
            if gone or other:
                how = f"has no run {gone[0]}" if gone else f"makes {other[0]} with other settings"
                raise ConfigError(
                    f"{self.path} holds another sweep, from {recorded.file}: {source} {how}; give one of them "
                    "another name=… (a sweep may grow, but its runs stay what they are)"
                )
        points = {member.point.name: member.point for member in members}
        self.path.mkdir(parents=True, exist_ok=True)
        named = [PointRecord(name=p.name, branch=p.branch, settings=p.settings) for p in points.values()]
        record = SweepRecord(
            sweep=self.sweep.name,
            file=source,
            summary=self.sweep.summary,
            track=self.sweep.track,
            control=self.sweep.control or next(iter(points)),
            seeds=tuple(self.sweep.seeds),
            points=tuple(named),
            runs=digests,
        )
        write_json(self.path / "sweep.json", plain(record))

    def recorded(self) -> SweepRecord | None:
        """What sweep.json says, None where there is none."""
        path = self.path / "sweep.json"
        return read_file(SweepRecord, path) if path.is_file() else None

    def state(self, member: Member) -> State:
        """How far a run is, by its files."""
        run = self.run(member)
        if (run.path / STOPPED).is_file():
            return State(
                member,
                "stopped",
                lines=(typed(_Ending, read_json(run.path / STOPPED), str(run.path / STOPPED)).reason,),
            )
        if result := run.result():
            changed = run.changed()
            return State(member, "changed" if changed else "done", result, tuple(changed))
        if (path := self.failure(member)).is_file():
            return State(member, "failed", lines=typed(_Ending, read_json(path), str(path)).lines)
        return State(member, "begun" if (run.path / "config.json").is_file() else "waiting")

    # Is somebody at it?

    @property
    def lock(self) -> Path:
        """A file that a running sweep touches again and again."""
        return self.path / "running.json"

    @property
    def stop_wish(self) -> Path:
        """What tells a running sweep to stop."""
        return self.path / "stop"

    def alive(self) -> Owner | None:
        """What a running sweep says of itself, None if there is none: waits a little for a sign of life."""
        first = _stamp(self.lock)
        deadline = time.monotonic() + SILENCE
        while first is not None and time.monotonic() < deadline:
            time.sleep(BEAT / 2)
            if _stamp(self.lock) != first:
                return _read(self.lock)
        return None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Give signs of life inside. Raises ConfigError if another process does already."""
        if owner := self.alive():
            raise ConfigError(
                f"the sweep {self.sweep.name} is running already (process {owner.pid} on {owner.host}): "
                f"`niblick sweep stop` ends it"
            )
        self.lock.unlink(missing_ok=True)  # of the dead
        try:
            self.lock.touch(exist_ok=False)
        except FileExistsError:
            raise ConfigError(f"the sweep {self.sweep.name} is being started twice at this moment") from None
        over = threading.Event()

        def beat() -> None:
            count = 0
            while not over.is_set():
                count += 1
                with contextlib.suppress(OSError):
                    write_json(self.lock, plain(Owner(pid=os.getpid(), host=socket.gethostname(), beat=count)))
                over.wait(BEAT)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            for path in (self.lock, self.stop_wish):
                path.unlink(missing_ok=True)

    def stop(self) -> bool:
        """Tell the process that runs this sweep to stop, and wait until it has. Returns False if there is none."""
        if not self.alive():
            return False
        self.stop_wish.touch()
        while self.stop_wish.is_file() and self.alive():
            time.sleep(BEAT)
        return True


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _read(path: Path) -> Owner:
    try:
        return read(Owner, read_json(path))
    except DataError:
        return Owner()


def run_sweep(
    sweep: Sweep, runs: Path, executor: Executor, *, source: str = "", retry: bool = False, say: Say = print
) -> list[State]:
    """Bring all runs of a sweep to their end, and return their states; those that have it already are left alone.

    Failed ones stay so unless to `retry`. Raises ConfigError before anything starts if sweep, data or directory do not
    fit, SweepStopped if a signal or `niblick sweep stop` ended it.
    """
    members = sweep.check()
    folder = SweepFolder(sweep, runs)
    folder.claim(members, source)
    with folder.held(), _signals():
        if retry:
            for member in members:
                folder.failure(member).unlink(missing_ok=True)
        try:
            _rounds(folder, members, executor, say)
        except KeyboardInterrupt:
            say("stopping: runs write their checkpoints")
            executor.stop()
            raise SweepStopped(f"the sweep {sweep.name} was stopped: go on with `niblick sweep resume`") from None
        except BaseException:
            executor.stop()
            raise
    return [folder.state(member) for member in members]


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP do what SIGINT does; what is ignored, as by `nohup`, stays so."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {}
    with contextlib.suppress(ValueError):  # outside the main thread signals keep their meaning
        for number in set(ENDING) - {signal.SIGINT}:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _rounds(folder: SweepFolder, members: list[Member], executor: Executor, say: Say) -> None:
    """Take all runs to each rung of the early stop together, then those that are left to the end."""
    stop = folder.sweep.early_stop
    rungs = set()
    if isinstance(stop, Halving):
        rungs = {rung for member in members for rung in stop.rungs(member.config.schedule.steps)}
    for rung in sorted(rungs):
        _execute(folder, [m for m in members if _score_at(folder.run(m), rung) is None], executor, say, rung)
        _halve(folder, members, rung, say)
    _execute(folder, members, executor, say, 0)


def _execute(folder: SweepFolder, members: list[Member], executor: Executor, say: Say, rung: int) -> None:
    """Execute the members that are neither done nor stopped nor failed, up to step `rung` (0: to the end)."""
    waiting = [m for m in members if folder.state(m).kind in ("waiting", "begun")]
    running: dict[str, Member] = {}
    total, count, told = len(waiting), 0, set[str]()
    while waiting or running:
        if folder.stop_wish.is_file():
            raise KeyboardInterrupt
        while waiting and len(running) < executor.slots:
            member = waiting.pop(0)
            executor.submit(_job(folder, member, rung))
            running[member.id] = member
        for ended in executor.ended():
            count += 1
            member = running.pop(ended.run)
            say(f"{count}/{total}  {_outcome(folder, member, ended, rung)}")
            if ended.note and ended.note not in told:
                told.add(ended.note)
                say(ended.note)
        time.sleep(POLL)


def _job(folder: SweepFolder, member: Member, rung: int) -> Job:
    stop = folder.sweep.early_stop
    return Job(
        run=member.id,
        folder=str(folder.path.resolve()),
        config=to_dict(member.config),
        recipe=member.recipe.read_text(encoding="utf-8") if member.recipe else None,
        member=member.facts(folder.sweep.name),
        threads=folder.sweep.cpus,
        pause_after=rung,
        limits=[[step, limit] for step, limit in stop.limits().items()] if isinstance(stop, KeepUp) else None,
        workdir=str(Path.cwd()),
    )


def _outcome(folder: SweepFolder, member: Member, ended: Ended, rung: int) -> str:
    """Note how a job ended, and say it in one line."""
    if ended.code == jobs.DONE and (result := folder.run(member).result()):
        size = UNWEIGHED if result.total_bytes is None else f"{result.total_bytes:,} bytes"
        return f"{member.id}  {result.bpb:.4f} BPB, {size}"
    if ended.code == jobs.PAUSED:
        score = _score_at(folder.run(member), rung)
        return f"{member.id}  step {rung}" + ("" if score is None else f": {score:.4f} BPB as floats")
    if ended.code == jobs.STOPPED:
        return f"{member.id}  stopped: {folder.state(member).lines[0]}"
    if ended.code in {code for number in ENDING for code in (128 + number, -number)}:
        return f"{member.id}  interrupted: it can be gone on with"
    write_json(folder.failure(member), {"run": member.id, "code": ended.code, "lines": ended.lines})
    return f"{member.id}  failed (exit code {ended.code}): {ended.lines[-1] if ended.lines else 'it printed nothing'}"


def _score_at(run: Run, step: int) -> float | None:
    """Validation BPB after a step, as the run's events have it; None while it has not come there."""
    found = [e.bpb for e in run.events() if isinstance(e, Validation) and e.step == step and not e.final]
    return found[-1] if found else None


def _halve(folder: SweepFolder, members: list[Member], rung: int, say: Say) -> None:
    """Stop the points that are behind at a rung. The same scores always stop the same points."""
    stop = folder.sweep.early_stop
    assert isinstance(stop, Halving)
    scores: dict[str, list[float]] = {}
    for name in dict.fromkeys(member.point.name for member in members):
        runs = [folder.run(m) for m in members if m.point.name == name]
        known = [_score_at(run, rung) for run in runs if not _stopped_before(run, rung)]
        if len(known) == len(runs) and None not in known:
            scores[name] = [score for score in known if score is not None]
    groups = {member.point.name: _comparable(folder.run(member), member) for member in members}
    losers = stop.losers(scores, groups)
    for member in members:
        if (place := losers.get(member.point.name)) and not (folder.run(member).path / STOPPED).is_file():
            score = _score_at(folder.run(member), rung)
            reason = (
                f"place {place.place} of {place.of} after step {rung}, and {place.kept} went on "
                f"(to {place.limit:.4f} BPB)"
            )
            facts = {"rule": "halving", "step": rung, "bpb": score, "limit": place.limit, "reason": reason}
            write_json(folder.run(member).path / STOPPED, facts)
            say(f"stopped  {member.id}: {reason}")


def _stopped_before(run: Run, rung: int) -> bool:
    path = run.path / STOPPED
    return path.is_file() and read_json(path)["step"] < rung


def _comparable(run: Run, member: Member) -> str:
    """What points must have in common to be compared at a rung: text, tokens, budget."""
    start = next((event for event in run.events() if isinstance(event, Start)), Start())
    config = member.config
    facts = (start.text_hash, config.tokenizer, config.data.path, config.score.documents)
    return repr((*facts, config.schedule.steps, config.train.batch_tokens))


def tally(states: list[State]) -> str:
    """How many runs are in which state, in one line."""
    counts = Counter(state.kind for state in states)
    order = ("done", "stopped", "failed", "changed", "begun", "waiting")
    return ", ".join(f"{counts[kind]} {kind}" for kind in order if counts[kind])


def as_facts(state: State) -> StateFacts:
    """A state as `niblick sweep status --json` has it."""
    member, result = state.member, state.result
    facts = StateFacts(
        run=member.id,
        point=member.point.name,
        branch=member.point.branch,
        seed=member.seed,
        state=state.kind,
        lines=state.lines,
    )
    if result is None or state.kind != "done":
        return facts
    return merged(
        DoneFacts,
        facts,
        bpb=result.bpb,
        bpb_repaired=result.bpb_repaired,
        artifact_bytes=result.artifact_bytes,
        total_bytes=result.total_bytes,
        step=result.step,
        train_seconds=result.train_seconds,
        text_hash=result.text_hash,
        slice=result.slice,
    )
