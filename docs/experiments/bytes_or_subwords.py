"""Bytes against lossless subwords, with and without an H-Net, with hashed tables: 30, 60, 120 and 600 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
`hnet` is `hnet-small`: study 1's byte-level H-Net, small, without tables.
"""

from niblick.sweeps.sweep import Sweep, listed

BYTES, SUBWORDS = "data.path=data/webmix-byte260", "data.path=data/webmix-sp1024"
HNET = 'model.levels=[{"encoder":{"layout":"c1"},"decoder":{"layout":"c1"},"target_length":6,"ratio_weight":0.05}]'
SYSTEMS = {
    "hnet": ["hnet-small", BYTES],
    "byte-hnet": ["quickstart", BYTES],
    "subword-dense": ["dense-sp1024-small", SUBWORDS],
    "byte-dense": ["niblick-byte-small", BYTES],
    "subword-hnet": ["dense-sp1024-small", SUBWORDS, HNET],
}
BUDGETS = {
    "byte-dense": (30, 60, 120, 600),
    "subword-dense": (30, 60, 120, 600),
    "byte-hnet": (30, 60, 120, 600),
    "subword-hnet": (30, 60, 120, 600),
    "hnet": (120, 600),
}
POINTS = {f"{name}-{seconds}s": (name, seconds) for name, budgets in BUDGETS.items() for seconds in budgets}

sweep = Sweep(
    base="hnet-small",
    sets=["score.documents=60"],
    axes=[
        listed(
            {point: [*SYSTEMS[name], f"schedule.max_seconds={seconds}"] for point, (name, seconds) in POINTS.items()}
        )
    ],
    seeds=[1337, 1338, 1339],
    track="wallclock",
    branch={point: name for point, (name, _) in POINTS.items()},
)
