"""`niblick train|eval … --devices N`: start N ranks of the same command through torchrun's own engine."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from niblick.errors import ConfigError
from niblick.facts.usable import by_age, usable
from niblick.run.directory import Run, open_run, run_folders
from niblick.train.distributed import LAUNCHED, RankLost

MOST = 64
"""Processes on one machine; more is a slip of the keyboard."""


def launch(devices: int, arguments: list[str], runs: Path) -> int:
    """Run `niblick` with these arguments, without `--devices`, as so many ranks. Returns the exit code.

    Raises ConfigError for a number that cannot be, RankLost if a rank was killed: the others are then stopped. What
    went wrong inside a rank, that rank has said itself.
    """
    if not 1 <= devices <= MOST:
        raise ConfigError(f"--devices {devices} is no number of devices: give 1 to {MOST}")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise ConfigError(f"torchrun has started the ranks already: leave --devices {devices} away")
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the ranks, and the lines below, say it in short
    threads = max(1, (os.cpu_count() or 1) // devices)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            run_id=f"{LAUNCHED}{uuid.uuid4().hex}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", "niblick", *_without_devices(arguments))
        except ChildFailedError as error:
            # Whoever died of a signal is the cause, but of SIGTERM: torchrun's engine sends that to all the others.
            codes = {failure.exitcode: rank for rank, failure in error.failures.items()}
            own = [code for code in codes if code > 0]
            killed = [code for code in codes if code < 0 and code != -signal.SIGTERM]
            killed = killed or [code for code in codes if not own]
            if not killed:
                return own[0]
            ended = f"rank {codes[killed[0]]} of {devices} was ended by {signal.Signals(-killed[0]).name}"
            raise RankLost(f"{ended}, so all ranks were stopped; {_go_on(arguments, runs, devices)}") from None
        except SignalException as error:
            return 128 + error.sigval
    return 0


def _without_devices(arguments: list[str]) -> list[str]:
    kept = [a for a in arguments if not a.startswith("--devices=")]
    if "--devices" in kept:
        place = kept.index("--devices")
        del kept[place : place + 2]
    return kept


def _go_on(arguments: list[str], runs: Path, devices: int) -> str:
    if arguments[0] != "train":
        return "start again"
    try:
        resumed = "--resume" in arguments
        run = (
            open_run(arguments[arguments.index("--resume") + 1], runs) if resumed else Run(by_age(run_folders(runs))[0])
        )
    except (ConfigError, IndexError):
        return "start again"
    if run.finished() or not usable(run.path):
        return "start again"
    return f"go on with: niblick train --resume {run.path} --devices {devices}"
