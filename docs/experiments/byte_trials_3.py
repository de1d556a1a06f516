"""Round three for bytes: the best of round two, and what else might help. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from _tables import tables

from niblick.sweeps.sweep import Sweep, listed

BYTES = tables((2, 3, 4, 5, 6))
FEW = ["train.batch_tokens=4096", "train.micro_batch_tokens=4096"]

sweep = Sweep(
    base="hnet-small",
    sets=[
        *("data.path=data/webmix-byte260", "schedule.max_seconds=120", "score.documents=60", "model.main.layout=T2"),
        *(f"model.levels.0.{stage}.layout=c1" for stage in ("encoder", "decoder")),
    ],
    axes=[
        listed(
            {
                "two": [BYTES, *FEW],
                "words": [tables((2, 3, 4, 5, 6), words=(1, 2, 3)), *FEW],
                "words-instead": [tables((2, 3, 4), words=(1, 2)), *FEW],
                "window": [BYTES, *FEW, "train.seq_len=512", "score.seq_len=512"],
                "ema": [BYTES, *FEW, "train.average=ema", "train.ema_decay=0.98"],
                "fewer": [BYTES, "train.batch_tokens=2048", "train.micro_batch_tokens=2048"],
            }
        )
    ],
    track="wallclock",
    control="two",
)
