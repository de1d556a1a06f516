"""Round four for bytes: a single block inside, and rates, from the preset as round three left it. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from niblick.sweeps.sweep import Sweep, listed

ONE = "model.main.layout=T1"

sweep = Sweep(
    base="quickstart",
    sets=["data.path=data/webmix-byte260", "schedule.max_seconds=120", "score.documents=60"],
    axes=[
        listed(
            {
                "one": [ONE],
                "slow-tables": [ONE, "optim.embed_lr=0.025"],
                "fast-matrices": [ONE, "optim.matrix_lr=0.04"],
                "decay": [ONE, "optim.weight_decay=0.1"],
            }
        )
    ],
    track="wallclock",
)
