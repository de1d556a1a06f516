"""An artifact scored again in a fresh process, and asked about single rows in another that has seen nothing.

The first process has the artifact, its recipe and the text, an empty folder and an empty environment. What it opens,
imports and starts besides is not counted, and told. It keeps what the targets of some whole batches cost in the real
scoring, and again after many more tokens. The second process asks the same rows alone, and each batch once more, in
float64 where rounding could be the reason.
"""

from __future__ import annotations

import ast
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from niblick.audit.checks import Check, failed, not_applicable, passed
from niblick.audit.model_checks import as_function, exact
from niblick.audit.watched import KEPT_VARIABLES, foreign, strange_packages
from niblick.audit.windows import (
    EXACT,
    HALF,
    MEAN_HALF,
    MOST_WARM,
    Apart,
    Floats,
    alone,
    beyond,
    costs,
    difference,
    rows_of,
    spread,
    told,
    with_nothing_behind,
)
from niblick.data.dataset import Dataset
from niblick.errors import ArtifactError
from niblick.files import copy_recipe, imported_beside, read_json
from niblick.model.level import Level
from niblick.model.lm import LM
from niblick.recipes.presets import load_recipe
from niblick.run import scoring
from niblick.run.directory import write_json
from niblick.score.plan import Batch
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import ModelLosses, Observe, on_its_device, room_for_chunks
from niblick.train.precision import autocast, pick_dtype

_FRESH = (
    "import sys; from niblick.audit.watched import watch; watch(sys.argv[1], sys.argv[3], sys.argv[4]); "
    "from niblick.audit import fresh; getattr(fresh, sys.argv[2])(*sys.argv[3:])"
)
_BY = "by the model's own distribution"
MOST_CONSTANTS = 2_000
"""Bytes of constants in a recipe beyond which they are named."""


@dataclass(frozen=True)
class Fresh:
    """What a fresh process found."""

    bpb: float
    knife_edges: int = 0
    decisions: int = 0
    foreign: tuple[str, ...] = ()
    """Files that it read besides artifact, code and text."""
    strange: tuple[str, ...] = ()
    """Packages that it imported, and nobody requires."""
    network: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()
    windows: Check = field(default_factory=lambda: not_applicable("scored windows", "nothing was scored"))
    failure: str = ""
    """The last line of what it said when it broke off."""


Running = list[subprocess.Popen[str]]


@contextmanager
def scored_beside(path: Path, recipe: Path | None, data: str, tokens: int) -> Iterator[Future[Fresh]]:
    """Go on with other things while `score_fresh` runs; it is stopped if nobody waits for what it finds."""
    running: Running = []
    with ThreadPoolExecutor(1) as thread:
        try:
            yield thread.submit(score_fresh, path, recipe, data, tokens, running)
        finally:
            for process in running:
                process.kill()


def score_fresh(path: Path, recipe: Path | None, data: str, tokens: int, running: Running | None = None) -> Fresh:
    """Score an artifact in a process that has the file, its code and the text; hold `tokens` of it against rows alone.

    Its processes are added to `running`. Raises ArtifactError if the artifact cannot be scored, and nothing that it
    wanted in vain says why.
    """
    running = [] if running is None else running
    with tempfile.TemporaryDirectory() as name:
        place = Path(os.path.realpath(name))
        folder = place / "artifact"
        folder.mkdir()
        (folder / "artifact.nib").write_bytes(path.read_bytes())
        if recipe is not None:
            copy_recipe(recipe, folder)
        failure, seen = _process("score_here", folder, data, place, tokens, running)
        windows = not_applicable("scored windows", "the artifact was not scored")
        score: dict[str, Any] = {"bpb": float("nan"), "knife_edges": 0, "decisions": 0}
        if not failure:
            score = read_json(place / "score.json", lenient=True)
            failure, other = _process("ask_here", folder, data, place, tokens, running)
            seen = {key: [*seen[key], *other[key]] for key in seen}
        if not failure:
            windows = compared(place)
        known = [str(folder), str(place), os.path.realpath(data), str(Path(__file__).parents[2])]
        own = {file.partition("/")[0].removesuffix(".py") for file in imported_beside(recipe)} if recipe else set()
        found = Fresh(
            _real(score["bpb"]),
            score["knife_edges"],
            score["decisions"],
            tuple(dict.fromkeys([*_asked(seen["asked"], folder), *foreign(seen["files"], known)])),
            tuple(dict.fromkeys(strange_packages(seen["modules"], own | {"recipe"}))) if recipe else (),
            tuple(seen["network"]),
            tuple(seen["processes"]),
            windows,
            failure,
        )
        if failure and recipe is None:
            raise ArtifactError(f"scoring {path} in a fresh process failed: {failure}")
        return found


def _asked(files: list[str], folder: Path) -> list[str]:
    return [path for path in files if not path.startswith(str(folder) + os.sep)]


def _process(
    what: str, folder: Path, data: str, place: Path, tokens: int, running: Running
) -> tuple[str, dict[str, list[str]]]:
    """Run a function of this module in a fresh process. Returns why it failed ("" if not) and what was seen."""
    report = place / f"{what}.report.json"
    home = place / "home"
    home.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-c",
        _FRESH,
        str(report),
        what,
        str(folder),
        os.path.abspath(data),
        str(place),
        str(tokens),
    ]
    environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home)}  # no file of an earlier process is read
    silent, said_by = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, cwd=home, env=environment, text=True, stdout=silent, stderr=said_by) as process:
        running.append(process)
        said = process.communicate()[1].strip().splitlines()
    last = (said or ["nothing"])[-1] if process.returncode else ""
    nothing: dict[str, list[str]] = {key: [] for key in ("files", "asked", "network", "processes", "modules")}
    return last, read_json(report) if report.is_file() else nothing


def score_here(folder: str, data: str, place: str, tokens: str) -> None:
    """What the first process does: score the artifact, keep some costs, read on, and take these costs again."""
    if (recipe := Path(folder) / "recipe.py").is_file():
        load_recipe(recipe)
    kept: list[_Kept] = []

    def inspect(model: LM, dataset: Dataset, config: ScoreConfig, dtype: str) -> Observe:
        config = on_its_device(config, model)
        batches = spread(config, dataset.val, dataset.tokenizer.bos_id, int(tokens), pad=ModelLosses(model).pad)
        kept.append(_Kept(model, config, dtype, batches))
        return kept[0].observe

    record = scoring.score_artifact(Path(folder) / "artifact.nib", data, inspect=inspect)
    own = kept[0]
    arrays = {f"scored_{n}": nats for n, nats in enumerate(own.scored())}
    read = record.tokens
    with _ready(own.model, own.config, own.dtype) as ask:
        while read < min(8 * int(tokens), MOST_WARM):
            for batch in own.batches:
                ask(batch)
                read += batch.ids_BL.size
        arrays |= {f"later_{n}": ask(batch) for n, batch in enumerate(own.batches)}
    plain = not own.config.ttt.optimizer and not own.config.sidecar.name
    arrays |= {"read": np.array(float(read)), "plain": np.array(float(plain))}
    np.savez(Path(place) / "scored.npz", allow_pickle=False, **arrays)
    write_json(Path(place) / "score.json", {key: getattr(record, key) for key in ("bpb", "knife_edges", "decisions")})


@dataclass
class _Kept:
    """Batches of the real scoring, and what their targets cost there."""

    model: LM
    config: ScoreConfig
    dtype: str
    batches: list[Batch]
    found: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = np.unique(np.concatenate([batch.place_N for batch in self.batches]))

    def observe(self, first: int, nats_N: Floats) -> None:
        """Take what targets cost, in stream order."""
        begin, end = np.searchsorted(self.places, [first, first + len(nats_N)])
        for place in self.places[begin:end].tolist():
            self.found[place] = float(nats_N[place - first])

    def scored(self) -> list[Floats]:
        """The costs, batch by batch."""
        return [np.array([self.found[place] for place in batch.place_N.tolist()]) for batch in self.batches]


class _ready:
    """A model ready to be asked about batches as it is scored."""

    def __init__(self, model: LM, config: ScoreConfig, dtype: str) -> None:
        self.model, self.losses = model.eval(), ModelLosses(model, slide=bool(config.stride))
        device = next(model.parameters()).device
        self.contexts = [torch.no_grad(), autocast(device, dtype), room_for_chunks(model, config.capacity)]

    def __enter__(self) -> Callable[[Batch], Floats]:
        for context in self.contexts:
            context.__enter__()
        return lambda batch: costs(self.losses, batch)

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self.contexts):
            context.__exit__(*error)


def ask_here(folder: str, data: str, place: str, tokens: str) -> None:
    """What the second process does: ask about rows alone first, then about the same batches, then in float64."""
    if (recipe := Path(folder) / "recipe.py").is_file():
        load_recipe(recipe)
    opened = scoring.open_artifact(Path(folder) / "artifact.nib", data)
    model, dataset = opened.model, opened.dataset
    config = on_its_device(opened.config, model)
    kept = spread(config, dataset.val, dataset.tokenizer.bos_id, int(tokens), pad=ModelLosses(model).pad)
    device = next(model.parameters()).device
    half = pick_dtype(opened.dtype, device) != "float32"
    cuts = all(not isinstance(level, Level) or level.config.divisor is None for level in model.body.levels)
    found: list[dict[str, object]] = []
    arrays: dict[str, Floats] = {}
    with _ready(model, config, opened.dtype) as ask:
        rows = [_rows(model, batch, cuts) for batch in kept]
        for number, batch in enumerate(kept):
            arrays[f"fresh_{number}"] = ask(batch)
    suspicious = half or any(beyond(one, half=False) for n, batch in enumerate(kept)
                             for one in _apart(batch, rows[n], arrays[f"fresh_{n}"]))  # fmt: skip
    if suspicious:
        double = exact(model)
        with _ready(double, config, "float32") as ask:
            rows = [_rows(double, batch, cuts) for batch in kept]
            for number, batch in enumerate(kept):
                arrays[f"exact_{number}"] = ask(batch)
    for number, batch in enumerate(kept):
        asked = arrays.get(f"exact_{number}", arrays[f"fresh_{number}"])
        found += [vars(one) for one in _apart(batch, rows[number], asked)]
    arrays |= {f"place_{n}": batch.place_N.astype(np.float64) for n, batch in enumerate(kept)}
    np.savez(Path(place) / "fresh.npz", allow_pickle=False, **arrays)
    write_json(Path(place) / "asked.json", {"half": half, "exact": suspicious, "apart": found})


def _rows(model: LM, batch: Batch, cuts: bool) -> list[tuple[Any, Floats, Floats | None]]:
    """Rows of a batch with what their targets cost alone, and with nothing behind them."""
    device = next(model.parameters()).device
    function = as_function(model)

    def ask(ids_BL: torch.Tensor) -> torch.Tensor:
        return function(ids_BL.to(device))

    rows = rows_of(batch)
    return [(row, alone(ask, row), with_nothing_behind(ask, row) if cuts else None) for row in rows]


def _apart(batch: Batch, rows: list[tuple[Any, Floats, Floats | None]], scored: Floats) -> list[Apart]:
    """How far a batch's costs are from those of its rows alone."""
    found = []
    for row, whole, cut in rows:
        everywhere = range(row.begin, row.begin + len(row.targets_T))
        if cut is not None:
            some = [row.begin + end for end in row.ends]
            found.append(
                difference("with nothing behind it, by the model's own distribution", scored[some], cut, batch, some)
            )
        own = scored[list(everywhere)]
        found.append(difference("in a row alone, by the model's own distribution", own, whole, batch, everywhere))
    return found


def _real(value: float | None, otherwise: float = math.nan) -> float:
    """A number of a JSON file, where one that is not finite has become None."""
    return otherwise if value is None else value


def compared(place: Path) -> Check:
    """Hold what both processes found against each other."""
    said = read_json(place / "asked.json", lenient=True)
    first, second = np.load(place / "scored.npz"), np.load(place / "fresh.npz")
    for one in said["apart"]:
        nats = (_real(one["nats"][0]), _real(one["nats"][1]))
        found = Apart(one["way"], _real(one["worst"], math.inf), one["target"], nats, _real(one["mean"]))
        if beyond(found, half=False):
            return told(found, half=False)
    count = len([name for name in second if name.startswith("fresh_")])
    half, targets = bool(said["half"]), 0
    for number in range(count):
        fresh, places = second[f"fresh_{number}"], second[f"place_{number}"]
        targets += len(fresh)
        ways = [(f"later_{number}", f"after {int(first['read']):,} tokens")]
        ways += [(f"scored_{number}", "in the scoring of the whole text")] if bool(first["plain"]) else []
        for name, when in ways:
            if (check := _alike(first[name], fresh, places, when, half)) is not None:
                return check
        if f"exact_{number}" in second and half:
            off = float((fresh - second[f"exact_{number}"]).mean())
            if not abs(off) <= 10 * MEAN_HALF:
                detail = f"in half precision targets cost {off:+.4f} nats more on average than in float64"
                return failed("scored windows", f"{detail}; rounding explains {10 * MEAN_HALF:.1g}", mean=off)
    return passed(
        "scored windows",
        f"{targets:,} targets of {count} batches cost in the real scoring, and after {int(first['read']):,} tokens, "
        f"what a fresh copy says of their rows alone{', in float64' if said['exact'] else ''}",
        targets=targets,
        tokens=int(first["read"]),
        half=half,
    )


def _alike(one: Floats, other: Floats, places: Any, when: str, half: bool) -> Check | None:
    """The check that fails if the same batch costs something else there than in a process that has seen nothing."""
    apart = np.nan_to_num(np.abs(one - other), nan=np.inf)
    apart = np.where(one == other, 0.0, apart)
    limit = HALF if half else EXACT
    worst = int((apart / np.maximum(1.0, np.abs(other))).argmax())
    if apart[worst] / max(1.0, abs(float(other[worst]))) <= limit and abs(float((one - other).mean())) <= MEAN_HALF:
        return None
    target = int(places[worst])
    return failed(
        "scored windows",
        f"target {target} costs {one[worst]:.4f} nats {when} and {other[worst]:.4f} in the same batch of a process "
        "that has seen nothing before",
        target=target,
        nats=[float(one[worst]), float(other[worst])],
    )


def constants(recipe: Path) -> list[tuple[str, int, int]]:
    """Long constants of a recipe and what it imports beside it: (file, line, bytes) of each statement with one."""
    found = []
    for name, path in {recipe.name: recipe, **imported_beside(recipe)}.items():
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr | ast.Return | ast.AugAssign):
                inner = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
                is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                size = sum(len(value) if isinstance(value, str | bytes) else len(repr(value)) for value in inner)
                if size > MOST_CONSTANTS and not is_text:
                    found.append((name, node.lineno, size))
    return found
