"""A day on one rented GPU: is it right, how fast, how good? In blocks of nine minutes at most, the smallest risk first.

    python benchmarks/gpu_day.py [--bytes DIR] [--subwords DIR] [--seconds 240] [--quick] [--docs] [BLOCK …]

Each block is a command of its own with its own log and result below build/gpu, in a folder of this card, this torch and
this code. What has succeeded there is not done again, so the same call goes on after anything: a machine that was
taken away, a block that ran out of time. `--quick` does it all at toy size on any machine; `--docs` puts the tables
into docs/performance.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
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
from niblick.errors import ConfigError
from niblick.files import locked, write_json
from niblick.recipes.presets import get_preset
from niblick.run.directory import machine, source_snapshot

ROOT = Path(__file__).parents[1]
BYTES, SUBWORDS = ("niblick-byte", "hnet-byte260-12l"), ("dense-sp1024", "baseline-sp1024")
MOST_SECONDS = 9 * 60
GRACE_SECONDS = 30
"""Of those, for the checkpoint of a block that is told to end."""
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
    run: Path | None = None
    """The run that it trains: one that was cut off goes on."""


@dataclass(frozen=True)
class Done:
    """How a block ended."""

    name: str
    command: list[str]
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
        runs = out / f"runs-{options.seconds}s" / preset
        data = options.subwords if preset in SUBWORDS else options.bytes
        sizes = [f"schedule.max_seconds={options.seconds}", "train.checkpoint_every=100"]
        if options.quick:
            tables = range(len(get_preset(preset).model.ngrams))
            sizes = [*QUICK, "schedule.max_seconds=null", *(f"model.ngrams.{i}.rows=64" for i in tables)]
        if torch.cuda.is_available():
            sizes.append("train.device=cuda")  # and no other, should the card be lost in the middle
        train = [python, "-m", "niblick", "train", preset, "--data", str(data), "--runs", str(runs), *sizes]
        yield Block(f"good-{preset}", train, runs / f"{preset}-1")
        yield Block(f"honest-{preset}", [python, "-m", "niblick", "audit", f"{preset}-1", "--runs", str(runs)])


def run(block: Block, out: Path) -> Done:
    """Run a block, its output into a log, until it ends or its time is over."""
    began, log, command = time.monotonic(), out / f"{block.name}.log", block.command
    if block.run and (block.run / "result.json").is_file():  # finished, and killed before that was written down
        command = [*command[:3], "show", str(block.run)]
    elif block.run and (block.run / "config.json").is_file():
        command = [*command[:4], "--resume", str(block.run), "--runs", str(block.run.parent)]
    there = os.environ | {"NIBLICK_CARD": "cuda" if torch.cuda.is_available() else "cpu"}
    with open(log, "w", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=there, cwd=ROOT, start_new_session=True
        )
        try:
            code = process.wait(MOST_SECONDS - GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = 124
        finally:
            end(process)
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    seconds = round(time.monotonic() - began, 1)
    said = lines[-1].strip()
    done = Done(block.name, block.command, code, seconds, said, card_name(), torch.__version__, str(date.today()))
    write_json(out / f"{block.name}.json", asdict(done))
    return done


def end(process: subprocess.Popen[bytes]) -> None:
    """Tell a block and all that it started to end, and see that they do: the next one wants the card for itself."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE_SECONDS
        try:
            os.killpg(process.pid, how)
            while time.monotonic() < until:
                process.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:  # nobody is left
            return


def card_name() -> str:
    """The GPU, or the processor where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else machine().processor


def place(out: Path) -> Path:
    """The folder of what was done on this card, by this torch and this code: figures of others never come together."""
    code = hashlib.sha256(source_snapshot(None)).hexdigest()[:8]
    path = out / re.sub(r"[^\w.+]+", "-", f"{card_name()} torch {torch.__version__} code {code}")
    path.mkdir(parents=True, exist_ok=True)
    return path


def before(name: str, out: Path) -> Done | None:
    """How a block ended here, if it has; what cannot be read says nothing."""
    try:
        return Done(**json.loads((out / f"{name}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def tables(listed: list[Block], out: Path) -> str:
    """What is known so far: blocks, speeds, scores."""
    ended = [done for block in listed if (done := before(block.name, out))]
    well = {done.name for done in ended if done.code == 0}
    lines = ["| block | ended | seconds | card | date |", "| --- | --- | ---: | --- | --- |"]
    for done in ended:
        how = {0: "well", 124: "out of time"}.get(done.code, f"with code {done.code}")
        lines.append(f"| {done.name} | {how} | {done.seconds:.0f} | {done.card}, torch {done.torch} | {done.date} |")
    files = [out / f"fast-{mode}.figures.json" for mode in gpu.MODES if f"fast-{mode}" in well]
    speeds = [gpu.Result(**row) for file in files for row in json.loads(file.read_text())["results"]]
    if speeds:
        lines += ["", gpu.table(speeds)]
    runs = [block.run for block in listed if block.run and block.name in well]
    scores = [(run.parent.name, json.loads((run / "result.json").read_text())) for run in runs]
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
    if options.quick and options.docs:
        parser.error("--docs is for figures of a card, and --quick has none")
    out = place((options.out or ROOT / "build" / ("gpu-quick" if options.quick else "gpu")).resolve())
    options.bytes, options.subwords = (
        (out / name if options.quick else path.resolve())
        for name, path in (("bytes", options.bytes), ("subwords", options.subwords))
    )
    listed = [*blocks(options, out)]
    if unknown := set(options.blocks) - {block.name for block in listed}:
        parser.error(f"there is no block {', '.join(sorted(unknown))}: {', '.join(block.name for block in listed)}")
    chosen = [block for block in listed if not options.blocks or block.name in options.blocks]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with locked(out / "lock", str(out)):
            expect_data(options, chosen)
            failed = sum([work(block, out) for block in chosen])
    except ConfigError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: the same call goes on from here")
    found = tables(listed, out)
    print(f"\n{found}")
    if options.docs:
        put_into_docs("gpu-day", found)
    return int(failed > 0)


def expect_data(options: argparse.Namespace, chosen: list[Block]) -> None:
    """See to the data before the first block, not after the sixth. Raises ConfigError where a dataset is missing."""
    for path, tokenizer in ((options.bytes, "byte260"), (options.subwords, "sp:1024")):
        wanted = any(str(path) in block.command for block in chosen)
        if not wanted or (path / "manifest.json").is_file():
            continue
        if not options.quick:
            raise ConfigError(
                f"there is no dataset in {path}: prepare one there, or say by --bytes and --subwords where they are"
            )
        prepare("pydocs", tokenizer, path, max_docs=40, val_docs=2)


def work(block: Block, out: Path) -> bool:
    """Do a block unless it is done, and tell how it ended. Returns whether it failed."""
    known = before(block.name, out)
    if known and (known.code or known.command != block.command):
        known = None
    done = known or run(block, out)
    print(
        f"{block.name}: {'done before' if known else f'{done.seconds:.0f} s, code {done.code}'}: {done.said}",
        flush=True,
    )
    return done.code != 0


if __name__ == "__main__":
    sys.exit(main())
