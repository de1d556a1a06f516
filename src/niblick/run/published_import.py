"""Runs made of checkpoints of the challenge's published scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from niblick.artifact.container import write_artifact
from niblick.artifact.foreign.published_files import read_published
from niblick.config.run_config import (
    RunConfig,
)
from niblick.data.shards import file_hash
from niblick.data.tokenizers import BYTE_TOKENIZERS
from niblick.errors import ConfigError
from niblick.facts.events import Import
from niblick.facts.reading import merged, write_file
from niblick.facts.result import ImportResult, Source
from niblick.facts.scores import Sizes
from niblick.model.lm import LM
from niblick.pack.quantize import pack
from niblick.run.artifacts import digests
from niblick.run.directory import Run, create_run
from niblick.run.packing import artifact_header, packed, weighed
from niblick.run.prepared import in_dtype, open_data
from niblick.train.checkpoint import save_tensors


def import_published(path: Path, config: RunConfig, runs: Path, *, recipe: Path | None = None) -> ImportResult:
    """Make a run of a checkpoint of the challenge's published scripts. Returns its result: no score.

    Its weights and artifact are what every tool works on. Codes and scales of an int8 file become the artifact as they
    are; a float file is packed by `config.export`. Where the config names data, its tokenizer is recorded, else its
    size alone. Raises ArtifactError, before anything is written, if the file is no such checkpoint of this model.
    """
    if config.train.dtype == "auto":
        config = in_dtype(config, "bfloat16")  # as it was trained
    if config.export.text:
        raise ConfigError(
            f"export.text={config.export.text} is for runs of one's own data: import first, then "
            "`niblick export RUN text=N score.sidecar.name=mixture`"
        )
    tokenizer = tokenizer_spec(config)
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in LM(config.model).state_dict().items()}
    weights = read_published(path, expected)
    state = weights.state_dict()
    name = "imported" if weights.quantized else config.export.name
    if weights.quantized:
        encoded = weights.encoded
    elif config.export.gptq == "off":
        encoded = pack(state, config.export)
    else:
        encoded, _ = packed(config, state, open_data(config))
    run = create_run(runs, config, recipe)
    save_tensors(run.weights, state, {})
    run.artifact(name).parent.mkdir(parents=True)
    size = write_artifact(run.artifact(name), artifact_header(config, tokenizer), encoded, config.export.codec)
    return imported(run, path, name, weighed(size, config, recipe))


def imported(run: Run, source: Path, name: str, sizes: Sizes) -> ImportResult:
    """Write down what a run's artifact `name`, of `weighed` sizes, was made of. Returns the result of the run."""
    made_of = Source(file=source.name, bytes=source.stat().st_size, sha256=file_hash(source))
    run.log(merged(Import, made_of))
    result = merged(ImportResult, sizes, run=str(run.path), artifact=name, imported=made_of, files=digests(run))
    write_file(run.path / "result.json", result)
    return result


def tokenizer_spec(config: RunConfig) -> Mapping[str, object]:
    """Return what an artifact says of its tokenizer: the data's, or the one the config names, where that is enough."""
    if config.data.path:
        return open_data(config).tokenizer.spec()
    made = BYTE_TOKENIZERS.get(config.tokenizer)
    if made and config.model.vocab_size == made.vocab_size:
        return made().spec()
    return {"name": config.tokenizer, "vocab_size": config.model.vocab_size}
