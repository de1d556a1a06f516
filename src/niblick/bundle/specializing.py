"""What a config leaves of a program: dead branches, unused parameters and everything that is never reached fall away.

Step by step until nothing changes: find what is alive from the roots, then simplify that. Both only ever take away, so
each step is right whatever comes after it. Trees are changed in place.
"""

from __future__ import annotations

from typing import Any

from niblick.bundle.dropping import (
    drop_checks,
    drop_class_attributes,
    drop_defaults,
    drop_empty_bases,
    drop_fields,
    drop_parameters,
    prune_registries,
)
from niblick.bundle.facts import Facts
from niblick.bundle.folding import Folder
from niblick.bundle.inlining import inline
from niblick.bundle.live import Live
from niblick.bundle.program import (
    Definition,
    Module,
    Program,
)

ROUNDS = 40


def specialize(program: Program, facts: Facts, roots: list[Definition], scripts: list[Module]) -> Live:
    """Simplify a program in place under facts. Returns what is alive in the end.

    `roots` are where it starts, `scripts` modules whose statements at the top are all run.
    """
    known: dict[Any, Any] = {}
    idle = 0
    for _ in range(ROUNDS):
        live = Live(program, facts, roots, scripts, known)
        drop_checks(live)
        changed = prune_registries(live) | drop_fields(live) | drop_class_attributes(live)
        folder = Folder(program, facts, live, known)
        changed |= folder.fold_all()
        changed |= drop_parameters(live, folder.values)
        changed = changed or drop_defaults(live, folder.values) or inline(live, folder.values, roots)
        known = folder.values.known
        idle = 0 if changed else idle + 1
        if idle == 2:  # what hangs on itself takes a round more to be known
            break
    drop_empty_bases(live)
    return live
