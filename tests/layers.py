"""The rooms of niblick in the order of imports: what `test_imports.py` holds and `docs/map.py` draws."""

from __future__ import annotations

# A room may import rooms of layers above its own; rooms of one layer do not import each other.
LAYERS = [
    ["errors"],
    ["files", "arguments", "memory"],
    ["facts"],
    ["challenge"],
    ["console", "drawing", "data", "model"],
    ["artifact"],
    ["score"],
    ["pack"],
    ["train"],
    ["config", "boundaries"],
    ["bundle", "recipes"],
    ["run"],
    ["ledger"],
    ["sweeps", "compare"],
    ["reports"],
    ["studies", "submission"],
    ["audit"],
    ["monitor", "remote"],
    ["quickstart", "api"],
    ["cli"],
]
