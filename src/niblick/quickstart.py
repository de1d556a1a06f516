"""`niblick quickstart`: from text that every Python has to an audited, proved score, in under five minutes."""

from __future__ import annotations

import importlib.util
import math
import textwrap
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from niblick.audit.auditor import Options, audit
from niblick.audit.function_checks import Effort
from niblick.boundaries.cuts import PUBLISHED_SENTENCE, chunks
from niblick.boundaries.pictures import brackets
from niblick.challenge import rules
from niblick.challenge.tracks import UNWEIGHED
from niblick.config.run_config import override
from niblick.console import RunConsole, human_bytes, human_seconds, weighed
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.drawing import figures
from niblick.drawing import page as report
from niblick.errors import DataError
from niblick.facts.events import Event, Start, Step, Validation
from niblick.facts.reading import plain
from niblick.files import write_together
from niblick.recipes.presets import get_preset
from niblick.run import pipeline, scoring
from niblick.run.directory import Run, write_json
from niblick.run.loading import build_model, load_artifact
from niblick.score.baselines import compressor_baselines, label

TEXT_PER_SECOND = 25_000
"""Bytes of training text for the artifact, for each second that it may train: in the usual time, all there are."""
USUAL_SECONDS = 150.0
FLOOR = 150
"""Steps at least in the usual time, however slow or busy the machine: so many beat xz. Fewer in less time."""
PROVED = 1
"""Documents whose score is proved by coding and decoding them."""

WIDTH = 100
"""Columns of what the terminal shows at the end."""


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """What a quickstart found; `asdict` of it is its JSON."""

    bpb_float: float
    bpb: float
    """From the artifact, as it is scored: its model and what learns from text, which has read the artifact's text."""
    bpb_model: float
    """Of the artifact's model alone."""
    artifact_bytes: int
    packed_text: int
    """Of these, bytes that hold training text."""
    text_bytes: int
    """What they hold."""
    code_bytes: int | None
    total_bytes: int | None
    cap_bytes: int
    held_out_bytes: int
    training_bytes: int
    text_hash: str
    python_version: str
    baselines: dict[str, float]
    """Bits per byte of the compressors."""
    chunks_before: list[str]
    chunks_after: list[str]
    brackets_before: str
    brackets_after: str
    audit: list[Mapping[str, Any]]
    """The checks, as audit.json has them."""
    steps: int
    train_seconds: float
    seconds: float
    report: str
    artifact: str


def quickstart(folder: Path, seconds: float) -> Quickstart:
    """Run everything below `folder` (data/pydocs, runs/) and return the facts that `render` shows.

    Raises DataError if data/pydocs exists but is no finished dataset.
    """
    started = time.perf_counter()
    with RunConsole() as console:
        dataset = _dataset(folder / "data" / "pydocs", console)
        console.say("compressing the held-out text with general compressors, for comparison")
        held_out = dataset.tokenizer.decode(dataset.val.slice(0, dataset.val.tokens))
        training = dataset.tokenizer.decode(dataset.train.slice(0, dataset.train.tokens))
        baselines = compressor_baselines(held_out, training, workers=2)
        usual = get_preset("quickstart")
        once = dataset.train.tokens // usual.train.batch_tokens  # tables learn by heart what they see twice
        settings = [f"data.path={folder / 'data' / 'pydocs'}", f"schedule.steps={once}", *budget(seconds)]
        settings += learning(min(len(training), int(TEXT_PER_SECOND * seconds)))
        config = override(usual, settings)
        result = pipeline.run(config, folder / "runs", console)
        assert result is not None  # there is one rank
        run = Run(Path(result.run))
        before = chunks(build_model(config.model, config.seed), dataset.tokenizer, PUBLISHED_SENTENCE)
        model, _ = load_artifact(run.artifact(result.artifact))
        after = chunks(model, dataset.tokenizer, PUBLISHED_SENTENCE)
        console.say("scoring its model alone, for comparison")
        plain_scorer = ["score.sidecar.name="]
        alone = scoring.score_artifact(
            run.artifact(result.artifact), config.data.path, run=run, overrides=plain_scorer, keep=False
        )
        options = Options(Effort(tokens=1 << 15), prove=PROVED)
        audited = audit(str(run.path), folder / "runs", options=options, say=console.say)
    events = list(run.events())
    facts = Quickstart(
        bpb_float=[e.bpb for e in events if isinstance(e, Validation)][-1],
        bpb=result.bpb,
        bpb_model=alone.bpb,
        artifact_bytes=result.artifact_bytes,
        packed_text=result.packed_text or 0,
        text_bytes=result.text_bytes or 0,
        code_bytes=result.code_bytes,
        total_bytes=result.total_bytes,
        cap_bytes=rules.CAP_BYTES,
        held_out_bytes=len(held_out),
        training_bytes=len(training),
        text_hash=dataset.val.text_hash or "",
        python_version=dataset.manifest["niblick"]["python_version"],
        baselines={name: row["bits_per_byte"] for name, row in baselines.items()},
        chunks_before=[c.text for c in before],
        chunks_after=[c.text for c in after],
        brackets_before=brackets(before),
        brackets_after=brackets(after),
        audit=[plain(check.record()) for check in audited.checks],
        steps=result.step or 0,
        train_seconds=result.train_seconds or 0.0,
        seconds=time.perf_counter() - started,
        report=str(run.path / "report.html"),
        artifact=str(run.artifact(result.artifact)),
    )
    write_json(run.path / "quickstart.json", asdict(facts))
    _write_report(run, facts, _curve(events))
    return facts


def _dataset(path: Path, console: RunConsole) -> Dataset:
    if not path.exists():
        console.say("collecting the documentation that comes with this Python")
        prepare("pydocs", "byte260", path)
    dataset = Dataset.open(path)
    if dataset.manifest.get("niblick", {}).get("source") != "pydocs":
        raise DataError(f"{path} holds other text than pydocs: move it away or run quickstart in another --folder")
    return dataset


def budget(seconds: float) -> list[str]:
    """So many seconds of training, and the floor of steps that belongs to them."""
    return [f"schedule.max_seconds={seconds}", f"schedule.min_steps={int(FLOOR * min(1.0, seconds / USUAL_SECONDS))}"]


def learning(text_bytes: int) -> list[str]:
    """What learns from text once it is scored: with numba the mixture, which has training text packed, too."""
    if importlib.util.find_spec("numba") is None:
        return ["score.sidecar.name=ngram"]
    return ["score.sidecar.name=mixture", f"export.text={text_bytes}"]


def _curve(events: list[Event]) -> list[tuple[float, float]]:
    per_token = next(e.bytes_per_token for e in events if isinstance(e, Start)) or 1.0
    steps = [e for e in events if isinstance(e, Step)]
    return [(e.train_seconds or 0.0, e.loss / math.log(2) / per_token) for e in steps]


def _rows(facts: Quickstart) -> list[tuple[str, float]]:
    own = [("niblick, float weights", facts.bpb_float), ("niblick, model from the artifact", facts.bpb_model)]
    own += [("niblick, the whole artifact", facts.bpb)]
    return own + [
        (label(name), facts.baselines[name]) for prefixed in (False, True) for name in _peers(facts, prefixed)
    ]


def _peers(facts: Quickstart, prefixed: bool) -> list[str]:
    """The compressors alone, or those that have seen the training text, the strongest first."""
    names = [name for name in facts.baselines if name.endswith("_prefixed") == prefixed]
    return sorted(names, key=facts.baselines.__getitem__)


def verdict(facts: Quickstart) -> str:
    """Where the model stands among the compressors, the strongest of them first."""
    told = [_standing(facts, _peers(facts, False), "alone")]
    if peers := _peers(facts, True):
        told.append(_standing(facts, peers, f"with all {human_bytes(facts.training_bytes)} of training text at hand"))
    return " ".join(told)


def _standing(facts: Quickstart, peers: list[str], how: str) -> str:
    """How the model does against these peers, by itself and mixed: a plain sentence each."""
    strongest = facts.baselines[peers[0]]
    names = {peer: label(peer).removesuffix(", training text as prefix") for peer in peers}
    told = f"The artifact needs {_against(facts.bpb, strongest)} bits than {names[peers[0]]}, the strongest compressor"
    told += f" {how}. Its model alone needs {_against(facts.bpb_model, strongest)}."
    ahead = [name for peer, name in names.items() if facts.bpb_model < facts.baselines[peer]]
    return f"{told} By itself it beats {_and(ahead)}." if ahead and facts.bpb_model >= strongest else told


def _against(bpb: float, other: float) -> str:
    return f"{abs(bpb - other) / other:.1%} {'fewer' if bpb < other else 'more'}"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def render(facts: Quickstart) -> str:
    """Return what the terminal shows at the end."""
    lines = ["", f"bits per byte on {facts.held_out_bytes:,} bytes held out (less is better)", ""]
    rows = _rows(facts)
    wide = max(36, *(len(label) + 2 for label, _ in rows))
    lines += [f"  {label:<{wide}}{value:>8.4f}" for label, value in rows]
    lines += ["", *textwrap.wrap(verdict(facts), WIDTH, initial_indent="  ", subsequent_indent="  "), ""]
    if facts.total_bytes is None:
        size = f"{facts.artifact_bytes:,} bytes, {UNWEIGHED}; the cap of both is {facts.cap_bytes:,}"
    else:
        size = f"{facts.artifact_bytes:,} + code {facts.code_bytes or 0:,} = {facts.total_bytes:,} bytes, "
        size += f"{facts.total_bytes / facts.cap_bytes:.1%} of the cap of {facts.cap_bytes:,}"
    if facts.packed_text:
        size += f"; {facts.packed_text:,} of the artifact hold {facts.text_bytes:,} bytes of training text"
    lines += [
        *textwrap.wrap(f"size      artifact {size}", WIDTH, subsequent_indent=" " * 10),
        *_wrapped(facts.brackets_before, "chunks    before  "),
        *_wrapped(facts.brackets_after, "          after   "),
        *textwrap.wrap(audit_line(facts), WIDTH, initial_indent="audit     ", subsequent_indent=" " * 10),
        f"time      {human_seconds(facts.seconds)}, of which {human_seconds(facts.train_seconds)} training "
        f"({facts.steps:,} steps)",
        f"report    {facts.report}",
        f"artifact  {facts.artifact}",
    ]
    return "\n".join(lines)


def audit_line(facts: Quickstart) -> str:
    """What the audit says, and the proof: how many checks passed, or which failed."""
    checks = facts.audit
    failed = [check["name"] for check in checks if check["status"] == "fail"]
    proof = next(check["detail"] for check in checks if check["name"] == "proof")
    verdict = (
        f"failed: {', '.join(failed)}" if failed else f"{sum(c['status'] == 'pass' for c in checks)} checks passed"
    )
    return f"{verdict}; {proof}"


def _wrapped(brackets: str, label: str) -> list[str]:
    """Break a line of chunks between chunks; what follows stands under the first chunk."""
    lines = [label]
    for piece in brackets.replace("][", "]\0[").split("\0"):
        if len(lines[-1]) + len(piece) > WIDTH:
            lines.append(" " * len(label))
        lines[-1] += piece
    return lines


def _write_report(run: Run, facts: Quickstart, curve: list[tuple[float, float]]) -> None:
    rows = _rows(facts)
    colors = [figures.OURS] * 3 + [figures.PREFIXED if "prefix" in name else figures.THEIRS for name, _ in rows[3:]]
    bar_rows = [(label, value, color) for (label, value), color in zip(rows, colors, strict=True)]
    meter = "" if facts.total_bytes is None else report.meter(facts.total_bytes / facts.cap_bytes)
    sections = [
        f'<p><span class="big">{facts.bpb:.3f}</span> bits per byte, from the artifact. {verdict(facts)}</p>',
        report.section("Against compressors", report.svg(figures.bars(bar_rows), "bits per byte of each")),
        report.section(
            "Training",
            report.svg(figures.training_curve(curve, facts.bpb_model), "bits per byte over seconds of training"),
        ),
        report.section(
            "Chunks",
            f'<p class="soft">Before training, {len(facts.chunks_before)} chunks:</p>'
            + report.chunk_line(facts.chunks_before)
            + f'<p class="soft">After training, {len(facts.chunks_after)}:</p>'
            + report.chunk_line(facts.chunks_after),
        ),
        report.section(
            "Bytes",
            meter
            + report.table(
                ["", "bytes"],
                [
                    ["weights", f"{facts.artifact_bytes - facts.packed_text:,}"],
                    ["training text", f"{facts.packed_text:,}"],
                    ["code", weighed(facts.code_bytes)],
                    ["together", weighed(facts.total_bytes)],
                    ["cap", f"{facts.cap_bytes:,}"],
                ],
            ),
        ),
        report.section(
            "Audit",
            report.table(["check", "verdict"], [[c["name"], c["status"]] for c in facts.audit])
            + f'<p class="soft">{audit_line(facts)}.</p>',
        ),
        report.section(
            "All numbers",
            report.table(["bits per byte", ""], [[label, f"{value:.4f}"] for label, value in rows], own=2)
            + f'<p class="soft">Text: documentation of Python {facts.python_version}, '
            f"{facts.held_out_bytes:,} bytes held out (hash {facts.text_hash[:16]}…), "
            f"{facts.training_bytes:,} bytes of training text. {facts.steps:,} steps in "
            f"{facts.train_seconds:.0f} s.</p>",
        ),
    ]
    lead = f"{run.name}: a small byte-level H-Net, trained on this machine in {human_seconds(facts.train_seconds)}"
    write_together(
        {
            run.path / "bpb.png": figures.bars(bar_rows, "png"),
            run.path / "curve.png": figures.training_curve(curve, kind="png"),
            run.path / "report.html": report.page("niblick quickstart", lead, sections).encode(),
        }
    )
