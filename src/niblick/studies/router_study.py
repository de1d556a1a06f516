"""Routers side by side: one backbone, one chunk length, one budget."""

from __future__ import annotations

from niblick.model.counting import parameter_count
from niblick.studies.study import Lab, Parts, Table

LENGTH = 6
ROUTERS = ("cosine", "cosine-threshold", "cosine-bias", "soft", "fixed", "whitespace", "entropy")
UNSEEN = ("fixed", "whitespace", "entropy")
"""Routers that learn nothing, so that a ratio loss says nothing to them."""
SMALL_TOY = ["model.width=16", "model.main.layout=T1"]
SMALL = ["model.width=128", "model.heads=2", "model.kv_heads=2", "model.main.layout=T2", "schedule.max_seconds=120"]


def routers(lab: Lab) -> Parts:
    """Each router in the same H-Net over bytes, at matched chunk length and budget."""
    data = f"data.path={lab.data('byte260')}"
    dense = ["model.levels=[]", data, *lab.size(SMALL_TOY, SMALL)]
    small = lab.run("hnet-byte260", {"small": dense}, part="entropy", branch="entropy")["small"][0]
    points = {}
    for router in ROUTERS:
        weight = 0.0 if router in UNSEEN else 0.05
        points[router] = [data, f"model.levels.0.router={router}", f"model.levels.0.ratio_weight={weight}"]
        if router == "entropy":
            points[router].append(f"entropy.artifact={small.artifact.resolve()}")
    outer = [*(f"model.levels.0.{stage}.layout=T1" for stage in ("encoder", "decoder")), "model.main.layout=T2"]
    sets = [f"model.levels.0.target_length={LENGTH}"]
    found = lab.run("hnet-byte260", points, branch="router-{0}", sets=sets, toy=outer)
    rows = []
    for router in ROUTERS:
        done = found[router][0]
        cut = lab.cuts(done)
        rows.append(
            [
                router,
                f"{done.bpb:.4f}",
                *(cut[key] for key in ("mean_length", "per_256", "whitespace", "variation")),
                f"{parameter_count(done.run.config().model):,}",
                f"{done.result.artifact_bytes:,}",
            ]
        )
    columns = ["router", "BPB", "mean chunk", "boundaries per 256", "whitespace", "CV", "parameters", "bytes"]
    note = f"All aim at chunks of {LENGTH} bytes. `soft` blends and cuts nothing."
    yield [Table("Routers in one backbone", columns, rows, note)], [those[0] for those in found.values()]
