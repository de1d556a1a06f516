"""Presets: recipes by name. Each is a function that returns a RunConfig and reads like the description of a run."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from niblick.config.run_config import DataConfig, RunConfig
from niblick.errors import ConfigError, NiblickError, nearest
from niblick.files import imported_beside
from niblick.model.model_config import LevelConfig, ModelConfig, NgramConfig, StageConfig
from niblick.pack.export_config import ExportConfig
from niblick.score.score_config import ScoreConfig
from niblick.train.schedule import ScheduleConfig
from niblick.train.settings import OptimConfig, TrainConfig

PRESETS: dict[str, Callable[[], RunConfig]] = {}


def preset(recipe: Callable[[], RunConfig]) -> Callable[[], RunConfig]:
    """Register a recipe under its function's name, with dashes."""
    PRESETS[recipe.__name__.replace("_", "-")] = recipe
    return recipe


def get_preset(name: str) -> RunConfig:
    """Return the config of a preset. Raises ConfigError with the nearest names if there is none."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}{nearest(name, PRESETS)}: `niblick presets` lists them all")
    return PRESETS[name]()


def load_recipe(path: Path) -> RunConfig:
    """Run a user's recipe file and return what its `recipe()` gives. Raises ConfigError if that does not work.

    The file may register parts of its own before it returns (blocks, routers, codecs, schemes and so on), and import
    modules that lie beside it: they are kept with it in its runs and scripts.
    """
    if not path.is_file():
        raise ConfigError(f"there is no recipe file {path}")
    beside = imported_beside(path)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in (path, *beside.values()))).hexdigest()
    if digest not in _LOADED:
        _LOADED[digest] = _run_recipe(path, beside)
    return _LOADED[digest]


_LOADED: dict[str, RunConfig] = {}
"""Recipes by content: a file and its copy in a run register their parts once."""


def _run_recipe(path: Path, beside: dict[str, Path]) -> RunConfig:
    for name in {file.partition("/")[0].removesuffix(".py") for file in beside}:
        for known in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[known]  # of another recipe, which has what it needs of it
    sys.path.insert(0, str(path.resolve().parent))
    try:
        return _run(path)
    finally:
        sys.path.remove(str(path.resolve().parent))


def _run(path: Path) -> RunConfig:
    spec = importlib.util.spec_from_file_location("niblick_recipe", path)  # as in a script
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.recipe()
    except NiblickError:
        raise
    except Exception as error:
        raise ConfigError(f"recipe {path} fails: {type(error).__name__}: {error}") from error
    if not isinstance(config, RunConfig):
        raise ConfigError(f"recipe() of {path} returned {type(config).__name__}, expected a RunConfig")
    return config


@preset
def hnet_small() -> RunConfig:
    """The H-Net of the byte-against-subword study in small, without tables, for two CPU cores: 150 s, no GPU."""
    return RunConfig(
        preset="hnet-small",
        model=ModelConfig(
            width=128,
            heads=2,
            kv_heads=1,
            levels=(LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=6.0, ratio_weight=0.05),),
            main=StageConfig("T4"),
        ),
        data=DataConfig(order="shuffle"),
        train=TrainConfig(
            seq_len=256,
            batch_tokens=8_192,
            micro_batch_tokens=8_192,
            warmup_steps=0,
            val_every=0,
            log_every=20,
        ),
        schedule=ScheduleConfig(steps=20_000, max_seconds=150, warmdown_share=0.5),
        optim=OptimConfig(matrix_lr=0.02),
        score=ScoreConfig(seq_len=256, batch_tokens=16_384),
    )


@preset
def words_small() -> RunConfig:
    """An autoregressive U-Net in small: bytes, words, 2 words, 4 words; each level also tells of its next unit."""
    rule: dict[str, Any] = {"ratio_weight": 0.0, "dechunk": "plain", "confidence": False, "ahead_weight": 0.1}
    words = LevelConfig(StageConfig("T1"), StageConfig("T1"), router="whitespace", **rule)
    pairs = LevelConfig(StageConfig("T1"), None, router="fixed", target_length=2.0, **rule)
    small = hnet_small()
    model = replace(small.model, levels=(words, pairs, pairs), main=StageConfig("T2"))
    return replace(small, preset="words-small", model=model)


RECORD = ScheduleConfig(steps=20_000, max_seconds=600, warmdown_steps=1_200)
"""Ten minutes on 8×H100, as the challenge's record track."""


def _outer(layout: str, **level: Any) -> tuple[LevelConfig, ...]:
    """One level with the same stage before and after."""
    return (LevelConfig(StageConfig(layout), StageConfig(layout), **level),)


@preset
def hnet_byte260() -> RunConfig:
    """Study 1's byte-level H-Net: 9 layers of 512, one level, 17,455,176 parameters; 10 minutes on 8×H100."""
    return RunConfig(
        preset="hnet-byte260",
        model=ModelConfig(levels=_outer("T2", target_length=9.0, ratio_weight=0.05), main=StageConfig("T5")),
        schedule=RECORD,
    )


@preset
def hnet_sp1024() -> RunConfig:
    """Study 1's H-Net over subwords: 9 layers of 512, 2 key-value heads, 16,666,696 parameters."""
    return RunConfig(
        preset="hnet-sp1024",
        tokenizer="sp1024",
        model=ModelConfig(
            vocab_size=1024,
            kv_heads=2,
            levels=_outer("T2", target_length=12.0, ratio_weight=0.03),
            main=StageConfig("T5"),
        ),
        schedule=RECORD,
    )


@preset
def hnet_byte260_12l() -> RunConfig:
    """Study 2's byte-level H-Net: 12 layers, at most a chunk every 4 bytes, 22,966,880 parameters; 4 hours."""
    return RunConfig(
        preset="hnet-byte260-12l",
        model=ModelConfig(
            levels=_outer("T3", target_length=6.0, ratio_weight=0.05, capacity="divisor:4"), main=StageConfig("T6")
        ),
        train=TrainConfig(seq_len=2048),
        schedule=ScheduleConfig(steps=153_381, max_seconds=14_400, warmdown_steps=1_200),
        score=ScoreConfig(seq_len=2048),
    )


@preset
def hnet_sp1024_11l() -> RunConfig:
    """Study 2's H-Net over subwords: 11 layers, at most a chunk every 2 tokens, 21,520,472 parameters; 4 hours."""
    return RunConfig(
        preset="hnet-sp1024-11l",
        tokenizer="sp1024",
        model=ModelConfig(
            vocab_size=1024,
            levels=_outer("T3", target_length=6.0, ratio_weight=0.05, capacity="divisor:2"),
            main=StageConfig("T5"),
        ),
        train=TrainConfig(seq_len=2048),
        schedule=ScheduleConfig(steps=200_000, max_seconds=14_400, warmdown_steps=1_200),
        score=ScoreConfig(seq_len=2048),
    )


def _tinyhnet(name: str, **level: Any) -> RunConfig:
    return RunConfig(
        preset=name,
        model=ModelConfig(
            levels=(
                LevelConfig(
                    StageConfig("c3", skips=False),
                    StageConfig("c3", skips=False, norm_in=False),
                    target_length=4.0,
                    ratio="square",
                    ratio_weight=1.0,
                    entropy_weight=0.01,
                    dechunk="decay",
                    lr_diff=1.0,
                    **level,
                ),
            ),
            main=StageConfig("T9", mlp_mult=3.0, mlp="leaky_relu2", skips=False, residual_mix=False),
        ),
        train=TrainConfig(seq_len=512, batch_tokens=65_536, micro_batch_tokens=65_536),
        schedule=ScheduleConfig(steps=20_000, max_seconds=None, warmdown_steps=1_200),
        score=ScoreConfig(seq_len=512),
    )


@preset
def tinyhnet() -> RunConfig:
    """TinyHNet: convolutions around 9 transformer blocks, a gate blind to the language-model loss."""
    return _tinyhnet("tinyhnet", router="cosine-threshold", confidence=False)


@preset
def tinyhnet_ste() -> RunConfig:
    """TinyHNet whose gate and threshold learn from the language-model loss: confidence straight through."""
    return _tinyhnet("tinyhnet-ste", router="cosine-bias", confidence=True)


def _dense(name: str, tokenizer: str, model: ModelConfig) -> RunConfig:
    return RunConfig(preset=name, tokenizer=tokenizer, model=model, schedule=RECORD)


@preset
def baseline_sp1024() -> RunConfig:
    """The challenge's baseline: 9 dense blocks of 512 over 1024 subwords, 17,059,912 parameters."""
    return _dense("baseline-sp1024", "sp1024", ModelConfig(vocab_size=1024, main=StageConfig("T9")))


@preset
def soft_chunker_sp1024() -> RunConfig:
    """The baseline behind one soft chunker, which learned the identity there; 17,323,593 parameters."""
    chunker = LevelConfig(None, None, router="soft", ratio_weight=0.0, lr_diff=1.0)
    model = ModelConfig(vocab_size=1024, levels=(chunker,), main=StageConfig("T9", norm_in=False))
    return _dense("soft-chunker-sp1024", "sp1024", model)


@preset
def sp4096_nearcap() -> RunConfig:
    """The sprint's near-cap dense model over 4096 subwords: as many weights as the baseline, in 8 blocks."""
    # The baseline's 17.06 million weights fill the cap as int8 and zlib (15.86 MB, 0.93 bytes a weight). A vocabulary
    # of 4096 takes 1.57 million of them more; one block less gives 1.84 million back, and MLPs of 1056 instead of
    # 1024 hidden units use up the rest.
    return _dense("sp4096-nearcap", "sp4096", ModelConfig(vocab_size=4096, mlp_mult=2.0625, main=StageConfig("T8")))


@preset
def sp1024_9x512_residual() -> RunConfig:
    """The sprint's 9 blocks of 512, meant for export with targeted residuals; the model is the baseline's."""
    return _dense("sp1024-9x512-residual", "sp1024", ModelConfig(vocab_size=1024, main=StageConfig("T9")))


@preset
def sp1024_14x576() -> RunConfig:
    """The sprint's 14 blocks of 576: the best float score of its runs, and twice over the cap, as published."""
    return _dense("sp1024-14x576", "sp1024", ModelConfig(vocab_size=1024, width=576, main=StageConfig("T14")))


def _tables(tokens: range, words: range = range(0)) -> tuple[NgramConfig, ...]:
    """A table of hashed n-grams for each n, of tokens and of words."""
    both = [(n, False) for n in tokens] + [(n, True) for n in words]
    return tuple(NgramConfig(n, rows=65_536, width=32, words=of_words) for n, of_words in both)


BYTE_TABLES = _tables(range(2, 6), words=range(1, 4))
SUBWORD_TABLES = _tables(range(2, 6))
"""A few subwords reach as far as words do."""


FILLED = ExportConfig(scheme="ecsq4:column", codec="range", gptq="quantized")
"""Four bits a weight after range coding, rounded by what layers see: the form that lost least in docs/export.md."""


def _small(preset: str, tokenizer: str = "byte260", embed_lr: float = 0.05, **model: Any) -> RunConfig:
    """One block and tables on two CPU cores, in smaller steps than hnet-small; 150 s, no GPU."""
    plain = hnet_small()
    return replace(
        plain,
        preset=preset,
        tokenizer=tokenizer,
        model=replace(plain.model, main=StageConfig("T1"), **model),
        train=replace(plain.train, batch_tokens=4_096, micro_batch_tokens=4_096),
        optim=replace(plain.optim, embed_lr=embed_lr),
    )


@preset
def quickstart() -> RunConfig:
    """niblick-byte-small with chunks: a small byte-level H-Net with tables, for two CPU cores; 150 s, no GPU."""
    levels = _outer("c1", target_length=6.0, ratio_weight=0.05)
    return _small("quickstart", embed_lr=0.025, ngrams=BYTE_TABLES, levels=levels)


@preset
def niblick_byte_small() -> RunConfig:
    """Bytes at their best on two CPU cores: tables of n-grams and words, and one block; 150 s, no GPU."""
    return _small("niblick-byte-small", embed_lr=0.025, ngrams=BYTE_TABLES, levels=())


@preset
def dense_sp1024_small() -> RunConfig:
    """The rival of niblick-byte-small: a dense block over 1,024 lossless subwords, with tables too; 150 s."""
    return _small("dense-sp1024-small", "sp1024", vocab_size=1024, ngrams=SUBWORD_TABLES, levels=())


@preset
def niblick_byte() -> RunConfig:
    """Bytes at full size: tables, and chunks for eight blocks; 10 minutes on 8×H100, or one GPU.

    Its 30 million parameters fill the cap.
    """
    return RunConfig(
        preset="niblick-byte",
        model=ModelConfig(
            ngrams=BYTE_TABLES,
            levels=_outer("c2", target_length=6.0, ratio_weight=0.05),
            main=StageConfig("T8"),
        ),
        schedule=RECORD,
        export=FILLED,
    )


def _dense_rival(name: str, tokenizer: str, vocab_size: int, layers: int) -> RunConfig:
    """What the challenge's records taught, without the parts that did not pay in our trials (docs/recipes.md)."""
    return RunConfig(
        preset=name,
        tokenizer=tokenizer,
        model=ModelConfig(
            vocab_size=vocab_size,
            ngrams=SUBWORD_TABLES,
            main=StageConfig(f"T{layers}"),
        ),
        train=TrainConfig(average="ema"),
        schedule=RECORD,
        optim=OptimConfig(weight_decay=0.1),
        export=FILLED,
    )


@preset
def dense_sp1024() -> RunConfig:
    """The rival over 1,024 lossless subwords: dense, n-gram tables, EMA, weight decay, four bits by GPTQ."""
    return _dense_rival("dense-sp1024", "sp1024", 1024, 12)


@preset
def dense_sp8192() -> RunConfig:
    """The rival over 8,192 lossless subwords, as the records' vocabulary; two blocks make room for the embedding."""
    return _dense_rival("dense-sp8192", "sp8192", 8192, 10)
