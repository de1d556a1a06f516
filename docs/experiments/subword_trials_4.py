"""Round four for subwords: a single block, rates and tables, from the preset as round three left it. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from _tables import tables

from niblick.sweeps.sweep import Sweep, listed

ONE = "model.main.layout=T1"

sweep = Sweep(
    base="dense-sp1024-small",
    sets=["data.path=data/webmix-sp1024", "schedule.max_seconds=120", "score.documents=60"],
    axes=[
        listed(
            {
                "slow-tables": [ONE, "optim.embed_lr=0.025"],
                "fast-matrices": [ONE, "optim.matrix_lr=0.04"],
                "more": [ONE, tables((2, 3, 4, 5))],
                "attention": ["model.main.layout=t1"],
            }
        )
    ],
    track="wallclock",
)
