"""An artifact's model that codes files. `niblick compress` and `decompress` share it."""

from __future__ import annotations

from pathlib import Path

from niblick.artifact.container import read_artifact
from niblick.data.shards import file_hash
from niblick.run import artifacts
from niblick.run.generate import data_of, load_file
from niblick.run.loading import declared_score, known_text
from niblick.score.coded_file import Model
from niblick.score.score_config import ScoreConfig


def open_model(target: str, runs: Path, data: str = "") -> tuple[Model, ScoreConfig]:
    """Return the model of RUN, RUN:NAME or an artifact file, and the way it declares to be scored.

    The tokenizer of a subword model comes from `data`, or from the data of its run's training. Raises ConfigError or
    ArtifactError if it is not there, DataError if its tokenizer is not.
    """
    path, run = artifacts.find_artifact(target, runs)
    loaded = load_file(path, data, data_of(run))
    artifact = read_artifact(path)
    config, _ = declared_score(artifact, path)
    text = known_text(artifact.text, loaded.model.config.vocab_size) if config.sidecar.name else None
    name = f"{run.name}:{path.parent.name}" if run is not None else path.name
    return Model(loaded.model.cpu().float(), loaded.tokenizer, name, file_hash(path), text), config
