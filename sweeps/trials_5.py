"""Round five, two points each: narrower tables and what else was left. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

import json

from niblick.sweeps.sweep import Sweep, listed


def tables(sizes, words=(), width=32):
    """The setting that gives a model tables of n-grams, of tokens and of words."""
    both = [{"n": n} for n in sizes] + [{"n": n, "words": True} for n in words]
    return "model.ngrams=" + json.dumps([one | {"rows": 65_536, "width": width} for one in both])


ONE = "model.main.layout=T1"
BYTES = ["quickstart", "data.path=data/webmix-byte260", ONE, "optim.embed_lr=0.025"]
SUBWORDS = ["dense-sp1024-small", "data.path=data/webmix-sp1024", ONE]

sweep = Sweep(
    base="hnet-small",
    sets=["schedule.max_seconds=120", "score.documents=60"],
    axes=[
        listed(
            {
                "bytes-few": [*BYTES, tables((3, 5), (1, 2, 3))],
                "bytes-narrow": [*BYTES, tables((2, 3, 4, 5), (1, 2, 3), width=16)],
                "subwords-decay": [*SUBWORDS, "optim.weight_decay=0.1"],
                "subwords-narrow": [*SUBWORDS, tables((2, 3, 4), width=16)],
            }
        )
    ],
    track="wallclock",
)
