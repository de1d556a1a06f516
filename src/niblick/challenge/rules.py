"""The rules of the Parameter Golf challenge in one place: cap, limits, shard header, environment names, log lines.

Source: the challenge's published scripts (March to April 2026). Nothing here is niblick's own choice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from niblick.facts.events import Event, Export, Scored, Start, Step, Stop, Validation, Warmup

CAP_BYTES = 16_000_000
"""Code and artifact together must not be larger."""

TRAIN_SECONDS = 600
"""Record track: seconds of training on 8×H100."""

EVAL_SECONDS = 600
"""Record track: seconds of scoring on 8×H100."""

GPUS = 8
"""Record track: GPUs."""

RECORD_NATS = 0.005
"""A record must beat the last one by so many nats per token of the same tokenizer."""

RECORD_BPB = 0.003
"""The same in bits per byte, for comparing across tokenizers: 0.005 nats per token of sp1024 are about so much."""

RECORD_P = 0.01
"""The probability of such runs, were that margin not there, must be below this."""

VALIDATION_DOCUMENTS = 50_000
"""The first documents of the challenge's cache are its validation split."""

SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_INTS = 256
"""A shard is 256 little-endian int32 (magic, version, number of tokens, zeros), then uint16 tokens."""

SHARD_TOKENS = 100_000_000
"""Tokens per shard; documents run on across shards of one split."""


def shard_name(split: str, number: int) -> str:
    """Return the file name of shard `number` of `split` ("train" or "val")."""
    return f"fineweb_{split}_{number:06d}.bin"


Config = dict[str, Any]
"""A run's config as plain data: its keys are the fields of `niblick.config.run_config.RunConfig`."""

Value = bool | int | float | str | None
"""What an environment variable says."""

Values = Mapping[str, Value]
"""Such values by the names of variables, or by dotted keys of a config."""


@dataclass(frozen=True)
class EnvName:
    """What an environment variable of the published scripts is in a config.

    `read` makes a value of its text, and `keys` (dotted; `*` is every level) take it, together with the fixed values in
    `also`. Where that does not say it all, `assign` gives values by key from all that was given and the config, and
    `value` reads it back from a config (None: it says nothing there). With a `refusal` it cannot be expressed.
    """

    keys: tuple[str, ...] = ()
    read: Callable[[str], Value] = str
    also: Values = field(default_factory=dict)
    assign: Callable[[Values, Config], Values] | None = None
    value: Callable[[Config], Value] | None = None
    refusal: str = ""


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?\d+", text):
        raise ValueError("an integer")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a number")
    return number


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _seconds(text: str) -> float | None:
    """The published scripts take 0 and less as no limit."""
    seconds = _number(text)
    return seconds if seconds > 0 else None


def _compile(text: str) -> str:
    return "always" if _flag(text) else "never"


def _divisor(text: str) -> str:
    return f"divisor:{_integer(text)}"


def _count(given: Values, name: str, usual: int) -> int:
    """An integer that was given, or else the usual one."""
    value = given.get(name, usual)
    assert isinstance(value, int), f"{name} is read as an integer"
    return value


def _batch(given: Values, config: Config) -> Values:
    """TRAIN_BATCH_TOKENS and TRAIN_SEQ_LEN; the micro-batch shrinks until whole ones make up the batch."""
    train = config["train"]
    seq_len = _count(given, "TRAIN_SEQ_LEN", train["seq_len"])
    batch = _count(given, "TRAIN_BATCH_TOKENS", train["batch_tokens"])
    values = {"train.batch_tokens": batch, "train.seq_len": seq_len}
    if "TRAIN_SEQ_LEN" in given:
        values["score.seq_len"] = seq_len  # the published scripts validate in windows of the same length
    if seq_len > 0 and batch > 0 and batch % seq_len == 0:  # else the config says what is wrong
        rows = batch // seq_len
        fits = max(1, min(rows, train["micro_batch_tokens"] // seq_len))
        values["train.micro_batch_tokens"] = seq_len * next(n for n in range(fits, 0, -1) if rows % n == 0)
    return values


def _eval_batch(given: Values, config: Config) -> Values:
    seq_len = _count(given, "TRAIN_SEQ_LEN", config["score"]["seq_len"])
    return {"score.batch_tokens": _count(given, "EVAL_BATCH_SEQS", 0) * seq_len}


def _depths(config: Config) -> tuple[int, int]:
    """Blocks in all, and those of encoder and decoder each; of the published shapes alone."""
    model = config["model"]
    levels = model["levels"]
    if len(levels) > 1:
        raise ValueError("NUM_LAYERS and OUTER_LAYERS describe one level, this model has more: set the layouts")
    stages = [model["main"], *(level[side] for level in levels for side in ("encoder", "decoder"))]
    depths = [re.fullmatch(r"T(\d*)", stage["layout"]) if stage else None for stage in stages]
    if not all(depths) or len({d[0] for d in depths[1:] if d}) > 1:
        raise ValueError("NUM_LAYERS and OUTER_LAYERS describe stages of transformer blocks alone: set the layouts")
    counts = [int(d[1] or 1) for d in depths if d]
    return sum(counts), counts[1] if levels else 0


def _layers(given: Values, config: Config) -> Values:
    """NUM_LAYERS is all blocks together; OUTER_LAYERS of them stand before the router and as many after it."""
    layers, outer = _depths(config)
    layers, outer = _count(given, "NUM_LAYERS", layers), _count(given, "OUTER_LAYERS", outer)
    if "OUTER_LAYERS" in given and not config["model"]["levels"]:
        raise ValueError("OUTER_LAYERS is a name of the H-Nets, and this model is dense: start from an H-Net preset")
    main = layers - 2 * outer
    if main < 1 or (outer < 1 and config["model"]["levels"]):
        raise ValueError(
            f"NUM_LAYERS={layers} with OUTER_LAYERS={outer} leaves {main} blocks in the middle: "
            "at least one block is needed in every stage"
        )
    sides = ("encoder", "decoder") if config["model"]["levels"] else ()
    return {"model.main.layout": f"T{main}"} | {f"model.levels.0.{side}.layout": f"T{outer}" for side in sides}


def _layers_of(config: Config) -> int | None:
    try:
        return _depths(config)[0]
    except ValueError:
        return None


def _outer_of(config: Config) -> int | None:
    try:
        return _depths(config)[1] or None
    except ValueError:
        return None


def _embedding(name: str, tied: bool) -> EnvName:
    """The published scripts have two rates for the embedding: one counts if it is tied, the other if it is not."""
    state = "TIE_EMBEDDINGS=1" if tied else "TIE_EMBEDDINGS=0"

    def assign(given: Values, config: Config) -> Values:
        if given.get("TIE_EMBEDDINGS", config["model"]["tie_embeddings"]) != tied:
            raise ValueError(f"{name} counts only with {state}, which is not so here: leave it out")
        return {"optim.embed_lr": given[name]}

    def value(config: Config) -> Value:
        return config["optim"]["embed_lr"] if config["model"]["tie_embeddings"] == tied else None

    return EnvName(("optim.embed_lr",), _number, assign=assign, value=value)


ENVIRONMENT: dict[str, EnvName] = {
    "RUN_ID": EnvName(refusal="runs are named after their preset and numbered"),
    "SEED": EnvName(("seed",), _integer),
    "DATA_PATH": EnvName(("data.path",)),
    "TOKENIZER_PATH": EnvName(
        refusal="the tokenizer comes with the data (`niblick data prepare --tokenizer FILE.model` puts it there)"
    ),
    "VOCAB_SIZE": EnvName(("model.vocab_size",), _integer),
    "ITERATIONS": EnvName(("schedule.steps",), _integer),
    "WARMUP_STEPS": EnvName(("train.warmup_steps",), _integer),
    "WARMDOWN_ITERS": EnvName(
        ("schedule.warmdown_steps",),
        _integer,
        also={"schedule.warmdown_share": None},
        value=lambda c: None if c["schedule"]["warmdown_share"] is not None else c["schedule"]["warmdown_steps"],
    ),
    "TRAIN_BATCH_TOKENS": EnvName(("train.batch_tokens", "train.micro_batch_tokens"), _integer, assign=_batch),
    "TRAIN_SEQ_LEN": EnvName(("train.seq_len", "score.seq_len"), _integer, assign=_batch),
    "MAX_WALLCLOCK_SECONDS": EnvName(
        ("schedule.max_seconds",), _seconds, value=lambda c: c["schedule"]["max_seconds"] or 0.0
    ),
    "VAL_BATCH_SIZE": EnvName(("score.batch_tokens",), _integer),
    "VAL_LOSS_EVERY": EnvName(("train.val_every",), _integer),
    "TRAIN_LOG_EVERY": EnvName(("train.log_every",), _integer),
    "NUM_LAYERS": EnvName(("model.main.layout",), _integer, assign=_layers, value=_layers_of),
    "MODEL_DIM": EnvName(("model.width",), _integer),
    "NUM_HEADS": EnvName(("model.heads",), _integer),
    "NUM_KV_HEADS": EnvName(("model.kv_heads",), _integer),
    "MLP_MULT": EnvName(("model.mlp_mult",), _number),
    "TIE_EMBEDDINGS": EnvName(("model.tie_embeddings",), _flag),
    "ROPE_BASE": EnvName(("model.rope_base",), _number),
    "LOGIT_SOFTCAP": EnvName(("model.softcap",), _number),
    "QK_GAIN_INIT": EnvName(("model.qk_gain",), _number),
    "EMBED_LR": _embedding("EMBED_LR", tied=False),
    "HEAD_LR": EnvName(("optim.head_lr",), _number),
    "TIED_EMBED_LR": _embedding("TIED_EMBED_LR", tied=True),
    "TIED_EMBED_INIT_STD": EnvName(("model.embed_std",), _number),
    "MATRIX_LR": EnvName(("optim.matrix_lr",), _number),
    "SCALAR_LR": EnvName(("optim.vector_lr",), _number),
    "MUON_MOMENTUM": EnvName(("optim.muon_momentum",), _number),
    "MUON_BACKEND_STEPS": EnvName(("optim.muon_iterations",), _integer),
    "MUON_MOMENTUM_WARMUP_START": EnvName(("optim.muon_momentum_start",), _number),
    "MUON_MOMENTUM_WARMUP_STEPS": EnvName(("optim.muon_momentum_steps",), _integer),
    "BETA1": EnvName(("optim.beta1",), _number),
    "BETA2": EnvName(("optim.beta2",), _number),
    "ADAM_EPS": EnvName(("optim.eps",), _number),
    "GRAD_CLIP_NORM": EnvName(("optim.grad_clip",), _number),
    "OUTER_LAYERS": EnvName(
        ("model.main.layout", "model.levels.*.encoder.layout", "model.levels.*.decoder.layout"),
        _integer,
        assign=_layers,
        value=_outer_of,
    ),
    "TARGET_AVG_CHUNK_LEN": EnvName(("model.levels.*.target_length",), _number),
    "RATIO_LOSS_WEIGHT": EnvName(("model.levels.*.ratio_weight",), _number),
    "HNET_LR_DIFF": EnvName(("model.levels.*.lr_diff",), _number),
    "CHUNK_DIVISOR": EnvName(
        ("model.levels.*.capacity",),
        _divisor,
        value=lambda c: next(
            (level["capacity"][8:] for level in c["model"]["levels"] if "divisor:" in level.get("capacity", "")), None
        ),
    ),
    "EVAL_STRIDE": EnvName(
        ("score.stride",),
        _integer,
        also={"score.scorer": "sliding"},
        value=lambda c: c["score"]["stride"] if c["score"]["scorer"] == "sliding" else None,
    ),
    "EVAL_BATCH_SEQS": EnvName(("score.batch_tokens",), _integer, assign=_eval_batch, value=lambda c: None),
    "EMA_DECAY": EnvName(
        ("train.ema_decay",),
        _number,
        also={"train.average": "ema"},
        value=lambda c: c["train"]["ema_decay"] if c["train"]["average"] == "ema" else None,
    ),
    "LATE_QAT_THRESHOLD": EnvName(("qat.lr_scale",), _number, value=lambda c: c["qat"]["lr_scale"] or None),
    "GPTQ_RESERVE_SECONDS": EnvName(("schedule.reserve_seconds",), _number),
    "GPTQ_CALIB_BATCHES": EnvName(refusal="calibration is counted in tokens: set export.calibration_tokens"),
    "PRUNE_PCT": EnvName(refusal="whether it is a share or a percentage, nobody says: set export.prune=0.03, say"),
    "CHECKPOINT_EVERY": EnvName(("train.checkpoint_every",), _integer),
    "COMPILE_MODEL": EnvName(
        ("train.compile",), _compile, value=lambda c: {"always": True, "never": False}.get(c["train"]["compile"])
    ),
    "MODEL_SAVE_PATH": EnvName(refusal="the weights lie in the run directory"),
}
"""The names of the published scripts, once for all who read or write them: `--env`, logs, submissions."""


def environment_values(given: Mapping[str, str], config: Config) -> dict[str, Value]:
    """Return what names of ENVIRONMENT with these texts are in `config`: values by dotted key.

    Raises ValueError, with a message for people, for a name that cannot be expressed or a text that does not fit.
    """
    read: dict[str, Value] = {}
    if refused := [name for name in given if ENVIRONMENT[name].refusal]:
        why = [ENVIRONMENT[name].refusal for name in refused]
        if len(refused) == 1:
            raise ValueError(f"{refused[0]} cannot be set here: {why[0]}; leave it out")
        reasons = "; ".join(f"{name}: {reason}" for name, reason in zip(refused, why, strict=True))
        raise ValueError(f"{' and '.join(refused)} cannot be set here ({reasons}): leave them out")
    for name, text in given.items():
        try:
            read[name] = ENVIRONMENT[name].read(text)
        except ValueError as error:
            raise ValueError(f"{name}={text} is not {error}") from None
    values: dict[str, Value] = {}
    for name, value in read.items():
        entry = ENVIRONMENT[name]
        if entry.assign:
            values |= entry.assign(read, config)
        else:
            values |= {key: value for pattern in entry.keys for key in _places(name, pattern, config)}
        values |= entry.also
    return values


def environment(config: Config) -> dict[str, Value]:
    """Return the config under the names of the published scripts: those that say something about it, with values."""
    found: dict[str, Value] = {}
    for name, entry in ENVIRONMENT.items():
        if not entry.refusal and (value := entry.value(config) if entry.value else _look_up(config, entry)) is not None:
            found[name] = value
    return found


def _places(name: str, pattern: str, config: Config) -> list[str]:
    """The keys of `config` that `pattern` names."""
    before, star, after = pattern.partition("*.")
    if not star:
        return [pattern]
    levels = config["model"]["levels"]
    if not levels:
        raise ValueError(f"{name} is a name of the H-Nets, and this model is dense: start from an H-Net preset")
    if after not in levels[0]:
        raise ValueError(f"{name} cannot be set here: levels have no {after}; leave it out")
    return [f"{before}{i}.{after}" for i in range(len(levels))]


def _look_up(config: Config, entry: EnvName) -> Value:
    if "*" in entry.keys[0] and not config["model"]["levels"]:
        return None
    node: Any = config
    for part in entry.keys[0].replace("*", "0").split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


def log_lines(event: Event) -> list[str]:
    """Render an event as lines of the challenge's own training log; events that it has no line for give none."""
    if isinstance(event, Start):
        return _start_lines(event)
    if isinstance(event, Warmup):
        return [f"warmup_step:{event.step}/{event.steps}"]
    if isinstance(event, Step | Validation):
        clock = 1000 * (event.train_seconds or 0.0)
        what = f"val_loss:{event.loss:.4f} val_bpb:{event.bpb:.4f}" if isinstance(event, Validation) else ""
        average = clock / max(event.step, 1)
        what = what or f"train_loss:{event.loss:.4f}"
        return [f"step:{event.step}/{event.steps} {what} train_time:{clock:.0f}ms step_avg:{average:.2f}ms"]
    if isinstance(event, Stop):
        clock = 1000 * (event.train_seconds or 0.0)
        return [f"stopping_early: {event.reason} train_time:{clock:.0f}ms step:{event.step}/{event.steps}"]
    if isinstance(event, Export):
        lines = [f"Serialized model {event.name}: {event.artifact_bytes} bytes"]
        if event.code_bytes is not None:
            lines.append(f"Code size: {event.code_bytes} bytes")
            lines.append(f"Total submission size {event.name}: {event.total_bytes} bytes")
        return lines
    if isinstance(event, Scored):
        name = f"final_{event.name.replace('-published', '').replace('+', '_')}_roundtrip"
        loss, bpb, clock = event.loss, event.bpb, 1000 * (event.seconds or 0.0)
        return [
            f"{name} val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:{clock:.0f}ms",
            f"{name}_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}",
        ]
    return []


def _start_lines(event: Start) -> list[str]:
    env = event.environment
    tied = env["TIE_EMBEDDINGS"]

    def line(*names: str) -> str:
        return " ".join(f"{name.lower()}:{env[name]}" for name in names)

    ranks = f"world_size:{event.ranks} grad_accum_steps:{event.accumulate}"
    lines = [f"model_params:{event.parameters}", ranks]
    if "OUTER_LAYERS" in env:
        lines.append(f"{line('OUTER_LAYERS')} main_layers:{env['NUM_LAYERS'] - 2 * env['OUTER_LAYERS']}")
    kind = "gqa" if env["NUM_KV_HEADS"] != env["NUM_HEADS"] else "mha"
    return [
        *lines,
        f"attention_mode:{kind} {line('NUM_HEADS', 'NUM_KV_HEADS')}",
        f"tie_embeddings:{tied} embed_lr:{env['TIED_EMBED_LR' if tied else 'EMBED_LR']} "
        f"head_lr:{0.0 if tied else env['HEAD_LR']} {line('MATRIX_LR')} scalar_lr:{env['SCALAR_LR']}",
        f"{line('TRAIN_BATCH_TOKENS', 'TRAIN_SEQ_LEN', 'ITERATIONS', 'WARMUP_STEPS')} "
        f"max_wallclock_seconds:{env['MAX_WALLCLOCK_SECONDS']:.3f}",
        line("SEED"),
    ]
