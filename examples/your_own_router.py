# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your own router
#
# A recipe is a Python file that returns a config, and may register parts of its own. This one has a router that looks
# at the size of the step from one position to the next. The file goes into the run, so that the artifact can be scored
# in a fresh process.

# %%
from pathlib import Path

import niblick as nb

SOURCE = "pydocs"
STEPS = 300

# %%
RECIPE = '''
from torch import nn

from niblick.config.run_config import RunConfig
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.model.plain_routers import Router
from niblick.model.routers import register_router


class Step(Router):
    """p = 1 - exp(-|W(x_t - x_(t-1))|^2): a boundary is likely where the stream changes much."""

    def __init__(self, width, target_length):
        super().__init__(width, target_length)
        self.look = nn.Linear(width, 16, bias=False)

    def forward(self, x_BLD):
        far_BL = self.look(x_BLD).diff(dim=1).float().square().sum(-1)
        p_BL = nn.functional.pad(1 - (-far_BL).exp(), (1, 0), value=1.0)
        return p_BL, p_BL >= 0.5


register_router("step", Step)


def recipe():
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), router="step")
    model = ModelConfig(width=64, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T1"))
    return RunConfig("own-router", model=model)
'''
Path("own_router.py").write_text(RECIPE)

# %%
data = nb.prepare(SOURCE, "data/router", max_docs=80, val_docs=4)
sizes = {
    "train.seq_len": 128,
    "train.batch_tokens": 1024,
    "train.micro_batch_tokens": 1024,
    "train.warmup_steps": 0,
    "train.val_every": 0,
    "score.seq_len": 128,
    "score.documents": 1,
    "schedule.steps": STEPS,
    "schedule.max_seconds": None,
}
own = nb.train("own_router.py", data, name="own-router", overrides=sizes)

# %% [markdown]
# ## Beside the published one
#
# The same model, with the router of the H-Net paper: it compares the directions of neighbours.

# %%
published = nb.train(
    "hnet-small",
    data,
    name="published-router",
    overrides={**sizes, "model.width": 64, "model.heads": 2, "model.kv_heads": 1, "model.main.layout": "T1"},
)
for run in (own, published):
    model = nb.load(run)
    print(f"{run.id}: {run.score:.4f} bits per byte")
    print("  " + "|".join(chunk.text for chunk in model.chunks("A router cuts the text where it has learned to.")))
