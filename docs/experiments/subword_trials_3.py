"""Round three for subwords: what the challenge's records taught, on the best of round two. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from _tables import tables

from niblick.sweeps.sweep import Sweep, listed

ROWS = tables((2, 3, 4))
SP1024 = ["data.path=data/webmix-sp1024", "tokenizer=sp1024", "model.vocab_size=1024"]
SP8192 = ["data.path=data/webmix-sp8192", "tokenizer=sp8192", "model.vocab_size=8192"]
TWO, ONE = "model.main.layout=T2", "model.main.layout=T1"

sweep = Sweep(
    base="hnet-small",
    sets=[
        *("schedule.max_seconds=120", "score.documents=60", "model.levels=[]"),
        *("train.batch_tokens=4096", "train.micro_batch_tokens=4096"),
    ],
    axes=[
        listed(
            {
                "two": [*SP1024, TWO, ROWS],
                "longer": [*SP1024, TWO, tables((2, 3, 4, 5), 131_072, 16)],
                "one": [*SP1024, ONE, ROWS],
                "ema": [*SP1024, TWO, ROWS, "train.average=ema", "train.ema_decay=0.98"],
                "decay": [*SP1024, TWO, ROWS, "optim.weight_decay=0.1"],
                "sp8192": [*SP8192, TWO, ROWS],
            }
        )
    ],
    track="wallclock",
)
