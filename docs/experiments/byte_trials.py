"""What makes a small byte-level model better in 120 s on one core? Each point changes one thing of `tables`.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from _tables import tables

from niblick.sweeps.sweep import Sweep, listed

BASE = tables((2, 3, 4, 5), 16_384, 64)
OUTER = ("model.levels.0.encoder.layout", "model.levels.0.decoder.layout")

sweep = Sweep(
    base="hnet-small",
    sets=["data.path=data/webmix-byte260", "schedule.max_seconds=120", "score.documents=60"],
    axes=[
        listed(
            {
                "none": [],
                "tables": [BASE],
                "wide": [tables((2, 3, 4, 5), 16_384, 128)],
                "rows": [tables((2, 3, 4, 5, 6))],
                "conv": [BASE, *(f"{key}=C1" for key in OUTER)],
                "dense": [BASE, "model.levels=[]", "model.main.layout=T4"],
                "batch": [BASE, "train.batch_tokens=4096", "train.micro_batch_tokens=4096"],
                "long": [BASE, "train.seq_len=512", "score.seq_len=512"],
            }
        )
    ],
    track="wallclock",
    control="tables",
)
