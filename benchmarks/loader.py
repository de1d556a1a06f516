"""What the next batch costs a step: the loader has it ready, and the step takes what it takes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from hnet import training_pass
from measure import Row, compare
from niblick.data.dataset import Dataset
from niblick.data.loader import Batches
from niblick.data.prepare import prepare
from niblick.model.lm import LM
from niblick.recipes.presets import get_preset


def bench_loader(quick: bool) -> list[Row]:
    """One row: the wait for a shuffled batch against forward and backward of hnet-byte260."""
    torch.manual_seed(0)
    config = get_preset("hnet-byte260").model
    if quick:
        config = replace(config, width=32, heads=2, kv_heads=1)
    rows, length, repeats = (2, 128, 1) if quick else (8, 1024, 4)
    model = LM(config)
    with tempfile.TemporaryDirectory() as folder:
        prepare("pydocs", "byte260", Path(folder, "data"), max_docs=40 if quick else None)
        split = Dataset.open(Path(folder, "data")).train
        batches = Batches(split, vocab_size=260, seq_len=length, rows=rows, order="shuffle")

        def step() -> None:
            training_pass(model, *batches._batch(0))

        name = f"wait for the next batch, {rows}×{length} bytes, shuffled"
        peer_name = "the step it is for (a share of 1/ratio)"
        return [compare(name, batches.next, step, peer_name=peer_name, repeats=repeats)]
