"""False alarms: honest runs of all presets, made small, under every scorer and several seeds, and what the audit says.

    python benchmarks/false_alarms.py [--seeds 3] [--every] [--presets NAME …] [--scorers NAME …] [--docs]

Each preset keeps its layouts, routers, tables, optimizer and export; it is narrow, and trains for a few steps on text
that is made up here. Every run is scored by one scorer and audited as `niblick audit RUN` does, fresh process included.
A check that fails or says `look` is a false alarm. Each preset meets each scorer once, the seeds in turn; `--every`
takes every seed for every pair, which is as many times the work.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from measure import put_into_docs
from niblick.audit import auditor
from niblick.audit.function_checks import Effort
from niblick.config.run_config import DataConfig, RunConfig
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.recipes.presets import PRESETS, get_preset
from niblick.run import pipeline
from niblick.score.score_config import ScoreConfig, SidecarConfig, TTTConfig

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "honesty.md"
SAID = "the of and a chunk router byte model text stream learns scores ends before after where green river"
PLAIN = ScoreConfig(seq_len=64, batch_tokens=1024)
LEARNS = TTTConfig("sgd", chunk_tokens=256, step_tokens=64, epochs=1)
FORGETS = TTTConfig("adamw", lora=2, weights="body.*", chunk_tokens=128, step_tokens=64, reset="document")
SCORERS = {
    "contiguous": PLAIN,
    "sliding": replace(PLAIN, scorer="sliding", stride=32),
    "document": replace(PLAIN, scorer="document"),
    "first documents": replace(PLAIN, documents=2),
    "test-time training": replace(PLAIN, ttt=LEARNS),
    "LoRA by document": replace(PLAIN, scorer="document", stride=48, ttt=FORGETS),
    "cache": replace(PLAIN, scorer="sliding", stride=32, sidecar=SidecarConfig("cache")),
    "bigram": replace(PLAIN, sidecar=SidecarConfig("bigram", reset="document")),
    "n-gram mixture": replace(PLAIN, sidecar=SidecarConfig("ngram", order=4)),
}


def texts(folder: Path) -> dict[str, tuple[str, int]]:
    """The same little text as bytes and as subwords: (path, vocabulary) by whether the preset reads bytes."""
    draw, words = random.Random(0), SAID.split()
    documents = [" ".join(draw.choices(words, k=60 + 5 * (i % 7))) + f" {i}." for i in range(150)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    prepare(str(folder / "text.jsonl"), "byte260", folder / "bytes", val_docs=4)
    prepare(str(folder / "text.jsonl"), "sp:300", folder / "subwords", val_docs=4)
    return {"byte260": (str(folder / "bytes"), 260), "subwords": (str(folder / "subwords"), 300)}


def small(name: str, text: tuple[str, int], score: ScoreConfig, seed: int) -> RunConfig:
    """The preset as it is built, narrow, for a few steps of little text."""
    config = get_preset(name)
    path, vocabulary = text
    levels = tuple(replace(level, width=None, target_length=4.0) for level in config.model.levels)
    main = replace(config.model.main, width=None)
    model = replace(config.model, width=32, heads=2, kv_heads=1, levels=levels, main=main, vocab_size=vocabulary)
    tables = tuple(replace(table, rows=min(table.rows, 64)) for table in model.ngrams)
    steps = replace(config.schedule, steps=6, warmdown_steps=3, max_seconds=None)
    train = replace(
        config.train,
        seq_len=64,
        batch_tokens=512,
        micro_batch_tokens=256,
        warmup_steps=0,
        val_every=0,
        dtype="float32",
        device="cpu",
    )
    return replace(
        config,
        seed=seed,
        model=replace(model, ngrams=tables),
        data=replace(config.data, path=path) if config.data else DataConfig(path),
        train=train,
        schedule=steps,
        export=replace(config.export, calibration_tokens=512),
        score=score,
    )


def alarms(
    presets: list[str], scorers: list[str], seeds: int, every: bool, folder: Path
) -> Iterator[tuple[str, str, int, dict[str, str]]]:
    """(preset, scorer, seed, alarms by check) of each run and each scorer."""
    found = texts(folder)
    for seed in range(seeds):
        for i, (scorer, score) in enumerate(SCORERS.items()):
            for j, name in enumerate(presets):
                if scorer not in scorers or (not every and (i + j) % seeds != seed):
                    continue
                text = found["byte260" if get_preset(name).tokenizer == "byte260" else "subwords"]
                try:
                    config = small(name, text, score, seed)
                except ConfigError as error:
                    print(f"{name}, {scorer}: does not go together: {error}", file=sys.stderr)
                    continue
                result = pipeline.run(config, folder / "runs", lambda event: None)
                audit = auditor.audit(result.run, folder / "runs", options=auditor.Options(Effort(tokens=1 << 12)))
                checks = {check.name: check for check in audit.checks}
                said = {n: f"{c.status}: {c.detail}" for n, c in checks.items() if c.status in ("fail", "look")}
                yield name, scorer, seed, said


def table(rows: list[tuple[str, str, int, dict[str, str]]]) -> str:
    """Runs and false alarms by scorer."""
    runs, wrong = Counter(row[1] for row in rows), Counter(row[1] for row in rows if row[3])
    lines = ["| scorer | honest runs audited | false alarms |", "| --- | ---: | ---: |"]
    lines += [f"| {scorer} | {runs[scorer]} | {wrong[scorer]} |" for scorer in SCORERS if runs[scorer]]
    return "\n".join([*lines, f"| **all** | {sum(runs.values())} | {sum(wrong.values())} |"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--every", action="store_true", help="every seed for every preset under every scorer")
    parser.add_argument("--presets", nargs="*", default=[*PRESETS])
    parser.add_argument("--scorers", nargs="*", default=[*SCORERS])
    parser.add_argument("--docs", action="store_true", help="write the table into docs/honesty.md")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        for row in alarms(args.presets, args.scorers, args.seeds, args.every, Path(folder)):
            rows.append(row)
            name, scorer, seed, said = row
            told = "; ".join(f"{check} {why}" for check, why in said.items()) or "no alarm"
            print(f"{time.monotonic() - started:6.0f} s  {name}, {scorer}, seed {seed}: {told}", flush=True)
    print(table(rows))
    if args.docs:
        put_into_docs("alarms", table(rows), PAGE)
    return 1 if any(row[3] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
