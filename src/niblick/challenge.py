"""The rules of the Parameter Golf challenge in one place: cap, limits, shard header, log lines.

Source: the challenge's published scripts (March to April 2026). Nothing here is niblick's own choice.
"""

from __future__ import annotations

from typing import Any

CAP_BYTES = 16_000_000
"""Code and artifact together must not be larger."""

TRAIN_SECONDS = 600
"""Record track: seconds of training on 8×H100."""

EVAL_SECONDS = 600
"""Record track: seconds of scoring on 8×H100."""

VALIDATION_DOCUMENTS = 50_000
"""The first documents of the challenge's cache are its validation split."""

SHARD_MAGIC = 20240520
SHARD_VERSION = 1
SHARD_HEADER_INTS = 256
"""A shard is 256 little-endian int32 (magic, version, number of tokens, zeros), then uint16 tokens."""

SHARD_TOKENS = 100_000_000
"""Tokens per shard; documents run on across shards of one split."""


def shard_name(split: str, number: int) -> str:
    """Return the file name of shard `number` of `split` ("train" or "val")."""
    return f"fineweb_{split}_{number:06d}.bin"


def log_lines(event: dict[str, Any]) -> list[str]:
    """Render an event as lines of the challenge's own training log; events that it has no line for give none."""
    kind = event["event"]
    if kind == "start":
        return [
            f"model_params:{event['parameters']}",
            f"world_size:1 grad_accum_steps:{event['accumulate']}",
            f"train_batch_tokens:{event['batch_tokens']} train_seq_len:{event['seq_len']} iterations:{event['steps']} "
            f"warmup_steps:{event['warmup_steps']} max_wallclock_seconds:{event['max_seconds'] or 0:.3f}",
            f"seed:{event['seed']}",
        ]
    if kind == "warmup":
        return [f"warmup_step:{event['step']}/{event['steps']}"]
    if kind in ("step", "validation"):
        clock = 1000 * event["train_seconds"]
        what = (
            f"train_loss:{event['loss']:.4f}"
            if kind == "step"
            else f"val_loss:{event['loss']:.4f} val_bpb:{event['bpb']:.4f}"
        )
        average = clock / max(event["step"], 1)
        return [f"step:{event['step']}/{event['steps']} {what} train_time:{clock:.0f}ms step_avg:{average:.2f}ms"]
    if kind == "stop":
        clock = 1000 * event["train_seconds"]
        return [f"stopping_early: {event['reason']} train_time:{clock:.0f}ms step:{event['step']}/{event['steps']}"]
    if kind == "export":
        name = event["name"]
        return [
            f"Serialized model {name}: {event['artifact_bytes']} bytes",
            f"Code size: {event['code_bytes']} bytes",
            f"Total submission size {name}: {event['total_bytes']} bytes",
        ]
    if kind == "score":
        name = f"final_{event['name'].replace('+', '_')}_roundtrip"
        loss, bpb, clock = event["loss"], event["bpb"], 1000 * event["seconds"]
        return [
            f"{name} val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:{clock:.0f}ms",
            f"{name}_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}",
        ]
    return []
