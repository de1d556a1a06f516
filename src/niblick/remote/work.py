"""What runs in the far environment: `ready` checks machine, code and data before anything is started; `work` trains.

Both are told all by job.json in the folder of the run, and have that folder as their working directory.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import time
from pathlib import Path

import torch
import zstandard

import niblick
from niblick.config.run_config import RunConfig, run_config
from niblick.data.check import check
from niblick.data.prepare import prepare
from niblick.data.shards import file_hash
from niblick.errors import ConfigError, DataError
from niblick.facts.events import Emit
from niblick.model.counting import parameter_count
from niblick.recipes.presets import load_recipe
from niblick.remote.far import Data, Job
from niblick.remote.records import Ready
from niblick.run import pipeline
from niblick.run.directory import Run, read_json, source_snapshot
from niblick.train.distributed import Ranks


def source_digest(recipe: Path | None) -> str:
    """SHA-256 of the sources as a plain tar: equal for equal sources, whatever compressed them."""
    tar = zstandard.ZstdDecompressor().decompress(source_snapshot(recipe))
    return hashlib.sha256(tar).hexdigest()


def recipe_of(folder: Path) -> Path | None:
    """The shipped recipe file, if the run came from one."""
    path = folder / "source" / "recipe.py"
    return path if path.is_file() else None


def ready(folder: Path) -> Ready:
    """Check code, GPUs, disk and data, preparing the data where that is asked for. Returns what the machine is.

    Raises ConfigError or DataError for the first thing that would make the run fail, or be another run.
    """
    job: Job = read_json(folder / "job.json")
    if (own := source_digest(recipe_of(folder))) != job["source_sha256"]:
        raise ConfigError(f"the code here ({Path(niblick.__file__).parent}, {own[:16]}…) is not the one that was sent")
    _check_gpus(job["gpus"], run_config(job["config"]).train.device)
    free = shutil.disk_usage(folder).free
    if free < job["needs_bytes"]:
        raise ConfigError(
            f"the disk has {free:,} bytes free in {folder}, and checkpoints and data need about "
            f"{job['needs_bytes']:,}: give a larger disk, or another --directory"
        )
    for place, data in job["data"].items():
        _check_data(folder / place, data)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "free_bytes": free,
        "now": time.time(),
    }


def _check_gpus(wanted: int, device: str) -> None:
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < wanted:
        raise ConfigError(
            f"torch {torch.__version__} finds {found} GPUs here, and the run needs {wanted}: check `nvidia-smi` "
            "and that this torch is one for CUDA, or launch with fewer --gpus"
        )
    if shutil.which("nvidia-smi") and not found and device in ("auto", "cuda"):
        raise ConfigError(
            f"the machine has an NVIDIA driver, but torch {torch.__version__} (CUDA {torch.version.cuda}) finds no "
            "GPU: install a torch that fits the driver, or set train.device=cpu"
        )


def _check_data(path: Path, data: Data) -> None:
    if source := data.get("prepare"):
        target = path.resolve()
        if not target.exists():
            prepare(source, data["tokenizer"], target)
        report = check(target)
        found = {name: split["text_hash"] for name, split in report["splits"].items()}
        expected = data["text_hashes"] or found
        if found != expected:
            raise DataError(
                f"{source} prepared here is another text than at home (text hashes {found}, expected {expected}): "
                "its source has changed; send the data itself with --data alone"
            )
        return
    wrong = [name for name, digest in data["files"].items() if _hash(path / name if path.is_dir() else path) != digest]
    if wrong:
        raise DataError(f"{len(wrong)} files of {path} are not what was sent, such as {wrong[0]}: launch again")


def _hash(path: Path) -> str:
    return file_hash(path) if path.is_file() else ""


def work(folder: Path, listen: Emit, ranks: Ranks, resume: bool) -> None:
    """Train, pack and score what job.json says in runs/<id> of the folder, or go on with it."""
    os.chdir(folder)
    job = read_json(Path("job.json"))
    recipe = recipe_of(Path())
    if recipe:
        load_recipe(recipe)
    if resume:
        pipeline.resume(Run(Path("runs") / job["run"]), listen, ranks)
    else:
        config = run_config(job["config"])
        pipeline.run(config, Path("runs"), listen, recipe=recipe, name=job["run"], ranks=ranks)


def needed_bytes(config: RunConfig) -> int:
    """Disk that a run takes, roughly: weights and two optimizer moments, in float32, for each checkpoint kept."""
    every = config.train.checkpoint_every
    kept = config.train.checkpoints_kept or (config.schedule.steps // every if every else 1)
    kept += 2  # one being written, and the final weights
    return parameter_count(config.model) * 12 * kept + (64 << 20)
