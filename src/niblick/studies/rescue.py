"""Rescue: the sprint's best float model is twice over the cap; `fit` brings it under."""

from __future__ import annotations

from niblick.challenge import rules
from niblick.compare.groups import read_records
from niblick.facts.events import Validation
from niblick.facts.scores import ScoreRecord
from niblick.run.exports import export_run, fit_run
from niblick.run.packing import closure_bytes
from niblick.studies.study import Done, Lab, Parts, Table

EXPORTS = {
    "int8 per row, zlib (as published)": ["scheme=int8-published", "codec=zlib"],
    "int6 per row, zstd": ["scheme=int6", "codec=zstd"],
    "int4 per row, zstd": ["scheme=int4", "codec=zstd"],
}
TOY_SHARE = 0.52
"""At toy size the cap is so much of the published export: as 16 MB are of the sprint's 30.9."""


def rescue(lab: Lab) -> Parts:
    """`sp1024-14x576` brought under the cap by `fit`."""
    point = ["sp1024-14x576", f"data.path={lab.data('sp1024')}"]
    toy = ["model.main.layout=T4", "model.width=48"]
    done = lab.run("sp1024-14x576", {"sp1024-14x576": point}, branch="rescue", toy=toy)["sp1024-14x576"][0]
    records = {label: _exported(lab, done, assignments) for label, assignments in EXPORTS.items()}
    published = next(iter(records.values())).artifact_bytes
    room = round(TOY_SHARE * published) if lab.toy else rules.CAP_BYTES - closure_bytes(done.run.config(), None)
    records["`fit`"] = _fitted(lab, done, room)
    floats = [event.bpb for event in done.run.events() if isinstance(event, Validation)][-1]
    rows = [
        [
            label,
            f"{record.artifact_bytes:,}",
            f"{record.artifact_bytes / room:.0%}",
            f"{record.bpb:.4f}",
            f"{record.bpb - floats:+.4f}",
            "yes" if record.artifact_bytes <= room else "no",
        ]
        for label, record in records.items()
    ]
    columns = ["export", "bytes", "of the room", "BPB", "above float", "fits"]
    note = f"{floats:.4f} BPB as floats. The room for the artifact is {room:,} bytes"
    note += f", {TOY_SHARE:.0%} of the published export." if lab.toy else ": the cap without the code."
    yield [Table("Under the cap", columns, rows, note)], [done]


def _exported(lab: Lab, done: Done, assignments: list[str]) -> ScoreRecord:
    name = "+".join(a.partition("=")[2] for a in assignments)
    return _kept(done, name) or export_run(done.run, assignments, lambda event: None, name)


def _fitted(lab: Lab, done: Done, room: int) -> ScoreRecord:
    name = f"fit-{room}"
    if found := _kept(done, name):
        return found
    lab.say(f"fitting {room:,} bytes")
    tokens = 4_096 if lab.toy else 65_536
    return fit_run(done.run, lambda event: None, artifact=room, tokens=tokens, gptq=not lab.toy).result


def _kept(done: Done, name: str) -> ScoreRecord | None:
    """An artifact that was made and scored before; None if there is none."""
    records = read_records(done.run.artifact(name).with_name("scores.jsonl"))
    return records[0] if records else None
