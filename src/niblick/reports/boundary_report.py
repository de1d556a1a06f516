"""`niblick boundaries`: what a router learned, as facts and pictures.

Decisions are made in float32, from the weights as they come out of the artifact, on windows of the validation split.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from niblick.artifact.container import Artifact
from niblick.boundaries import pictures, robustness, stability
from niblick.boundaries.cuts import PUBLISHED_SENTENCE, Chunk, Reader, Row, read_text, row_chunks
from niblick.boundaries.measure import Level, measure
from niblick.boundaries.metrics import settled
from niblick.boundaries.references import references, whole_characters
from niblick.boundaries.sample import Sample, make_sample
from niblick.data.dataset import Dataset
from niblick.data.tokenizers import Tokenizer
from niblick.drawing import figures
from niblick.drawing import page as report
from niblick.errors import ConfigError
from niblick.facts.reading import merged, plain
from niblick.facts.record import Record
from niblick.files import json_bytes, write_together
from niblick.model.lm import LM
from niblick.model.providers import Entropy
from niblick.run.artifacts import find_artifact
from niblick.run.directory import Run
from niblick.run.loading import build_model, declared_score, expect_tokenizer, load_artifact, own_tokenizer
from niblick.run.prepared import config_of
from niblick.train.checkpoint import list_checkpoints, load_weights, read_tensors
from niblick.train.precision import pick_device

SETTLED = 0.9
"""Boundaries have settled once their F1 with the final ones stays this high."""
SHOWN_WINDOWS = 6
"""So many windows are in the page of pictures."""


@dataclass(frozen=True)
class Subject:
    """A trained model with a router, out of its artifact."""

    name: str
    artifact: Artifact
    run: Run | None
    reader: Reader
    dataset: Dataset | None
    """The data that was named, or else that of its training where it is still there."""

    context: int
    """Window length that it was scored with, in tokens."""

    def with_model(self, model: LM) -> Reader:
        """Return a reader of the same tokens for another model."""
        return Reader(model.to(self.reader.device), self.reader.tokenizer)

    def text_of(self) -> Dataset:
        """Return its data. Raises ConfigError if there is none."""
        if self.dataset is None:
            raise ConfigError(f"{self.name} names no text that is still there: pass --data DIR")
        return self.dataset


def open_subject(target: str, runs: Path, data: str = "", device: str = "auto") -> Subject:
    """Load what is to be studied: RUN, RUN:NAME or an artifact, with `data` or that of its training.

    Raises ConfigError for a model without a router and for a tokenizer that is not at hand, ArtifactError for an
    artifact that is missing or damaged.
    """
    path, run = find_artifact(target, runs)
    model, artifact = load_artifact(path)
    trained_on = config_of(run).data.path if run else ""
    data = data or (trained_on if trained_on and Path(trained_on).is_dir() else "")
    dataset = Dataset.open(data) if data else None
    tokenizer: Tokenizer
    if dataset:
        expect_tokenizer(artifact, dataset, path)
        tokenizer = dataset.tokenizer
    else:
        tokenizer = own_tokenizer(artifact, path)
    context = declared_score(artifact, path)[0].seq_len
    return Subject(target, artifact, run, Reader(model.to(pick_device(device)), tokenizer), dataset, context)


def untrained(subject: Subject) -> LM:
    """Return the model as it was before training, rebuilt from the seed.

    The small model of an entropy router was trained before, so it is taken as it is. Raises ConfigError for an
    artifact that belongs to no run.
    """
    if subject.run is None:
        raise ConfigError(f"{subject.name} belongs to no run, so the seed it began from is unknown: name its run")
    config = config_of(subject.run)
    model = build_model(config.model, config.seed)
    trained = subject.reader.model.provider
    if isinstance(model.provider, Entropy) and isinstance(trained, Entropy):
        model.provider.load_state_dict(trained.state_dict())
    return model


@dataclass(frozen=True)
class Wanted:
    """What is asked for beside the figures of the model itself."""

    windows: int = 32
    window: int = 0
    """Tokens; 0: as it was scored."""
    before: bool = False
    training: bool = False
    stability: bool = False
    robustness: bool = False
    subwords: tuple[Path, ...] = ()
    """SentencePiece models whose tokens' edges are one more reference each."""

    def __post_init__(self) -> None:
        for name, least in (("windows", 1), ("window", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"--{name}={getattr(self, name)} must be at least {least or 1}")
        if self.window == 1:
            raise ConfigError("--window=1 leaves a router nothing to decide: give at least 2 tokens")


@dataclass(frozen=True, kw_only=True)
class Sentence(Record):
    """The published sentence as a level cuts it."""

    brackets: str
    chunks: int
    p: tuple[float, ...]
    """The boundary probability where each chunk starts."""


@dataclass(frozen=True, kw_only=True)
class Untrained(Record):
    """What the model did before training."""

    sentence: tuple[Sentence, ...]
    levels: tuple[Level, ...]


@dataclass(frozen=True, kw_only=True)
class Point(Record):
    """The outermost level at one step of training."""

    step: int
    boundaries_per_window: float
    variation: float | None
    whitespace_agreement: float | None
    f1: Mapping[str, float | None]
    f1_with_final: float | None
    flips_since_last: float | None


@dataclass(frozen=True, kw_only=True)
class Course(Record):
    """How boundaries came about in training."""

    points: tuple[Point, ...]
    settled: int | None
    """The step from which on they agreed with the final ones."""
    settled_at: float


@dataclass(frozen=True, kw_only=True)
class Stability(Record):
    """Whether boundaries stay where they are."""

    SELDOM: ClassVar[tuple[str, ...]] = ("float_against_packed",)

    shifts: tuple[stability.ShiftFlips, ...]
    float_against_packed: stability.ModelFlips | None = None


@dataclass(frozen=True, kw_only=True)
class Robustness(Record):
    """What small changes of the text, and unusual texts, do."""

    edits: Mapping[str, robustness.EditFacts | None]
    repeated: tuple[robustness.Repetition, ...]
    without_spaces: robustness.Spaces | None


@dataclass(frozen=True, kw_only=True)
class Against(Record):
    """Another model, which boundaries are set against."""

    model: str
    same_tokens: bool
    sentence: tuple[Sentence, ...]


@dataclass(frozen=True, kw_only=True)
class AgainstSameTokens(stability.ModelFlips, Against):
    """Another model over the same tokens."""


@dataclass(frozen=True, kw_only=True)
class AgainstOtherTokens(stability.TokenAgreement, Against):
    """A model over other tokens."""


@dataclass(frozen=True, kw_only=True)
class Studied(Record):
    """All figures about the boundaries of a model; None for those that nobody asked for."""

    SELDOM: ClassVar[tuple[str, ...]] = ("before", "training", "stability", "robustness", "against")

    model: str
    tokenizer: str
    text_hash: str | None
    windows: int
    window: int
    routers: tuple[str, ...]
    sentence: tuple[Sentence, ...]
    levels: tuple[Level, ...]
    unavailable: tuple[str, ...]
    before: Untrained | None = None
    training: Course | None = None
    stability: Stability | None = None
    robustness: Robustness | None = None
    against: AgainstSameTokens | AgainstOtherTokens | None = None


def study(subject: Subject, wanted: Wanted, other: Subject | None = None) -> Studied:
    """Return all that is asked for. `other` is the model whose boundaries these are set against.

    Raises DataError for a window longer than the data, ConfigError for what cannot be told of this model.
    """
    dataset, reader = subject.text_of(), subject.reader
    length = wanted.window or subject.context
    edges, missing = references(wanted.subwords)
    sources = dataset.manifest.get("niblick", {}).get("sources", [])
    sample = make_sample(reader, dataset.val, wanted.windows, length, edges, sources)
    rows = reader.read(sample.windows, costs=True)
    return Studied(
        model=subject.name,
        tokenizer=reader.tokenizer.name,
        text_hash=dataset.val.text_hash,
        windows=len(sample.windows),
        window=length,
        routers=tuple(level.router for level in reader.model.config.levels),
        sentence=sentence_facts(reader),
        levels=tuple(measure(rows, sample)),
        unavailable=tuple(missing),
        before=_before(subject, sample) if wanted.before else None,
        training=over_training(subject, sample) if wanted.training else None,
        stability=stability_facts(subject, sample, rows) if wanted.stability else None,
        robustness=robustness_facts(reader, rows, length) if wanted.robustness else None,
        against=None if other is None else against(rows, sample, subject, other),
    )


def _before(subject: Subject, sample: Sample) -> Untrained:
    first = subject.with_model(untrained(subject))
    levels = measure(first.read(sample.windows, costs=True), sample)
    return Untrained(sentence=sentence_facts(first), levels=tuple(levels))


def sentence_facts(reader: Reader) -> tuple[Sentence, ...]:
    """The published sentence as each level cuts it."""
    [row] = reader.read([reader.encode(PUBLISHED_SENTENCE)])
    found = []
    for level in range(len(row.levels)):
        pieces = row_chunks(row, level)
        p = tuple(c.p for c in pieces)
        found.append(Sentence(brackets=pictures.brackets(pieces), chunks=len(pieces), p=p))
    return tuple(found)


def against(
    rows: list[Row], sample: Sample, subject: Subject, other: Subject
) -> AgainstSameTokens | AgainstOtherTokens:
    """Set the outermost boundaries against another model's on the same text: flips, or F1 where tokens differ."""
    mine, theirs = subject.reader.tokenizer.spec(), other.reader.tokenizer.spec()
    same = all(mine.get(key) == theirs.get(key) for key in ("kind", "vocab_size", "model_sha256"))
    them = Against(model=other.name, same_tokens=same, sentence=sentence_facts(other.reader))
    if same:
        return merged(AgainstSameTokens, them, stability.flips_between_models(rows, other.reader.read(sample.windows)))
    return merged(AgainstOtherTokens, them, stability.agreement_across_tokens(rows, other.reader))


def over_training(subject: Subject, sample: Sample) -> Course:
    """Measure the untrained model, every checkpoint that is left and the final weights, of the outermost level.

    Raises ConfigError for an artifact that belongs to no run.
    """
    model = untrained(subject)
    assert subject.run is not None
    states = [(0, None), *((_step(path), path) for path in list_checkpoints(subject.run.checkpoints))]
    result = subject.run.result()
    last = (result.step if result else None) or states[-1][0]
    states = [state for state in states if state[0] != last]
    taken: list[tuple[int, list[Row]]] = []
    for step, path in states:
        if path is not None:
            tensors, _ = read_tensors(path)
            load_weights(model, {k[6:]: v for k, v in tensors.items() if k.startswith("model/")}, path)
        taken.append((step, subject.with_model(model).read(sample.windows, costs=True)))
    tensors, _ = read_tensors(subject.run.weights)
    load_weights(model, tensors, subject.run.weights)
    taken.append((last, subject.with_model(model).read(sample.windows, costs=True)))
    return _course(taken, sample)


def _course(taken: list[tuple[int, list[Row]]], sample: Sample) -> Course:
    """The outermost level's figures at each step, its agreement with the end, and when that has settled."""
    points: list[Point] = []
    for number, (step, rows) in enumerate(taken):
        facts = measure(rows, sample)[0]
        final = stability.flips_between_models(rows, taken[-1][1])
        last = stability.flips_between_models(rows, taken[number - 1][1]) if number else None
        points.append(
            Point(
                step=step,
                boundaries_per_window=facts.boundaries_per_window,
                variation=facts.variation.tokens,
                whitespace_agreement=facts.whitespace_agreement,
                f1={name: each.f1 for name, each in facts.references.items()},
                f1_with_final=final.f1,
                flips_since_last=last.flips_per_window if last else None,
            )
        )
    found = settled([p.step for p in points], [p.f1_with_final or 0.0 for p in points], SETTLED)
    return Course(points=tuple(points), settled=found, settled_at=SETTLED)


def _step(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def stability_facts(subject: Subject, sample: Sample, rows: list[Row]) -> Stability:
    """Flips between overlapping windows, and between float and packed weights where the run kept its floats."""
    split = subject.text_of().val
    shifts = tuple(stability.flips_between_windows(subject.reader, split, sample))
    packed = None
    if subject.run is not None and subject.run.weights.is_file():
        model = build_model(subject.reader.model.config, 0)
        tensors, _ = read_tensors(subject.run.weights)
        load_weights(model, tensors, subject.run.weights)
        floats = subject.with_model(model).read(sample.windows)
        packed = stability.flips_between_models(rows, floats)
    return Stability(shifts=shifts, float_against_packed=packed)


def robustness_facts(reader: Reader, rows: list[Row], length: int) -> Robustness:
    """Edits, repeated bytes and text without spaces, on the windows' own text."""
    texts = [text for row in rows if (text := _clean(row))]
    return Robustness(
        edits=robustness.edits(reader, texts),
        repeated=tuple(robustness.repeated(reader, length)),
        without_spaces=robustness.without_spaces(reader, texts),
    )


def _clean(row: Row) -> str:
    """Text of a window without the bytes of cut characters; nothing where bytes are no text."""
    _, text = whole_characters(row.data)
    return "" if any("\udc80" <= c <= "\udcff" for c in text) else text


def write_pictures(subject: Subject, facts: Studied, folder: Path) -> list[str]:
    """Write boundaries.json, a page with p under every byte, and pictures as SVG and PNG; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    reader = subject.reader
    files: dict[str, bytes] = {"sentence.svg": _sentence_svg(reader, subject.name)}
    if facts.before:
        files["sentence_before.svg"] = _sentence_svg(subject.with_model(untrained(subject)), "before training")
    for kind in ("svg", "png"):
        files[f"lengths.{kind}"] = figures.chunk_lengths(_histograms(facts), kind)
        if facts.training and len(facts.training.points) > 1:
            files[f"training.{kind}"] = figures.over_training(_curves(facts.training), kind)
    files["chunks.html"] = _page(subject, facts, files).encode()
    files["boundaries.json"] = json_bytes(plain(facts))
    write_together({folder / name: content for name, content in files.items()})
    return sorted(files)


def _sentence_svg(reader: Reader, title: str) -> bytes:
    [row] = reader.read([reader.encode(PUBLISHED_SENTENCE)])
    return pictures.svg(row, title=title).encode()


def _histograms(facts: Studied) -> list[tuple[str, Mapping[int, int]]]:
    named = [(f"level {level.level}", level) for level in facts.levels]
    if facts.before:
        named += [(f"{name}, before training", facts.before.levels[level.level]) for name, level in named]
    return [(name, level.histogram.bytes) for name, level in named]


def _curves(training: Course) -> dict[str, list[tuple[int, float]]]:
    points = training.points
    curves = {
        "F1 with the final boundaries": [(p.step, p.f1_with_final) for p in points],
        "beside whitespace": [(p.step, p.whitespace_agreement) for p in points],
    }
    for name in ("word starts", "Unicode words"):
        if name in points[0].f1:
            curves[f"F1 with {name}"] = [(p.step, p.f1[name]) for p in points]
    return {
        name: [(step, value) for step, value in curve if value is not None]
        for name, curve in curves.items()
        if any(value is not None for _, value in curve)
    }


def _page(subject: Subject, facts: Studied, files: dict[str, bytes]) -> str:
    reader = subject.reader
    sections = []
    [row] = reader.read([reader.encode(PUBLISHED_SENTENCE)])
    sections += _boxes("The published sentence", row)
    sections.append(
        report.section("Lengths of chunks", report.svg(files["lengths.svg"], "shares of chunks by their length"))
    )
    if "training.svg" in files:
        sections.append(
            report.section("Over training", report.svg(files["training.svg"], "agreements over steps of training"))
        )
    if subject.dataset is not None:
        sample = make_sample(reader, subject.dataset.val, SHOWN_WINDOWS, facts.window, {})
        for number, shown in enumerate(reader.read(sample.windows), 1):
            sections += _boxes(f"Window {number}", shown)
    lead = (
        f"{subject.name} ({facts.tokenizer}): chunks in boxes, the boundary probability p under every byte; "
        "dark where a chunk starts."
    )
    return report.page("boundaries", lead, [f"<style>{pictures.STYLE}</style>", *sections])


def _boxes(title: str, row: Row) -> list[str]:
    levels = range(len(row.levels))
    return [
        report.section(title if len(levels) == 1 else f"{title}, level {level}", pictures.chunk_boxes(row, level))
        for level in levels
    ]


def text_page(subject: Subject, text: str | bytes) -> tuple[list[list[Chunk]], dict[str, bytes]]:
    """Cut a text of any length. Returns the chunks of each level, and pictures of them by file name.

    Raises DataError for a text that is empty or that the model's tokenizer cannot read.
    """
    row = read_text(subject.reader, text, subject.context)
    levels = range(len(row.levels))
    sections = [f"<style>{pictures.STYLE}</style>", *_boxes("Chunks", row)]
    lead = f"{subject.name} ({subject.reader.tokenizer.name}): the boundary probability p stands under every byte."
    files = {"chunks.html": report.page("boundaries", lead, sections).encode()}
    for level in levels:
        name = "chunks.svg" if len(levels) == 1 else f"chunks_level{level}.svg"
        files[name] = pictures.svg(row, level).encode()
    return [row_chunks(row, level) for level in levels], files
