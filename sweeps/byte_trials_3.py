"""Round three for bytes: the best of round two, and what else might help. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

import json

from niblick.sweeps.sweep import Sweep, listed


def tables(sizes, rows, width, words=()):
    """The setting that gives a model hashed n-gram embeddings of these n, of bytes and of words."""
    both = [{"n": n} for n in sizes] + [{"n": n, "words": True} for n in words]
    return "model.ngrams=" + json.dumps([one | {"rows": rows, "width": width} for one in both])


BYTES = tables((2, 3, 4, 5, 6), 65_536, 32)
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
                "words": [tables((2, 3, 4, 5, 6), 65_536, 32, words=(1, 2, 3)), *FEW],
                "words-instead": [tables((2, 3, 4), 65_536, 32, words=(1, 2)), *FEW],
                "window": [BYTES, *FEW, "train.seq_len=512", "score.seq_len=512"],
                "ema": [BYTES, *FEW, "train.average=ema", "train.ema_decay=0.98"],
                "fewer": [BYTES, "train.batch_tokens=2048", "train.micro_batch_tokens=2048"],
            }
        )
    ],
    track="wallclock",
    control="two",
)
