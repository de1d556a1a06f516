"""Tracks: by which rules a run is made and ranked; and what makes a score legal on the challenge's record track.

A track is a few settings on top of a recipe. Some of them hold: a run of the track cannot have others. Scores are
ranked only beside scores with the same ranking key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

from niblick.challenge import rules
from niblick.errors import ConfigError, nearest
from niblick.facts.scores import Legality, Machine, ScoreRecord

WHOLE = "all"
"""What a score says about its slice if it is of the whole validation split."""

UNWEIGHED = "code not weighed"
"""What is said in the place of bytes where no script could be made of a config, so that its code has no size."""


@dataclass(frozen=True)
class Track:
    """One set of rules."""

    name: str
    summary: str
    sets: Mapping[str, Any] = field(default_factory=dict)
    """Config keys and what they are set to; a run may change them where they do not hold."""
    holds: Mapping[str, Any] = field(default_factory=dict)
    """Config keys that runs of the track cannot change."""
    timed: bool = False
    """Whether runs must have a time for training, schedule.max_seconds."""
    ranks: bool = True
    """Whether its scores mean anything beside each other."""

    @property
    def assignments(self) -> list[str]:
        """The settings as overrides of a config."""
        return [f"{key}={json.dumps(value)}" for key, value in {"track": self.name, **self.sets, **self.holds}.items()]


_SMOKE = {
    "schedule.steps": 10,
    "schedule.max_seconds": 20.0,
    "schedule.reserve_seconds": 0.0,
    "train.seq_len": 256,
    "train.batch_tokens": 1_024,
    "train.micro_batch_tokens": 1_024,
    "train.warmup_steps": 0,
    "train.val_every": 0,
    "train.compile": "never",
    "score.seq_len": 256,
}

TRACKS = {
    track.name: track
    for track in (
        Track(
            "smoke",
            "does it run? Ten short steps, one document scored; under a minute, and never ranked",
            _SMOKE,
            {"score.documents": 1},
            ranks=False,
        ),
        Track(
            "proxy",
            "which is better, probably? A capped validation of 32 documents; its scores rank, and are no results",
            {"score.documents": 32},
        ),
        Track(
            "fixed-step",
            "the ruler: the same steps, data order and slice for all, scored after the roundtrip",
            {"score.documents": 64, "train.val_every": 0},
            {"schedule.max_seconds": None, "data.seed": 1337},
        ),
        Track(
            "wallclock",
            "the same seconds of training for all, as many steps as they give",
            {"schedule.steps": 1_000_000},
            timed=True,
        ),
        Track(
            "challenge",
            "the record track: 600 s of training, 600 s of evaluation, the whole validation split, the cap",
            {},
            {
                "schedule.max_seconds": float(rules.TRAIN_SECONDS),
                "score.max_seconds": float(rules.EVAL_SECONDS),
                "score.documents": 0,
            },
            timed=True,
        ),
    )
}


def get_track(name: str) -> Track:
    """Return the track of that name. Raises ConfigError with the nearest names if there is none."""
    if name not in TRACKS:
        raise ConfigError(f"unknown track {name!r}{nearest(name, TRACKS)}")
    return TRACKS[name]


def check_track(name: str, config: Mapping[str, Any]) -> None:
    """Raise ConfigError unless a config, by dotted keys, keeps the rules of the track it names; "" has none."""
    if not name:
        return
    track = get_track(name)
    for key, value in track.holds.items():
        if config[key] != value:
            raise ConfigError(
                f"the track {name} holds {key}={json.dumps(value)}, and this run has {json.dumps(config[key])}: "
                "leave it as it is, or take another track"
            )
    if track.timed and config["schedule.max_seconds"] is None:
        raise ConfigError(f"the track {name} gives all runs the same time: set schedule.max_seconds, to 600 say")
    if track.timed and config.get("schedule.min_steps"):
        raise ConfigError(f"the track {name} gives all runs the same time, whatever they did: set schedule.min_steps=0")


@dataclass(frozen=True)
class RankingKey:
    """What scores must have in common to be ranked; `str` writes it for people."""

    track: str
    budget: str
    device: str
    text_hash: str
    """Of the documents that were scored; "" where it is unknown."""
    slice: str

    def __str__(self) -> str:
        track, budget, device, text, part = astuple(self)
        return f"{track or 'no track'} · {budget} · {device} · text {text[:12] or 'unknown'} ({part})"


def ranking_key(config: Mapping[str, Any], record: ScoreRecord) -> RankingKey:
    """Return the ranking key of a score: `config` as config.json has it, `record` one of its scores.

    The budget of a run without time limit is its steps, their tokens and the order of the data; else its seconds.
    """
    schedule, data = config["schedule"], config["data"]
    if schedule["max_seconds"] is not None:
        budget = f"{schedule['max_seconds']:g} s"
        if least := schedule.get("min_steps"):
            budget += f", at least {least:,} steps"
    else:
        order = f"{data['order']} order" + ("" if data["seed"] is None else f" of seed {data['seed']}")
        budget = f"{schedule['steps']:,} steps of {config['train']['batch_tokens']:,} tokens, {order}"
    here = record.machine or Machine()
    device = str(here) if here.gpu else f"{here.cores} cores, {here.processor}"
    return RankingKey(config.get("track", ""), budget, device, record.text_hash or "", record.slice)


def legality(
    *,
    artifact_bytes: int,
    code_bytes: int | None,
    train_seconds: float | None,
    eval_seconds: float,
    machine: Machine,
    score_first: bool = True,
    documents: int | None = None,
) -> Legality:
    """Hold a score against the challenge's record track: 16,000,000 bytes, 600 s and 600 s on 8×H100.

    `eval_seconds` count from the artifact file to the score; `score_first` says whether nothing was learned from a
    token before it was scored; `documents` how many were scored, where that was not the whole split. `reasons` lists
    everything that keeps it off the record track; `under_cap` is about bytes alone. `code_bytes` are None where the
    code could not be weighed: then `under_cap` is False if the artifact alone is over the cap, else None.
    """
    total = None if code_bytes is None else artifact_bytes + code_bytes
    least = artifact_bytes if total is None else total
    over = least > rules.CAP_BYTES
    reasons = []
    if over:
        reasons.append(f"{least:,} bytes are over the cap of {rules.CAP_BYTES:,}")
    if total is None:
        reasons.append(UNWEIGHED)
    if train_seconds is None:
        reasons.append("training time unknown")
    elif train_seconds > rules.TRAIN_SECONDS:
        reasons.append(f"trained for {train_seconds:.0f} s, over {rules.TRAIN_SECONDS} s")
    if eval_seconds > rules.EVAL_SECONDS:
        reasons.append(f"scored in {eval_seconds:.0f} s, over {rules.EVAL_SECONDS} s")
    if documents is not None:
        reasons.append(f"only the first {documents} documents of the validation split were scored")
    if not score_first:
        reasons.append("something was learned from text before it was scored")
    if machine.gpus != 8 or "H100" not in (machine.gpu or ""):
        reasons.append(f"on {machine}, not on 8×H100")
    return Legality(
        under_cap=None if total is None and not over else not over,
        code_bytes=code_bytes,
        artifact_bytes=artifact_bytes,
        total_bytes=total,
        train_seconds=train_seconds,
        eval_seconds=eval_seconds,
        hardware=str(machine),
        score_first=score_first,
        reasons=tuple(reasons),
    )
