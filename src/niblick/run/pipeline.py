"""From a config to a score, top to bottom: train → pack → score, each step leaving files in the run directory.

A step whose file is there is not done again, so a run that was killed anywhere goes on by the same calls. Over several
ranks all train; rank 0 alone writes, packs and scores.

The official score is computed from the artifact file, read back by a fresh process, on the whole validation split.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from niblick.artifact.container import Artifact, artifact_bytes, read_artifact, write_artifact
from niblick.artifact.dequantize import EncodedTensor
from niblick.artifact.foreign.published_files import read_published
from niblick.bundle import make_script
from niblick.challenge import rules
from niblick.challenge.tracks import WHOLE, check_track, legality
from niblick.config.run_config import (
    RunConfig,
    dotted,
    model_config,
    override_score,
    reads_another_file,
    run_config,
    score_config,
    to_dict,
)
from niblick.data.dataset import Dataset, Split
from niblick.data.loader import Batches
from niblick.data.shards import file_hash
from niblick.data.tokenizers import BYTE_TOKENIZERS, Tokenizer
from niblick.errors import ArtifactError, ConfigError, NiblickError, StorageError
from niblick.model.lm import LM, ModelConfig
from niblick.model.providers import Entropy
from niblick.pack.hessians import Hessians, calibrate, calibrate_quantized, calibration_batches
from niblick.pack.permute import permuted
from niblick.pack.quantize import ExportConfig, pack
from niblick.recipes.presets import load_recipe
from niblick.run.directory import Run, append_line, create_run, machine, open_run, read_json, write_json
from niblick.run.entropy import entropy_guide, load_small, resolve_entropy
from niblick.run.loading import build_model, expect_tokenizer, load_artifact
from niblick.score.accounting import text_facts
from niblick.score.contiguous import PlainScore, score_contiguous
from niblick.score.costs import KEY as COSTS_KEY
from niblick.score.costs import document_costs, write_costs
from niblick.score.plan import ScoreConfig
from niblick.score.scorers import Observe, ReportProgress, Score, Sidecar, alone, score_split
from niblick.score.ttt import score_first
from niblick.train.averaging import HOLDOUT_SHARE, HOLDOUT_TOKENS
from niblick.train.checkpoint import Progress, list_checkpoints, load_weights, read_metadata, read_tensors, save_tensors
from niblick.train.distributed import SINGLE, RankLost, Ranks, is_lost
from niblick.train.guides import Guide, make_guide
from niblick.train.precision import autocast, pick_dtype
from niblick.train.qat import QAT
from niblick.train.regularizers import Penalties
from niblick.train.trainer import PAUSED, Outcome, checkpoint_event, pick_device, progress_event, train

Listener = Callable[[dict[str, Any]], None]

Inspect = Callable[[LM, Dataset, ScoreConfig, str], Observe]
"""Called with what is about to be scored, and in which dtype; returns what is then told the costs."""


class Stopped(NiblickError):
    """A run ended by a signal, with a checkpoint to go on from."""

    def __init__(self, run: Run, outcome: Outcome, ranks: Ranks) -> None:
        self.paused = outcome.stopped == PAUSED
        self.exit_code = 130 if outcome.stopped == "SIGINT" else 143
        super().__init__(
            f"stopped by {outcome.stopped} after step {outcome.progress.step}; resume with: {_resume_with(run, ranks)}"
        )


class Interrupted(NiblickError):
    """A run interrupted after training: its weights are there, what follows is not."""

    exit_code = 130

    def __init__(self, run: Run) -> None:
        super().__init__(f"interrupted after training; go on with: niblick train --resume {run.path}")


def _resume_with(run: Run, ranks: Ranks) -> str:
    return f"niblick train --resume {run.path}" + (f" --devices {ranks.size}" if ranks.size > 1 else "")


def parameters(model: LM) -> int:
    """Number of weights; tied ones count once."""
    return sum(p.numel() for p in model.parameters())


def parameter_count(config: ModelConfig) -> int:
    """Number of weights of a model that is never made."""
    with torch.device("meta"):
        return parameters(LM(config))


def open_data(config: RunConfig, tokenizer: Tokenizer | None = None) -> Dataset:
    """Open the config's data, made with `tokenizer` if given. Raises ConfigError if that does not fit the model."""
    if not config.data.path:
        raise ConfigError(
            "no data is named: pass --data DIR; "
            f"`niblick data prepare --source pydocs --tokenizer {config.tokenizer} --out DIR` makes one"
        )
    dataset = scored_slice(Dataset.open(config.data.path, tokenizer, config.tokenizer), config.score)
    if dataset.tokenizer.vocab_size != config.model.vocab_size:
        raise ConfigError(
            f"{config.data.path} holds tokens of {dataset.tokenizer.name} ({dataset.tokenizer.vocab_size} of them), "
            f"the model expects vocab_size={config.model.vocab_size}: prepare it with --tokenizer {config.tokenizer}"
        )
    for split in (dataset.train, dataset.val):
        # The beginning is enough to tell foreign data before anything is written; the loader checks every batch.
        start = split.slice(0, min(split.tokens, 10_000_000))
        split.check_vocabulary(start, 0, config.model.vocab_size)
    return dataset


def scored_slice(dataset: Dataset, config: ScoreConfig) -> Dataset:
    """Return the dataset with what `score.documents` leaves of its validation split."""
    if not config.documents:
        return dataset
    return replace(dataset, val=dataset.val.first_documents(config.documents, dataset.tokenizer))


def bytes_per_token(dataset: Dataset) -> float:
    """Bytes that a token of the training text stands for on average, from its first million tokens."""
    sample = dataset.train.slice(0, min(dataset.train.tokens, 1_000_000))
    return float(dataset.tokenizer.token_bytes(sample[:-1], sample[1:]).mean())


def run(
    config: RunConfig,
    runs: Path,
    listen: Listener,
    *,
    recipe: Path | None = None,
    ranks: Ranks = SINGLE,
    name: str = "",
    member: dict[str, Any] | None = None,
    pause_after: int = 0,
) -> dict[str, Any]:
    """Train, pack and score a config in a new run directory. Returns what result.json holds; {} on other ranks than 0.

    The directory is the next one of the preset, or `name`; `member` says which run of a sweep it is. `pause_after` is
    the trainer's. Raises Stopped if a signal or a pause ended it; a NiblickError before anything is written if config,
    track and data do not fit.
    """
    check_track(config.track, dotted(to_dict(config)))
    dataset = open_data(config)
    device = pick_device(config.train.device)
    ranks.expect_device(device)
    config = replace(config, train=config.train.fitting(ranks.size))
    held_back(dataset.train, config)
    config = resolve_entropy(config, dataset)
    # What this machine chooses holds from here on: the artifact says in which arithmetic it is scored.
    config = in_dtype(config, pick_dtype(config.train.dtype, device))
    make_config_guide(config, dataset)
    with torch.device("meta"):
        compression_aware(LM(config.model), config)
    path = create_run(runs, config, recipe, name=name, member=member).path if ranks.main else None
    return _carry_on(Run(ranks.share_path(path)), config, dataset, listen, ranks, pause_after)


def in_dtype(config: RunConfig, dtype: str) -> RunConfig:
    """Return the config with this dtype."""
    return replace(config, train=replace(config.train, dtype=dtype))


def make_config_guide(config: RunConfig, dataset: Dataset) -> Guide | None:
    """Return what `train.init_from` stands for, or None. Raises ConfigError or DataError if it does not fit."""
    name = config.train.init_from
    if not name:
        return None
    entropy = entropy_guide(config, dataset) if name == "entropy" and config.model.levels else None
    return make_guide(name, config.model, entropy)


def compression_aware(model: LM, config: RunConfig) -> tuple[QAT | None, Penalties | None]:
    """Return what rounds weights in training and what penalizes them, where the config asks for it.

    Raises ConfigError if the export's rules, or a penalty's patterns, do not fit the model.
    """
    qat = QAT(model, config.qat, config.export) if config.qat.on else None
    penalties = Penalties(model, config.train.penalties, config.export) if config.train.penalties else None
    return qat, penalties


def run_seeds(
    config: RunConfig, count: int, runs: Path, listen: Listener, *, recipe: Path | None = None, ranks: Ranks = SINGLE
) -> list[dict[str, Any]]:
    """Run a config with the seeds s, s+1, …, one after another, and return their results in that order.

    The order of the data follows the seed unless `data.seed` holds it.
    """
    seeds = range(config.seed, config.seed + count)
    return [run(replace(config, seed=seed), runs, listen, recipe=recipe, ranks=ranks) for seed in seeds]


def spread(results: list[dict[str, Any]]) -> dict[str, float | None]:
    """Mean and standard deviation (of the sample) of the scores of several runs."""
    facts: dict[str, float | None] = {}
    for key in ("bpb", "bpb_repaired"):
        scores = [result[key] for result in results]
        known = len(scores) > 1 and None not in scores
        facts[f"{key}_mean"] = statistics.mean(scores) if known else None
        facts[f"{key}_deviation"] = statistics.stdev(scores) if known else None
    return facts


def config_of(run: Run) -> RunConfig:
    """Return the config of a run, after loading the recipe it came from: that may register parts the config names."""
    if run.recipe.is_file():
        load_recipe(run.recipe)
    return run.config()


def resume(run: Run, listen: Listener, ranks: Ranks = SINGLE, *, pause_after: int = 0) -> dict[str, Any]:
    """Go on with a run that was stopped, paused or killed, wherever that was. Raises ConfigError if it is finished.

    What the log says of steps after the checkpoint is forgotten, and told anew as they are taken again.
    """
    if run.result():
        raise ConfigError(f"{run.path} is finished already: `niblick show {run.path}` shows its result")
    config = config_of(run)
    ranks.expect_device(pick_device(config.train.device))
    config.train.passes(ranks.size)
    dataset = open_data(config)
    if ranks.main:
        for left in run.path.rglob("*.tmp"):
            left.unlink()
        run.rewind(_told(run))
        newest = [] if run.weights.is_file() else list_checkpoints(run.checkpoints)[-1:]
        if newest and not any(event.get("file") == newest[0].name for event in run.events()):
            run.log(checkpoint_event(newest[0]))  # killed before it was told
    ranks.barrier()
    return _carry_on(run, config, dataset, listen, ranks, pause_after)


def _told(run: Run) -> int:
    """How many events of the log stand when a run goes on: those up to its newest checkpoint or finished step."""
    events = [event for event in run.events() if event["event"] != "failure"]
    if run.weights.is_file():
        finished = any(e.get("final") for e in events)
        after = ("export",) if finished else ("stop", "export")
        return next((i for i, e in enumerate(events) if e["event"] in after), len(events))
    checkpoints = list_checkpoints(run.checkpoints)
    if not checkpoints:
        return 0
    saved = [i for i, e in enumerate(events) if e["event"] == "checkpoint" and e["file"] == checkpoints[-1].name]
    return saved[-1] + 1 if saved else len(events)  # nothing came after it


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _carry_on(
    run: Run, config: RunConfig, dataset: Dataset, listen: Listener, ranks: Ranks = SINGLE, pause_after: int = 0
) -> dict[str, Any]:
    """Do what is left to do; a failure is told in the events, for those who look at the run from outside."""
    try:
        return _finish(run, config, dataset, listen, ranks, pause_after)
    except (Stopped, Interrupted):
        raise
    except Exception as error:
        if ranks.main:
            words = str(error) if isinstance(error, NiblickError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):
                run.log({"event": "failure", "message": words})
        raise


def _finish(
    run: Run, config: RunConfig, dataset: Dataset, listen: Listener, ranks: Ranks, pause_after: int
) -> dict[str, Any]:
    def emit(event: dict[str, Any]) -> None:
        every = config.train.log_every
        if not ranks.main:
            return
        known = event["event"] == "start" and any(run.events())  # told before it was killed
        if not known and (event["event"] != "step" or event["step"] <= 10 or event["step"] % every == 0):
            run.log(event)
        listen(event | {"run": str(run.path)})

    go_on = f"go on with: {_resume_with(run, ranks)}"
    try:
        if not run.weights.is_file():
            _train(run, config, dataset, emit, ranks, pause_after)
        if not ranks.main:
            return {}
        if not any(event.get("final") for event in run.events()):
            _validate_weights(run, config, dataset, emit)
        name = config.export.name
        exported = export(run, config, dataset, emit)
        record = official_score(run, name)
        emit({"event": "score", "name": name} | record)
        result = {"run": str(run.path), "artifact": name} | exported | record | {"files": digests(run)}
        write_json(run.path / "result.json", result)
    except KeyboardInterrupt:
        if not run.weights.is_file():
            raise
        raise Interrupted(run) from None
    except (StorageError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        kept = list_checkpoints(run.checkpoints)
        last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        raise StorageError(f"{error}; {last}: make room and {go_on}") from error
    except RuntimeError as error:
        if ranks.size == 1 or not is_lost(error):
            raise
        raise RankLost(
            f"rank {ranks.rank} of {ranks.size} lost another one, which has died: all ranks stop; {go_on}"
        ) from error
    return result


def held_back(split: Split, config: RunConfig) -> tuple[Split, Split | None]:
    """Return the training text without and with what `train.average=best` holds back of its end, never trained on.

    That is one part in HOLDOUT_SHARE, at most HOLDOUT_TOKENS. Raises ConfigError if that is too little to choose by.
    """
    if config.train.average != "best":
        return split, None
    count = min(split.tokens // HOLDOUT_SHARE, HOLDOUT_TOKENS)
    if count < config.score.seq_len:
        raise ConfigError(
            f"train.average=best holds back {count} tokens of {split.tokens} of training text, less than one window "
            f"(score.seq_len={config.score.seq_len}): train on more text, or set train.average=ema"
        )
    return split.part(0, split.tokens - count), split.part(split.tokens - count, split.tokens)


def _train(run: Run, config: RunConfig, dataset: Dataset, emit: Listener, ranks: Ranks, pause_after: int = 0) -> None:
    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "start":
            event |= {
                "environment": rules.environment(to_dict(config)),
                "bytes_per_token": bytes_per_token(dataset),
                "train_text_hash": dataset.train.text_hash,
                "text_hash": dataset.val.text_hash,
            }
        emit(event)

    model, outcome = fit(config, dataset, tell, ranks, run.checkpoints, pause_after)
    progress = outcome.progress
    clocks = {"train_seconds": progress.train_seconds, "wall_seconds": progress.wall_seconds}
    facts = {"step": progress.step, "steps": config.schedule.steps} | clocks
    if outcome.stopped:
        emit({"event": "stop", "reason": outcome.stopped} | facts)
        ranks.barrier()
        raise Stopped(run, outcome, ranks)
    if not ranks.main:
        return
    # First of all: from here on nothing that training gave can be lost.
    save_tensors(run.weights, dict(model.state_dict()), {"clocks": json.dumps(facts | {"average": outcome.average})})


def fit(
    config: RunConfig,
    dataset: Dataset,
    emit: Listener,
    ranks: Ranks,
    checkpoints: Path | None,
    pause_after: int = 0,
) -> tuple[LM, Outcome]:
    """Train a config's model, going on from the newest of the `checkpoints`; None: there are none, and none is kept."""
    device = pick_device(config.train.device)
    model = build_model(config.model, config.seed)
    resume = checkpoints is not None and bool(list_checkpoints(checkpoints))
    if isinstance(model.provider, Entropy) and not resume:
        model.provider.lm.load_state_dict(load_small(config, dataset).state_dict())
    model = model.to(device)
    text, holdout = held_back(dataset.train, config)
    batches = Batches(
        text,
        vocab_size=config.model.vocab_size,
        seq_len=config.train.seq_len,
        rows=config.train.micro_batch_tokens // config.train.seq_len,
        order=config.data.order,
        packing=config.data.packing,
        seed=config.seed if config.data.seed is None else config.data.seed,
        rank=ranks.rank,
        ranks=ranks.size,
        pin=device.type == "cuda",
    )
    start = {
        "event": "start",
        "preset": config.preset,
        "parameters": parameters(model),
        "seed": config.seed,
        "data_seed": batches.seed,
        "steps": config.schedule.steps,
        "max_seconds": config.schedule.max_seconds,
        "batch_tokens": config.train.batch_tokens,
        "ranks": ranks.size,
        "accumulate": config.train.passes(ranks.size),
        "seq_len": config.train.seq_len,
        "warmup_steps": config.train.warmup_steps,
        "device": str(device),
        "train_tokens": text.tokens,
        "held_back_tokens": holdout.tokens if holdout else 0,
    }
    emit(start)
    qat, penalties = compression_aware(model, config)
    outcome = train(
        model,
        batches,
        config.train,
        config.schedule,
        config.optim,
        checkpoints=checkpoints,
        validate=lambda model: plain_score(model, dataset, dataset.val, config),
        emit=emit,
        resume=resume,
        guide=make_config_guide(config, dataset),
        ranks=ranks,
        held_back=(lambda: plain_score(model, dataset, holdout, config).loss) if holdout else None,
        rehearse=lambda: _rehearse_export(model, config, dataset),
        qat=qat,
        penalties=penalties,
        pause_after=pause_after,
    )
    return model, outcome


def _validate_weights(run: Run, config: RunConfig, dataset: Dataset, emit: Listener) -> None:
    """Score the final weights as they are, in floats, before they are packed."""
    tensors, metadata = read_tensors(run.weights)
    clocks = json.loads(metadata["clocks"])
    model = build_model(config.model, config.seed)
    load_weights(model, tensors, run.weights)
    model = model.to(pick_device(config.train.device))
    with alone():  # the other ranks have nothing to do any more
        score = score_model(model, dataset, config.score.plain(), config.train.dtype)
    if clocks["step"] < config.schedule.steps:
        emit({"event": "stop", "reason": "wallclock_cap"} | clocks)
    progress = Progress(clocks["step"], train_seconds=clocks["train_seconds"])
    facts = progress_event("validation", progress, config.schedule)
    emit(facts | {"loss": score.loss, "bpb": score.bpb, "final": True})


def plain_score(model: LM, dataset: Dataset, split: Split, config: RunConfig) -> PlainScore:
    """Score a split as in training, plainly, all ranks together; each returns the same."""
    plain = config.score.plain()
    with autocast(next(model.parameters()).device, config.train.dtype):
        if plain.is_plain:
            return score_contiguous(model, split, dataset.tokenizer, plain)
        score = score_split(model, split, dataset.tokenizer, plain)
        return PlainScore(score.loss, score.bpb)


def _rehearse_export(model: LM, config: RunConfig, dataset: Dataset) -> None:
    """Pack the model as it is, for the time that takes."""
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    encoded, _ = packed(config, tensors, dataset)
    artifact_bytes(artifact_header(config, dataset.tokenizer.spec()), encoded, config.export.codec)


def score_model(
    model: LM,
    dataset: Dataset,
    config: ScoreConfig,
    dtype: str,
    *,
    observe: Observe | None = None,
    sidecar: Sidecar | None = None,
    progress: ReportProgress | None = None,
) -> Score:
    """Score a model on the whole validation split of a dataset. Raises what `score_split` raises."""
    device = next(model.parameters()).device
    with autocast(device, dtype):
        return score_split(
            model, dataset.val, dataset.tokenizer, config, observe=observe, sidecar=sidecar, progress=progress
        )


def export(run: Run, config: RunConfig, dataset: Dataset, emit: Listener, name: str = "") -> dict[str, Any]:
    """Pack the final weights of a run into its artifact. Returns artifact, code and total bytes."""
    started = time.perf_counter()
    tensors, metadata = read_tensors(run.weights)
    encoded, calibration = packed(config, tensors, dataset)
    name = name or config.export.name
    facts = write_export(run, config, dataset, encoded, name, config.export.codec, calibration)
    facts |= {"export_seconds": time.perf_counter() - started}
    emit({"event": "export", "name": name} | facts)
    clocks = json.loads(metadata.get("clocks", "{}"))
    if why := facts["code_not_weighed"]:
        told = {"step": clocks.get("step", 0), "kind": "code", "message": f"code not weighed: {why}"}
        emit({"event": "warning"} | told)
    return facts | clocks


def write_export(
    run: Run,
    config: RunConfig,
    dataset: Dataset,
    encoded: dict[str, EncodedTensor],
    name: str,
    codec: str,
    calibration: dict[str, Any],
) -> dict[str, Any]:
    """Write tensors as the artifact `name` of a run, and export.json beside it. Returns what that says.

    These are what `weighed` says, and the facts about its `calibration`, whose seconds count as training.
    """
    header = artifact_header(config, dataset.tokenizer.spec(), dataset.train.text_hash)
    path = run.artifact(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    size = write_artifact(path, header, encoded, codec)
    facts = weighed(size, config, run.recipe if run.recipe.is_file() else None) | calibration
    write_json(path.with_name("export.json"), facts | {"export": to_dict(config.export)})
    return facts


def train_clock(run: Run, name: str) -> float | None:
    """Seconds of training that an artifact took as the challenge counts: its calibration on training text included."""
    seconds = json.loads(read_metadata(run.weights).get("clocks", "{}")).get("train_seconds")
    exported = run.artifact(name).with_name("export.json")
    calibration = read_json(exported).get("calibration_seconds", 0.0) if exported.is_file() else 0.0
    return None if seconds is None else seconds + calibration


def packed(
    config: RunConfig, tensors: dict[str, torch.Tensor], dataset: Dataset
) -> tuple[dict[str, EncodedTensor], dict[str, Any]]:
    """Return the weights as `config.export` wants them stored, and, with GPTQ, facts about its calibration.

    These are `calibration_seconds`, `calibration_tokens`, and `gptq_notes`: what was rounded plainly, and why.
    """
    wanted = config.export
    if wanted.gptq == "off":
        return pack(tensors, wanted), {}
    if wanted.permute:
        tensors, wanted = permuted(tensors), replace(wanted, permute=False)
    hessians, facts = calibrated(config, tensors, dataset, wanted if wanted.gptq == "quantized" else None)
    notes: dict[str, str] = {}
    packed = pack(tensors, wanted, hessians=hessians, tell=notes.__setitem__)
    return packed, facts | {"gptq_notes": notes}


def calibrated(
    config: RunConfig, tensors: dict[str, torch.Tensor], dataset: Dataset, quantized: ExportConfig | None = None
) -> tuple[Hessians, dict[str, Any]]:
    """Return the Hessians of weights from training text, and what they took.

    Inputs are those of the float model or, if given how it is `quantized`, of the quantized one.
    """
    started = time.perf_counter()
    model = build_model(config.model, seed=0)
    model.load_state_dict(tensors)
    device = pick_device(config.train.device)
    batches = calibration_batches(
        dataset.train,
        dataset.val,
        vocab_size=config.model.vocab_size,
        seq_len=config.score.seq_len,
        tokens=config.export.calibration_tokens,
    )
    with autocast(device, config.train.dtype):
        if quantized:
            hessians = calibrate_quantized(model.to(device), batches, quantized)
        else:
            hessians = calibrate(model.to(device), batches)
    seconds = time.perf_counter() - started
    return hessians, {"calibration_seconds": seconds, "calibration_tokens": sum(ids.numel() for ids in batches)}


def artifact_header(config: RunConfig, tokenizer: dict[str, Any], train_text_hash: str | None = None) -> dict[str, Any]:
    """What an artifact says about itself: all it takes to score it, and which text it knows."""
    score = to_dict(config.score) | {"dtype": config.train.dtype}
    known = {"train_text_hash": train_text_hash} if train_text_hash else {}
    return {"model": to_dict(config.model), "tokenizer": tokenizer, "score": score} | known


def weighed(artifact_bytes: int, config: RunConfig, recipe: Path | None) -> dict[str, Any]:
    """Bytes of an artifact, of the code that it needs, and of both; and `code_not_weighed`, the reason where it is so.

    A run never depends on its script: whatever is the matter with that, code and both are None, and nothing is raised.
    """
    code, why = None, None
    try:
        code = closure_bytes(config, recipe)
    except Exception as error:
        why = str(error) if isinstance(error, NiblickError) else f"{type(error).__name__}: {error}"
    total = None if code is None else artifact_bytes + code
    return {"artifact_bytes": artifact_bytes, "code_bytes": code, "total_bytes": total, "code_not_weighed": why}


def closure_bytes(config: RunConfig, recipe: Path | None) -> int:
    """Bytes of the script of a config, as `niblick submit` would ship it. Raises ConfigError if it cannot be made.

    A start that reads a file besides data and code has no script (`niblick submit` refuses it); such a config is
    counted as one that starts from whitespace.
    """
    if reads_another_file(config):
        config = replace(config, train=replace(config.train, init_from="whitespace"))
    return make_script(config, recipe).total


def score_artifact(
    path: Path,
    data: str,
    *,
    run: Run | None = None,
    overrides: Iterable[str] = (),
    inspect: Inspect | None = None,
    keep: bool = True,
    progress: ReportProgress | None = None,
) -> dict[str, Any]:
    """Score an artifact file on the validation split in `data`; unless not to `keep`, a run's is noted beside it.

    The scorer is the artifact's own, changed by `overrides` such as `score.stride=64`. `inspect` is told the costs of
    the targets while they come in. Raises ConfigError if they do not fit, or if the model would learn at test time
    from the text it was trained on.
    """
    started = time.perf_counter()
    recipe = run.recipe if run and run.recipe.is_file() else None
    if run:
        config_of(run)
    model, artifact = load_artifact(path)
    dataset = Dataset.open(data)
    expect_tokenizer(artifact, dataset, path)
    settings = dict(artifact.config["score"])
    dtype = settings.pop("dtype")
    config = override_score(score_config(settings), overrides)
    whole, dataset = dataset.val, scored_slice(dataset, config)
    if config.ttt.optimizer:
        refuse_known_text(dataset, artifact.config.get("train_text_hash"))
    device = pick_device("auto")
    model = model.to(device)
    looking = time.perf_counter()
    observe = inspect(model, dataset, config, dtype) if inspect else None
    looking = time.perf_counter() - looking  # is no part of scoring
    score = score_model(model, dataset, config, dtype, observe=observe, progress=progress)
    eval_seconds = time.perf_counter() - started - looking
    here = machine()
    size = path.stat().st_size
    sliced = dataset.val is not whole
    sizes = weighed(size, scored_config(artifact, config, dtype, run, path), recipe)
    legal = legality(
        artifact_bytes=size,
        code_bytes=sizes["code_bytes"],
        train_seconds=train_clock(run, path.parent.name) if run else None,
        eval_seconds=eval_seconds,
        machine=here,
        score_first=score_first(score.log),
        documents=config.documents if sliced else None,
    )
    record = {
        "bpb": score.bpb,
        "loss": score.loss,
        "bits": score.bits,
        "tokens": score.tokens,
        "bytes": score.bytes,
        "seconds": score.seconds,
        **text_facts(score, dataset.val),
        "unavailable": dataset.val.unavailable(),
        **sizes,
        "text_hash": dataset.val.text_hash,
        "stream_hash": dataset.val.stream_hash,
        "slice": f"first {config.documents} documents" if sliced else WHOLE,
        "scorer": to_dict(config) | {"dtype": dtype, "device": device.type},
        "knife_edges": score.knife_edges,
        "decisions": score.decisions,
        "ttt_log": [[line.first, line.end, *map(_rounded, line[2:])] for line in score.log],
        "machine": here,
        "legality": legal,
    }
    if run and keep:
        if dataset.val.index is not None and score.document_nats is not None:
            costs = document_costs(dataset.val.index, score.document_nats)
            record[COSTS_KEY] = write_costs(path.parent, costs)
        append_line(path.parent / "scores.jsonl", json.dumps(record))
    return record


def scored_config(artifact: Artifact, score: ScoreConfig, dtype: str, run: Run | None, path: Path) -> RunConfig:
    """Return the config of a run with the export that made this artifact and the way it is scored.

    Without a run, what the artifact says of itself.
    """
    model = model_config(artifact.config["model"])
    config = run.config() if run else RunConfig("artifact", model=model, export=ExportConfig(codec=artifact.codec))
    exported = path.with_name("export.json")
    export = read_json(exported).get("export") if run and exported.is_file() else None
    data = to_dict(in_dtype(replace(config, score=score), dtype))
    return run_config(data | ({"export": export} if export else {}))


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


def import_published(path: Path, config: RunConfig, runs: Path, *, recipe: Path | None = None) -> dict[str, Any]:
    """Make a run of a checkpoint of the challenge's published scripts. Returns what its result.json holds: no score.

    Its weights and artifact are what every tool works on. Codes and scales of an int8 file become the artifact as they
    are; a float file is packed by `config.export`. Where the config names data, its tokenizer is recorded, else its
    size alone. Raises ArtifactError, before anything is written, if the file is no such checkpoint of this model.
    """
    if config.train.dtype == "auto":
        config = in_dtype(config, "bfloat16")  # as it was trained
    tokenizer = tokenizer_spec(config)
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in LM(config.model).state_dict().items()}
    weights = read_published(path, expected)
    state = weights.state_dict()
    name = "imported" if weights.quantized else config.export.name
    if weights.quantized:
        encoded = weights.encoded
    elif config.export.gptq == "off":
        encoded = pack(state, config.export)
    else:
        encoded, _ = packed(config, state, open_data(config))
    run = create_run(runs, config, recipe)
    save_tensors(run.weights, state, {})
    run.artifact(name).parent.mkdir(parents=True)
    size = write_artifact(run.artifact(name), artifact_header(config, tokenizer), encoded, config.export.codec)
    return imported(run, path, name, weighed(size, config, recipe))


def imported(run: Run, source: Path, name: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """Write down what a run's artifact `name`, of `weighed` sizes, was made of. Returns what result.json holds."""
    made_of = {"file": source.name, "bytes": source.stat().st_size, "sha256": file_hash(source)}
    run.log({"event": "import"} | made_of)
    result = {"run": str(run.path), "artifact": name, "imported": made_of} | sizes
    result |= {"files": digests(run)}
    write_json(run.path / "result.json", result)
    return result


def tokenizer_spec(config: RunConfig) -> dict[str, Any]:
    """Return what an artifact says of its tokenizer: the data's, or the one the config names, where that is enough."""
    if config.data.path:
        return open_data(config).tokenizer.spec()
    made = BYTE_TOKENIZERS.get(config.tokenizer)
    if made and config.model.vocab_size == made.vocab_size:
        return made().spec()
    return {"name": config.tokenizer, "vocab_size": config.model.vocab_size}


def describe_artifact(path: Path) -> dict[str, Any]:
    """What an artifact holds: config, tensors with their schemes, bytes per part."""
    artifact = read_artifact(path)
    sizes = artifact.bytes
    return {
        "path": str(path),
        "codec": artifact.codec,
        "config": artifact.config,
        "tensors": [
            {"name": t.name, "shape": list(artifact.encoded[t.name].shape), "scheme": t.scheme}
            | {"raw_bytes": t.raw, "stored_bytes": t.stored}
            for t in sizes.tensors
        ],
        "bytes": {"total": sizes.file, "header": sizes.header, "payload": sizes.payload, "before_coding": sizes.raw},
    }


def official_score(run: Run, name: str) -> dict[str, Any]:
    """Score a run's artifact in a fresh process. Raises NiblickError with what that process said if it failed."""
    command = [sys.executable, "-m", "niblick", "eval", f"{run.path}:{name}", "--json"]
    # Rank 0 scores by itself: the fresh process must not look for other ranks.
    single = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=single)
    if done.returncode:
        raise NiblickError(f"scoring {run.artifact(name)} failed with exit code {done.returncode}: see the lines above")
    return json.loads(done.stdout)


def digests(run: Run) -> dict[str, str]:
    """SHA-256 of the finished files: what was changed afterwards shows."""
    files = [run.path / "config.json", run.weights, *(run.artifact(n) for n in run.artifact_names())]
    return {f.relative_to(run.path).as_posix(): file_hash(f) for f in files}


def find_artifact(target: str, runs: Path) -> tuple[Path, Run | None]:
    """Resolve RUN, RUN:NAME or the path of an artifact. Raises ConfigError or ArtifactError if it is not there."""
    path = Path(target)
    if path.is_file():
        owner = path.resolve().parents[2] if len(path.resolve().parents) > 2 else path
        return path, Run(owner) if (owner / "config.json").is_file() else None
    if path.suffix == ".nib":
        raise ArtifactError(f"there is no artifact {path}")
    name, _, artifact = target.rpartition(":") if ":" in target else (target, "", "")
    run = open_run(name, runs)
    names = run.artifact_names()
    if not names:
        raise ArtifactError(f"{run.path} has no artifact yet: it is not finished (`niblick train --resume {run.path}`)")
    chosen = artifact or read_json(run.path / "result.json")["artifact"] if run.result() else artifact or names[0]
    if chosen not in names:
        raise ArtifactError(f"{run.path} has no artifact {chosen!r} (there: {', '.join(names)})")
    return run.artifact(chosen), run
