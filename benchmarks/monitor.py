"""First paint of the monitor with 300 runs, a growing log of 50 MB and 30 clients at once; this build and another one.

Usage: python benchmarks/monitor.py [--against REV] [--rounds N] [--minutes M]

`--against` names another revision, which is checked out meanwhile; both are served in turns, in one run, on the same
runs. A client counts from its request until the page that names every run is there and its socket is open. All 30 come
at the same moment. What the server computes for them is told, too: it depends less on what else the machine does. With
`--minutes` this build is then served with 30 clients for so long, and the memory of the server is told. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import socketio

from against import checked_out

OURS = Path(__file__).parents[1] / "src"
RUNS, LIVE, CLIENTS = 300, 20, 30
LOG_BYTES = 50_000_000
PAUSE = 0.5
"""Seconds between two lines of a run that trains."""
STEPS = 200


def main() -> None:
    """Print the medians of both builds, and the memory over time."""
    options = _options()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        sources = [stack.enter_context(checked_out(options.against)), OURS] if options.against else [OURS]
        make_runs(folder / "runs")
        make_log(folder / "train.log")
        with growing(folder):
            if options.rounds:
                tell_first_paint(sources, options.rounds, folder)
            if options.minutes:
                with served(OURS, folder) as (address, process):
                    stay = threading.Thread(target=lambda: asyncio.run(crowd(address, 60 * options.minutes)))
                    stay.start()
                    tell_memory(process, options.minutes)
                    stay.join()


def tell_first_paint(sources: list[Path], rounds: int, folder: Path) -> None:
    """Print the time to first paint of each build, and what the server computed for a client meanwhile."""
    seconds: dict[Path, list[float]] = {source: [] for source in sources}
    computed: dict[Path, list[float]] = {source: [] for source in sources}
    for _ in range(rounds):
        for source in sources:
            with served(source, folder) as (address, process):
                before = cpu_seconds(process)
                seconds[source] += asyncio.run(crowd(address, 0.0))
                computed[source].append((cpu_seconds(process) - before) / CLIENTS)
    medians = {source: statistics.median(found) for source, found in seconds.items()}
    for source, found in seconds.items():
        print(
            f"{source}: first paint {medians[source]:.2f} s at the median, {max(found):.2f} s at most; "
            f"{1000 * statistics.median(computed[source]):.0f} ms of one core for a client"
        )
    if len(medians) > 1:
        print(f"{medians[sources[0]] / medians[OURS]:.1f} times as fast")


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """What a process has computed so far."""
    facts = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(facts[11]) + int(facts[12])) / os.sysconf("SC_CLK_TCK")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--against")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=0.0)
    return parser.parse_args()


def make_runs(folder: Path) -> None:
    """Runs as training leaves them; the first LIVE are training still."""
    now = time.time()
    for number in range(RUNS):
        run = folder / f"run-{number:03}"
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps({"preset": "hnet-small", "seed": number, "model": {"width": 64}}))
        begun = now - STEPS * PAUSE - (0 if number < LIVE else 3600)
        lines = [{"event": "start", "parameters": 1000, "bytes_per_token": 1.0, "batch_tokens": 256}]
        lines += [step(i) for i in range(1, STEPS)]
        if number >= LIVE:
            lines.append({"event": "stop", "step": STEPS, "reason": "steps", "train_seconds": STEPS * PAUSE})
            (run / "stopped.json").write_text(json.dumps({"reason": "stopped by its sweep"}))
        times = (begun + PAUSE * i for i in range(len(lines)))
        text = (json.dumps(line | {"time": at}) + "\n" for line, at in zip(lines, times, strict=False))
        (run / "events.jsonl").write_text("".join(text))


def step(number: int) -> dict[str, object]:
    """An event of training."""
    facts = {"loss": 5.5 / (1 + number / 50), "grad_norm": 1.0, "lr_scale": 1.0, "tokens_per_second": 512.0}
    return {"event": "step", "step": number, "train_seconds": PAUSE * number} | facts


def log_line(number: int) -> str:
    """A line of a log of the challenge's scripts."""
    loss = 5.5 / (1 + number / 1000)
    return f"step:{number}/2000000 train_loss:{loss:.4f} train_time:{100 * number}ms step_avg:100ms\n"


def make_log(path: Path) -> None:
    """A log of LOG_BYTES."""
    with path.open("w") as file:
        number = 0
        while file.tell() < LOG_BYTES:
            file.writelines(log_line(number + i) for i in range(1000))
            number += 1000


@contextlib.contextmanager
def growing(folder: Path) -> Iterator[None]:
    """Inside, the log and the runs that train grow."""
    over = threading.Event()

    def grow() -> None:
        number = STEPS
        while not over.wait(PAUSE):
            number += 1
            for run in range(LIVE):
                with (folder / "runs" / f"run-{run:03}" / "events.jsonl").open("a") as file:
                    file.write(json.dumps(step(number) | {"time": time.time()}) + "\n")
            with (folder / "train.log").open("a") as file:
                file.writelines(log_line(900_000 + 100 * number + i) for i in range(100))

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def served(source: Path, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a monitor of this build, and its process."""
    command = [sys.executable, "-m", "niblick", "monitor", "--port", "0", "--json", "--runs", str(folder / "runs")]
    here = os.environ | {"PYTHONPATH": str(source)}
    with subprocess.Popen(
        [*command, "--logs", str(folder / "train.log")], stdout=subprocess.PIPE, text=True, env=here
    ) as process:
        try:
            assert process.stdout
            text = ""
            for line in process.stdout:
                text += line
                if line.startswith("}"):
                    break
            address = json.loads(text)["url"].rstrip("/")
            while True:  # it says where it is a moment before it listens
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"{address}/notes", timeout=120)
                    break
                time.sleep(0.05)
            yield address, process
        finally:
            process.terminate()
            process.wait(timeout=60)


async def crowd(address: str, stay: float) -> list[float]:
    """Seconds to first paint of each of CLIENTS that come at once and stay a while."""
    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(timeout=300, limits=limits) as http:
        return await asyncio.gather(*(client(http, address, stay) for _ in range(CLIENTS)))


async def client(http: httpx.AsyncClient, address: str, stay: float) -> float:
    """Open the first page as a browser does, and keep it open."""
    begun = time.perf_counter()
    page = (await http.get(address)).text
    assert all(f"run-{number:03}" in page for number in (0, RUNS - 1)), "the page does not name every run"
    found = re.search(r"client_id\W+([0-9a-f-]{36})", page)
    assert found
    socket = socketio.AsyncClient(reconnection=False)
    ids = {"client_id": found[1], "tab_id": str(uuid4()), "document_id": str(uuid4()), "next_message_id": 0}
    query = "&".join(f"{key}={value}" for key, value in (ids | {"implicit_handshake": "true"}).items())
    path = {"socketio_path": "/_nicegui_ws/socket.io", "transports": ["websocket"], "wait_timeout": 300}
    await socket.connect(f"{address}?{query}", **path)
    seconds = time.perf_counter() - begun
    await asyncio.sleep(stay)
    await socket.disconnect()
    return seconds


def tell_memory(process: subprocess.Popen[str], minutes: float) -> None:
    """Print the server's memory now and then."""
    begun = time.monotonic()
    while time.monotonic() - begun < 60 * minutes:
        status = Path(f"/proc/{process.pid}/status").read_text()
        size = int(status.partition("VmRSS:")[2].split()[0]) / 1000
        print(f"after {(time.monotonic() - begun) / 60:4.1f} minutes {size:.0f} MB", flush=True)
        time.sleep(min(60.0, 60 * minutes / 10))


if __name__ == "__main__":
    main()
