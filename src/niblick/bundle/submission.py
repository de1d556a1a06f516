"""The script of a config: `niblick.script` with the config written into it and everything else taken out.

What follows from a config, beyond the values in it, is said here: which blocks, routers and codecs will be asked for,
which functions can be called at once, and what a submission never does.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import json
import os
import re
import sys
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import torch

from niblick import challenge
from niblick.bundle import ENTRY, CodeSize, build, config_facts, join, modules_of
from niblick.bundle.facts import Facts
from niblick.bundle.trees import literal
from niblick.bundle.writing import wrapped
from niblick.config import RunConfig, run_config, to_dict
from niblick.errors import ConfigError
from niblick.files import write_bytes
from niblick.model.lm import LM
from niblick.model.stage import StageConfig, parse_layout
from niblick.pack.quantize import schemes_of
from niblick.pack.schemes import Scheme

COMPUTED = frozenset(
    {
        ("niblick.pack.schemes", "parse_scheme"),
        ("niblick.pack.schemes", "parse_rules"),
        ("niblick.model.routers", "is_soft"),
        ("niblick.pack.quantize", "on_a_grid"),
    }
)
CHECKS = frozenset(
    {
        ("niblick.artifact.container", "_check_header"),
        ("niblick.artifact.container", "_check_readable"),
        ("niblick.artifact.container", "_check_sizes"),
        ("niblick.artifact.dequantize", "expect_parts"),
    }
)
"""A script reads no artifact but its own."""
COVERED = frozenset(
    {
        "niblick.model.stage.StageConfig.block_config",
        "niblick.model.level.LevelConfig.block_config",
        "niblick.score.plan.ScoreConfig.plain",
        "niblick.script",
        "niblick.script.changed",
        "niblick.script.configured",
        "niblick.script.main",
        "niblick.pipeline.in_dtype",
    }
)
"""They put together configs from what is open, or what is listed."""
LEFT_OUT = (
    frozenset(f"*.{name}" for name in ("new_state", "step_hidden", "step_down", "step_up"))
    | frozenset(
        f"niblick.model.{cls}.step"
        for cls in (
            "lm.LM",
            "hnet.HNet",
            "stage.Stage",
            "stage.Passthrough",
            "routers.Router",
            "routers.FixedRouter",
            "layers.Attention",
            "layers.TransformerBlock",
            "layers.ConvBlock",
            "ngrams.NgramEmbedding",
            "ngrams.WordEmbedding",
            "providers.Whitespace",
            "providers.Entropy",
        )
    )
    | {"*.check_vocabulary", "*._expect_each_once", "niblick.pack.schemes.Scheme.__str__"}
)
"""A submission trains and scores the text that it is given; it never generates, and says nothing of schemes."""


def make_script(config: RunConfig, recipe: Path | None = None) -> CodeSize:
    """Return the script that trains, packs and scores a config. Raises ConfigError if it cannot be one file.

    The recipe must have been loaded: what it registers is in use.
    """
    return _made(json.dumps(to_dict(config), sort_keys=True), recipe, recipe.stat().st_mtime_ns if recipe else 0)


@functools.lru_cache(maxsize=32)
def _made(text: str, recipe: Path | None, changed: int) -> CodeSize:
    config = for_submission(run_config(json.loads(text)))
    entry = importlib.import_module(ENTRY)
    names, baked = environment(config, {name: key for name, (_, key) in entry.ENVIRONMENT.items()})
    parts, classes = _skeleton(config, names, recipe)
    parts = dict(parts)
    parts["about"] = (
        f'"""{config.preset}: trains, packs and scores a language model; made by `niblick submit`.\n\n{USE}"""\n\n'
    )
    written = literal(config, lambda cls: classes[f"{cls.__module__}:{cls.__qualname__}"])
    if written is None:
        raise ConfigError("the config holds values that cannot be written down: give numbers, texts and tuples")
    for name, value in (("CONFIG", written), ("BAKED", repr(baked))):
        own = "\n".join(wrapped(ast.unparse(ast.parse(f"{name} = {value}")), 0))
        place = re.compile(rf"^{name}(: [^=]+)? = .*?\n(?=\n|[^\s)}}\]])", re.MULTILINE | re.DOTALL)
        if len(place.findall(parts[ENTRY])) != 1:
            raise ConfigError(f"{ENTRY} has no single {name} to write the config into: the package is damaged")
        parts[ENTRY] = place.sub(lambda found, own=own: own + "\n", parts[ENTRY])  # type: ignore[misc]
    return join(parts)


def _skeleton(config: RunConfig, names: dict[str, str], recipe: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """The script of all configs that differ only in what the environment can set; kept, as it takes seconds to make."""
    plain = _plain(config, names)
    files = modules_of(Path(__file__).parents[1])
    sources = [*files.values(), *(sorted(recipe.parent.glob("**/*.py")) if recipe else [])]
    digest = hashlib.sha256(
        json.dumps([to_dict(plain), names, sys.version_info[:2], str(recipe and recipe.name)]).encode()
    )
    for path in sources:
        digest.update(path.read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "niblick"
    kept = folder / f"{digest.hexdigest()}.json"
    if kept.is_file():
        with contextlib.suppress(OSError, ValueError):
            parts, classes = json.loads(kept.read_text(encoding="utf-8"))
            return parts, classes
    made = build(files, ENTRY, facts_of(plain, names), {"CONFIG": plain, "BAKED": {}}, recipe, about="about")
    with contextlib.suppress(OSError):  # without a place to keep it, it is made again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(kept, json.dumps(made).encode())
    return made


def _plain(config: RunConfig, names: dict[str, str]) -> RunConfig:
    """The config with all that can be set from outside at its default."""
    defaults: dict[str, Any] = {"preset": "", "tokenizer": ""}
    for key in sorted(_opened(names)):
        owners, last = _owners(config, key)
        for field in fields(owners[0]) if owners else ():
            if field.name == last and field.default is not MISSING:
                defaults[key] = field.default
    try:
        return set_values(config, defaults)
    except ConfigError:  # some of them hang together
        return set_values(config, {"preset": "", "tokenizer": ""})


def set_values(value: Any, settings: dict[str, Any], key: str = "") -> Any:
    """Return a config with some values, by dotted key, replaced."""
    return importlib.import_module(ENTRY).changed(value, settings, key)


USE = """    python train_gpt.py                                      train, pack, score
    torchrun --standalone --nproc_per_node=8 train_gpt.py    the same on 8 GPUs
    python train_gpt.py --eval                               score the artifact final_model.nib

DATA_PATH names a folder with the challenge's shards. ENVIRONMENT below lists what else can be set.
Shapes in names: B batch, L positions, C chunks, D width, H heads, G key-value heads, K head width, V vocabulary.
"""


def reads_another_file(config: RunConfig) -> bool:
    """Whether training starts from a file besides data and code, which no submission has."""
    guide = config.train.init_from
    return guide == "entropy" or guide.startswith("bpe:")


def for_submission(config: RunConfig) -> RunConfig:
    """The config without what belongs to one machine. Raises ConfigError for what needs files that no folder has."""
    if reads_another_file(config):
        raise ConfigError(
            f"train.init_from={config.train.init_from} reads a file besides data and code, and a submission has none: "
            "leave it out, or start from train.init_from=whitespace"
        )
    entropy = replace(config.entropy, artifact="entropy.nib") if config.entropy.artifact else config.entropy
    # Checkpoints, and watching over them, are for runs at home.
    train = replace(config.train, checkpoint_every=0, rollback=False, device="auto")
    return replace(config, track="", entropy=entropy, train=train, data=replace(config.data, path="data"))


def environment(config: RunConfig, keys: dict[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the challenge's names that can be set from outside, with their keys; and the others, with values."""
    known = challenge.environment(to_dict(config))
    tied, levels = config.model.tie_embeddings, config.model.levels
    absent = {"EMBED_LR" if tied else "TIED_EMBED_LR"}
    absent |= {"HEAD_LR"} if tied else set()
    absent |= set() if levels else {name for name, key in keys.items() if "*" in key}
    absent |= {"WARMDOWN_ITERS"} if config.schedule.warmdown_share is not None else set()
    if any(level.ratio_weight == 0 for level in levels):
        absent |= {"RATIO_LOSS_WEIGHT"}
    names = {name: key for name, key in keys.items() if name not in absent}
    baked = {name: value for name, value in known.items() if name not in keys and name not in ("EVAL_BATCH_SEQS",)}
    baked.pop("CHECKPOINT_EVERY", None)
    if tied:
        baked["HEAD_LR"] = config.optim.head_lr
    return names, baked


def facts_of(config: RunConfig, names: dict[str, str]) -> Facts:
    """What the config settles, where the challenge's `names` leave open what they set."""
    model = config.model
    blocks = [model, *(level.block_config(model) for level in model.levels)]
    for level in model.levels:
        own = level.block_config(model)
        blocks += [stage.block_config(own) for stage in (level.encoder, level.decoder) if stage]
    blocks.append(model.main.block_config(model))
    with torch.device("meta"):
        state = LM(model).state_dict()
    # Of which size each tensor is may be set from outside: small ones are kept as floats.
    small = [Scheme("fp16"), Scheme("fp32")]
    schemes = list(dict.fromkeys([*schemes_of(state, config.export).values(), *small]))
    widths = [StageConfig("T", width=level.width) for level in model.levels]  # as LevelConfig.block_config makes them
    configs = config_facts([config, config.score.plain(), *blocks, *widths, *schemes])
    plain = [replace(level, capacity=config.score.capacity) for level in model.levels if config.score.capacity]
    if plain:
        configs[("niblick.model.level", "LevelConfig")] += tuple(plain)
    return Facts(
        configs=configs,
        open_fields=frozenset(_fields(config, _opened(names))),
        registries=registries(config, list(names), schemes),
        computed=COMPUTED,
        covered=COVERED,
        left_out=LEFT_OUT,
        checks=CHECKS,
        kept=frozenset({("niblick.errors", "TrainingError")}),
        told=frozenset({"emit", "log"}),
        trusted=frozenset(modules_of(Path(__file__).parents[1])) - {ENTRY},
    )


def _opened(names: dict[str, str]) -> set[str]:
    """Keys that are settled only when the script runs."""
    return {*names.values(), "train.micro_batch_tokens", "score.seq_len", "train.dtype", "data.path", "preset"}


def _owners(config: Any, key: str) -> tuple[list[Any], str]:
    """The objects that a dotted key means a field of, and the field."""
    *path, last = key.split(".")
    owners = [config]
    for part in path:
        owners = [item for owner in owners for item in (owner if part == "*" else [getattr(owner, part)])]
    return owners, last


def _fields(config: Any, keys: set[str]) -> set[tuple[tuple[str, str], str]]:
    """(class, field) of dotted keys, at each class that has the field."""
    found = set()
    for key in keys:
        owners, last = _owners(config, key)
        for owner in owners:
            for cls in type(owner).__mro__:
                if last in getattr(cls, "__dataclass_fields__", {}):
                    found.add(((cls.__module__, cls.__qualname__), last))
    return found


def registries(config: RunConfig, names: list[str], schemes: list[Any]) -> dict[tuple[str, str], frozenset[str]]:
    """Of which registries only some entries will be asked for."""
    model = config.model
    models = [model, *([model.entropy.model] if model.entropy else [])]
    stages = [(m, stage) for m in models for stage in m.stages()]
    stored = {
        "int8" if s.kind.startswith("int8") else s.kind if s.kind in ("fp16", "fp32", "bf16") else "grid"
        for s in schemes
    }
    levels = [level for m in models for level in m.levels]
    asked: dict[tuple[str, str], set[str]] = {
        ("niblick.model.layers", "BLOCKS"): {letter for _, stage in stages for letter in parse_layout(stage.layout)},
        ("niblick.model.mlp", "MLPS"): {str(stage.mlp or m.mlp) for m, stage in stages},
        ("niblick.model.routers", "ROUTERS"): {level.router for level in levels},
        ("niblick.model.level", "RATIO_LOSSES"): {level.ratio for level in levels},
        ("niblick.train.optim", "OPTIMIZERS"): {config.optim.name},
        ("niblick.train.guides", "GUIDES"): {config.train.init_from},
        ("niblick.train.regularizers", "PENALTIES"): {penalty.kind for penalty in config.train.penalties},
        ("niblick.artifact.codecs", "_CODECS"): {config.export.codec},
        ("niblick.artifact.dequantize", "_DEQUANTIZERS"): stored | ({"grid"} if config.qat.on else set()),
        ("niblick.score.sidecars", "ADJUSTERS"): {config.score.sidecar.name},
        ("niblick.train.precision", "DTYPES"): {"bfloat16", "float32"},
        ("niblick.script", "ENVIRONMENT"): set(names),
    }
    return {key: frozenset(values) for key, values in asked.items()}
