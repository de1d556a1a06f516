"""Runs made of the H-Net paper authors' checkpoints: weights and artifact, on which every tool works.

A checkpoint may be larger than the memory that is free: its tensors are mapped, and one after the other is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niblick.artifact.container import DTYPES, Described, stream_artifact
from niblick.artifact.foreign.paper_config import PaperConfig, read_paper_config
from niblick.artifact.foreign.paper_weights import (
    SCHEMES,
    Place,
    expect_weights,
    has_residual_bias,
    open_checkpoint,
    places,
    stored,
    taken,
)
from niblick.config.run_config import DataConfig, RunConfig, override
from niblick.data.tokenizers import Byte256Tokenizer
from niblick.errors import ConfigError
from niblick.facts.result import ImportResult
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig
from niblick.run.directory import create_run
from niblick.run.packing import artifact_header, weighed
from niblick.run.published_import import imported, tokenizer_spec
from niblick.score.score_config import ScoreConfig
from niblick.train.checkpoint import stream_tensors
from niblick.train.settings import TrainConfig

CONTEXT = 8192
"""Bytes that the paper's models were trained on at a time."""
NAME = "imported"
_PARTS = {"fp32": DTYPES["f4"], "bf16": DTYPES["u2"], "fp16": DTYPES["f2"]}


def paper_run_config(paper: PaperConfig, data: str = "", *, residual_bias: bool = True) -> RunConfig:
    """Return the config of a run of such a model. Raises ConfigError for one that reads no bytes, or cannot be."""
    if paper.vocab_size != Byte256Tokenizer.vocab_size:
        raise ConfigError(
            f"{paper.source} has vocab_size={paper.vocab_size}, and the paper's models read bytes: expected 256"
        )
    return RunConfig(
        preset="hnet",
        tokenizer=Byte256Tokenizer.name,
        model=paper.model(residual_bias=residual_bias),
        data=DataConfig(path=data),
        train=TrainConfig(dtype="float32"),  # their stream of residuals is float32, whatever the weights are
        score=ScoreConfig(seq_len=CONTEXT, batch_tokens=CONTEXT),
    )


def import_hnet(
    checkpoint: Path, config: Path, runs: Path, *, overrides: Iterable[str] = (), data: str = ""
) -> ImportResult:
    """Make a run of a checkpoint of the paper's authors. Returns its result: no score.

    Weights become float32 in model.safetensors, and lie in the artifact `imported` in the dtype of the checkpoint.
    `overrides` may set anything but the model. Raises ConfigError or ArtifactError if config and checkpoint are not
    what they should be or do not fit each other; then nothing is left in `runs`.
    """
    paper = read_paper_config(config)
    weights = open_checkpoint(checkpoint)
    settings = paper_run_config(paper, data, residual_bias=has_residual_bias(weights))
    model = settings.model
    settings = override(settings, overrides)
    if settings.model != model:
        raise ConfigError(f"model.… is settled by {config}: only other keys may be set")
    shapes = model_shapes(model)
    wanted = places(model, shapes)
    expect_weights(checkpoint, weights, wanted, model)
    header = artifact_header(settings, tokenizer_spec(settings))
    run = create_run(runs, settings)
    try:
        stream_tensors(run.weights, shapes, (taken(weights, place) for place in wanted.values()), {})
        artifact = run.artifact(NAME)
        artifact.parent.mkdir(parents=True)
        size = stream_artifact(artifact, header, list(_described(weights, wanted, shapes)), _arrays(weights, wanted))
        weights.clear()  # no longer in memory when the script is made, which takes some too
        return imported(run, checkpoint, NAME, weighed(size, settings, None))
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise


def model_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors by name, without making it."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in LM(config).state_dict().items()}


def _described(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Place], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Described]:
    for name, place in wanted.items():
        scheme = SCHEMES[weights[place.name].dtype]
        yield name, scheme, shapes[name], {"values": (_PARTS[scheme], shapes[name])}


def _arrays(weights: Mapping[str, Tensor], wanted: Mapping[str, Place]) -> Iterator[np.ndarray]:
    for place in wanted.values():
        yield stored(taken(weights, place)).parts["values"]
