"""Study 2: how many chunks there is room for, bytes against subwords, and scoring with all of them."""

from __future__ import annotations

from niblick.studies.study import Lab, Parts, Table

POINTS = {
    "byte260-divisor2": ("byte260", "hnet-byte260-12l", 2),
    "byte260-divisor4": ("byte260", "hnet-byte260-12l", 4),
    "byte260-divisor6": ("byte260", "hnet-byte260-12l", 6),
    "sp1024-divisor2": ("sp1024", "hnet-sp1024-11l", 2),
    "sp1024-divisor4": ("sp1024", "hnet-sp1024-11l", 4),
}
TOY = [*(f"model.levels.0.{stage}.layout=T1" for stage in ("encoder", "decoder")), "model.main.layout=T2"]


def study2(lab: Lab) -> Parts:
    """Chunk capacity by divisor: byte against subword, capped against dynamic at scoring."""
    points = {
        name: [base, f"data.path={lab.data(tokenizer)}", f"model.levels.0.capacity=divisor:{divisor}"]
        for name, (tokenizer, base, divisor) in POINTS.items()
    }
    branch = {name: f"hnet-{tokenizer}-capped" for name, (tokenizer, _, _) in POINTS.items()}
    found = {name: those[0] for name, those in lab.run("hnet-byte260-12l", points, branch=branch, toy=TOY).items()}
    rows = []
    for name, (tokenizer, _, divisor) in POINTS.items():
        done = found[name]
        free = lab.rescored(done, ["score.capacity=bucketed"])
        cut = lab.cuts(done)
        rows.append(
            [
                tokenizer,
                str(divisor),
                f"{done.bpb:.4f}",
                f"{free.bpb:.4f}",
                f"{free.bpb - done.bpb:+.4f}",
                cut["per_256"],
                f"{256 / divisor:.0f}",
                cut["dropped"],
            ]
        )
    columns = ["tokenizer", "divisor", "BPB capped", "BPB dynamic", "difference", "boundaries per 256", "room per 256"]
    note = "Capped: room for chunks as in training. Dynamic: room for all. Dropped: boundaries past the cap."
    yield [Table("Room for chunks", [*columns, "dropped"], rows, note)], list(found.values())
