"""Round six: what else could stand around the tables, dense and with chunks. 120 s on one core.

Two runs at once, one thread each, on the web mix (docs/recipes.md); scored on the first 60 held-out documents.
"""

from niblick.sweeps.sweep import Sweep, listed

LEVEL = '{"encoder":{"layout":"c1"},"decoder":{"layout":"c1"},"target_length":3,"ratio_weight":0.05}'
TWO_LEVELS = f"model.levels=[{LEVEL},{LEVEL}]"

sweep = Sweep(
    base="niblick-byte-small",
    sets=["data.path=data/webmix-byte260", "schedule.max_seconds=120", "score.documents=60"],
    axes=[
        listed(
            {
                "dense-two": ["model.main.layout=T2"],
                "dense-convolution": ["model.main.layout=c1T1"],
                "two-levels": ["quickstart", TWO_LEVELS],
                "slow-router": ["quickstart", "model.levels.0.lr_mult=0.3"],
                "words-as-chunks": ["quickstart", "model.levels.0.router=whitespace"],
                "chunks-two": ["quickstart", "model.main.layout=T2"],
            }
        )
    ],
    track="wallclock",
)
