"""What a run stands on: config, data and device, opened and checked in one place before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from niblick.challenge.tracks import check_track
from niblick.config.run_config import RunConfig, dotted, to_dict
from niblick.data.dataset import Dataset, Split
from niblick.data.tokenizers import Tokenizer
from niblick.errors import ConfigError
from niblick.model.counting import parameter_count
from niblick.model.lm import LM
from niblick.model.model_config import GIVEN
from niblick.pack.schemes import expect_matches, parse_rules
from niblick.recipes.presets import load_recipe
from niblick.recipes.trust import expect_trusted
from niblick.run.directory import Run
from niblick.run.entropy import entropy_guide, resolve_entropy
from niblick.score.score_config import ScoreConfig
from niblick.train.averaging import HOLDOUT_SHARE, HOLDOUT_TOKENS
from niblick.train.distributed import SINGLE, Ranks
from niblick.train.guides import Guide, make_guide
from niblick.train.precision import pick_device, pick_dtype
from niblick.train.qat import QAT
from niblick.train.regularizers import Penalties


@dataclass(frozen=True)
class Prepared:
    """Everything that training, packing and scoring of a run take; worked out once, by `prepare`."""

    config: RunConfig
    """Settled: the dtype, the micro-batch and an entropy threshold are chosen. On a processor passes may be shorter."""
    dataset: Dataset
    text: Split
    """What is trained on: the training split without what is held back."""
    holdout: Split | None
    """The end of the training split, for `train.average=best` to choose by."""
    device: torch.device
    guide: Guide | None
    """What `train.init_from` stands for."""


def prepare(
    config: RunConfig, ranks: Ranks = SINGLE, *, tokenizer: Tokenizer | None = None, settled: bool = False
) -> Prepared:
    """Open a config's data, settle what is open in it and check that all of it fits; nothing is written.

    `tokenizer` goes before what the data say of theirs. A `settled` config is one of a run that began before: its
    small model is in it already. Raises a NiblickError if config, track, data and ranks do not fit.
    """
    check_track(config.track, dotted(to_dict(config)))
    expect_reader(config)
    expect_chunks_fit(config)
    dataset = open_data(config, tokenizer)
    device = pick_device(config.train.device)
    ranks.expect_device(device)
    config = replace(config, train=config.train.fitting(ranks.size))
    text, holdout = held_back(dataset.train, config)
    if not settled:
        config = resolve_entropy(config, dataset)
        expect_parts_fit(config)
    # What this machine chooses holds from here on: the artifact says in which arithmetic it is scored.
    # Where ranks measured differently, one that found bfloat16 faster decides for all.
    dtype = pick_dtype(config.train.dtype, device)
    config = in_dtype(config, "bfloat16" if ranks.agree(dtype == "bfloat16")[0] else dtype)
    guide = make_config_guide(config, dataset)
    return Prepared(config, dataset, text, holdout, device, guide)


def expect_reader(config: RunConfig) -> None:
    """Raise ConfigError for a text in the artifact that no sidecar would read."""
    sidecar = config.score.sidecar
    if config.export.text and not sidecar.name:
        raise ConfigError(
            f"export.text={config.export.text} is for a sidecar to read before it scores, and there is none: set "
            "score.sidecar.name=mixture"
        )
    if config.export.text and sidecar.reset == "document":
        raise ConfigError(
            "score.sidecar.reset=document forgets the text of export.text with the first document: set "
            "score.sidecar.reset=carry"
        )


def expect_parts_fit(config: RunConfig) -> None:
    """Raise ConfigError for a model that cannot be made, that `compression_aware` refuses or that a rule does not fit.

    Most are counted without being made: a model without memory loads torch's compiler.
    """
    parameter_count(config.model)
    if config.qat.on or config.train.penalties or config.export.rules:
        with torch.device("meta"):
            model = LM(config.model)
            compression_aware(model, config)
        expect_matches(parse_rules(config.export.rules), model.state_dict())


def expect_chunks_fit(config: RunConfig) -> None:
    """Raise ConfigError for chunks that are to become longer than a window of training."""
    length = 1.0
    for i, level in enumerate(config.model.levels):
        if level.router not in (*GIVEN, "soft"):
            length *= max(level.target_length, level.target_start or 0.0)
        if length > config.train.seq_len:
            raise ConfigError(
                f"levels.{i} aims at chunks of {length:g} tokens, and train.seq_len={config.train.seq_len} is a whole "
                "window: lower the target_length (and target_start) of the levels, or train on longer windows"
            )


def parameters(model: LM) -> int:
    """Number of weights; tied ones count once."""
    return sum(p.numel() for p in model.parameters())


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
    """Return the dataset with what `score.documents` leaves of its validation split.

    Raises DataError if its tokens are not those of the stream hash that scores of it say.
    """
    val = dataset.val
    if config.documents:
        val = val.first_documents(config.documents, dataset.tokenizer)
    if val is not dataset.val:  # a part, whose hash was made of its tokens just now
        return replace(dataset, val=val)
    val.expect_stream()
    return dataset


def bytes_per_token(dataset: Dataset) -> float:
    """Bytes that a token of the training text stands for on average, from its first million tokens."""
    sample = dataset.train.slice(0, min(dataset.train.tokens, 1_000_000))
    return float(dataset.tokenizer.token_bytes(sample[:-1], sample[1:]).mean())


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


def config_of(run: Run) -> RunConfig:
    """Return the config of a run, after loading the recipe it came from: that may register parts the config names.

    Raises ConfigError for a recipe that is not this user's own, nor trusted; it is not run then.
    """
    if run.recipe.is_file():
        expect_trusted(run.recipe)
        load_recipe(run.recipe)
    return run.config()


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
