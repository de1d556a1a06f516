"""Environment names of the published scripts: every entry of the table, there and back, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from niblick.challenge import rules
from niblick.config.run_config import RunConfig, apply_environment, override, to_dict
from niblick.errors import ConfigError
from niblick.facts.event_lines import read_event
from niblick.recipes.presets import get_preset


def applied(text: str, preset: str = "hnet-byte260", *before: str) -> RunConfig:
    return apply_environment(override(get_preset(preset), before), text)


def look_up(config: RunConfig, key: str) -> Any:
    node: Any = to_dict(config)
    for part in key.split("."):
        node = node[int(part)] if isinstance(node, list) else node[part]
    return node


# Name and value as people write them; what the config then holds.
ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {
    "SEED": ("42", {"seed": 42, "data.seed": None}),
    "DATA_PATH": ("./data/datasets/fineweb10B_byte260", {"data.path": "./data/datasets/fineweb10B_byte260"}),
    "VOCAB_SIZE": ("1024", {"model.vocab_size": 1024}),
    "ITERATIONS": ("2000", {"schedule.steps": 2000}),
    "WARMUP_STEPS": ("3", {"train.warmup_steps": 3}),
    "WARMDOWN_ITERS": ("3500", {"schedule.warmdown_steps": 3500, "schedule.warmdown_share": None}),
    "TRAIN_BATCH_TOKENS": ("65536", {"train.batch_tokens": 65536, "train.micro_batch_tokens": 65536}),
    "TRAIN_SEQ_LEN": ("2048", {"train.seq_len": 2048, "score.seq_len": 2048, "train.batch_tokens": 524_288}),
    "MAX_WALLCLOCK_SECONDS": ("0", {"schedule.max_seconds": None}),
    "VAL_BATCH_SIZE": ("8192", {"score.batch_tokens": 8192}),
    "VAL_LOSS_EVERY": ("0", {"train.val_every": 0}),
    "TRAIN_LOG_EVERY": ("50", {"train.log_every": 50}),
    "NUM_LAYERS": ("12", {"model.main.layout": "T8", "model.levels.0.encoder.layout": "T2"}),
    "MODEL_DIM": ("256", {"model.width": 256}),
    "NUM_HEADS": ("4", {"model.heads": 4}),
    "NUM_KV_HEADS": ("2", {"model.kv_heads": 2}),
    "MLP_MULT": ("3", {"model.mlp_mult": 3}),
    "TIE_EMBEDDINGS": ("0", {"model.tie_embeddings": False}),
    "ROPE_BASE": ("50000", {"model.rope_base": 50000}),
    "LOGIT_SOFTCAP": ("15.5", {"model.softcap": 15.5}),
    "QK_GAIN_INIT": ("4", {"model.qk_gain": 4}),
    "EMBED_LR": ("0.6", {"optim.embed_lr": 0.6}),
    "HEAD_LR": ("0.01", {"optim.head_lr": 0.01}),
    "TIED_EMBED_LR": ("0.035", {"optim.embed_lr": 0.035}),
    "TIED_EMBED_INIT_STD": ("0.01", {"model.embed_std": 0.01}),
    "MATRIX_LR": ("0.025", {"optim.matrix_lr": 0.025}),
    "SCALAR_LR": ("0.025", {"optim.vector_lr": 0.025}),
    "MUON_MOMENTUM": ("0.99", {"optim.muon_momentum": 0.99}),
    "MUON_BACKEND_STEPS": ("4", {"optim.muon_iterations": 4}),
    "MUON_MOMENTUM_WARMUP_START": ("0.92", {"optim.muon_momentum_start": 0.92}),
    "MUON_MOMENTUM_WARMUP_STEPS": ("1500", {"optim.muon_momentum_steps": 1500}),
    "BETA1": ("0.8", {"optim.beta1": 0.8}),
    "BETA2": ("0.99", {"optim.beta2": 0.99}),
    "ADAM_EPS": ("1e-10", {"optim.eps": 1e-10}),
    "GRAD_CLIP_NORM": ("0.3", {"optim.grad_clip": 0.3}),
    "OUTER_LAYERS": (
        "1",
        {
            "model.main.layout": "T7",
            "model.levels.0.encoder.layout": "T1",
            "model.levels.0.decoder.layout": "T1",
        },
    ),
    "TARGET_AVG_CHUNK_LEN": ("6", {"model.levels.0.target_length": 6}),
    "RATIO_LOSS_WEIGHT": ("0.03", {"model.levels.0.ratio_weight": 0.03}),
    "HNET_LR_DIFF": ("0.85", {"model.levels.0.lr_diff": 0.85}),
    "CHUNK_DIVISOR": ("4", {"model.levels.0.capacity": "divisor:4"}),
    "EVAL_STRIDE": ("64", {"score.stride": 64, "score.scorer": "sliding"}),
    "EVAL_BATCH_SEQS": ("8", {"score.batch_tokens": 8192}),
    "EMA_DECAY": ("0.99", {"train.ema_decay": 0.99, "train.average": "ema"}),
    "GPTQ_RESERVE_SECONDS": ("45", {"schedule.reserve_seconds": 45.0}),
    "LATE_QAT_THRESHOLD": ("0.2", {"qat.lr_scale": 0.2}),
    "CHECKPOINT_EVERY": ("100", {"train.checkpoint_every": 100}),
    "COMPILE_MODEL": ("0", {"train.compile": "never"}),
}
REFUSED = {name for name, entry in rules.ENVIRONMENT.items() if entry.refusal}


def test_every_name_of_the_scripts_is_in_the_table(shared: Path) -> None:
    text = (
        (shared / "SYSTEMS.md").read_text().partition("## Names that others use")[2].partition("`submission.json`")[0]
    )
    names = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\b(?:SEED|ITERATIONS|BETA1|BETA2)\b", text))
    assert names == rules.ENVIRONMENT.keys()
    assert rules.ENVIRONMENT.keys() == ENTRIES.keys() | REFUSED


@pytest.mark.parametrize("name", ENTRIES)
def test_entry(name: str) -> None:
    text, expected = ENTRIES[name]
    before = ["model.tie_embeddings=false"] if name == "EMBED_LR" else ["model.heads=8"]
    levels = to_dict(get_preset("hnet-byte260"))["model"]["levels"]
    if name == "CHUNK_DIVISOR" and "capacity" not in levels[0]:
        with pytest.raises(ConfigError, match="CHUNK_DIVISOR cannot be set here"):
            applied("CHUNK_DIVISOR=4")
        return
    config = applied(f"{name}={text}", "hnet-byte260", *before)
    assert {key: look_up(config, key) for key in expected} == expected
    back = rules.environment(to_dict(config))
    if name not in ("EVAL_BATCH_SEQS",):
        assert rules.ENVIRONMENT[name].read(str(int(b) if isinstance(b := back[name], bool) else b)) == (
            rules.ENVIRONMENT[name].read(text)
        )


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_names_that_cannot_be_expressed(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} cannot be set here: .*; leave it out"):
        applied(f"{name}=1")


PASTED = """\
export RUN_ID=one \\
DATA_PATH=./data/x/ \\\r
TOKENIZER_PATH='./some where/x.model' \\
TRAIN_SEQ_LEN=512 \\
torchrun --standalone --nproc_per_node=8 train_gpt.py
"""


def test_a_pasted_command_line() -> None:
    with pytest.raises(ConfigError, match=r"RUN_ID and TOKENIZER_PATH cannot be set here \(RUN_ID: .*leave them out"):
        applied(PASTED)
    kept = "\n".join(line for line in PASTED.splitlines() if "RUN_ID" not in line and "TOKENIZER" not in line)
    config = applied(kept)
    assert (config.data.path, config.train.seq_len) == ("./data/x/", 512)
    assert applied("TRAIN_SEQ_LEN=512 \\").train.seq_len == 512


def test_a_whole_line() -> None:
    config = applied(
        "ITERATIONS=200 TRAIN_BATCH_TOKENS=24576 TRAIN_SEQ_LEN=512 NUM_LAYERS=12 OUTER_LAYERS=5 "
        "MODEL_DIM=128 NUM_HEADS=2 NUM_KV_HEADS=1 DATA_PATH='my data' EVAL_BATCH_SEQS=4"
    )
    assert (config.train.batch_tokens, config.train.micro_batch_tokens, config.train.seq_len) == (24576, 24576, 512)
    assert (config.model.main.layout, config.score.batch_tokens, config.data.path) == ("T2", 2048, "my data")
    assert applied("TRAIN_BATCH_TOKENS=196608").train.micro_batch_tokens == 65_536
    assert applied("TRAIN_BATCH_TOKENS=102400").train.micro_batch_tokens == 51_200


def test_there_and_back() -> None:
    config = get_preset("hnet-byte260")
    named = rules.environment(to_dict(config))
    assert named["NUM_LAYERS"] == 9
    assert named["OUTER_LAYERS"] == 2
    assert json.loads(json.dumps(named)) == named
    text = " ".join(f"{k}={int(v) if isinstance(v, bool) else v}" for k, v in named.items() if k != "DATA_PATH")
    assert applied(text) == config
    assert "WARMDOWN_ITERS" not in rules.environment(to_dict(get_preset("hnet-small")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ITERATION=3", ["unknown environment name ITERATION", "nearest: ITERATIONS"]),
        ("ITERATIONS=many", ["ITERATIONS=many is not an integer"]),
        ("MATRIX_LR=nan", ["MATRIX_LR=nan is not a number"]),
        ("TIE_EMBEDDINGS=yes", ["TIE_EMBEDDINGS=yes is not 0 or 1"]),
        ("ITERATIONS", ["'ITERATIONS' sets nothing", "NAME=VALUE"]),
        ("DATA_PATH='half", ["cannot be read"]),
        ("EMBED_LR=0.6", ["EMBED_LR counts only with TIE_EMBEDDINGS=0"]),
        ("NUM_LAYERS=4", ["NUM_LAYERS=4 with OUTER_LAYERS=2"]),
        ("TRAIN_BATCH_TOKENS=1000", ["train.batch_tokens=1000 must be a multiple"]),
        ("NUM_HEADS=7", ["heads=7 do not divide"]),
    ],
)
def test_mistakes(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        applied(text)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ["OUTER_LAYERS", "TARGET_AVG_CHUNK_LEN"])
def test_names_of_h_nets_on_a_dense_model(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is a name of the H-Nets, and this model is dense"):
        applied(f"{name}=2", "hnet-byte260", "model.levels=[]")


def test_log_lines_are_those_of_the_scripts(shared: Path) -> None:
    """The head of a published log, from our config of the same run."""
    log = (
        (shared / "data" / "logs" / "HNet_ByteVsSubword_Study__train_byte260_best_10_min.txt").read_text().splitlines()
    )
    env = rules.environment(to_dict(get_preset("hnet-byte260")))
    event = {"event": "start", "parameters": 17_455_176, "accumulate": 1, "environment": env}
    for line in rules.log_lines(read_event(event)):
        assert line.replace("world_size:1 ", "world_size:8 ") in log
