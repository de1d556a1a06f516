"""Bytes against lossless subwords, with and without an H-Net, all with hashed tables: 30, 60 and 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
`hnet` is the quickstart: study 1's byte-level H-Net, small, without tables.
"""

from niblick.lab.sweep import Sweep, listed

BUDGETS = (30, 60, 120)
BYTES, SUBWORDS = "data.path=data/webmix-byte260", "data.path=data/webmix-sp1024"
HNET = 'model.levels=[{"encoder":{"layout":"c1"},"decoder":{"layout":"c1"},"target_length":6,"ratio_weight":0.05}]'
SYSTEMS = {
    "hnet": ["quickstart", BYTES],
    "niblick-byte": ["niblick-byte-small", BYTES],
    "subword-dense": ["dense-sp1024-small", SUBWORDS],
    "byte-dense": ["niblick-byte-small", BYTES, "model.levels=[]"],
    "subword-hnet": ["dense-sp1024-small", SUBWORDS, HNET],
}
LONGEST_ALONE = ("byte-dense", "subword-hnet")
POINTS = {
    f"{name}-{seconds}s": (name, seconds)
    for name in SYSTEMS
    for seconds in (BUDGETS[-1:] if name in LONGEST_ALONE else BUDGETS)
}

sweep = Sweep(
    base="quickstart",
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
