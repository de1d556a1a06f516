"""What makes a small dense model over 1,024 lossless subwords better in 120 s on one core? The rival's trials.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from _tables import tables

from niblick.sweeps.sweep import Sweep, listed

BASE = tables((2, 3), 16_384, 64)
DENSE = ["tokenizer=sp1024", "model.vocab_size=1024", "model.levels=[]", "model.main.layout=T6"]

sweep = Sweep(
    base="hnet-small",
    sets=["data.path=data/webmix-sp1024", "schedule.max_seconds=120", "score.documents=60", *DENSE[:2]],
    axes=[
        listed(
            {
                "none": DENSE[2:],
                "tables": [*DENSE[2:], BASE],
                "rows": [*DENSE[2:], tables((2, 3, 4))],
                "shallow": ["model.levels=[]", "model.main.layout=T4", BASE],
                "hnet": [BASE],
                "batch": [*DENSE[2:], BASE, "train.batch_tokens=4096", "train.micro_batch_tokens=4096"],
                "parallel": [*DENSE[2:], BASE, "model.parallel=true"],
                "partial": [*DENSE[2:], BASE, "model.rope_fraction=0.5"],
            }
        )
    ],
    track="wallclock",
    control="tables",
)
