"""The program of a submission: it trains, packs and scores one config, or scores the artifact that lies beside it.

    python train_gpt.py                                   train, pack, score
    torchrun --standalone --nproc_per_node=8 train_gpt.py the same on 8 GPUs
    python train_gpt.py --eval                            score the artifact

`niblick submit` makes one file of this module and of what it reaches: the same functions that `niblick train` runs,
without what the config does not use. DATA_PATH names a folder of the challenge's shards, TOKENIZER_PATH the
SentencePiece model that made them (none for bytes).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from niblick import challenge
from niblick.artifact.container import artifact_bytes, parse_tensors
from niblick.config import RunConfig
from niblick.data.dataset import Dataset, open_split
from niblick.data.subwords import SentencePieceTokenizer
from niblick.data.tokenizers import ByteTokenizer, Tokenizer
from niblick.errors import ConfigError, DataError, NiblickError
from niblick.loading import build_model
from niblick.pipeline import artifact_header, fit, in_dtype, packed, plain_score, score_model
from niblick.score.contiguous import PlainScore
from niblick.train.checkpoint import load_weights
from niblick.train.distributed import PATIENCE, Ranks
from niblick.train.precision import pick_dtype
from niblick.train.trainer import Outcome, pick_device, progress_event

CONFIG = RunConfig(preset="")
"""What is trained: written here by `niblick submit`."""

BAKED: dict[str, Any] = {}
"""Names of the challenge that this script cannot change, with their values: written here by `niblick submit`."""


def seconds(text: str) -> float | None:
    """A time limit; 0 is none, as in the published scripts."""
    return float(text) if float(text) > 0 else None


def compiled(text: str) -> str:
    """1 or 0 as `train.compile`."""
    return {"0": "never", "1": "always"}[text]


ENVIRONMENT: dict[str, tuple[Callable[[str], Any], str]] = {
    "SEED": (int, "seed"),
    "DATA_PATH": (str, "data.path"),
    "ITERATIONS": (int, "schedule.steps"),
    "WARMUP_STEPS": (int, "train.warmup_steps"),
    "WARMDOWN_ITERS": (int, "schedule.warmdown_steps"),
    "MAX_WALLCLOCK_SECONDS": (seconds, "schedule.max_seconds"),
    "GPTQ_RESERVE_SECONDS": (float, "schedule.reserve_seconds"),
    "TRAIN_BATCH_TOKENS": (int, "train.batch_tokens"),
    "TRAIN_SEQ_LEN": (int, "train.seq_len"),
    "VAL_BATCH_SIZE": (int, "score.batch_tokens"),
    "VAL_LOSS_EVERY": (int, "train.val_every"),
    "TRAIN_LOG_EVERY": (int, "train.log_every"),
    "COMPILE_MODEL": (compiled, "train.compile"),
    "MODEL_DIM": (int, "model.width"),
    "NUM_HEADS": (int, "model.heads"),
    "NUM_KV_HEADS": (int, "model.kv_heads"),
    "MLP_MULT": (float, "model.mlp_mult"),
    "ROPE_BASE": (float, "model.rope_base"),
    "LOGIT_SOFTCAP": (float, "model.softcap"),
    "QK_GAIN_INIT": (float, "model.qk_gain"),
    "TIED_EMBED_INIT_STD": (float, "model.embed_std"),
    "EMBED_LR": (float, "optim.embed_lr"),
    "TIED_EMBED_LR": (float, "optim.embed_lr"),
    "HEAD_LR": (float, "optim.head_lr"),
    "MATRIX_LR": (float, "optim.matrix_lr"),
    "SCALAR_LR": (float, "optim.vector_lr"),
    "MUON_MOMENTUM": (float, "optim.muon_momentum"),
    "MUON_BACKEND_STEPS": (int, "optim.muon_iterations"),
    "MUON_MOMENTUM_WARMUP_START": (float, "optim.muon_momentum_start"),
    "MUON_MOMENTUM_WARMUP_STEPS": (int, "optim.muon_momentum_steps"),
    "BETA1": (float, "optim.beta1"),
    "BETA2": (float, "optim.beta2"),
    "ADAM_EPS": (float, "optim.eps"),
    "GRAD_CLIP_NORM": (float, "optim.grad_clip"),
    "TARGET_AVG_CHUNK_LEN": (float, "model.levels.*.target_length"),
    "RATIO_LOSS_WEIGHT": (float, "model.levels.*.ratio_weight"),
    "HNET_LR_DIFF": (float, "model.levels.*.lr_diff"),
}
"""The challenge's names for what may be set from outside: how to read a value, and where it belongs (* is each)."""


def configured(config: RunConfig, environ: Mapping[str, str], ranks: int) -> RunConfig:
    """Return the config with what the environment says. Raises ConfigError for what this script cannot change."""
    for name, value in BAKED.items():
        text = str(int(value)) if isinstance(value, bool) else str(value)
        if environ.get(name, text) != text:
            raise ConfigError(f"{name}={environ[name]} cannot be set: this script was made for {name}={text}")
    settings: dict[str, Any] = {}
    for name, (read, key) in ENVIRONMENT.items():
        if name in environ:
            try:
                settings[key] = read(environ[name])
            except (ValueError, KeyError):
                raise ConfigError(f"{name}={environ[name]} is no value of {name}") from None
    if "train.seq_len" in settings:
        settings["score.seq_len"] = settings["train.seq_len"]  # validation is in windows of the same length
    config = changed(config, settings)
    train = config.train
    rows, rest = divmod(train.batch_tokens, train.seq_len * ranks)
    if rest or not rows:
        raise ConfigError(
            f"TRAIN_BATCH_TOKENS={train.batch_tokens} must be a multiple of {train.seq_len} × {ranks} ranks"
        )
    most = max(1, train.micro_batch_tokens // train.seq_len)
    fitting = next(n for n in range(min(rows, most), 0, -1) if rows % n == 0)
    return replace(config, train=replace(train, micro_batch_tokens=fitting * train.seq_len))


def changed(value: Any, settings: dict[str, Any], key: str = "") -> Any:
    """Return a config with some values, by dotted key, replaced."""
    if key in settings:
        return settings[key]
    if isinstance(value, tuple):
        return tuple(changed(item, settings, f"{key}.*") for item in value)
    if not is_dataclass(value) or isinstance(value, type):
        return value
    inner = {f.name: f"{key}.{f.name}".lstrip(".") for f in fields(value)}
    return replace(value, **{name: changed(getattr(value, name), settings, path) for name, path in inner.items()})


def setting(config: Any, key: str) -> Any:
    """Return the value at a dotted key."""
    for part in key.split("."):
        config = config[0] if part == "*" else getattr(config, part)
    return config


class Log:
    """Prints what happens as the challenge's scripts do, and keeps it in logs/RUN_ID.txt; on the first rank alone."""

    def __init__(self, config: RunConfig, ranks: Ranks, path: Path) -> None:
        self.config, self.ranks, self.path = config, ranks, path
        if ranks.main:
            path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, event: dict[str, Any]) -> None:
        """Write the lines of an event."""
        if event["event"] == "start":
            names = {name: setting(self.config, key) for name, (_, key) in ENVIRONMENT.items()}
            event = event | {"environment": BAKED | names | {"MAX_WALLCLOCK_SECONDS": event["max_seconds"] or 0.0}}
        seldom = event["event"] == "step" and event["step"] > 10 and event["step"] % self.config.train.log_every
        for line in [] if seldom or not self.ranks.main else challenge.log_lines(event):
            print(line, flush=True)
            with self.path.open("a") as file:
                file.write(line + "\n")


def open_shards(config: RunConfig, tokenizer_path: str) -> Dataset:
    """Open DATA_PATH: a folder with the challenge's shards, or one with such folders in `datasets`."""
    root = Path(config.data.path)
    folders = [f for f in (root, *sorted(root.glob("datasets/*"))) if any(f.glob("fineweb_val_*.bin"))]
    if len(folders) != 1:
        raise DataError(f"DATA_PATH={root} holds {len(folders)} folders with fineweb_val_*.bin: name one that has them")
    tokenizer: Tokenizer
    if config.model.vocab_size == ByteTokenizer.vocab_size:
        tokenizer = ByteTokenizer()
    else:
        models = [Path(tokenizer_path)] if tokenizer_path else sorted(root.glob("tokenizers/*.model"))
        if len(models) != 1:
            raise DataError("TOKENIZER_PATH must name the SentencePiece model that the shards were made with")
        tokenizer = SentencePieceTokenizer.read(models[0])
    indexed = bool(config.score.documents) or not config.score.is_plain
    train, val = (open_split(folders[0], name, None, indexed=indexed) for name in ("train", "val"))
    if config.score.documents:
        val = val.first_documents(config.score.documents, tokenizer)
    return Dataset(folders[0], {}, tokenizer, train, val)


def train_and_pack(config: RunConfig, dataset: Dataset, log: Log, ranks: Ranks, out: Path) -> None:
    """Train, and write the artifact."""
    model, outcome = fit(config, dataset, log, ranks, None)
    score = plain_score(model, dataset, dataset.val, config)
    tell_end(config, outcome, score, log)
    if ranks.main:
        state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        encoded, _ = packed(config, state, dataset)
        header = artifact_header(config, dataset.tokenizer.spec())
        data = artifact_bytes(header, encoded, config.export.codec)
        out.write_bytes(data)
        size, code = len(data), Path(sys.argv[0]).stat().st_size
        sizes = {"artifact_bytes": size, "code_bytes": code, "total_bytes": size + code}
        log({"event": "export", "name": config.export.name} | sizes)
    ranks.barrier()


def tell_end(config: RunConfig, outcome: Outcome, score: PlainScore, log: Log) -> None:
    """Say how training ended, and the score of the weights as they are."""
    progress = outcome.progress
    if progress.step < config.schedule.steps:
        facts = {"step": progress.step, "steps": config.schedule.steps, "train_seconds": progress.train_seconds}
        log({"event": "stop", "reason": "wallclock_cap"} | facts)
    facts = progress_event("validation", progress, config.schedule)
    log(facts | {"loss": score.loss, "bpb": score.bpb, "final": True})


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
    facts = {"loss": score.loss, "bpb": score.bpb, "seconds": time.perf_counter() - started}
    log({"event": "score", "name": config.export.name} | facts)


def join() -> Ranks:
    """Join the ranks that torchrun started, if it did."""
    rank, size, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    ranks = Ranks(rank, max(size, 1), local)
    if ranks.size > 1:
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(ranks.local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    return ranks


def main() -> None:
    """Run the script."""
    try:
        ranks = join()
        config = configured(CONFIG, os.environ, ranks.size)
        config = in_dtype(config, pick_dtype(config.train.dtype, pick_device(config.train.device)))
        name = os.environ.get("RUN_ID") or f"seed{config.seed}"
        log = Log(config, ranks, Path("logs") / f"{name}.txt")
        dataset = open_shards(config, os.environ.get("TOKENIZER_PATH", ""))
        path = Path(os.environ.get("MODEL_SAVE_PATH") or "final_model.nib")
        if "--eval" not in sys.argv:
            train_and_pack(config, dataset, log, ranks, path)
        evaluate(config, dataset, log, path)
    except (NiblickError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    if ranks.size > 1:
        dist.destroy_process_group()
