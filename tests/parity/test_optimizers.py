"""Five steps of the published Muon and Adam; and Adam beside torch's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from niblick.train.optim import Adam, Optimizers
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


def test_adam_is_torch_s() -> None:
    """To the bit, for groups with rates of their own, with the state as tensors by the same names."""
    drawn = torch.Generator().manual_seed(0)
    sizes, steps = [(7, 5), (3,)], 4
    grads = [[torch.randn(size, generator=drawn) for size in sizes] for _ in range(steps)]
    ends = []
    for kind in (Adam, torch.optim.Adam):
        params = [nn.Parameter(torch.full(size, 0.5)) for size in sizes]
        groups = [{"params": [p], "lr": 0.1 / (i + 1)} for i, p in enumerate(params)]
        optimizer = kind(groups, betas=(0.9, 0.95), eps=1e-8, fused=True)
        for step in grads:
            for p, grad in zip(params, step, strict=True):
                p.grad = grad.clone()
            optimizer.step()
        assert all(p.requires_grad and p.grad_fn is None for p in params)
        ends.append([*params, *(value for p in params for _, value in sorted(optimizer.state[p].items()))])
    assert len(ends[0]) == 2 + 2 * 3
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*ends, strict=True))


def test_an_optimizer_loads_no_compiler() -> None:
    """torch's own do: a second of CPU and 70 MB, in every process that trains."""
    code = (
        "import sys, torch\n"
        "from niblick.train.optim import Optimizers\n"
        "from niblick.train.settings import OptimConfig\n"
        "model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Embedding(4, 4))\n"
        "optimizers = Optimizers(model, OptimConfig(grad_clip=1.0))\n"
        "for p in model.parameters(): p.grad = torch.ones_like(p)\n"
        "optimizers.clip()\n"
        "optimizers.step(0, 1.0)\n"
        "optimizers.load_state_tensors(optimizers.state_tensors())\n"
        "assert len(optimizers.parts) == 2 and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
