"""What routers learned, on models that beat xz: tables and pictures of docs/boundaries.md.

Usage: python benchmarks/boundaries_table.py [--source pydocs] [--val-docs N] [--multilingual FILE.jsonl]
           [--challenge FILE.model] [--steps 900] [--windows 48] [--folder DIR] [--render]
           [--document docs/boundaries.md] [key=value …]

Trains a byte260 H-Net, one over lossless sp:1024, byte models whose boundaries are given by whitespace and by a small
model's entropy, and a second seed of the first up to two ninths of its steps; then studies each. Runs and figures that
`--folder` holds already are not made again; `--render` only writes the document again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from niblick.boundaries.cuts import Reader, read_text, row_chunks
from niblick.boundaries.measure import Group
from niblick.boundaries.pictures import brackets, svg
from niblick.boundaries.sample import make_sample
from niblick.boundaries.stability import flips_between_models
from niblick.config.run_config import RunConfig, override
from niblick.console import RunConsole
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.facts.reading import plain, read
from niblick.model.lm import LM
from niblick.recipes.presets import get_preset
from niblick.reports.boundary_report import (
    Subject,
    Wanted,
    against,
    open_subject,
    sentence_facts,
    study,
    untrained,
    write_pictures,
)
from niblick.reports.boundary_tables import number, percent, word_excess
from niblick.run.directory import Run, machine, read_json, write_bytes, write_json
from niblick.run.loading import build_model
from niblick.run.pipeline import run
from niblick.run.prepared import bytes_per_token
from niblick.score.baselines import xz_size
from niblick.train.checkpoint import list_checkpoints, load_weights, read_tensors
from tokenizers_table import write_between

BEGIN, END = "<!-- boundaries: begin -->", "<!-- boundaries: end -->"
ROOT = Path(__file__).parents[1]
VOCABULARY = "sp:1024"

CODE = '''def mean(values: list[float]) -> float:
    """Return the arithmetic mean."""
    if not values:
        raise ValueError("no values")
    return sum(values) / len(values)
'''

MODELS = {
    "byte260": "H-Net over bytes",
    "sp1024": "H-Net over subwords (`sp:1024`)",
    "whitespace": "bytes, `whitespace` router",
    "entropy": "bytes, `entropy` router",
}
"""Models of the document by their runs' names, and how they are called."""

PUBLISHED = [
    ("before training", "~120", "", ""),
    ("after, bytes", "42–47", "0.45–0.74", "up to 97.4%"),
    ("after, subwords", "", "0.68–0.89", ""),
]
"""Study 1's own figures, of models of 17 million weights on FineWeb: boundaries per 256, CV, whitespace agreement."""

LANGUAGES = ("Esperanto", "Turkish", "Vietnamese", "Russian", "Greek", "Hebrew", "Farsi", "Hindi", "Japanese", "Korean")
"""Languages of the multilingual file of which examples are shown, by the beginnings of their sources' names."""


def make_data(given: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Prepare the text as bytes and as subwords, and the multilingual text in the same tokens."""
    places = {}
    for kind, tokenizer in (("byte260", "byte260"), ("sp1024", VOCABULARY)):
        places[kind] = folder / "data" / kind
        if not places[kind].is_dir():
            prepare(given.source, tokenizer, places[kind], val_docs=given.val_docs)
    if given.multilingual:
        model = next((places["sp1024"] / "tokenizers").glob("*.model"))
        documents = len(Path(given.multilingual).read_text(encoding="utf-8").strip().split("\n"))
        for kind, tokenizer in (("byte260", "byte260"), ("sp1024", str(model))):
            places[f"many-{kind}"] = folder / "data" / f"many-{kind}"
            if not places[f"many-{kind}"].is_dir():
                prepare(given.multilingual, tokenizer, places[f"many-{kind}"], val_docs=documents - 1)
    return places


def config_for(name: str, data: Path, steps: int, every: int, overrides: list[str]) -> RunConfig:
    """The model `hnet-small` in float32, with nine checkpoints in `every` steps.

    Windows of subwords hold about as many bytes as those of 256 bytes.
    """
    base = override(get_preset("hnet-small"), overrides)
    dataset = Dataset.open(data)
    length = max(8, round(base.train.seq_len / bytes_per_token(dataset) / 8) * 8)
    return override(
        base,
        [
            *(f"preset={name}", f"data.path={data}", f"model.vocab_size={dataset.tokenizer.vocab_size}"),
            *(
                f"schedule.steps={steps}",
                "schedule.max_seconds=null",
                "train.dtype=float32",
            ),
            *(f"train.checkpoint_every={max(1, every // 9)}", "train.checkpoints_kept=0", f"score.seq_len={length}"),
            *(
                f"train.seq_len={length}",
                f"train.batch_tokens={16 * length}",
                f"train.micro_batch_tokens={16 * length}",
            ),
        ],
    )


def early(steps: int) -> int:
    """The checkpoint at two ninths of the steps, where two seeds are compared."""
    return 2 * max(1, steps // 9)


def checkpoint_at(run: Path, step: int) -> Path | None:
    """A run's checkpoint of that step, if there is one."""
    return next((path for path in list_checkpoints(run / "checkpoints") if path.stem == f"step_{step:08d}"), None)


def train(given: argparse.Namespace, folder: Path, data: dict[str, Path]) -> dict[str, Path]:
    """Train what is not there yet. Returns the runs by name."""
    runs, steps = folder / "runs", given.steps
    small = runs / "small-1"
    plans = [
        ("byte260-1", "byte260", steps, []),
        ("small-1", "byte260", max(1, steps // 2), ["model.levels=[]", "model.main.layout=T2", "model.width=64"]),
        ("sp1024-1", "sp1024", steps, []),
        ("whitespace-1", "byte260", steps, ["model.levels.0.router=whitespace"]),
        ("entropy-1", "byte260", steps, ["model.levels.0.router=entropy"]),
        # The same as the first up to there: the learning rate has not begun to fall.
        ("byte260-2", "byte260", early(steps), ["seed=1234", "schedule.warmdown_share=0"]),
    ]
    for name, kind, count, extra in plans:
        done = checkpoint_at(runs / name, early(steps)) if name == "byte260-2" else Run(runs / name).result()
        if done:
            continue
        if name == "entropy-1":
            artifact = Run(small).artifact(Run(small).artifact_names()[0])
            extra = [*extra, f"entropy.artifact={artifact}"]
        config = config_for(name.rpartition("-")[0], data[kind], count, steps, [*given.overrides, *extra])
        with RunConsole() as console:
            run(config, runs, console)
    return {name: runs / name for name, *_ in plans}


def measure_all(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Study every model; the figures are kept in the folder."""
    data = make_data(given, folder)
    runs = train(given, folder, data)
    validation = Dataset.open(data["byte260"]).val
    tokens = validation.slice(0, validation.tokens)
    text = (tokens[tokens >= 4] - 4).astype("uint8").tobytes()
    facts: dict[str, Any] = {"xz": 8 * xz_size(text) / len(text), "bytes": len(text), "models": {}, "many": {}}
    subwords = next((data["sp1024"] / "tokenizers").glob("*.model"))
    files = (subwords, *([Path(given.challenge)] if given.challenge else []))
    subjects = {}
    for name in MODELS:
        print(f"studying {name}", file=sys.stderr)
        kind = "sp1024" if name == "sp1024" else "byte260"
        subject = open_subject(str(runs[f"{name}-1"]), folder / "runs", str(data[kind]), "cpu")
        subjects[name] = subject = replace(subject, name=name)  # pictures show it
        kept = folder / "figures" / f"{name}.json"
        if kept.is_file():
            facts["models"][name], facts["many"][name] = read_json(kept)
            continue
        everything = Wanted(given.windows, 0, True, True, True, True, files)
        result = Run(runs[f"{name}-1"]).result()
        assert result is not None
        studied = study(subject, everything)
        found = plain(studied)
        found |= {"bpb": result.bpb, "step": result.step, "text_hash": result.text_hash}
        found["code"] = _cut(subject.reader, CODE)
        found["code_before"] = _cut(subject.with_model(untrained(subject)), CODE)
        facts["models"][name] = found
        write_pictures(subject, studied, folder / "pictures" / name)
        facts["many"][name] = None
        if given.multilingual:
            facts["many"][name] = _many(subject, Dataset.open(data[f"many-{kind}"]), given.windows)
        kept.parent.mkdir(exist_ok=True)
        write_json(kept, [found, facts["many"][name]])
    facts["against"] = _comparisons(given, subjects, runs)
    write_json(folder / "boundaries.json", facts)
    _keep_pictures(subjects, given.document.parent / "images", folder / "pictures")
    return facts


def _cut(reader: Reader, text: str) -> dict[str, Any]:
    pieces = row_chunks(read_text(reader, text, 256))
    return {"brackets": brackets(pieces), "mean": len(text.encode()) / len(pieces)}


def _many(subject: Subject, dataset: Dataset, windows: int) -> dict[str, Any]:
    """Figures on the multilingual text, and the beginnings of some languages' texts in chunks."""
    many = replace(subject, dataset=dataset)
    found = study(many, Wanted(4 * windows))
    facts = plain(found.levels[0])
    sources = dataset.manifest["niblick"]["sources"]
    split, examples = dataset.val, {}
    assert split.index is not None
    for language in LANGUAGES:
        for record in split.index:
            source = sources[int(record["source"])]
            if source.startswith(language) and language not in examples:
                ids = split.slice(int(record["offset"]), min(int(record["tokens"]), 400))
                text = subject.reader.tokenizer.decode(ids).decode(errors="ignore").replace("\ufeff", "").strip()
                line = next((part.strip() for part in text.splitlines() if len(part.strip()) > 30), text)[:60]
                examples[language] = _cut(subject.reader, line)
    keys = ("scripts", "sources", "inside_characters", "references", "mean_length", "boundaries_per_window")
    return {key: facts[key] for key in keys} | {"examples": examples, "window": found.window}


def _comparisons(given: argparse.Namespace, subjects: dict[str, Subject], runs: dict[str, Path]) -> dict[str, Any]:
    """The byte model's boundaries against those of each other model, and of another seed at two ninths of the steps."""
    first, found = subjects["byte260"], {}
    sample = make_sample(first.reader, first.text_of().val, given.windows, first.context, {})
    rows = first.reader.read(sample.windows)
    step = early(given.steps)
    paths = [checkpoint_at(runs[name], step) for name in ("byte260-1", "byte260-2")]
    if all(paths):
        readers = [first.with_model(_at(first, path)) for path in paths if path]
        seeds = flips_between_models(*(reader.read(sample.windows) for reader in readers))
        sentences = [sentence_facts(reader)[0].brackets for reader in readers]
        found[f"another seed, both at step {step}"] = plain(seeds) | {"same_tokens": True, "sentences": sentences}
    others = {name: each for name, each in subjects.items() if name != "byte260"}
    return found | {name: plain(against(rows, sample, first, other)) for name, other in others.items()}


def _at(subject: Subject, path: Path) -> LM:
    """The model with the weights of a checkpoint."""
    model = build_model(subject.reader.model.config, 0)
    tensors, _ = read_tensors(path)
    load_weights(model, {name[6:]: value for name, value in tensors.items() if name.startswith("model/")}, path)
    return model


def _keep_pictures(subjects: dict[str, Subject], images: Path, pictures: Path) -> None:
    """Put the pictures that the document shows beside it."""
    images.mkdir(parents=True, exist_ok=True)
    for name in ("byte260", "sp1024"):
        for source, suffix in (("sentence.svg", "sentence.svg"), ("training.svg", "training.svg")):
            found = pictures / name / source
            if found.is_file():
                write_bytes(images / f"boundaries_{name}_{suffix}", found.read_bytes())
    [row] = subjects["byte260"].reader.read([subjects["byte260"].reader.encode(CODE)])
    write_bytes(images / "boundaries_byte260_code.svg", svg(row, title="byte260, code").encode())


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; columns after the first are numbers."""
    lines = [f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _arrow(before: float | None, after: float | None, show: Any = number) -> str:
    return f"{show(before)} → {show(after)}"


def render(facts: dict[str, Any], command: str) -> str:
    """All tables in Markdown, with where their numbers come from."""
    models = facts["models"]
    sections = [
        _scores(facts),
        _published(models),
        _sentences(models),
        _references(models),
        _costs(models),
        _common(models),
        _code(models),
        _languages(facts["many"]) if all(facts["many"].values()) else "",
        _training(models),
        _stability(models, facts["against"]),
        _robustness(models),
        _sources(models),
    ]
    here = machine()
    first = next(iter(models.values()))
    foot = (
        f"{first['windows']} windows of each model, spread evenly over {facts['bytes']:,} held-out bytes (text hash "
        f"`{str(first['text_hash'])[:16]}`), decisions in float32 from the artifacts. One seed each unless a line says "
        f"otherwise. {here.cores} cores ({here.processor}). Made by `{command}`."
    )
    return "\n\n".join(part for part in [*sections, foot] if part)


def _scores(facts: dict[str, Any]) -> str:
    rows = [
        [
            f"{MODELS[name]}",
            f"{m['bpb']:.4f}",
            f"{(1 - m['bpb'] / facts['xz']):+.1%}".replace("+", "−") if m["bpb"] < facts["xz"] else "does not beat it",
            f"{m['step']}",
            f"{m['window']}",
        ]
        for name, m in facts["models"].items()
    ]
    rows.append(["`xz -9e` alone", f"{facts['xz']:.4f}", "", "", ""])
    return "## The models\n\n" + table(["model", "BPB", "against `xz -9e`", "steps", "window, tokens"], rows)


def _published(models: dict[str, Any]) -> str:
    rows = []
    for name, m in models.items():
        old, new = m["before"]["levels"][0], m["levels"][0]
        per = 256 / m["window"]
        rows.append(
            [
                MODELS[name],
                _arrow(*(x["boundaries_per_window"] for x in (old, new)), lambda v: number(v, 1)),
                _arrow(*(per * x["boundaries_per_window"] for x in (old, new)), lambda v: number(v, 1)),
                _arrow(*(x["mean_length"]["tokens"] for x in (old, new)), lambda v: number(v, 2)),
                _arrow(*(x["mean_length"]["bytes"] for x in (old, new)), lambda v: number(v, 2)),
                _arrow(*(x["variation"]["tokens"] for x in (old, new)), lambda v: number(v, 2)),
                _arrow(*(x["whitespace_agreement"] for x in (old, new)), percent),
            ]
        )
    rows += [[f"study 1, {name}", "", per, "", "", cv, space] for name, per, cv, space in PUBLISHED]
    columns = ["before → after training", "a window", "per 256 tokens", "tokens", "bytes", "CV", "beside whitespace"]
    return "## As published\n\n" + table(columns, rows)


def _sentences(models: dict[str, Any]) -> str:
    lines = ["## The published sentence", ""]
    for name, m in models.items():
        before, after = m["before"]["sentence"][0], m["sentence"][0]
        lines += [f"{MODELS[name]}, {before['chunks']} chunks before training and {after['chunks']} after:", ""]
        if before["brackets"] == after["brackets"]:
            lines += [*_fenced(after["brackets"]), ""]
        else:
            lines += [*_fenced(before["brackets"], after["brackets"]), ""]
    lines.append("![p under every byte, H-Net over bytes](images/boundaries_byte260_sentence.svg)")
    return "\n".join(lines)


def _fenced(*texts: str) -> list[str]:
    return ["```text", *texts, "```"]


def _references(models: dict[str, Any]) -> str:
    names = list(next(iter(models.values()))["levels"][0]["references"])
    parts = ["## Against words, sentences, lines and subwords", ""]
    rows = []
    for reference in names:
        row = [reference]
        for m in models.values():
            old, new = (x["levels"][0]["references"][reference] for x in (m["before"], m))
            row.append(f"{number(new['f1'], 2)} ({_arrow(old['excess'], new['excess'], lambda v: number(v, 2))})")
        rows.append(row)
    parts.append(table(["F1 (excess over chance, before → after)", *(MODELS[name] for name in models)], rows))
    rows = [
        [reference, *(f"{number(r['precision'], 2)} / {number(r['recall'], 2)}" for r in found)]
        for reference in names
        for found in [[m["levels"][0]["references"][reference] for m in models.values()]]
    ]
    parts += ["", table(["precision / recall", *(MODELS[name] for name in models)], rows)]
    return "\n".join(parts)


def _costs(models: dict[str, Any]) -> str:
    rows = []
    for name, m in models.items():
        level = m["levels"][0]
        cost, cut = level["surprisal"], level["truncated"]
        rows.append(
            [
                MODELS[name],
                number(cost["boundary"]["bits_per_token"], 2),
                number(cost["inside"]["bits_per_token"], 2),
                percent(cost["share_of_bits"]),
                *(percent(cut[key]["boundaries"]) for key in ("L//2", "L//4", "L//8")),
            ]
        )
    columns = ["", "bits a token at boundaries", "inside", "bits at boundaries", "cut by L//2", "by L//4", "by L//8"]
    return "## What boundaries cost, and what a cap cuts off\n\n" + table(columns, rows)


def _common(models: dict[str, Any]) -> str:
    rows = [
        [MODELS[name], " ".join(f"`[{_ticks(c['text'])}]`" for c in m["levels"][0]["common"][:14])]
        for name, m in models.items()
    ]
    return "## The commonest chunks\n\n" + "\n".join(["| | |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)])


def _ticks(text: str) -> str:
    from niblick.boundaries.pictures import visible

    return visible(text).replace("`", "'").replace("|", "\\|")


def _code(models: dict[str, Any]) -> str:
    lines = ["## Code", ""]
    for name, m in models.items():
        lines += [f"{MODELS[name]}, {m['code']['mean']:.2f} bytes a chunk ({m['code_before']['mean']:.2f} before):", ""]
        lines += [*_fenced(m["code"]["brackets"].replace("⏎", "⏎\n").rstrip("\n")), ""]
    lines.append("![p under every byte of code](images/boundaries_byte260_code.svg)")
    return "\n".join(lines)


def _languages(many: dict[str, Any]) -> str:
    rows = []
    scripts = [group["name"] for group in many["byte260"]["scripts"] if group["bytes"] > 0]
    for script in scripts:
        row = [script]
        for found in many.values():
            group = next((g for g in found["scripts"] if g["name"] == script), None)
            row.append(
                f"{number(group['mean_length_bytes'], 2)} / {percent(group['inside_characters']['share'])} / "
                f"{number(word_excess(read(Group, group)), 2)}"
                if group
                else "–"
            )
        rows.append(row)
    all_ = ["all", *(percent(found["inside_characters"]["share"]) + " inside" for found in many.values())]
    columns = ["script: bytes a chunk / inside characters / excess, Unicode words", *(MODELS[name] for name in many)]
    lines = ["## 85 languages", "", table(columns, [*rows, all_]), ""]
    for name in ("byte260", "sp1024"):
        lines += [f"{MODELS[name]}:", ""]
        lines += [*_fenced(*(f"{k:<12}{v['brackets']}" for k, v in many[name]["examples"].items())), ""]
    return "\n".join(lines).rstrip()


def _training(models: dict[str, Any]) -> str:
    lines = ["## Over training", ""]
    for name in ("byte260", "sp1024"):
        course = models[name]["training"]
        rows = [
            [
                f"{p['step']:,}",
                number(p["boundaries_per_window"], 1),
                number(p["variation"], 2),
                percent(p["whitespace_agreement"]),
                number(p["f1"]["word starts"], 2),
                number(p["f1_with_final"], 3),
                number(p["flips_since_last"], 1),
            ]
            for p in course["points"]
        ]
        columns = [
            "step",
            "a window",
            "CV",
            "beside whitespace",
            "F1 word starts",
            "F1 with the end",
            "flips since last",
        ]
        lines += [f"{MODELS[name]}:", "", table(columns, rows), ""]
        lines += [
            f"F1 with the final boundaries stays at {course['settled_at']} from step {course['settled']:,} on.",
            "",
        ]
    lines.append("![Agreements over training](images/boundaries_byte260_training.svg)")
    return "\n".join(lines)


def _stability(models: dict[str, Any], compared: dict[str, Any]) -> str:
    rows = []
    for name, m in models.items():
        shifts = m["stability"]["shifts"]
        found = m["stability"]["float_against_packed"]
        rows.append(
            [
                MODELS[name],
                *(f"{s['shift']}: {number(s['flips_per_window'], 2)} ({percent(s['share'])})" for s in shifts),
                f"{found['flips_per_window']:.2f}",
            ]
        )
    columns = [
        "windows that begin later",
        *("shift: flips" for _ in range(max(len(row) for row in rows) - 2)),
        "float against packed",
    ]
    lines = ["## Stability", "", table(columns, rows), ""]
    rows = []
    for name, found in compared.items():
        flips = f"{found['flips_per_window']:.1f} ({percent(found['share'])})" if found["same_tokens"] else "–"
        rows.append([MODELS.get(name, name), flips, number(found["f1"]), number(found["excess"])])
    lines += [table(["H-Net over bytes against", "flips a window", "F1", "excess over chance"], rows), ""]
    for name, found in compared.items():
        if "sentences" in found:
            lines += [f"The first seed and {name}:", "", *_fenced(*found["sentences"])]
    return "\n".join(lines).rstrip()


def _robustness(models: dict[str, Any]) -> str:
    kinds = list(next(iter(models.values()))["robustness"]["edits"])
    rows = []
    for kind in kinds:
        row = [kind]
        for m in models.values():
            e = m["robustness"]["edits"][kind]
            row.append(
                f"{percent(e['moved'])} / {e['flips']:.2f} / {e['median_reach']:.0f}, {e['largest_reach']}"
                if e
                else "–"
            )
        rows.append(row)
    columns = ["moves any / flips / reach in bytes, median and most", *(MODELS[name] for name in models)]
    lines = ["## Robustness", "", table(columns, rows), ""]
    rows = []
    for place, unit in enumerate(r["unit"] for r in next(iter(models.values()))["robustness"]["repeated"]):
        shown = _ticks(unit).replace(" ", "␣")
        found = [m["robustness"]["repeated"][place] for m in models.values()]
        rows.append([f"`{shown}` over and over", *(f"{f['boundaries']} in {f['bytes']}" for f in found)])
    for key, label in (("spaced", "text as it is"), ("spaceless", "without its spaces")):
        found = [m["robustness"]["without_spaces"][key] for m in models.values()]
        rows.append(
            [
                f"{label}: bytes a chunk, excess",
                *(f"{number(f['mean_length_bytes'], 2)}, {number(f['excess'], 2)}" for f in found),
            ]
        )
    return "\n".join([*lines, table(["", *(MODELS[name] for name in models)], rows)])


def _sources(models: dict[str, Any]) -> str:
    names = [group["name"] for group in models["byte260"]["levels"][0]["sources"]]
    rows = []
    for source in names:
        row = [f"`{source}`"]
        for m in models.values():
            group = next((g for g in m["levels"][0]["sources"] if g["name"] == source), None)
            row.append(
                f"{number(group['mean_length_bytes'], 2)} / {number(word_excess(read(Group, group)), 2)}"
                if group
                else "–"
            )
        rows.append(row)
    columns = ["source: bytes a chunk / excess, Unicode words", *(MODELS[name] for name in models)]
    return "## By source\n\n" + table(columns, rows)


def main(arguments: list[str]) -> None:
    """Train what is missing, study, write the document."""
    parser = argparse.ArgumentParser(description="What routers learned: docs/boundaries.md.")
    parser.add_argument("--source", default="pydocs")
    parser.add_argument("--val-docs", type=int)
    parser.add_argument("--multilingual", help="JSONL with `text` and `source`, a language each")
    parser.add_argument("--challenge", help="the challenge's fineweb_1024_bpe.model, one more reference")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--windows", type=int, default=48)
    parser.add_argument("--folder", type=Path, help="keep data, runs, figures and pictures there")
    parser.add_argument("--render", action="store_true", help="write the document again from the folder's figures")
    parser.add_argument("--document", type=Path, default=ROOT / "docs" / "boundaries.md")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    # What was typed, without the places of this machine and what has no part in the figures.
    hidden = {"--render", "--folder", str(given.folder), "--document", str(given.document)}
    shown = [Path(a).name if Path(a).is_absolute() else a for a in arguments if a not in hidden]
    command = " ".join(["python benchmarks/boundaries_table.py", *map(shlex.quote, shown)])
    if given.render and not given.folder:
        sys.exit("--render reads the figures of a folder: name it by --folder")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        facts = read_json(folder / "boundaries.json") if given.render else measure_all(given, folder)
    write_between(given.document, render(facts, command), (BEGIN, END))


if __name__ == "__main__":
    main(sys.argv[1:])
