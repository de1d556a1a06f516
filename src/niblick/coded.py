"""The model of an artifact as one that codes files: what `niblick compress` and `decompress` share."""

from __future__ import annotations

import hashlib
from pathlib import Path

from niblick import pipeline
from niblick.config import score_config
from niblick.generate import load
from niblick.loading import load_artifact
from niblick.score.coded_file import Model
from niblick.score.plan import ScoreConfig


def open_model(target: str, runs: Path, data: str = "") -> tuple[Model, ScoreConfig]:
    """Return the model of RUN, RUN:NAME or an artifact file, and the way it declares to be scored.

    The tokenizer of a subword model comes from `data`, or from the data of its run's training. Raises ConfigError or
    ArtifactError if it is not there, DataError if its tokenizer is not.
    """
    path, run = pipeline.find_artifact(target, runs)
    if run is not None:
        trained_on = pipeline.config_of(run).data.path
        data = data or (trained_on if Path(trained_on).is_dir() else "")
    loaded = load(path, data or None)
    _, artifact = load_artifact(path)
    settings = {key: value for key, value in artifact.config["score"].items() if key != "dtype"}
    name = f"{run.name}:{path.parent.name}" if run is not None else path.name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(loaded.model.cpu().float(), loaded.tokenizer, name, digest), score_config(settings)
