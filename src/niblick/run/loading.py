"""Making models: untrained from a config and a seed, or trained out of an artifact file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from niblick.artifact.container import Artifact, read_artifact
from niblick.artifact.packed_text import PackedText
from niblick.config.run_config import model_config, score_config
from niblick.data.dataset import Dataset
from niblick.data.hub import TOKENIZER_FILE
from niblick.data.tokenizers import Tokenizer, make_tokenizer
from niblick.errors import ArtifactError, ConfigError
from niblick.memory import keep_freed_memory
from niblick.model.counting import parameter_count
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig
from niblick.score.score_config import ScoreConfig
from niblick.train.checkpoint import load_weights
from niblick.train.precision import DTYPES

if TYPE_CHECKING:
    from niblick.score.known_text import KnownText


def build_model(config: ModelConfig, seed: int) -> LM:
    """Return the untrained model of a seed, on the CPU: the same weights every time."""
    keep_freed_memory()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LM(config)


def load_artifact(path: Path) -> tuple[LM, Artifact]:
    """Read an artifact back: the model as anyone would get it. Raises ArtifactError if it does not hold one."""
    artifact = read_artifact(path)
    try:
        config = model_config(artifact.config["model"])
        tokens = artifact.config["tokenizer"]["vocab_size"]
    except (KeyError, TypeError, ConfigError) as error:
        raise ArtifactError(f"{path} does not say which model it holds: {error}") from error
    if tokens != config.vocab_size:
        raise ArtifactError(f"{path} names a tokenizer of {tokens} tokens for a model of {config.vocab_size}")
    expect_weights(config, artifact, path)
    model = build_model(config, seed=0)
    load_weights(model, artifact.state_dict(), path)
    return model, artifact


def expect_weights(config: ModelConfig, artifact: Artifact, path: Path) -> None:
    """Raise ArtifactError for a model of more weights than the artifact holds, before any of its size is made."""
    try:
        count = parameter_count(config)
    except ConfigError as error:
        raise ArtifactError(f"{path} does not say which model it holds: {error}") from error
    held = sum(tensor.elements for tensor in artifact.encoded.values())
    if count > held:
        raise ArtifactError(f"{path} declares a model of {count:,} weights and holds {held:,}: export it again")


def declared_score(artifact: Artifact, path: Path) -> tuple[ScoreConfig, str]:
    """Return how an artifact says that it is scored, and in which dtype. Raises ArtifactError if it does not."""
    given = artifact.config.get("score")
    dtype = given.get("dtype") if isinstance(given, dict) else None
    if not isinstance(given, dict) or dtype not in ("auto", *DTYPES):
        raise ArtifactError(f"{path} does not say how its model is scored, and in which dtype: export it again")
    try:
        return score_config({key: value for key, value in given.items() if key != "dtype"}), dtype
    except ConfigError as error:
        raise ArtifactError(f"{path} does not say how its model is scored: {error}") from error


def known_text(text: PackedText | None, vocab_size: int) -> KnownText | None:
    """Return an artifact's text for a sidecar to read, None where it holds none."""
    if text is None:
        return None
    from niblick.score.known_text import KnownText  # which compiles: only where it is used

    return KnownText(text, vocab_size)


def expect_tokenizer(artifact: Artifact, dataset: Dataset, path: Path) -> None:
    """Raise ConfigError unless the data is made of the tokens that the artifact was trained on.

    The tokenizer itself comes with the data. Its name may differ (files are renamed), what it does may not: kind,
    vocabulary, control tokens and the SHA-256 of its model, as far as the artifact states them.
    """
    stated, found = artifact.config["tokenizer"], dataset.tokenizer.spec()
    for key in ("kind", "vocab_size", "bos_id", "model_sha256"):
        if key in stated and stated[key] != found.get(key):
            name = stated.get("name", "another tokenizer")
            raise ConfigError(
                f"{dataset.directory} is tokenized by {dataset.tokenizer.name}, {path} was trained on tokens of {name} "
                f"({key} {found.get(key)} instead of {stated[key]}): give data made with the tokenizer of its training"
            )


def own_tokenizer(artifact: Artifact, path: Path) -> Tokenizer:
    """Return an artifact's tokenizer without any data: of bytes, or from the file that was pushed with it.

    Raises DataError if there is none, ArtifactError for one whose tokens are not the model's.
    """
    spec = artifact.config["tokenizer"]
    name = str(spec.get("model_path", ""))
    beside = TOKENIZER_FILE.fullmatch(name) and (path.parent / name).is_file()
    tokenizer = make_tokenizer(spec, path.parent if beside else None)
    if tokenizer.vocab_size != spec["vocab_size"]:
        raise ArtifactError(
            f"{path} is a model of {spec['vocab_size']} tokens, and its tokenizer {tokenizer.name} has "
            f"{tokenizer.vocab_size}: give the data of its training"
        )
    return tokenizer
