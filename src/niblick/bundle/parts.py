"""Settles from a config which entries of registries its script keeps, and which parts it leaves out.

Only what the config asks for is in the script. A part that is left out says so by name if it is asked for all the same,
as by an environment name; it never changes a number in silence.
"""

from __future__ import annotations

from niblick.bundle.reach import Names, Registries
from niblick.config.run_config import RunConfig
from niblick.model.model_config import is_soft, parse_layout
from niblick.pack.schemes import SchemeKind, kind_of, parse_rules, parse_scheme


def registries(config: RunConfig) -> Registries:
    """Registries of which only some entries are asked for: the script has no other block, router or codec.

    The block T and the router cosine stay: configs are made with them before others are put in their place.
    """
    model = config.model
    models = [model, *([model.entropy.model] if model.entropy else [])]
    stages = [(m, stage) for m in models for stage in m.stages()]
    levels = [level for m in models for level in m.levels]
    kinds = scheme_kinds(config)
    asked: dict[tuple[str, str], set[str]] = {
        ("niblick.model.layers", "BLOCKS"): {"T"} | {b for _, stage in stages for b in parse_layout(stage.layout)},
        ("niblick.model.mlp", "MLPS"): {str(stage.mlp or m.mlp) for m, stage in stages},
        ("niblick.model.routers", "ROUTERS"): {"cosine"} | {level.router for level in levels},
        ("niblick.model.level", "RATIO_LOSSES"): {level.ratio for level in levels},
        ("niblick.train.optim", "OPTIMIZERS"): {config.optim.name},
        ("niblick.train.guides", "GUIDES"): {config.train.init_from},
        ("niblick.train.regularizers", "PENALTIES"): {penalty.kind for penalty in config.train.penalties},
        ("niblick.pack.schemes", "KINDS"): {kind.name for kind in kinds},
        ("niblick.artifact.dequantize", "_DEQUANTIZERS"): {kind.reader for kind in kinds},
        ("niblick.artifact.codecs", "_CODECS"): {config.export.codec},
        ("niblick.score.sidecars", "ADJUSTERS"): {config.score.sidecar.name},
    }
    if config.entropy.artifact:  # whose codec and readers only its file knows
        del asked["niblick.artifact.codecs", "_CODECS"]
        del asked["niblick.artifact.dequantize", "_DEQUANTIZERS"]
    return {key: frozenset(values) for key, values in asked.items()}


def scheme_kinds(config: RunConfig) -> list[SchemeKind]:
    """Kinds of the schemes that a config names, and of those that small tensors and penalties have of their own."""
    texts = [config.export.scheme, config.qat.scheme, "fp32", "fp16"]
    texts += ["ternary"] * any(penalty.kind == "ternary" for penalty in config.train.penalties)
    schemes = [*map(parse_scheme, filter(None, texts)), *(rule.scheme for rule in parse_rules(config.export.rules))]
    return [kind_of(scheme) for scheme in schemes]


def left_out(config: RunConfig) -> Names:
    """Which parts a config does not use, by module: a row for each choice, what it turns off, and whether it does."""
    model, export, score = config.model, config.export, config.score
    models = [model, *([model.entropy.model] if model.entropy else [])]
    levels = [level for m in models for level in m.levels]
    routers = [level.router for level in levels]
    rows = (
        (export.gptq == "off", "run.packing calibrated", "pack.gptq by_gptq"),
        (not export.permute, "pack.permute permuted"),
        (not export.text, "run.packing packed_text", "run.loading known_text", "artifact.container parse_text"),
        (not export.residual.bytes, "pack.residuals add_residuals"),
        (not config.qat.on, "train.qat QAT", "train.settings QATConfig.__post_init__"),
        (not config.qat.on and not config.train.penalties, "train.qat rounded_parameters"),
        (not config.train.penalties, "train.regularizers Penalties"),
        (not config.train.init_from, "train.guides make_guide"),
        (config.train.average == "raw", "train.averaging Averages"),
        (config.data.packing == "stream", "data.loader document_windows"),
        (score.is_plain, "score.scorers score_split"),
        (not score.documents, "data.dataset first_documents"),
        (not score.ttt.optimizer, "score.ttt Adapter"),
        (not score.sidecar.name, "score.sidecars Sidecar"),
        (not model.ngrams, "model.ngrams hashed_table"),
        (not config.train.init_from and "whitespace" not in routers, "model.providers Whitespace"),
        (not model.entropy, "model.providers Entropy", "run.entropy load_small"),
        (not routers, "model.level Level SoftLevel"),
        (not any(map(is_soft, routers)), "model.level SoftLevel"),
        (all(map(is_soft, routers)), "model.level Level"),
        (
            not any(level.ahead_weight for level in levels),
            "model.lm ahead_loss",
            "model.level at_starts",
            "model.model_config _check_ahead",
        ),
        (model.vocab_size <= 260, "data.subwords SentencePieceTokenizer"),
        (True, *NEVER),
    )
    found: dict[str, set[str]] = {}
    for unused, *parts in rows:
        for part in parts if unused else ():
            module, *names = str(part).split()
            found.setdefault(f"niblick.{module}", set()).update(names)
    return {module: frozenset(names) for module, names in found.items()}


ROUTING = ("routers", "plain_routers", "taught_routers")
STEPS = "new_state step step_in step_hidden step_down step_up"
"""A submission trains and scores the text that it is given; it never generates token by token."""
SETTLED = {
    "score.score_config": "TTTConfig SidecarConfig",
    "pack.export_config": "ResidualConfig ExportConfig",
    "train.settings": "PenaltyConfig",
    "model.model_config": "NgramConfig",
}
"""Configs whose values no name of the environment changes: they were checked when the script was made."""
NEVER = (
    "train.checkpoint save_checkpoint load_checkpoint list_checkpoints",
    "train.loop _resumed _save _roll_back _not_finite",
    "train.watch Watch",
    "run.entropy resolve_entropy",
    "run.generate written",
    "run.prepared expect_parts_fit",
    "data.foreign_shards foreign_kind",
    "data.vocabularies Vocabulary decodes_only other_tokenizer",
    "data.json_tokenizers JsonTokenizer",
    *(f"{module} {name}.__post_init__" for module, names in SETTLED.items() for name in names.split()),
    *(
        f"model.{module} {STEPS}"
        for module in [
            "lm",
            "hnet",
            "level",
            "stage",
            "layers",
            "plain_routers",
            "routers",
            "conv",
            "mamba",
            "ngrams",
            "providers",
        ]
    ),
)
"""What no script does: checkpoints and the watch are for runs at home, its config is settled, and its text is no other
project's."""
FASTER_WITH = {"niblick.score.mixing_kernels": "numba"}
"""Packages that a module could do without, but no run has the time for that."""
