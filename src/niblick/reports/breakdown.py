"""`niblick eval --breakdown`: a score taken apart, as tables, pictures and JSON in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from niblick.data.dataset import Dataset
from niblick.drawing import figures
from niblick.errors import ConfigError
from niblick.facts.reading import merged, plain
from niblick.files import json_bytes, write_together
from niblick.model.lm import LM
from niblick.run.directory import Run
from niblick.score.breakdowns import UNKNOWN_PLACE, Breakdowns, Part, PartFacts, chunk_places, rest
from niblick.score.plan import plan
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import Observe, on_its_device, room_for_chunks
from niblick.train.precision import autocast

DOCUMENTS = 100
"""So many documents are listed, the dearest first; all of them are in the picture."""

_SOURCES_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class DocumentPart(PartFacts):
    """A document, by its number."""

    document: int


@dataclass(frozen=True, kw_only=True)
class SourcedPart(DocumentPart):
    """A document of which it is known where it comes from."""

    source: str


@dataclass(frozen=True)
class Breakdown:
    """A score taken apart. Bits, bytes and tokens of all parts of one way add up to those of `total`."""

    total: PartFacts
    ways: Mapping[str, Sequence[PartFacts]]
    """The parts by each way of taking it apart."""
    unavailable: list[str]
    pictures: tuple[str, ...] = ()
    """Names of files."""

    def plain(self) -> dict[str, object]:
        """As breakdown.json holds it."""
        ways = {way: [plain(part) for part in parts] for way, parts in self.ways.items()}
        return {"total": plain(self.total), **ways, "unavailable": self.unavailable, "pictures": list(self.pictures)}


class Collector:
    """Takes a score apart while `pipeline.score_artifact` makes it: pass it as `observe`."""

    def __init__(self) -> None:
        self.found: Breakdowns | None = None
        self._learns = False
        self._dense = False

    def __call__(self, model: LM, dataset: Dataset, config: ScoreConfig, dtype: str) -> Observe:
        """Prepare for a score of this model; returns what is to be told the costs."""
        split, tokenizer = dataset.val, dataset.tokenizer
        windows = plan(config, split, tokenizer.bos_id)
        with autocast(next(model.parameters()).device, dtype), room_for_chunks(model, config.capacity):
            place_T = chunk_places(model, split, windows, on_its_device(config, model).batch_tokens)
        sources = dataset.manifest.get("niblick", {}).get("sources", [])
        self._learns, self._dense = bool(config.ttt.optimizer), place_T is None
        self.found = Breakdowns(split, tokenizer, windows, sources, place_T)
        return self.found.observe

    def facts(self) -> Breakdown:
        """What was found."""
        assert self.found is not None
        found, total = self.found, self.found.total
        dearest = found.by_document(DOCUMENTS)
        documents: list[PartFacts] = [self._document(number, part) for number, part in dearest]
        more = len(found.documents.nats) - len(dearest)
        if more > 0:
            documents.append(rest(f"{more:,} other documents", total, [part for _, part in dearest]).facts())
        ways = {
            "context": _facts(found.by_context()),
            "boundary": _facts(found.by_boundary()),
            "chunk": _facts(found.by_chunk()),
            "class": _facts(found.by_class()),
            "source": _facts(found.by_source()),
            "document": documents,
        }
        return Breakdown(total.facts(), ways, self._unavailable())

    def _document(self, document: int, part: Part) -> DocumentPart:
        assert self.found is not None
        assert self.found.split.index is not None
        number = int(self.found.split.index["source"][document])
        if number < len(self.found.sources):
            return merged(SourcedPart, part.facts(), document=document, source=self.found.sources[number])
        return merged(DocumentPart, part.facts(), document=document)

    def _unavailable(self) -> list[str]:
        assert self.found is not None
        missing = []
        if self._dense:
            missing.append("this model cuts no chunks, so there is nothing to say about their boundaries")
        elif self._learns:
            missing.append("chunks are those of the artifact's weights, before it learned from the text")
        if self.found.split.index is None:
            missing.append("there is no document index, so sources and documents are unknown")
        return missing

    def write(self, folder: Path) -> Breakdown:
        """Write breakdown.json and every picture as SVG and PNG into `folder`; return the facts with the file names."""
        assert self.found is not None
        folder.mkdir(parents=True, exist_ok=True)
        facts = self.facts()
        files = {
            f"{name}.{kind}": picture
            for kind in ("svg", "png")
            for name, picture in _pictures(facts, self.found, kind).items()
        }
        facts = replace(facts, pictures=tuple(sorted(files)))
        files["breakdown.json"] = json_bytes(facts.plain())
        write_together({folder / name: content for name, content in files.items()})
        return facts


def breakdown_folder(path: Path, run: Run | None, out: Path | None) -> Path:
    """Where the breakdown of an artifact goes. Raises ConfigError if that is not said, or is a file."""
    if out is None and run is None:
        raise ConfigError(f"{path} belongs to no run: say where its breakdown goes by --out DIR")
    folder = out or path.parent / "breakdown"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file: --out names a folder for the breakdown")
    return folder


def _facts(parts: list[Part]) -> list[PartFacts]:
    return [part.facts() for part in parts]


def _pictures(facts: Breakdown, found: Breakdowns, kind: str) -> dict[str, bytes]:
    whole = facts.total.bpb
    assert whole is not None
    context = [(_middle(name), bpb) for name, bpb, _ in _priced(facts.ways["context"])]
    pictures = {
        "context": figures.by_context(context, whole, kind),
        "class": _bars(facts, "class", kind),
    }
    if facts.ways["chunk"]:
        rows = [(name.replace(" and more", "+"), bpb) for name, bpb, _ in _priced(facts.ways["chunk"])]
        pictures["chunk"] = figures.by_place([row for row in rows if row[0] != UNKNOWN_PLACE], whole, kind)
    if facts.ways["source"]:
        pictures["source"] = _bars(facts, "source", kind)
    if facts.ways["document"]:
        sums = found.documents
        parts = [sums.part(d, "") for d in range(len(sums.nats))]
        pictures["document"] = figures.by_document([(p.bytes, p.bpb) for p in parts if p.bpb is not None], whole, kind)
    return pictures


def _bars(facts: Breakdown, way: str, kind: str) -> bytes:
    """Bars of BPB, each with its share of all bits."""
    parts = _priced(facts.ways[way])[:_SOURCES_SHOWN]
    notes = [f"{bits / facts.total.bits:.1%} of the bits" for _, _, bits in parts]
    return figures.bars([(name, bpb, figures.OURS) for name, bpb, _ in parts], kind, notes=notes)


def _priced(parts: Sequence[PartFacts]) -> list[tuple[str, float, float]]:
    """Name, BPB and bits of the parts that have bytes, so that a price per byte means something."""
    return [(part.name, part.bpb, part.bits) for part in parts if part.bpb is not None]


def _middle(name: str) -> float:
    """Where a bin of positions stands on a logarithmic axis."""
    low, _, high = name.partition("–")
    return (float(low) * float(high or low)) ** 0.5
