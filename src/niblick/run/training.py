"""Training of a run: the model of a config, trained on its data, with its weights kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from niblick.artifact.container import artifact_bytes
from niblick.challenge import rules
from niblick.config.run_config import (
    RunConfig,
    to_dict,
)
from niblick.data.loader import Batches
from niblick.facts.events import Emit, Start, Stop
from niblick.facts.reading import merged, plain
from niblick.facts.result import Clocks
from niblick.memory import tokens_at_once
from niblick.model.lm import LM
from niblick.model.providers import Entropy
from niblick.run.directory import Run
from niblick.run.ends import Stopped
from niblick.run.entropy import load_small
from niblick.run.generate import written
from niblick.run.loading import build_model
from niblick.run.packing import artifact_header, packed
from niblick.run.prepared import Prepared, bytes_per_token, compression_aware, parameters
from niblick.run.scoring import plain_score
from niblick.train.checkpoint import list_checkpoints, save_tensors
from niblick.train.copystream import CopyStream
from niblick.train.distributed import Ranks
from niblick.train.loop import Aids, Hooks, Keeping, Recipe, train
from niblick.train.settings import TrainConfig
from niblick.train.signals import Outcome


@dataclass(frozen=True)
class Trained:
    """A model as training left it, and how that ended."""

    model: LM
    outcome: Outcome


def train_run(run: Run, prepared: Prepared, emit: Emit, ranks: Ranks, pause_after: int = 0) -> None:
    """Train a run's model and keep its weights. Raises Stopped if a signal or a pause ended it before its budget."""
    trained = fit(prepared, emit, ranks, run.checkpoints, pause_after)
    outcome, progress = trained.outcome, trained.outcome.progress
    clocks = Clocks(
        step=progress.step,
        steps=prepared.config.schedule.steps,
        train_seconds=progress.train_seconds,
        wall_seconds=progress.wall_seconds,
        average=outcome.average,
    )
    if outcome.stopped:
        emit(merged(Stop, clocks, reason=outcome.stopped, average=None))
        ranks.barrier()
        raise Stopped(run, outcome, ranks)
    if not ranks.main:
        return
    # First of all: from here on nothing that training gave can be lost.
    state = dict(trained.model.state_dict())
    save_tensors(run.weights, state, {"clocks": json.dumps(plain(clocks))})


def fit(prepared: Prepared, emit: Emit, ranks: Ranks, checkpoints: Path | None = None, pause_after: int = 0) -> Trained:
    """Train a model, going on from the newest of the `checkpoints`; None: there are none, and none is kept."""
    config, dataset, holdout = prepared.config, prepared.dataset, prepared.holdout
    model = build_model(config.model, config.seed)
    resume = checkpoints is not None and bool(list_checkpoints(checkpoints))
    if isinstance(model.provider, Entropy) and not resume:
        model.provider.lm.load_state_dict(load_small(config, dataset).state_dict())
    model = model.to(prepared.device)
    config = replace(config, train=in_passes(config, model, ranks, prepared.device))
    prepared = replace(prepared, config=config)
    batches = batches_of(prepared, ranks)
    emit(start_event(prepared, model, batches, ranks))
    qat, penalties = compression_aware(model, config)
    hooks = Hooks(
        emit=emit,
        validate=lambda model: plain_score(model, dataset, dataset.val, config),
        sample=(lambda model: written(model, dataset.tokenizer, config)) if config.train.sample_bytes else None,
        held_back=(lambda: plain_score(model, dataset, holdout, config).loss) if holdout else None,
        rehearse=lambda: rehearse_export(model, prepared),
    )
    outcome = train(
        model,
        batches,
        Recipe(config.train, config.schedule, config.optim),
        hooks,
        aids=Aids(prepared.guide, qat, penalties),
        ranks=ranks,
        keeping=Keeping(checkpoints, resume, pause_after) if checkpoints else None,
    )
    return Trained(model, outcome)


def in_passes(config: RunConfig, model: LM, ranks: Ranks, device: torch.device) -> TrainConfig:
    """How it is trained, in passes as long as the device does well with: on a processor they may be shorter.

    A router that keeps figures of its passes has them as the config says: it would learn others from shorter ones.
    """
    most = config.train.micro_batch_tokens
    if not any(".router." in name for name, _ in model.named_buffers()):
        most = tokens_at_once(most, config.model.width, device)
    return config.train.fitting(ranks.size, most)


def batches_of(prepared: Prepared, ranks: Ranks) -> Batches:
    """The micro-batches of this rank, in the order that the config says."""
    config = prepared.config
    return Batches(
        prepared.text,
        vocab_size=config.model.vocab_size,
        seq_len=config.train.seq_len,
        rows=config.train.micro_batch_tokens // config.train.seq_len,
        order=config.data.order,
        packing=config.data.packing,
        seed=config.seed if config.data.seed is None else config.data.seed,
        rank=ranks.rank,
        ranks=ranks.size,
        send=CopyStream(prepared.device) if prepared.device.type == "cuda" else None,
    )


def start_event(prepared: Prepared, model: LM, batches: Batches, ranks: Ranks) -> Start:
    """What is told of a run before its first step."""
    config, dataset = prepared.config, prepared.dataset
    return Start(
        preset=config.preset,
        parameters=parameters(model),
        seed=config.seed,
        data_seed=batches.seed,
        steps=config.schedule.steps,
        max_seconds=config.schedule.max_seconds,
        batch_tokens=config.train.batch_tokens,
        ranks=ranks.size,
        accumulate=config.train.passes(ranks.size),
        seq_len=config.train.seq_len,
        warmup_steps=config.train.warmup_steps,
        device=str(prepared.device),
        train_tokens=prepared.text.tokens,
        held_back_tokens=prepared.holdout.tokens if prepared.holdout else 0,
        environment=rules.environment(to_dict(config)),
        bytes_per_token=bytes_per_token(dataset),
        train_text_hash=dataset.train.text_hash,
        text_hash=dataset.val.text_hash,
    )


def rehearse_export(model: LM, prepared: Prepared) -> None:
    """Pack the model as it is, for the time that takes."""
    config, dataset = prepared.config, prepared.dataset
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    encoded, _ = packed(config, tensors, dataset)
    artifact_bytes(artifact_header(config, dataset.tokenizer.spec()), encoded, config.export.codec)
