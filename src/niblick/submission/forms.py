"""submission.json as people publish it: lists or objects by seed, strings for numbers, fields left out, other names.

What it states is read as claims, each with the name it stands under; everything else is left alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from niblick.files import parse_json, read_text

_NUMBER = re.compile(r"^\s*~?\s*(\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(bytes|B|kB|KB|MB|MiB)?\b")
_UNITS = {"kB": 1000, "KB": 1000, "MB": 10**6, "MiB": 1 << 20}
_SCORE = ("val_bpb", "val_bpb_mean", "mean_val_bpb", "mean_bpb", "final_val_bpb", "val_bpb_exact", "bpb")
_TOTAL = (
    *("bytes_total", "total_bytes", "bytes_artifact", "artifact_bytes", "max_artifact_bytes", "artifact_bytes_max"),
    *("artifact_size_bytes", "submission_bytes", "submission_size_bytes", "total_submission_bytes"),
)
_CODE = ("bytes_code", "code_bytes", "code_size_bytes", "code_size")
_MODEL = re.compile(r"^(?:bytes_model\w*|model_bytes|model_size_bytes)$")
_LOSS = ("val_loss", "val_loss_mean", "mean_val_loss", "final_val_loss")
_SPREAD = ("val_bpb_std", "std_val_bpb", "val_bpb_stddev", "bpb_std")
_UNNAMED = ("val_bpb_seeds", "val_bpbs", "seed_bpbs", "val_bpb_by_seed", "seed_val_bpbs")
_BEYOND = re.compile(r"over[-_ ]?(?:16|cap|size|limit)|unlimited|no[-_ ]cap", re.IGNORECASE)
_BY_SEED = ("seeds", "seed_results", "results_by_seed", "per_seed", "seed_scores", "runs")
_DEEPEST = 3


@dataclass(frozen=True)
class Stated:
    """One number of a form: where it stands, its value, and what its digits leave open."""

    name: str
    value: float
    slack: float = 0.0

    @property
    def text(self) -> str:
        """The number for people."""
        return f"{self.value:,.0f}" if self.value == round(self.value) else f"{self.value:.8g}"


@dataclass(frozen=True)
class SeedClaim:
    """What a form states of one seed."""

    seed: str
    bpb: Stated | None = None
    total: Stated | None = None
    loss: Stated | None = None
    run: str = ""
    """The run directory it came from, where niblick wrote the form."""


@dataclass(frozen=True)
class Form:
    """What a submission.json states; None for what it does not."""

    path: Path
    bpb: Stated | None = None
    total: Stated | None = None
    code: Stated | None = None
    model: Stated | None = None
    seeds: tuple[SeedClaim, ...] = ()
    artifact_sha256: str = ""
    loss: Stated | None = None
    spread: Stated | None = None
    """The standard deviation of the score over seeds."""
    unnamed: tuple[Stated, ...] = ()
    """Scores of seeds that are listed without their numbers."""
    pairs: tuple[tuple[Stated, Stated], ...] = ()
    """Losses in nats per token, each with the score in bits per byte that stands beside it."""
    beyond: str = ""
    """What the form itself says of being over the cap; "" where it says nothing."""

    @property
    def own_scores(self) -> list[Stated]:
        """The scores of seeds, named or not."""
        return [seed.bpb for seed in self.seeds if seed.bpb is not None] or list(self.unnamed)


def find_forms(folder: Path) -> list[Path]:
    """The forms in a folder: submission.json first, or others called alike."""
    found = [path for path in folder.glob("*.json") if "submission" in path.name.lower() and path.is_file()]
    return sorted(found, key=lambda path: (path.name != "submission.json", path.name))


def read_form(path: Path) -> Form:
    """Read a form. Raises DataError if the file cannot be read, ValueError if it is no JSON object."""
    facts = parse_json(read_text(path), exact=True)
    if not isinstance(facts, dict):
        raise ValueError(f"it holds {type(facts).__name__}, where an object is expected")
    digest = facts.get("artifact_sha256")
    return Form(
        path,
        bpb=_first(facts, _SCORE),
        total=_first(facts, _TOTAL),
        code=_first(facts, _CODE),
        model=next((s for key, value in _flat(facts) if _MODEL.match(key) and (s := _stated(key, value))), None),
        seeds=tuple(_seeds(facts)),
        artifact_sha256=digest if isinstance(digest, str) else "",
        loss=_first(facts, _LOSS),
        spread=_first(facts, _SPREAD),
        unnamed=tuple(_unnamed(facts)),
        pairs=tuple(_pairs(facts)),
        beyond=_beyond(facts),
    )


def _unnamed(facts: Mapping[str, object]) -> Iterator[Stated]:
    """Scores in a list that names no seeds."""
    listed = next((value for key, value in _flat(facts) if key in _UNNAMED and isinstance(value, list)), None)
    for value in listed or ():
        if (found := _stated("val_bpb", value)) is not None and 0 < found.value < 20:
            yield found


def _pairs(facts: object, depth: int = 0) -> Iterator[tuple[Stated, Stated]]:
    """Every loss that has a score of the same name beside it, in whatever object of the form."""
    if not isinstance(facts, dict) or depth > _DEEPEST:
        return
    for key, value in facts.items():
        if key.endswith("val_loss"):
            loss, bpb = _stated(key, value), _stated(key[:-4] + "bpb", facts.get(key[:-4] + "bpb"))
            if loss is not None and bpb is not None and loss.value > 0 and bpb.value > 0:
                yield loss, bpb
        yield from _pairs(value, depth + 1)


def _beyond(facts: Mapping[str, object]) -> str:
    """Where the form says itself that it is over the cap."""
    track = facts.get("track")
    if isinstance(track, str) and _BEYOND.search(track):
        return f"track {track[:60]}"
    over = _first(facts, ("bytes_over_limit", "bytes_over_cap"))
    return f"{over.name} {over.text}" if over is not None and over.value > 0 else ""


def _first(facts: Mapping[str, object], names: tuple[str, ...]) -> Stated | None:
    """The first of these fields that holds a number: those further out, and earlier in `names`, come first."""
    flat = list(_flat(facts))
    for name in names:
        for key, value in flat:
            if key == name and (found := _stated(key, value)) is not None:
                return found
    return None


def _flat(facts: Mapping[str, object], depth: int = 0) -> Iterator[tuple[str, object]]:
    """Fields, outer ones first; not those of single seeds."""
    yield from facts.items()
    for key, value in facts.items():
        if (
            isinstance(value, dict)
            and depth < _DEEPEST
            and key not in _BY_SEED
            and not re.fullmatch(r"(?:seed[_ ]?)?\d+", key)
        ):
            yield from _flat(value, depth + 1)


def _stated(name: str, value: object) -> Stated | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        exponent = value.as_tuple().exponent if isinstance(value, Decimal) else 0
        slack = 0.5 * math.pow(10.0, exponent) if isinstance(exponent, int) and exponent < 0 else 0.0
        value = float(value)
        return Stated(name, value, slack) if math.isfinite(value) and abs(value) < 1e15 else None
    if isinstance(value, str) and (found := _NUMBER.match(value)) and len(found[1]) < 30:
        factor = _UNITS.get(found[2], 1)
        digits = found[1].partition(".")[2]
        slack = 0.5 * 10.0 ** -len(digits) * factor if digits or factor > 1 else 0.0
        return Stated(name, float(found[1].replace(",", "")) * factor, slack)
    return None


def _seeds(facts: Mapping[str, object]) -> Iterator[SeedClaim]:
    """What is stated by seed, wherever it stands, each seed once: with its score if any place gives one."""
    found: dict[str, SeedClaim] = {}
    places = [facts, *(value for value in facts.values() if isinstance(value, dict))]
    for place in places:
        for key in _BY_SEED:
            for claim in _by_seed(place.get(key)):
                if claim.seed not in found or found[claim.seed].bpb is None:
                    found[claim.seed] = claim
    yield from found.values()


def _by_seed(value: object) -> Iterator[SeedClaim]:
    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [(row.get("seed"), row) if isinstance(row, dict) else (row, None) for row in value]
    for seed, row in pairs:
        name = re.sub(r"^seed[_ ]?", "", str(seed))
        if isinstance(seed, bool) or not name.isdigit() or len(name) > 12:
            continue
        if isinstance(row, dict):
            run = row.get("run")
            run = run if isinstance(run, str) else ""
            yield SeedClaim(name, _first(row, _SCORE), _first(row, _TOTAL), _first(row, _LOSS), run)
        else:
            bpb = _stated("val_bpb", row) if isinstance(row, Decimal | str) else None
            yield SeedClaim(name, bpb if bpb and 0 < bpb.value < 20 else None)
