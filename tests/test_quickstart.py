"""`niblick quickstart`, short: the whole path in one process tree, and what it leaves behind."""

from __future__ import annotations

import json
import lzma
import re
import subprocess
import sys
import sysconfig
import venv
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from niblick.artifact.codecs import get_codec
from niblick.artifact.container import read_artifact
from niblick.config.run_config import override
from niblick.quickstart import FLOOR, Quickstart, budget, verdict
from niblick.recipes.presets import get_preset

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "niblick"


def check_codecs(artifact: Path) -> None:
    """`range` takes the fewest bytes for the artifact as it is (fp16) and for its weights in six bits per row.

    The codes take fewer than their order-0 entropy.
    """
    encoded, arrays = read_artifact(artifact), []
    for tensor in encoded.state_dict().values():
        if tensor.ndim == 2 and tensor.numel() > 4096:
            scale = (tensor.abs().amax(1) / 31).half()
            arrays += [(tensor / scale.float()[:, None]).round().clamp(-31, 31).to(torch.int8).numpy(), scale.numpy()]
    expect_smallest([part for tensor in encoded.encoded.values() for part in tensor.parts.values()])
    sizes = expect_smallest(arrays)[::2]
    counts = [np.unique(part, return_counts=True)[1] for part in arrays[::2]]
    assert sum(sizes) < sum(float((c * np.log2(c.sum() / c)).sum()) / 8 for c in counts)


def expect_smallest(arrays: list[np.ndarray]) -> list[int]:
    """Return the bytes of each array under `range`, once it is below what all others take."""
    payload = get_codec("range").encode(arrays)
    others = [len(get_codec(name).encode(arrays)) for name in ("zlib", "zstd", "brotli")]
    others.append(len(lzma.compress(b"".join(part.tobytes() for part in arrays), preset=9 | lzma.PRESET_EXTREME)))
    assert len(payload) < min(others)
    return get_codec("range").part_bytes(payload, [(part.dtype, part.shape) for part in arrays])


def test_the_verdict_names_the_strongest_peer_first() -> None:
    empty = dict.fromkeys((field.name for field in fields(Quickstart)), None)
    peers = {"xz": 2.0, "bzip2": 2.2, "ppmd": 1.8, "xz_prefixed": 1.6, "ppmd_prefixed": 1.4}
    facts = Quickstart(**empty | {"bpb": 1.35, "bpb_model": 1.9, "baselines": peers, "training_bytes": 3_000_000})
    assert verdict(facts) == (
        "The artifact needs 25.0% fewer bits than ppmd, order 16, the strongest compressor alone. "
        "Its model alone needs 5.6% more. By itself it beats xz -9e and bzip2 -9. "
        "The artifact needs 3.6% fewer bits than ppmd, order 16, the strongest compressor with all 3.00 MB of training "
        "text at hand. Its model alone needs 35.7% more."
    )
    weak = verdict(replace(facts, bpb=3.5, bpb_model=3.9)).split(". ")[0]
    assert weak == "The artifact needs 94.4% more bits than ppmd, order 16, the strongest compressor alone"
    ahead = verdict(replace(facts, bpb=1.2, bpb_model=1.3))
    assert "needs 33.3% fewer bits than ppmd" in ahead and "Its model alone needs 27.8% fewer." in ahead


@pytest.mark.parametrize(("seconds", "least"), [(150.0, FLOOR), (15.0, FLOOR // 10), (0.5, 0), (900.0, FLOOR)])
def test_a_floor_of_steps_for_the_usual_time(seconds: float, least: int) -> None:
    config = override(get_preset("quickstart"), budget(seconds))
    assert (config.schedule.max_seconds, config.schedule.min_steps) == (seconds, least)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The niblick of a wheel, in an environment of its own that sees the libraries of this one, but not the sources."""
    folder = tmp_path_factory.mktemp("installed")
    wheel = ["wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run([sys.executable, "-m", "pip", *map(str, wheel)], check=True, capture_output=True)
    venv.create(folder / "env", with_pip=False)
    [packages] = (folder / "env").glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["--python", folder / "env/bin/python", "install", "--quiet", "--no-deps", "--no-index"]
    install += ["--ignore-installed", *folder.glob("*.whl")]
    subprocess.run([sys.executable, "-m", "pip", *map(str, install)], check=True, capture_output=True)
    return folder / "env" / "bin" / "niblick"


@pytest.mark.slow
def test_a_wheel_holds_all_of_the_package(installed: Path) -> None:
    [package] = installed.parents[1].glob("lib/python*/site-packages/niblick")
    there, here = ({str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} for root in (package, SOURCES))
    assert {p for p in there if "__pycache__" not in p} == {p for p in here if "__pycache__" not in p}
    assert "py.typed" in there


@pytest.mark.slow
def test_quickstart(installed: Path, tmp_path: Path) -> None:
    """As of a wheel: nothing of the repository is at hand."""
    command = [installed, "quickstart", "--seconds", "12", "--folder", tmp_path, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["bpb_model"] == pytest.approx(facts["bpb_float"], abs=0.01)
    assert facts["bpb_model"] < 6  # 8.02 is what an untrained model costs; how far 12 s lead depends on the machine
    alone = [bpb for name, bpb in facts["baselines"].items() if not name.endswith("_prefixed")]
    assert facts["bpb"] < min(alone) and facts["bpb"] < facts["bpb_model"]
    assert abs(facts["text_bytes"] - 12 * 25_000) < 16 and 30_000 < facts["packed_text"] < facts["text_bytes"] / 4
    assert 1.2 < facts["baselines"]["ppmd_prefixed"] < facts["baselines"]["ppmd"] < facts["baselines"]["xz"] < 2.6
    assert "".join(facts["chunks_after"]) == "".join(facts["chunks_before"])
    assert facts["brackets_after"].startswith("[T")  # where "The" is cut after 12 s depends on the machine
    assert facts["total_bytes"] < facts["cap_bytes"]
    assert facts["text_hash"]
    page = Path(facts["report"]).read_text()
    assert f"{facts['bpb']:.3f}" in page
    assert "<svg" in page
    assert not re.search(r'(src|href)="http', page), "the page loads nothing from elsewhere"
    assert (Path(facts["report"]).parent / "bpb.png").read_bytes().startswith(b"\x89PNG")
    assert Path(facts["artifact"]).stat().st_size == facts["artifact_bytes"]
    checks = {check["name"]: check for check in facts["audit"]}
    assert {check["status"] for check in checks.values()} == {"pass"}, checks
    assert abs(checks["proof"]["facts"]["off"]) < 0.005
    assert (Path(facts["artifact"]).parent / "audit.json").is_file()
    assert "step" in done.stderr
    assert "BPB" in done.stderr
    # Not the quickstart's own artifact: after 12 s most rows of its tables were looked up once or twice (docs/log.md).
    command = [sys.executable, "-m", "niblick", "train", "hnet-small", "--data", str(tmp_path / "data" / "pydocs")]
    command += ["schedule.max_seconds=12", "--runs", str(tmp_path / "runs"), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    check_codecs(tmp_path / "runs" / "hnet-small-1" / "artifacts" / result["artifact"] / "artifact.nib")
