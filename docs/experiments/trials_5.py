"""Round five, two points each: narrower tables and what else was left. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from _tables import tables

from niblick.sweeps.sweep import Sweep, listed

ONE = "model.main.layout=T1"
BYTES = ["quickstart", "data.path=data/webmix-byte260", ONE, "optim.embed_lr=0.025"]
SUBWORDS = ["dense-sp1024-small", "data.path=data/webmix-sp1024", ONE]

sweep = Sweep(
    base="hnet-small",
    sets=["schedule.max_seconds=120", "score.documents=60"],
    axes=[
        listed(
            {
                "bytes-few": [*BYTES, tables((3, 5), words=(1, 2, 3))],
                "bytes-narrow": [*BYTES, tables((2, 3, 4, 5), words=(1, 2, 3), width=16)],
                "subwords-decay": [*SUBWORDS, "optim.weight_decay=0.1"],
                "subwords-narrow": [*SUBWORDS, tables((2, 3, 4), width=16)],
            }
        )
    ],
    track="wallclock",
)
