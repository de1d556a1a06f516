"""Round two for bytes: large tables and convolutions together, and what else might help. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from _tables import tables

from niblick.sweeps.sweep import Sweep, listed


def outer(layout):
    """The settings of both outer stages."""
    return [f"model.levels.0.{stage}.layout={layout}" for stage in ("encoder", "decoder")]


ROWS = tables((2, 3, 4, 5, 6))
SMALL_BATCH = ["train.batch_tokens=4096", "train.micro_batch_tokens=4096"]

sweep = Sweep(
    base="hnet-small",
    sets=["data.path=data/webmix-byte260", "schedule.max_seconds=120", "score.documents=60"],
    axes=[
        listed(
            {
                "conv": [ROWS, *outer("C1"), *SMALL_BATCH],
                "bare": [ROWS, *outer("c1"), *SMALL_BATCH],
                "longer": [tables((2, 3, 4, 5, 6, 8), 131_072, 16), *outer("C1"), *SMALL_BATCH],
                "shallow": [ROWS, *outer("C1"), *SMALL_BATCH, "model.main.layout=T2"],
                "rate": [ROWS, *outer("C1"), *SMALL_BATCH, "optim.embed_lr=0.1"],
                "chunks": [ROWS, *outer("C1"), *SMALL_BATCH, "model.levels.0.target_length=4"],
            }
        )
    ],
    track="wallclock",
    control="conv",
)
