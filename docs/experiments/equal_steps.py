"""niblick-byte-small beside `hnet-small` at equal steps of equal size, three seeds.

Two runs at once, one thread each, on the web mix (docs/recipes.md).
"""

from niblick.sweeps.sweep import Sweep, listed

sweep = Sweep(
    base="hnet-small",
    sets=["data.path=data/webmix-byte260", "schedule.steps=200"],
    axes=[
        listed(
            {
                "hnet": ["hnet-small", "train.batch_tokens=4096", "train.micro_batch_tokens=4096"],
                "niblick-byte": ["niblick-byte-small"],
            }
        )
    ],
    seeds=[1337, 1338, 1339],
    track="fixed-step",
    branch="{0}",
)
