"""Bytes against lossless subwords, with and without an H-Net, all with hashed n-gram tables: 50 and 150 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md): 1,513,636 bytes held out, scored from the artifact.
`hnet` is the quickstart: study 1's byte-level H-Net, small, without tables.
"""

from niblick.lab.sweep import Sweep, grid, listed

BYTES, SUBWORDS = "data.path=data/webmix-byte260", "data.path=data/webmix-sp1024"
HNET = [
    "model.levels=" + '[{"encoder":{"layout":"c1"},"decoder":{"layout":"c1"},"target_length":6,"ratio_weight":0.05}]'
]

sweep = Sweep(
    base="quickstart",
    axes=[
        listed(
            {
                "hnet": [BYTES],
                "niblick-byte": ["niblick-byte-small", BYTES],
                "byte-dense": ["niblick-byte-small", BYTES, "model.levels=[]"],
                "subword-hnet": ["dense-sp1024-small", SUBWORDS, *HNET],
                "subword-dense": ["dense-sp1024-small", SUBWORDS],
            }
        ),
        grid({"schedule.max_seconds": [50, 150]}),
    ],
    seeds=[1337, 1338, 1339],
    track="wallclock",
    branch="{0}",
)
