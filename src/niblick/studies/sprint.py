"""The research sprint: its six branches and its ideas, beside the dense model they start from."""

from __future__ import annotations

import json

from niblick.challenge.tracks import UNWEIGHED
from niblick.studies.study import Done, Lab, Parts, Table

CONTROL = "sp1024-dense"
TOY = ["model.main.layout=T2", "model.width=48", "export.scheme=int8"]
"""As published, so small matrices would not be quantized at all: nothing for residuals and penalties to do."""


def _penalty(kind: str, weight: float) -> str:
    return "train.penalties=" + json.dumps([{"kind": kind, "weight": weight, "interval": 4, "matrices": 2}])


def branches(lab: Lab) -> dict[str, dict[str, list[str]]]:
    """The ideas by branch: `key=value` on top of the dense model of 1,024 subwords, or of 4,096."""
    sp4096 = ["sp4096-nearcap", f"data.path={lab.data('sp4096')}"]
    sp1024 = [f"data.path={lab.data('sp1024')}"]
    spare = lab.size(["export.residual.bytes=400"], ["export.residual.bytes=120000"])
    narrow = lab.size(["model.width=24", "model.main.layout=T2"], ["model.width=448", "model.heads=7"])
    narrow += lab.size([], ["model.kv_heads=1"])
    return {
        "dense": {CONTROL: sp1024},
        "sp4096-residual": {
            f"sp4096-residual-{group}": [*sp4096, *spare, f"export.residual.group={group}"]
            for group in ("mlp-out", "early-mlp-out", "attn-out", "out")
        },
        "sp4096-iso-byte": {"sp4096-iso-byte": [*sp4096, *narrow]},
        "compression-aware": {
            f"penalty-{kind}": [*sp1024, _penalty(kind, weight)]
            for kind, weight in (
                *(("reconstruction", 0.1), ("grid", 0.1), ("scales", 0.01)),
                *(("rank1", 0.1), ("ternary", 0.01), ("outliers", 0.001)),
            )
        },
        "sidecar": {f"sidecar-{name}": [*sp1024, f"score.sidecar.name={name}"] for name in ("cache", "bigram")},
        "window-attention": {
            "window": [*sp1024, *lab.size(["model.main.window=32"], ["model.main.window=256"])],
        },
        "shared-blocks": {"shared": [*sp1024, f"model.main.unique={1 if lab.toy else 3}"]},
        "other-ideas": {
            "permuted-mlp": [*sp1024, "export.permute=true"],
            "factorized-embedding": [*sp1024, f"model.embed_width={8 if lab.toy else 128}"],
        },
    }


def sprint(lab: Lab) -> Parts:
    """The sprint's six branches and its ideas, against the dense model over 1,024 subwords."""
    found_in = branches(lab)
    points = {idea: sets for ideas in found_in.values() for idea, sets in ideas.items()}
    branch = {idea: name for name, ideas in found_in.items() for idea in ideas}
    found = {idea: those[0] for idea, those in lab.run("baseline-sp1024", points, branch=branch, toy=TOY).items()}
    control = found[CONTROL].bpb
    rows = [
        [
            name,
            idea,
            f"{found[idea].bpb:.4f}",
            f"{control - found[idea].bpb:+.4f}",
            f"{found[idea].result.artifact_bytes:,}",
            _legal(found[idea]),
        ]
        for name, ideas in found_in.items()
        for idea in ideas
    ]
    best = []
    for name, ideas in found_in.items():
        leader = min(ideas, key=lambda idea: found[idea].bpb)
        best.append([name, leader, f"{found[leader].bpb:.4f}", f"{found[leader].result.artifact_bytes:,}"])
    best.sort(key=lambda row: row[2])
    note = "Gain: over the dense model; across tokenizers it holds only where both give the text back."
    tables = [
        Table("By branch", ["branch", "best idea", "BPB", "bytes"], best),
        Table("Ideas", ["branch", "idea", "BPB", "gain", "bytes", "size"], rows, note),
    ]
    yield tables, list(found.values())


def _legal(done: Done) -> str:
    under = done.result.legality.under_cap
    return UNWEIGHED if under is None else "legal" if under else "over cap"
