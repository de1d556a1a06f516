"""Run directories as pipeline leaves them, in the files that the ledger reads, without training anything."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from niblick.challenge.tracks import legality
from niblick.config.run_config import override, to_dict
from niblick.facts.reading import plain
from niblick.facts.scores import Machine
from niblick.recipes.presets import get_preset
from niblick.run.directory import write_json

ARTIFACT = "int8+zlib"
TEXT_HASH = "ab" * 32
MACHINE = {"system": "Linux", "processor": "EPYC", "cores": 2, "threads": 2, "gpu": None, "gpus": 0}


def make_run(
    folder: Path,
    name: str,
    bpb: float | None = 2.0,
    *,
    overrides: tuple[str, ...] = (),
    seed: int = 1,
    member: dict[str, Any] | None = None,
    audit: str | None = "pass",
    total_bytes: int = 15_000_000,
    weighed: bool = True,
    events: list[dict[str, Any]] | None = None,
    **record: Any,
) -> Path:
    """Write a run; without `bpb` it is not finished. `record` changes what the score says.

    Unless `weighed`, its code could not be weighed, and `total_bytes` less 400,000 are the artifact's.
    """
    path = folder / name
    path.mkdir(parents=True)
    config = to_dict(override(get_preset("hnet-small"), [f"seed={seed}", *overrides]))
    if member is not None:
        write_json(path / "member.json", member | {"seed": seed})
    write_json(path / "config.json", config)
    lines = events if events is not None else training()
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in lines))
    if bpb is not None:
        finish(path, bpb, total_bytes, record, weighed)
        if audit:
            write_audit(path, audit)
    return path


def finish(
    path: Path,
    bpb: float,
    total_bytes: int = 15_000_000,
    changes: dict[str, Any] | None = None,
    weighed: bool = True,
) -> None:
    """Write artifact, score and result."""
    folder = path / "artifacts" / ARTIFACT
    folder.mkdir(parents=True)
    (folder / "artifact.nib").write_bytes(f"weights of {path.name}".encode())
    sizes = {"artifact_bytes": total_bytes - 400_000, "code_bytes": 400_000 if weighed else None}
    changes = changes or {}
    score_first = changes.pop("score_first", True)
    record = {
        "bpb": bpb,
        "bpb_repaired": bpb,
        "loss": 1.3,
        "tokens": 2240,
        "bytes": 2240,
        "original_bytes": 2240,
        "lossless": True,
        "text_hash": TEXT_HASH,
        "scorer": {"scorer": "contiguous"},
        "machine": MACHINE,
        "legality": plain(
            legality(**sizes, train_seconds=60.0, eval_seconds=3.0, machine=Machine(**MACHINE), score_first=score_first)
        ),
        "total_bytes": total_bytes if weighed else None,
    }
    record |= sizes | changes
    (folder / "scores.jsonl").write_text(json.dumps(record) + "\n")
    clocks = {"step": 20, "steps": 20, "train_seconds": 60.0, "wall_seconds": 66.0, "export_seconds": 4.0}
    files = {name: _digest(path / name) for name in ("config.json", f"artifacts/{ARTIFACT}/artifact.nib")}
    write_json(path / "result.json", {"run": str(path), "artifact": ARTIFACT} | clocks | record | {"files": files})


def write_audit(path: Path, status: str) -> None:
    """Write an audit of one check."""
    checks = [{"name": "causality", "status": status, "detail": ""}]
    write_json(path / "artifacts" / ARTIFACT / "audit.json", {"checks": checks})


def training(steps: int = 20) -> list[dict[str, Any]]:
    """Events of a training with one router: 8 BPB at first, less later."""
    start = {"event": "start", "parameters": 1000, "bytes_per_token": 1.0, "batch_tokens": 256}
    each = [
        {
            "event": "step",
            "step": i + 1,
            "train_seconds": 0.5 * (i + 1),
            "loss": 5.5 / (1 + i / 10),
            "grad_norm": 1.0,
            "lr_scale": 1 - i / steps,
            "tokens_per_second": 512.0,
            "levels": [{"boundary_rate": 0.3 - i / 200}],
        }
        for i in range(steps)
    ]
    check = {"event": "validation", "step": steps, "train_seconds": 0.5 * steps, "loss": 1.5, "bpb": 2.2}
    return [start, *each, check]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
