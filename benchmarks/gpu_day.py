"""A day on one rented GPU: is it right, how fast, how good? In blocks of nine minutes at most, the smallest risk first.

    python benchmarks/gpu_day.py [--bytes DIR] [--subwords DIR] [--seconds 240] [--quick] [--docs] [BLOCK …]

Each block is a command of its own with its own log and result below build/gpu. What has succeeded on this card is not
done again, so the same call goes on after anything: a machine that was taken away, a block that ran out of time.
`--quick` does it all at toy size on any machine; `--docs` puts the tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

import gpu
from measure import put_into_docs
from niblick.data.prepare import prepare
from niblick.recipes.presets import get_preset
from niblick.run.directory import machine

ROOT = Path(__file__).parents[1]
BYTES, SUBWORDS = ("niblick-byte", "hnet-byte260-12l"), ("dense-sp1024", "baseline-sp1024")
MOST_SECONDS = 9 * 60
QUICK = [
    *("model.width=32", "model.heads=2", "model.kv_heads=1", "train.seq_len=64", "train.batch_tokens=256"),
    *("train.micro_batch_tokens=256", "train.warmup_steps=0", "train.val_every=0", "schedule.steps=4"),
    *("score.seq_len=64", "score.documents=1", "export.calibration_tokens=512", "schedule.warmdown_steps=2"),
]


@dataclass(frozen=True)
class Block:
    """One command, and what it is there to show."""

    name: str
    command: list[str]


@dataclass(frozen=True)
class Done:
    """How a block ended."""

    name: str
    code: int
    seconds: float
    said: str
    """Its last line."""
    card: str
    torch: str
    date: str


def blocks(options: argparse.Namespace, out: Path) -> Iterator[Block]:
    """All blocks, in order."""
    python, quick = sys.executable, ["--quick"] if options.quick else []
    yield Block("right", [python, "-m", "pytest", "-rs", str(ROOT / "tests" / "cuda"), "-p", "no:cacheprovider"])
    for mode in gpu.MODES:
        seconds = ["--seconds", "0.2" if options.quick else "60"]
        figures = ["--out", str(out / f"fast-{mode}.figures.json")]
        yield Block(f"fast-{mode}", [python, str(ROOT / "benchmarks" / "gpu.py"), mode, *quick, *seconds, *figures])
    for preset in BYTES + SUBWORDS:
        runs, data = out / "runs" / preset, options.subwords if preset in SUBWORDS else options.bytes
        yield Block(f"good-{preset}", trained(preset, runs, data, options))
        yield Block(f"honest-{preset}", [python, "-m", "niblick", "audit", f"{preset}-1", "--runs", str(runs)])


def trained(preset: str, runs: Path, data: Path, options: argparse.Namespace) -> list[str]:
    """The command that trains, packs and scores a preset, or goes on with a run that was cut off."""
    niblick = [sys.executable, "-m", "niblick", "train"]
    if (runs / f"{preset}-1" / "config.json").is_file():
        return [*niblick, "--resume", str(runs / f"{preset}-1"), "--runs", str(runs)]
    sizes = [f"schedule.max_seconds={options.seconds}", "train.checkpoint_every=100"]
    if options.quick:
        tables = range(len(get_preset(preset).model.ngrams))
        sizes = [*QUICK, "schedule.max_seconds=null", *(f"model.ngrams.{i}.rows=64" for i in tables)]
    return [*niblick, preset, "--data", str(data), "--runs", str(runs), *sizes]


def run(block: Block, out: Path, quick: bool) -> Done:
    """Run a block, its output into a log, until it ends or its time is over."""
    began, log = time.monotonic(), out / f"{block.name}.log"
    card = os.environ | ({"NIBLICK_CARD": "cpu"} if quick and not torch.cuda.is_available() else {})
    with open(log, "w", encoding="utf-8") as file:
        file.write(f"$ {' '.join(block.command)}\n")
        file.flush()
        try:
            code = subprocess.run(
                block.command, stdout=file, stderr=subprocess.STDOUT, env=card, timeout=MOST_SECONDS, cwd=ROOT
            ).returncode
        except subprocess.TimeoutExpired:
            code = 124
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    done = Done(
        block.name,
        code,
        round(time.monotonic() - began, 1),
        lines[-1].strip(),
        card_name(),
        torch.__version__,
        str(date.today()),
    )
    (out / f"{block.name}.json").write_text(json.dumps(asdict(done), indent=2) + "\n")
    return done


def card_name() -> str:
    """The GPU, or the processor where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else machine().processor


def before(block: Block, out: Path) -> Done | None:
    """How the block ended on this card, if it succeeded."""
    path = out / f"{block.name}.json"
    done = Done(**json.loads(path.read_text())) if path.is_file() else None
    return done if done and done.code == 0 and (done.card, done.torch) == (card_name(), torch.__version__) else None


def tables(out: Path) -> str:
    """What is known so far: blocks, speeds, scores."""
    ended = [Done(**json.loads(path.read_text())) for path in out.glob("*.json") if "figures" not in path.name]
    lines = ["| block | ended | seconds | card | date |", "| --- | --- | ---: | --- | --- |"]
    for done in sorted(ended, key=lambda done: done.name):
        how = {0: "well", 124: "out of time"}.get(done.code, f"with code {done.code}")
        lines.append(f"| {done.name} | {how} | {done.seconds:.0f} | {done.card}, torch {done.torch} | {done.date} |")
    files = [out / f"fast-{mode}.figures.json" for mode in gpu.MODES]
    speeds = [gpu.Result(**row) for f in files if f.is_file() for row in json.loads(f.read_text())["results"]]
    if speeds:
        lines += ["", gpu.table(speeds)]
    results = [(preset, out / "runs" / preset / f"{preset}-1" / "result.json") for preset in BYTES + SUBWORDS]
    scores = [(preset, json.loads(path.read_text())) for preset, path in results if path.is_file()]
    if scores:
        lines += ["", "| preset | steps | seconds | bytes with code | BPB |", "| --- | ---: | ---: | ---: | ---: |"]
    for preset, found in scores:
        lines.append(
            f"| {preset} | {found['step']:,} | {found['train_seconds']:.0f} | {found['total_bytes']:,} "
            f"| {found['bpb']:.4f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("blocks", nargs="*", metavar="BLOCK", help="some of them; all without any")
    parser.add_argument("--bytes", type=Path, default=Path("data/webmix"), help="a dataset of bytes")
    parser.add_argument("--subwords", type=Path, default=Path("data/webmix-sp1024"), help="one of 1,024 subwords")
    parser.add_argument("--seconds", type=int, default=240, help="training of each preset")
    parser.add_argument("--quick", action="store_true", help="toy size, on any machine")
    parser.add_argument("--out", type=Path, help="build/gpu without it, build/gpu-quick with --quick")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    if not (options.quick or torch.cuda.is_available()):
        sys.exit("there is no GPU here: --quick (make gpu QUICK=1) shows that all of it runs, at toy size")
    out = options.out or ROOT / "build" / ("gpu-quick" if options.quick else "gpu")
    out.mkdir(parents=True, exist_ok=True)
    if options.quick:
        options.bytes, options.subwords = out / "bytes", out / "subwords"
        for path, tokenizer in ((options.bytes, "byte260"), (options.subwords, "sp:1024")):
            if not (path / "manifest.json").is_file():
                prepare("pydocs", tokenizer, path, max_docs=40, val_docs=2)
    listed = [*blocks(options, out)]
    if unknown := set(options.blocks) - {block.name for block in listed}:
        parser.error(f"there is no block {', '.join(sorted(unknown))}: {', '.join(block.name for block in listed)}")
    failed = 0
    for block in listed:
        if options.blocks and block.name not in options.blocks:
            continue
        known = before(block, out)
        done = known or run(block, out, options.quick)
        told = "done before" if known else f"{done.seconds:.0f} s, code {done.code}"
        print(f"{block.name}: {told}: {done.said}", flush=True)
        failed += done.code != 0
    print(f"\n{tables(out)}")
    if options.docs:
        put_into_docs("gpu-day", tables(out))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
