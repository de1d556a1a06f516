"""What makes a score legal: cap, time limits, hardware, order of scoring and learning."""

from __future__ import annotations

from typing import Any

from niblick import challenge


def legality(
    *,
    artifact_bytes: int,
    code_bytes: int,
    train_seconds: float | None,
    eval_seconds: float,
    machine: dict[str, Any],
    score_first: bool = True,
) -> dict[str, Any]:
    """Hold a score against the challenge's record track: 16,000,000 bytes, 600 s and 600 s on 8×H100.

    `eval_seconds` count from the artifact file to the score; `score_first` says whether nothing was learned from a
    token before it was scored. `reasons` lists everything that keeps it off the record track; `under_cap` is about
    bytes alone.
    """
    total = artifact_bytes + code_bytes
    hardware = f"{machine['gpus']}×{machine['gpu']}" if machine["gpu"] else f"{machine['cores']} CPU cores"
    reasons = []
    if total > challenge.CAP_BYTES:
        reasons.append(f"{total:,} bytes are over the cap of {challenge.CAP_BYTES:,}")
    if train_seconds is None:
        reasons.append("training time unknown")
    elif train_seconds > challenge.TRAIN_SECONDS:
        reasons.append(f"trained for {train_seconds:.0f} s, over {challenge.TRAIN_SECONDS} s")
    if eval_seconds > challenge.EVAL_SECONDS:
        reasons.append(f"scored in {eval_seconds:.0f} s, over {challenge.EVAL_SECONDS} s")
    if not score_first:
        reasons.append("something was learned from text before it was scored")
    if machine["gpus"] != 8 or "H100" not in (machine["gpu"] or ""):
        reasons.append(f"on {hardware}, not on 8×H100")
    return {
        "under_cap": total <= challenge.CAP_BYTES,
        "code_bytes": code_bytes,
        "artifact_bytes": artifact_bytes,
        "total_bytes": total,
        "train_seconds": train_seconds,
        "eval_seconds": eval_seconds,
        "hardware": hardware,
        "score_first": score_first,
        "reasons": reasons,
    }
