"""Scoring: an artifact read back and scored on held-out text, with a record of everything that made the score."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from niblick.artifact.container import Artifact
from niblick.challenge.tracks import WHOLE, legality
from niblick.config.run_config import (
    RunConfig,
    model_config,
    override_score,
    run_config,
    to_dict,
)
from niblick.data.dataset import Dataset, Split
from niblick.errors import ConfigError, NiblickError
from niblick.facts.events import Emit, Scored, Stop, Validation
from niblick.facts.reading import append_record, merged, plain, read
from niblick.facts.result import ExportFacts, Result
from niblick.facts.scores import ScoreRecord, ScorerFacts
from niblick.files import parse_json
from niblick.model.lm import LM
from niblick.pack.export_config import ExportConfig
from niblick.run.directory import Run, machine
from niblick.run.generate import written
from niblick.run.loading import build_model, declared_score, expect_tokenizer, known_text, load_artifact
from niblick.run.packing import clocks_of, exported, train_clock, weighed
from niblick.run.prepared import config_of, in_dtype, scored_slice
from niblick.score.accounting import text_facts
from niblick.score.contiguous import PlainScore, score_contiguous
from niblick.score.costs import document_costs, write_costs
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import Observe, ReportProgress, Score, Sidecar, alone, score_split
from niblick.score.ttt import score_first
from niblick.train.checkpoint import Progress, load_weights, read_tensors
from niblick.train.precision import autocast, pick_device
from niblick.train.telling import moment

if TYPE_CHECKING:
    from niblick.score.known_text import KnownText

Inspect = Callable[[LM, Dataset, ScoreConfig, str], Observe]
"""Called with what is about to be scored, and in which dtype; returns what is then told the costs."""


def validate_weights(run: Run, config: RunConfig, dataset: Dataset, emit: Emit) -> None:
    """Score the final weights as they are, in floats, before they are packed."""
    tensors, _ = read_tensors(run.weights)
    clocks = clocks_of(run)
    step, seconds = clocks.step or 0, clocks.train_seconds or 0.0
    model = build_model(config.model, config.seed)
    load_weights(model, tensors, run.weights)
    model = model.to(pick_device(config.train.device))
    with alone():  # the other ranks have nothing to do any more
        score = score_model(model, dataset, config.score.plain(), config.train.dtype)
    sample = written(model, dataset.tokenizer, config) if config.train.sample_bytes else ""
    if step < config.schedule.steps:
        emit(merged(Stop, clocks, reason="wallclock_cap"))
    progress = Progress(step, train_seconds=seconds)
    emit(moment(Validation, progress, config.schedule, loss=score.loss, bpb=score.bpb, final=True, sample=sample))


def plain_score(model: LM, dataset: Dataset, split: Split, config: RunConfig) -> PlainScore:
    """Score a split as in training, plainly, all ranks together; each returns the same."""
    plain = config.score.plain()
    with autocast(next(model.parameters()).device, config.train.dtype):
        if plain.is_plain:
            return score_contiguous(model, split, dataset.tokenizer, plain)
        score = score_split(model, split, dataset.tokenizer, plain)
        return PlainScore(score.loss, score.bpb)


def score_model(
    model: LM,
    dataset: Dataset,
    config: ScoreConfig,
    dtype: str,
    *,
    observe: Observe | None = None,
    sidecar: Sidecar | None = None,
    progress: ReportProgress | None = None,
    text: KnownText | None = None,
) -> Score:
    """Score a model on the whole validation split of a dataset. Raises what `score_split` raises."""
    device = next(model.parameters()).device
    val, tokenizer = dataset.val, dataset.tokenizer
    with autocast(device, dtype):
        return score_split(
            model, val, tokenizer, config, observe=observe, sidecar=sidecar, progress=progress, text=text
        )


@dataclass(frozen=True)
class Opened:
    """An artifact beside the text that it is to be scored on."""

    path: Path
    run: Run | None
    artifact: Artifact
    model: LM
    dataset: Dataset
    """Its validation split is what `config.documents` leaves of it."""
    sliced: bool
    config: ScoreConfig
    dtype: str
    text: KnownText | None
    """What its sidecar reads before it scores."""


def open_artifact(path: Path, data: str, run: Run | None = None, overrides: Iterable[str] = ()) -> Opened:
    """Open an artifact, of a run or by itself, and its text. Raises ConfigError if they do not fit."""
    if run:
        config_of(run)
    model, artifact = load_artifact(path)
    dataset = Dataset.open(data)
    expect_tokenizer(artifact, dataset, path)
    config, dtype = declared_score(artifact, path)
    config = override_score(config, overrides)
    whole, dataset = dataset.val, scored_slice(dataset, config)
    if config.ttt.optimizer:
        refuse_known_text(dataset, artifact.config.get("train_text_hash"))
    text = known_text(artifact.text, model.config.vocab_size) if config.sidecar.name else None
    model = model.to(pick_device("auto"))
    return Opened(path, run, artifact, model, dataset, dataset.val is not whole, config, dtype, text)


def score_artifact(
    path: Path,
    data: str,
    *,
    run: Run | None = None,
    overrides: Iterable[str] = (),
    inspect: Inspect | None = None,
    keep: bool = True,
    progress: ReportProgress | None = None,
) -> ScoreRecord:
    """Score an artifact file on the validation split in `data`; unless not to `keep`, a run's is noted beside it.

    The scorer is the artifact's own, changed by `overrides` such as `score.stride=64`. `inspect` is told the costs of
    the targets while they come in. Raises ConfigError if they do not fit, or if the model would learn at test time
    from the text it was trained on.
    """
    started = time.perf_counter()
    opened = open_artifact(path, data, run, overrides)
    model, dataset, config, dtype = opened.model, opened.dataset, opened.config, opened.dtype
    looking = time.perf_counter()
    observe = inspect(model, dataset, config, dtype) if inspect else None
    looking = time.perf_counter() - looking  # is no part of scoring
    score = score_model(model, dataset, config, dtype, observe=observe, progress=progress, text=opened.text)
    record = score_record(opened, score, time.perf_counter() - started - looking)
    if run and keep:
        if dataset.val.index is not None and score.document_nats is not None:
            costs = document_costs(dataset.val.index, score.document_nats)
            record = replace(record, document_costs=write_costs(path.parent, costs))
        append_record(path.parent / "scores.jsonl", record)
    return record


def score_record(opened: Opened, score: Score, eval_seconds: float) -> ScoreRecord:
    """Everything that is kept of a score: what it is, of which text, how it came about, and whether it is legal."""
    path, run, config, dataset = opened.path, opened.run, opened.config, opened.dataset
    here, recipe = machine(), run.recipe if run and run.recipe.is_file() else None
    sizes = weighed(path.stat().st_size, scored_config(opened.artifact, config, opened.dtype, run, path), recipe)
    legal = legality(
        artifact_bytes=sizes.artifact_bytes,
        code_bytes=sizes.code_bytes,
        train_seconds=train_clock(run, path.parent.name) if run else None,
        eval_seconds=eval_seconds,
        machine=here,
        score_first=score_first(score.log),
        documents=config.documents if opened.sliced else None,
    )
    device = next(opened.model.parameters()).device.type
    return merged(
        ScoreRecord,
        text_facts(score, dataset.val),
        sizes,
        bpb=score.bpb,
        loss=score.loss,
        bits=score.bits,
        tokens=score.tokens,
        bytes=score.bytes,
        seconds=score.seconds,
        unavailable=tuple(dataset.val.unavailable()),
        text_hash=dataset.val.text_hash,
        stream_hash=dataset.val.stream_hash,
        slice=f"first {config.documents} documents" if opened.sliced else WHOLE,
        scorer=scorer_facts(config, opened.dtype, device),
        knife_edges=score.knife_edges,
        decisions=score.decisions,
        ttt_log=tuple((line.first, line.end, *map(_rounded, line[2:])) for line in score.log),
        machine=here,
        legality=legal,
    )


def scorer_facts(config: ScoreConfig, dtype: str, device: str) -> ScorerFacts:
    """How something was scored: all settings, and in which arithmetic."""
    settings = to_dict(config)
    return ScorerFacts(scorer=str(settings.pop("scorer")), dtype=dtype, device=device, extra=settings)


def record_digest(record: ScoreRecord) -> str:
    """SHA-256 of a score's record, by which an audit names the score that it audited."""
    return hashlib.sha256(json.dumps(plain(record), sort_keys=True).encode()).hexdigest()


def scored_config(artifact: Artifact, score: ScoreConfig, dtype: str, run: Run | None, path: Path) -> RunConfig:
    """Return the config of a run with the export that made this artifact and the way it is scored.

    Without a run, what the artifact says of itself.
    """
    model = model_config(artifact.config["model"])
    config = run.config() if run else RunConfig("artifact", model=model, export=ExportConfig(codec=artifact.codec))
    facts = exported(run, path.parent.name) if run else None
    data = to_dict(in_dtype(replace(config, score=score), dtype))
    return run_config(data | ({"export": facts.export} if facts and facts.export else {}))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def refuse_known_text(dataset: Dataset, train_text_hash: str | None) -> None:
    """Raise ConfigError if the validation split is text that the model was trained on, as far as hashes say."""
    text = dataset.val.text_hash
    if text is not None and text in (train_text_hash, dataset.train.text_hash):
        raise ConfigError(
            f"the validation split of {dataset.directory} is the model's training text (text hash {text[:16]}…): "
            "learning from it at test time is meaningless; give held-out text, or leave score.ttt.optimizer away"
        )


_TOLD = ("bpb", "loss", "seconds", "total_bytes", "scorer")


def scored(record: ScoreRecord, name: str) -> Scored:
    """Return the event that an artifact was scored."""
    return Scored(
        name=name,
        bpb=record.bpb,
        loss=record.loss,
        seconds=record.seconds,
        total_bytes=record.total_bytes,
        scorer=plain(record.scorer),
        extra={key: value for key, value in plain(record).items() if key not in _TOLD},
    )


def result_of(
    run: Run, name: str, facts: ExportFacts, record: ScoreRecord, files: Mapping[str, str] | None = None
) -> Result:
    """Put together what a run says of an artifact that was packed and scored."""
    return merged(Result, clocks_of(run), facts, record, run=str(run.path), artifact=name, files=files or {})


def official_score(run: Run, name: str) -> ScoreRecord:
    """Score a run's artifact in a fresh process. Raises NiblickError with what that process said if it failed."""
    command = [sys.executable, "-m", "niblick", "eval", f"{run.path}:{name}", "--json"]
    # Rank 0 scores by itself: the fresh process must not look for other ranks.
    single = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=single)
    if done.returncode:
        raise NiblickError(f"scoring {run.artifact(name)} failed with exit code {done.returncode}: see the lines above")
    return read(ScoreRecord, parse_json(done.stdout), f"the score of {run.artifact(name)}")
