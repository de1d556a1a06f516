"""Round two for subwords: fewer blocks, smaller steps and larger tables together. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from _tables import tables

from niblick.sweeps.sweep import Sweep, listed

ROWS = tables((2, 3, 4))
DENSE = "model.levels=[]"

sweep = Sweep(
    base="hnet-small",
    sets=[
        *("data.path=data/webmix-sp1024", "tokenizer=sp1024", "model.vocab_size=1024", "schedule.max_seconds=120"),
        *("score.documents=60", "train.batch_tokens=4096", "train.micro_batch_tokens=4096"),
    ],
    axes=[
        listed(
            {
                "shallow": [DENSE, "model.main.layout=T4", ROWS],
                "two": [DENSE, "model.main.layout=T2", ROWS],
                "conv": [DENSE, "model.main.layout=CTC", ROWS],
                "hnet": [*(f"model.levels.0.{stage}.layout=C1" for stage in ("encoder", "decoder")), ROWS],
                "longer": [DENSE, "model.main.layout=T4", tables((2, 3, 4, 5), 131_072, 16)],
                "rate": [DENSE, "model.main.layout=T4", ROWS, "optim.embed_lr=0.1"],
            }
        )
    ],
    track="wallclock",
    control="shallow",
)
