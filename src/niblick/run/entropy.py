"""The small model behind entropy boundaries: read out of its artifact, checked against the data, its threshold chosen.

A config names the artifact (`entropy.artifact`); what the model itself has to know, the small model's config and the
threshold, is filled in before a run begins. From then on its weights are weights of the run like all others.

Shapes: B batch, L positions, N positions of all rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from niblick.config.run_config import RunConfig
from niblick.data.dataset import Dataset, Split
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import EntropyConfig
from niblick.model.providers import Entropy
from niblick.run.loading import expect_tokenizer, load_artifact
from niblick.train.precision import autocast, pick_device

SAMPLE_TOKENS = 65_536
"""Tokens of training text that a threshold is chosen on."""


def resolve_entropy(config: RunConfig, dataset: Dataset) -> RunConfig:
    """Return the config with the threshold chosen and, for the router `entropy`, the small model's config filled in.

    Raises ConfigError if no artifact is named where one is asked for, if nothing asks for the one that is named, or if
    it reads other tokens; ArtifactError if it holds no model.
    """
    levels = config.model.levels
    routed = bool(levels) and levels[0].router == "entropy"
    if not routed and config.train.init_from != "entropy":
        if config.entropy.artifact:
            raise ConfigError(
                f"nothing asks the small model entropy.artifact={config.entropy.artifact}: "
                "set model.levels.0.router=entropy or train.init_from=entropy, or leave it away"
            )
        return config
    small = load_small(config, dataset)
    if config.entropy.threshold is None and levels:
        threshold = choose_threshold(small, config, dataset.train)
        config = replace(config, entropy=replace(config.entropy, threshold=threshold))
    if routed:
        assert config.entropy.threshold is not None
        entropy = EntropyConfig(small.config, config.entropy.threshold)
        config = replace(config, model=replace(config.model, entropy=entropy))
    return config


def load_small(config: RunConfig, dataset: Dataset) -> LM:
    """Return the small model that `entropy.artifact` names. Raises as `resolve_entropy` does."""
    if not config.entropy.artifact:
        raise ConfigError(
            "entropy boundaries come from a small trained model: name its artifact, entropy.artifact=FILE.nib"
        )
    path = Path(config.entropy.artifact)
    model, artifact = load_artifact(path)
    expect_tokenizer(artifact, dataset, path)
    return model.eval()


def entropy_guide(config: RunConfig, dataset: Dataset) -> Entropy:
    """Return the boundaries that `train.init_from=entropy` stands for in a resolved config. Raises as that does."""
    assert config.entropy.threshold is not None
    return Entropy(load_small(config, dataset), config.entropy.threshold).to(pick_device(config.train.device))


def choose_threshold(small: LM, config: RunConfig, split: Split) -> float:
    """Return the threshold, in nats, that cuts windows of training text into chunks of target_length on average.

    Windows are spread evenly over the split. The first position of each starts a chunk at any threshold, and counts.
    """
    device, length = pick_device(config.train.device), config.train.seq_len
    count = max(1, min(SAMPLE_TOKENS // length, split.tokens // length))
    starts = np.linspace(0, split.tokens - length, count).astype(int).tolist()
    provider = Entropy(small, 0.0).to(device)
    parts = []
    with autocast(device, config.train.dtype):
        for start in starts:
            ids_L = torch.from_numpy(split.slice(start, length).astype(np.int64)).to(device)
            parts.append(provider.entropy(ids_L[None])[0, 1:].double().cpu())
    ordered_N = torch.cat(parts).sort(descending=True).values
    chunks = round(count * length / config.model.levels[0].target_length) - count
    return float(ordered_N[min(max(chunks, 0), len(ordered_N) - 1)])  # so many are above it
