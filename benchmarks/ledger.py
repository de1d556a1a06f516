"""The ledger over 10,000 run directories, against the plain loop that reads every config and result each time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measure import Row, compare
from niblick.ledger.ledger import CACHE, Filter, Ledger

RUNS = 10_000
SEEDS = 5


def make_runs(folder: Path, count: int) -> None:
    """Write `count` finished run directories: those files of real ones that the ledger reads, with made-up scores."""
    from niblick.config.run_config import to_dict
    from niblick.facts.reading import plain
    from niblick.recipes.presets import get_preset
    from niblick.run.directory import machine

    here = plain(machine())
    base = to_dict(get_preset("hnet-byte260"))
    for i in range(count):
        group, seed = divmod(i, SEEDS)
        config = base | {"seed": seed, "model": base["model"] | {"width": 64 * (1 + group % 16)}}
        path = folder / f"sweep-{group % 20}" / f"idea-{group}-s{seed}"
        artifact = path / "artifacts" / "int8-published+zlib"
        artifact.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(config, indent=2))
        result = _result(1.2 + group % 97 / 1000 + seed / 10_000, 15_000_000 + 1_000 * (group % 1500), here)
        (path / "result.json").write_text(json.dumps(result, indent=2))
        (path / "events.jsonl").write_text(
            json.dumps({"event": "start", "parameters": 17_455_176}) + "\n" + json.dumps({"event": "score"}) + "\n"
        )
        (artifact / "scores.jsonl").write_text(json.dumps(result) + "\n")


def _result(bpb: float, total: int, here: dict[str, object]) -> dict[str, Any]:
    legality = {
        "under_cap": total <= 16_000_000,
        "eval_seconds": 12.5,
        "hardware": "2 CPU cores",
        "score_first": True,
        "reasons": ["on 2 CPU cores, not on 8×H100"],
    }
    facts = {"artifact": "int8-published+zlib", "step": 1000, "steps": 1000, "train_seconds": 590.0}
    sizes = {"artifact_bytes": total - 400_000, "code_bytes": 400_000, "total_bytes": total}
    score = {"bpb": bpb, "bpb_repaired": bpb, "loss": bpb * 0.69, "tokens": 1_513_636, "bytes": 1_513_636}
    text = {"lossless": True, "documents": 220, "original_bytes": 1_513_636, "text_hash": "0" * 64}
    return facts | sizes | score | text | {"scorer": {"scorer": "contiguous"}, "legality": legality, "machine": here}


WANTED = 128
"""Width of the models that are asked for: a sixteenth of them."""


def plain_loop(folder: Path) -> list[Path]:
    """Read config and result of every run, and keep those of the wanted width."""
    found = []
    for path in folder.glob("*/*/config.json"):
        config = json.loads(path.read_text())
        json.loads((path.parent / "result.json").read_text())
        if config["model"]["width"] == WANTED:
            found.append(path.parent)
    return found


def listed(folder: Path) -> list[Path]:
    """The same by the ledger."""
    return [Path(row.path) for row in Ledger(folder).rows(Filter(values=(f"model.width={WANTED}",)))]


def anew(folder: Path) -> list[Path]:
    """The same by the ledger, its cache thrown away."""
    (folder / CACHE).unlink(missing_ok=True)
    return listed(folder)


def command(folder: Path) -> None:
    """The whole command, from a fresh process to its table."""
    arguments = ["runs", f"model.width={WANTED}", "--runs", str(folder)]
    subprocess.run([sys.executable, "-m", "niblick", *arguments], check=True, stdout=subprocess.DEVNULL)


def bench_ledger(quick: bool) -> list[Row]:
    """Rows of the table: with the cache, without it, and the whole command."""
    count, repeats = (100, 1) if quick else (RUNS, 3)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_runs(folder, count)
        assert sorted(listed(folder)) == sorted(plain_loop(folder))
        what = f"list {count:,} runs, of one width"
        peer = "plain loop over config.json and result.json"
        calls = {"": listed, ", cache thrown away": anew, ", `niblick runs` in a fresh process": command}
        return [
            compare(
                what + words,
                lambda call=call: call(folder),  # type: ignore[misc]
                lambda: plain_loop(folder),
                peer_name=peer,
                repeats=repeats,
            )
            for words, call in calls.items()
        ]
