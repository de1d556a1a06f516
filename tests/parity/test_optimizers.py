"""Five steps of the published Muon and Adam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from niblick.train.optim import Optimizers
from niblick.train.settings import OptimConfig

REFERENCE = Path(__file__).parents[1] / "reference" / "optimizer_steps.npz"


class Bench(nn.Module):
    """Three matrices, an embedding and a vector, with the reference's values."""

    def __init__(self, figures: np.lib.npyio.NpzFile) -> None:
        super().__init__()
        for i in range(3):
            weight = torch.from_numpy(figures[f"init/matrix{i}"])
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            linear.weight.data.copy_(weight)
            self.add_module(f"matrix{i}", linear)
        self.embedding = nn.Embedding.from_pretrained(torch.from_numpy(figures["init/embedding"]), freeze=False)
        self.vector = nn.Parameter(torch.from_numpy(figures["init/vector"]))


def test_five_steps() -> None:
    figures = np.load(REFERENCE)
    bench = Bench(figures)
    optimizers = Optimizers(bench, OptimConfig())
    params = {name.removesuffix(".weight"): p for name, p in bench.named_parameters()}
    for step in range(5):
        for name, p in params.items():
            p.grad = torch.from_numpy(figures[f"step{step}/grad_{name}"])
        optimizers.step(step, float(figures[f"step{step}/lr_scale"]))
        momentum = optimizers.parts[0].param_groups[0]["momentum"]
        assert abs(momentum - float(figures[f"step{step}/muon_momentum"])) < 1e-6
        for name, p in params.items():
            theirs = torch.from_numpy(figures[f"step{step}/{name}"])
            moved = (theirs - torch.from_numpy(figures[f"init/{name}"])).abs().max()
            error = (p.detach() - theirs).abs().max() / moved
            assert error < (2e-2 if name.startswith("matrix") else 1e-5), f"step {step}, {name}: {error:.1e}"
