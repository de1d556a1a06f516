"""The program of a submission: it trains, packs and scores one config, or scores the artifact that lies beside it.

    python train_gpt.py                                   train, pack, score
    torchrun --standalone --nproc_per_node=8 train_gpt.py the same on 8 GPUs
    python train_gpt.py --eval                            score the artifact

`niblick submit` makes one file of this module and of what it reaches: the same functions that `niblick train` runs.
DATA_PATH names a folder of the challenge's shards, TOKENIZER_PATH the SentencePiece model that made them (none for
bytes), RUN_ID the log and MODEL_SAVE_PATH the artifact. All other names of `rules.ENVIRONMENT` change the config.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from niblick.artifact.container import artifact_bytes, parse_tensors
from niblick.challenge import rules
from niblick.config.run_config import RunConfig, to_dict, with_values
from niblick.data.dataset import Dataset
from niblick.data.subwords import SentencePieceTokenizer
from niblick.errors import ConfigError, NiblickError
from niblick.facts.events import Event, Export, Scored, Step, Stop, Validation
from niblick.run.loading import build_model
from niblick.run.packing import artifact_header, packed
from niblick.run.prepared import Prepared, prepare
from niblick.run.scoring import plain_score, score_model
from niblick.run.training import fit
from niblick.score.contiguous import PlainScore
from niblick.score.scorers import score_split
from niblick.train.checkpoint import load_weights
from niblick.train.distributed import PATIENCE, Ranks
from niblick.train.precision import pick_device
from niblick.train.signals import Outcome
from niblick.train.telling import moment

OWN = ("RUN_ID", "TOKENIZER_PATH", "MODEL_SAVE_PATH")
"""Names of the challenge that say where files are, which a config does not."""


def configured(config: RunConfig, environ: Mapping[str, str]) -> RunConfig:
    """Return the config with the settings of the environment. Raises ConfigError for what does not fit."""
    given = {name: environ[name] for name in rules.ENVIRONMENT if name in environ and name not in OWN}
    try:
        values = rules.environment_values(given, to_dict(config))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return with_values(config, values)


class Log:
    """Prints what happens as the challenge's scripts do, and keeps it in logs/RUN_ID.txt; on the first rank alone."""

    def __init__(self, config: RunConfig, ranks: Ranks, path: Path) -> None:
        self.config, self.ranks, self.path = config, ranks, path
        if ranks.main:
            path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, event: Event) -> None:
        """Write the lines of an event."""
        seldom = isinstance(event, Step) and event.step > 10 and event.step % self.config.train.log_every
        for line in [] if seldom or not self.ranks.main else rules.log_lines(event):
            print(line, flush=True)
            with self.path.open("a") as file:
                file.write(line + "\n")


def train_and_pack(prepared: Prepared, log: Log, ranks: Ranks, out: Path) -> None:
    """Train, and write the artifact."""
    config, dataset = prepared.config, prepared.dataset
    trained = fit(prepared, log, ranks)
    score = plain_score(trained.model, dataset, dataset.val, config)
    tell_end(config, trained.outcome, score, log)
    if ranks.main:
        state = {name: tensor.detach().cpu() for name, tensor in trained.model.state_dict().items()}
        encoded, _ = packed(config, state, dataset)
        header = artifact_header(config, dataset.tokenizer.spec(), dataset.train.text_hash)
        data = artifact_bytes(header, encoded, config.export.codec)
        out.write_bytes(data)
        size, code = len(data), Path(sys.argv[0]).stat().st_size
        log(Export(name=config.export.name, artifact_bytes=size, code_bytes=code, total_bytes=size + code))
    ranks.barrier()


def tell_end(config: RunConfig, outcome: Outcome, score: PlainScore, log: Log) -> None:
    """Say how training ended, and the score of the weights as they are."""
    progress = outcome.progress
    if progress.step < config.schedule.steps:
        steps, seconds = config.schedule.steps, progress.train_seconds
        log(Stop(reason="wallclock_cap", step=progress.step, steps=steps, train_seconds=seconds))
    log(moment(Validation, progress, config.schedule, loss=score.loss, bpb=score.bpb, final=True))


def evaluate(config: RunConfig, dataset: Dataset, log: Log, path: Path) -> None:
    """Score an artifact as it comes back out of its file."""
    started = time.perf_counter()
    model = build_model(config.model, seed=0)
    encoded = parse_tensors(path.read_bytes())
    load_weights(model, {name: tensor.dequantize() for name, tensor in encoded.items()}, path)
    model = model.to(pick_device(config.train.device))
    if config.score.is_plain:
        score = plain_score(model, dataset, dataset.val, config)
    else:
        found = score_model(model, dataset, config.score, config.train.dtype)
        score = PlainScore(found.loss, found.bpb)
    seconds = time.perf_counter() - started
    log(Scored(name=config.export.name, loss=score.loss, bpb=score.bpb, seconds=seconds))


def join() -> Ranks:
    """Join the ranks that torchrun started, if it did."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    try:
        rank, size, local = (int(os.environ.get(name, "0")) for name in names)
    except ValueError:
        raise ConfigError(f"{', '.join(names)} must be whole numbers: they are set by torchrun") from None
    ranks = Ranks(rank, max(size, 1), local)
    if ranks.size > 1:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(ranks.local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    return ranks


def expect_parts(config: RunConfig) -> None:
    """Ask for a part now that would be asked for after training only: one that was left out says so at once."""
    if not config.score.is_plain and getattr(score_split, "is_absent", False):
        score_split()  # type: ignore[call-arg]


def main(config: RunConfig) -> None:
    """Run the script of a config."""
    if sys.argv[1:] not in ([], ["--eval"]):
        sys.exit(f"{sys.argv[0]}: found {' '.join(sys.argv[1:])}, expected nothing, or --eval to score final_model.nib")
    try:
        ranks = join()
        path = os.environ.get("TOKENIZER_PATH", "")
        tokenizer = SentencePieceTokenizer.read(Path(path)) if path else None
        prepared = prepare(configured(config, os.environ), ranks, tokenizer=tokenizer, settled=True)
        name = os.environ.get("RUN_ID") or f"seed{prepared.config.seed}"
        log = Log(prepared.config, ranks, Path("logs") / f"{name}.txt")
        out = Path(os.environ.get("MODEL_SAVE_PATH") or "final_model.nib")
        out.parent.mkdir(parents=True, exist_ok=True)
        expect_parts(prepared.config)
        if "--eval" not in sys.argv:
            train_and_pack(prepared, log, ranks, out)
        evaluate(prepared.config, prepared.dataset, log, out)
    except (NiblickError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    if ranks.size > 1:
        dist.destroy_process_group()
        sys.stdout.flush()
        os._exit(0)  # the threads of gloo live on after DDP, and can abort a process whose interpreter is taken down
