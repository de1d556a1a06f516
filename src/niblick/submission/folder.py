"""`niblick submit`: finished runs become one folder in the challenge's form, which anyone can rerun.

Runs of one config and several seeds make one submission: the artifact is the first run's, the logs are all runs'. What
speaks against a submission is said before anything is written; with `force` it is written as a non-record, reasons and
all.
"""

from __future__ import annotations

import ast
import datetime
import importlib.metadata
import json
import shutil
import statistics
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from niblick import __version__
from niblick.bundle import Script, make_script
from niblick.challenge import rules
from niblick.compare.groups import read_records
from niblick.config.run_config import RunConfig, dotted, to_dict
from niblick.data.shards import file_hash
from niblick.errors import ConfigError, NiblickError
from niblick.facts.audits import ArtifactAudit
from niblick.facts.events import Validation
from niblick.facts.reading import plain, read_file
from niblick.facts.result import Result
from niblick.facts.scores import ScoreRecord
from niblick.files import imported_beside, write_bytes
from niblick.ledger.seeds import deviation, verdict
from niblick.run.directory import Run
from niblick.run.loading import declared_score, load_artifact
from niblick.run.prepared import config_of
from niblick.run.scoring import record_digest, scored_config
from niblick.submission.readme import readme
from niblick.submission.written import RecordRuling, SeedScore, Written

ARTIFACT, SCRIPT, READABLE = "final_model.nib", "train_gpt.py", "train_gpt_readable.py"


@dataclass(frozen=True)
class About:
    """What only the author knows."""

    author: str = ""
    github_id: str = ""
    name: str = ""
    blurb: str = ""


@dataclass(frozen=True)
class Entry:
    """A run with what it gave."""

    run: Run
    config: RunConfig
    artifact: Path
    result: Result
    record: ScoreRecord
    """Its score."""


ALIKE = 2e-3
"""Share by which the official score may differ when it is made again on another machine."""


@dataclass
class Submission:
    """All that the folder says."""

    entries: list[Entry]
    script: Script
    claim: str
    reasons: list[str]
    about: About
    audit: ArtifactAudit | None = None
    verdict: RecordRuling | None = None
    pictures: list[str] = field(default_factory=list)
    """Chunks of the published sentence, a level each."""

    @property
    def code(self) -> bytes:
        """The script that is run and counted."""
        return self.script.packed.encode()

    @property
    def scores(self) -> list[float]:
        """BPB of all runs."""
        return [entry.record.bpb for entry in self.entries]

    @property
    def total(self) -> int:
        """Bytes of code and artifact."""
        return len(self.code) + self.entries[0].artifact.stat().st_size


def submit(
    runs: list[Run],
    out: Path,
    *,
    about: About | None = None,
    claim: str | None = None,
    against: list[float] | None = None,
    force: bool = False,
) -> Written:
    """Write the folder `out` of a submission of `runs`. Returns what submission.json holds.

    `claim` is the track it is made for, by default the runs' own; `against` are the scores of a record. Raises
    ConfigError, with all reasons, if anything speaks against it and it is not forced, if a run has no artifact with a
    score, or if `out` is there.
    """
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise ConfigError(f"{out} is there already: name a new folder")
    entries = [read_entry(run) for run in runs]
    first = entries[0]
    _, artifact = load_artifact(first.artifact)
    _, dtype = declared_score(artifact, first.artifact)
    config = scored_config(artifact, first.config.score, dtype, first.run, first.artifact)
    recipe = first.run.recipe if first.run.recipe.is_file() else None
    script = make_script(config, recipe)
    found = Submission(
        entries,
        script,
        first.config.track if claim is None else claim,
        [],
        about or About(),
        read_audit(first),
    )
    found.reasons = reasons(found)
    if found.reasons and not force:
        raise ConfigError(
            f"this is no submission: {'; '.join(found.reasons)} — correct that, or --force it as a non-record"
        )
    if against:
        found.verdict = _verdict(found, against)
    found.pictures = chunk_pictures(first)
    facts = submission_facts(found)
    _write(found, facts, out, config)
    return facts


def read_entry(run: Run) -> Entry:
    """Read a run. Raises ConfigError if there is nothing of it to submit."""
    config = config_of(run)
    result = run.result()
    if result is None:
        raise ConfigError(f"{run.path} is not finished: go on with `niblick train --resume {run.path}`")
    artifact = run.artifact(result.artifact)
    if not artifact.is_file():
        raise ConfigError(f"{run.path} has lost its artifact {artifact.name}: pack it again with `niblick export`")
    return Entry(run, config, artifact, result, _official(run, artifact, result))


def _official(run: Run, artifact: Path, result: Result) -> ScoreRecord:
    """The official score of a run: the newest of its artifact by the official scorer, of the official text.

    Raises ConfigError if there is none, or if it is not what result.json says.
    """
    keys = ("scorer", "text_hash", "stream_hash")
    scores = artifact.parent / "scores.jsonl"
    records = read_records(scores)
    same = [record for record in records if all(getattr(record, key) == getattr(result, key) for key in keys)]
    if not same:
        raise ConfigError(
            f"{scores} has no score of the text that {run.path}/result.json names (text hash "
            f"{str(result.text_hash)[:16]}…) by its scorer: score it again with `niblick eval {run.path}`"
        )
    if not abs(same[-1].bpb / result.bpb - 1) <= ALIKE:
        raise ConfigError(
            f"{scores} says {same[-1].bpb:.6f} BPB of the official text, and {run.path}/result.json "
            f"{result.bpb:.6f}: one of them was changed"
        )
    return same[-1]


def read_audit(entry: Entry) -> ArtifactAudit | None:
    """The audit that lies beside an artifact, if there is one."""
    path = entry.artifact.parent / "audit.json"
    return read_file(ArtifactAudit, path) if path.is_file() else None


def reasons(found: Submission) -> list[str]:
    """Everything that speaks against a submission, a sentence each."""
    first = found.entries[0]
    said = files_read(first.run.recipe) if first.run.recipe.is_file() else []
    for entry in found.entries:
        name = entry.run.path.name
        if changed := entry.run.changed():
            said.append(f"{name} was changed after it finished ({', '.join(changed)})")
        said += _audited(name, entry, read_audit(entry))
        if entry is not first and (difference := _differs(first.config, entry.config)):
            said.append(f"{name} has another config than {first.run.path.name} ({difference}): only seeds may differ")
        if entry is not first and _recipe(first.run) != _recipe(entry.run):
            said.append(f"{name} was made with another recipe file than {first.run.path.name}")
        if entry.config.track != found.claim:
            own = entry.config.track or "no track"
            said.append(f"{name} was run on {own}, and {found.claim or 'no track'} is claimed")
        total = entry.artifact.stat().st_size + len(found.code)
        if total > rules.CAP_BYTES:
            said.append(f"{name} takes {total:,} bytes with its code, over the cap of {rules.CAP_BYTES:,}")
        if found.claim in ("", "challenge"):
            legal = entry.record.legality
            for what, seconds in (("trained", legal.train_seconds), ("was scored", legal.eval_seconds)):
                if (seconds or 0.0) > rules.TRAIN_SECONDS:
                    said.append(f"{name} {what} for {seconds:.0f} s, over {rules.TRAIN_SECONDS} s")
        if found.claim == "challenge":
            said += [f"{name}: {reason}" for reason in entry.record.legality.reasons if "8×H100" in reason]
    seeds = [entry.config.seed for entry in found.entries]
    if len(set(seeds)) < len(seeds):
        said.append("two of the runs have the same seed: they are one")
    return said


READERS = frozenset(
    {"open", "read_text", "read_bytes", "load", "load_file", "loadtxt", "genfromtxt", "fromfile", "memmap"}
)
"""Calls that read a file, by the last part of their names."""


def files_read(recipe: Path) -> list[str]:
    """Where a recipe, or a module beside it, reads a file: that is not in the folder. A sentence each."""
    said = []
    for path in (recipe, *imported_beside(recipe).values()):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8-sig"))):
            name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name in READERS:
                said.append(f"{path}:{node.lineno} calls {name}: the file that it reads is not shipped")
    return said


def _audited(name: str, entry: Entry, audit: ArtifactAudit | None) -> list[str]:
    command = f"`niblick audit {entry.run.path}`"
    if audit is None:
        return [f"{name} is not audited: {command}"]
    if audit.artifact_sha256 != file_hash(entry.artifact):
        return [f"the audit of {name} is of another artifact: {command} again"]
    if audit.score_sha256 not in (None, record_digest(entry.record)):
        return [f"the audit of {name} is of another score: {command} again"]
    return [f"the audit of {name} failed ({', '.join(audit.faults)})"] if audit.faults else []


def _differs(one: RunConfig, other: RunConfig) -> str:
    """The first key in which two configs differ but for the seed; empty if there is none."""
    a, b = dotted(to_dict(replace(one, seed=0))), dotted(to_dict(replace(other, seed=0)))
    keys = [key for key in {**a, **b} if a.get(key) != b.get(key)]
    return f"{keys[0]}: {json.dumps(a.get(keys[0]))} and {json.dumps(b.get(keys[0]))}" if keys else ""


def _recipe(run: Run) -> dict[str, bytes]:
    files = {"recipe.py": run.recipe, **imported_beside(run.recipe)} if run.recipe.is_file() else {}
    return {name: path.read_bytes() for name, path in files.items()}


def _verdict(found: Submission, against: list[float]) -> RecordRuling:
    rule = verdict(found.scores, against, rules.RECORD_BPB, "BPB")
    mine = "this submission" if rule.better == 0 else "the record"
    mean = statistics.mean(against)
    return RecordRuling(**vars(rule) | {"better": mine}, record=tuple(against), record_mean=mean)


def chunk_pictures(entry: Entry) -> list[str]:
    """The published sentence as each level cuts it; none for models without levels."""
    from niblick.reports.boundary_report import open_subject, sentence_facts

    if not entry.config.model.levels:
        return []
    try:
        subject = open_subject(str(entry.artifact), entry.run.path.parent, entry.config.data.path, "cpu")
        return [level.brackets for level in sentence_facts(subject.reader)]
    except NiblickError as error:
        return [f"no picture: {error}"]


def submission_facts(found: Submission) -> Written:
    """What submission.json holds: the challenge's fields, and what it takes to check them."""
    first = found.entries[0]
    legal, result = first.record.legality, first.result
    floats = [event for event in first.run.events() if isinstance(event, Validation) and event.final]
    record = found.claim == "challenge" and not found.reasons
    seeds = [
        SeedScore(seed=e.config.seed, val_bpb=e.record.bpb, val_loss=e.record.loss, run=e.run.path.name)
        for e in found.entries
    ]
    return Written(
        author=found.about.author,
        github_id=found.about.github_id,
        name=found.about.name or first.config.preset,
        blurb=found.about.blurb,
        date=datetime.date.today().isoformat(),
        track=found.claim or "none",
        record=record,
        reasons=tuple(found.reasons),
        val_loss=first.record.loss,
        val_bpb=first.record.bpb,
        val_bpb_mean=statistics.mean(found.scores),
        val_bpb_deviation=deviation(found.scores),
        pre_quant_val_bpb=floats[-1].bpb if floats else None,
        step_stop=result.step,
        wallclock_seconds=legal.train_seconds,
        eval_seconds=legal.eval_seconds,
        hardware=legal.hardware,
        bytes_total=found.total,
        bytes_model_int8_zlib=first.artifact.stat().st_size,
        bytes_code=len(found.code),
        bytes_by_module=found.script.modules,
        export=first.config.export.name,
        artifact_sha256=file_hash(first.artifact),
        seeds=tuple(seeds),
        verdict=found.verdict,
        tokenizer=first.config.tokenizer,
        text_hash=first.record.text_hash,
        stream_hash=first.record.stream_hash,
        niblick=__version__,
    )


def requirements(script: Script) -> str:
    """The packages that a script needs, at the versions installed here."""
    owners = importlib.metadata.packages_distributions()
    if unknown := sorted(set(script.requires) - owners.keys()):
        raise ConfigError(
            f"the script imports {unknown[0]}, which no installed package brings: nobody could install it"
        )
    names = sorted({owners[module][0] for module in script.requires})
    return "".join(f"{name}=={importlib.metadata.version(name).partition('+')[0]}\n" for name in names)


def _write(found: Submission, facts: Written, out: Path, config: RunConfig) -> None:
    """Write the folder in one step: it is whole, or not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    needed = requirements(found.script)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".submission-") as name:
        folder = Path(name) / out.name
        folder.mkdir()
        write_bytes(folder / SCRIPT, found.code)
        write_bytes(folder / READABLE, found.script.readable.encode())
        shutil.copyfile(found.entries[0].artifact, folder / ARTIFACT)
        write_bytes(folder / "requirements.txt", needed.encode())
        write_bytes(
            folder / "submission.json", (json.dumps(plain(facts), indent=2, ensure_ascii=False) + "\n").encode()
        )
        for entry in found.entries:
            log = entry.run.path / "train.log"
            write_bytes(folder / f"train_seed{entry.config.seed}.log", log.read_bytes())
        if config.entropy.artifact:
            shutil.copyfile(config.entropy.artifact, folder / "entropy.nib")
        write_bytes(folder / "README.md", readme(found, facts, needed).encode())
        if out.is_dir():
            out.rmdir()
        folder.replace(out)
